"""Every error a person may meet, as one tree.

QuantAssetsError
├── ConfigurationError   a setting is wrong: nothing was written, exit code 2
│   └── NotBarsError     the files are readable, but they hold no bars
├── WarehouseError       the database refused
│   ├── WarehouseLocked  another process holds it, and did not let go in time
│   └── SchemaMismatch   a frame does not match its table's declaration
├── KeyRefused           a vendor does not accept our key: nothing can be fetched until it is mended
├── PayloadDamaged       a stored reply of a vendor is missing, or is not what its name says
├── NotDailyBars         a vendor's file cannot be judged as daily bars of one symbol
├── ReviewRefused        a decision about a finding cannot stand: there is none, or somebody decided before
├── NotComparable        two frames, or a history and its cuts, cannot show whether anything looked ahead
├── FeaturesUnavailable  features were asked for that do not exist, or were not known
├── DbtError             the dbt project cannot be built
├── ContractError        a model was offered other features than it was trained on
├── TooFewSessions       the history is too short for a walk-forward
├── TrainingFailed       the process that trains ended badly
├── DecisionRefused      a decision about a model version cannot stand: it is unknown, unfit, or in use
├── ModelUnusable        a model's local copy is missing, or is not the file that was promoted
├── OutboxError          a file of the outbox is missing, or is not what its name says
├── DocumentStoreError   the document store refused
│   └── StoreUnavailable it does not answer in time; what waits is delivered later
└── WebhookError         the webhook did not accept an alert

An error of one stage alone stands in the module that raises it.
"""

from __future__ import annotations


class QuantAssetsError(Exception):
    """Base of all our errors; its text says what happened, where, and how to mend it."""


class ConfigurationError(QuantAssetsError):
    """A setting is wrong; raised before anything is written."""


class FeaturesUnavailable(QuantAssetsError):
    """No such view, symbol, horizon or instant can be answered; the text says what there is."""


class NotBarsError(ConfigurationError):
    """A file can be read but holds no bars; the text names the columns found and wanted."""


class WarehouseError(QuantAssetsError):
    """The warehouse refused a read or a write."""


class WarehouseLocked(WarehouseError):
    """Another process holds the database; the text names it."""


class SchemaMismatch(WarehouseError):
    """A frame's columns, dtypes or key differ from the table's declaration."""


class ContractError(QuantAssetsError):
    """Features offered to a model differ from its contract; the text shows the difference."""
