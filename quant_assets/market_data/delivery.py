"""What every source hands over: bars, corporate actions, rejected rows, receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
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
RECEIPTS = {"symbol": pl.String, "status": pl.String, "rows": pl.Int64, "payload_sha256": pl.String, "detail": pl.String}


@dataclass(frozen=True)
class Delivery:
    """One delivery of one source, parsed; frames have the columns and dtypes of the mappings above.

    `bars` has one row per symbol and session, prices without nulls (volume and adj_close may be null);
    `actions` one row per symbol, session and kind; `rejected` what could not become a bar; `receipts` one row per
    request or file (status: landed, partial or failed). `batch_id` is derived from content, so that the same
    delivery has the same id. `truth` holds tables of the synthetic market by full table name.
    """

    source: str
    basis: str
    batch_id: str
    bars: pl.DataFrame
    actions: pl.DataFrame
    rejected: pl.DataFrame
    receipts: pl.DataFrame
    truth: Mapping[str, pl.DataFrame] = field(default_factory=dict)


class Source(Protocol):
    """Where bars come from; plain Python, no orchestration."""

    name: str

    def last_session(self) -> date:
        """The last session the source can deliver; raises `ConfigurationError` when the source cannot be used at all."""
        ...

    def deliver(self, first: date, last: date) -> Delivery:
        """Everything known from first to last session, both included."""
        ...
