"""What every source hands over: bars, corporate actions, rejected rows, receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

import polars as pl

BARS = {
    "symbol": pl.String,
    "session": pl.Date,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Float64,
    "adj_close": pl.Float64,
}
ACTIONS = {"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64}
REJECTED = {"file": pl.String, "line": pl.Int64, "column_name": pl.String, "value": pl.String, "reason": pl.String}
RECEIPTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "request_id": pl.String,
    "symbol": pl.String,
    "requested_at": pl.Datetime("us"),
    "status": pl.String,
    "reply_class": pl.String,
    "rows": pl.Int64,
    "payload_sha256": pl.String,
    "detail": pl.String,
}
MEMBERS = {"symbol": pl.String, "valid_from": pl.Date, "valid_to": pl.Date}


class Holdings(Protocol):
    """What the warehouse already holds of one source, so that a source asks only for what is missing."""

    def symbols(self) -> pl.DataFrame:
        """One row per ticker with a bar: `symbol`, `first_session`, `last_session`."""
        ...

    def landed(self) -> frozenset[str]:
        """The payloads (`payload_sha256`) and requests (`request_id`) that stand in the fetch ledger."""
        ...

    def batches(self) -> Mapping[str, datetime]:
        """When each batch (`batch_id`) landed, by the wall clock."""
        ...


@dataclass(frozen=True)
class Owed:
    """What a source could not fetch yet: symbols, the sessions they lack together, and why in words."""

    symbols: int
    sessions: int
    reason: str


@dataclass(frozen=True)
class Delivery:
    """One delivery of one source, parsed; frames have the columns and dtypes of the mappings above.

    `bars` has one row per symbol and session, prices without nulls (volume and adj_close may be null);
    `actions` one row per symbol, session and kind; `rejected` what could not become a bar; `receipts` one row per
    request or file (status: landed, partial or failed, or a word of the source's own; `request_id` and `requested_at`
    are null where nobody was asked and landing shall give them). `batch_id` is derived from content, so that the same
    delivery has the same id. `truth` holds tables of the synthetic market by full table name.

    A delivery with `delivered_at` was received as a whole at that instant: everything in it is known from then. Without,
    it is history, and each bar is known from its session's close plus delay. `listed` are the tickers that the delivery
    lists, with or without a bar, None where it lists none. `owed` is what the source could not fetch. `fault` is raised
    after everything else landed: the run must fail, but loses nothing.
    """

    source: str
    basis: str
    batch_id: str
    bars: pl.DataFrame
    actions: pl.DataFrame
    rejected: pl.DataFrame
    receipts: pl.DataFrame
    truth: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    delivered_at: datetime | None = None
    listed: pl.Series | None = None
    owed: Owed | None = None
    fault: Exception | None = None


class Source(Protocol):
    """Where bars come from; plain Python, no orchestration."""

    name: str
    live: bool
    """Whether it answers for the present: a run without an instant of its own is then as of now, not of the last data."""

    def last_session(self) -> date:
        """The last session the source can deliver; raises `ConfigurationError` when the source cannot be used at all."""
        ...

    def deliveries(self, first: date, last: date, as_of: datetime, holdings: Holdings) -> Iterator[Delivery]:
        """What is known as of an instant of the sessions from first to last and not held yet, in the order to land it."""
        ...
