"""From a delivery to stored versions: when each row became known, and what was new, changed or refused."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.market_data.delivery import Delivery
from quant_assets.schemas import CORPORATE_ACTIONS, DAILY_BARS, FETCH_LEDGER, INSTRUMENTS, REJECTED_ROWS, TABLES, Table
from quant_assets.warehouse import Connection, Warehouse, append_ledger, append_versions, query, rewrite_current, scalar


class StoredHoldings:
    """What the warehouse holds of one source (`delivery.Holdings`), read when first asked."""

    def __init__(self, warehouse: Warehouse, source: str) -> None:
        self._warehouse = warehouse
        self._source = {"source": source}

    def symbols(self) -> pl.DataFrame:
        return self._warehouse.read(
            """
            select symbol, min(session) as first_session, max(session) as last_session
            from market_data.daily_bars where source = $source group by symbol order by symbol
            """,
            self._source,
        )

    def landed(self) -> frozenset[str]:
        ids = self._warehouse.read(
            "select unnest([payload_sha256, request_id]) as id from market_data.fetch_ledger where source = $source", self._source
        )
        return frozenset(ids["id"].drop_nulls())


@dataclass(frozen=True)
class Landing:
    """What one delivery changed: counts of bars, and the new and restated bars per session (`session`, `rows`)."""

    delivered: int
    new: int
    restated: int
    actions: int
    rejected: int
    failed_requests: int
    symbols: int
    batch_id: str
    rows_per_session: pl.DataFrame
    truth: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """One line for a log."""
        return (
            f"{self.batch_id}: {self.delivered} bars of {self.symbols} symbols: {self.new} new, {self.restated} restated, "
            f"{self.rejected} rows rejected"
        )


def land(warehouse: Warehouse, delivery: Delivery, calendar: TradingCalendar, as_of: datetime, run_id: str) -> Landing:
    """Write a delivery in one transaction; landing it again changes nothing but the fetch ledger.

    Bars of history are known at their close plus delay (`assumed`), and so is tonight's bar (`observed`). A changed value,
    or a row that fills a hole in what was already loaded, is known from `as_of` (`observed`); where something else was
    stored as known at that instant or later, from one microsecond after it, for what was read as of then must stay.
    """
    stamp = utc_now()
    with warehouse.transaction() as connection:
        tonight = calendar.last_known_session(as_of)
        seen_at = _seen_at(connection, delivery.source, as_of)
        bars = _clocked(connection, delivery.bars, delivery.source, calendar, seen_at).with_columns(
            basis=pl.lit(delivery.basis),
            known_at_basis=pl.when(pl.col("late") | (pl.col("session") == tonight)).then(pl.lit("observed")).otherwise(pl.lit("assumed")),
            batch_id=pl.lit(delivery.batch_id),
            recorded_at=pl.lit(stamp, pl.Datetime("us")),
        )
        actions = _clocked(connection, delivery.actions, delivery.source, calendar, seen_at).with_columns(
            batch_id=pl.lit(delivery.batch_id), recorded_at=pl.lit(stamp, pl.Datetime("us"))
        )
        seen = {"known_at": seen_at}
        written = append_versions(connection, DAILY_BARS, _declared(bars, DAILY_BARS), {**seen, "known_at_basis": "observed"})
        actions_written = append_versions(connection, CORPORATE_ACTIONS, _declared(actions, CORPORATE_ACTIONS), seen)
        append_versions(connection, INSTRUMENTS, _instruments(connection, delivery.source, calendar, stamp), seen)
        rejected = delivery.rejected.with_columns(batch_id=pl.lit(delivery.batch_id), recorded_at=pl.lit(stamp, pl.Datetime("us")))
        append_ledger(connection, REJECTED_ROWS, _declared(rejected, REJECTED_ROWS))
        append_ledger(connection, FETCH_LEDGER, _requests(connection, delivery, stamp, run_id))
        for name, truth in delivery.truth.items():
            rewrite_current(connection, TABLES[name], _declared(truth, TABLES[name]), truth.select(pl.col("session").unique()))
    return Landing(
        delivered=delivery.bars.height,
        new=written.height - int(written["was_known"].sum()),
        restated=int(written["was_known"].sum()),
        actions=actions_written.height,
        rejected=delivery.rejected.height,
        failed_requests=delivery.receipts.filter(pl.col("status") == "failed").height,
        symbols=delivery.bars["symbol"].n_unique(),
        batch_id=delivery.batch_id,
        rows_per_session=written.group_by("session").len("rows").sort("session"),
        truth=tuple(delivery.truth),
    )


def default_as_of(warehouse: Warehouse, source: str, calendar: TradingCalendar, last_session: date) -> datetime:
    """The instant a run works as of when none is given: the last session's, or a later restatement's, if one is stored."""
    known = warehouse.read(
        """
        select known_at from market_data.daily_bars where source = $source
        union all select known_at from market_data.corporate_actions where source = $source
        order by known_at desc limit 1
        """,
        {"source": source},
    )["known_at"]
    newest = known.max()
    return max(calendar.known_at(last_session), newest) if isinstance(newest, datetime) else calendar.known_at(last_session)


def _seen_at(connection: Connection, source: str, as_of: datetime) -> datetime:
    """From when the changes of a delivery are known: `as_of`, or just after everything known then or later.

    A change that shared its instant with something stored before would alter what was read as of it, and would leave
    no trace in the `known_at` of the rows that rest on it.
    """
    newest: datetime | None = scalar(
        connection,
        """
        select max(known_at) from (
            select known_at from market_data.daily_bars where source = $1
            union all select known_at from market_data.corporate_actions where source = $1
            union all select known_at from data_quality.anomalies
            union all select decided_at from data_quality.reviews
        )
        """,
        [source],
    )
    return as_of if newest is None or newest < as_of else newest + timedelta(microseconds=1)


def _clocked(connection: Connection, frame: pl.DataFrame, source: str, calendar: TradingCalendar, seen_at: datetime) -> pl.DataFrame:
    """Add `source`, `known_at` and `late`: whether the row fills a hole behind what its symbol already had."""
    stored = query(
        connection,
        """
        select symbol, min(session) as first_session, (select max(session) from market_data.daily_bars where source = $source) as high_water
        from market_data.daily_bars where source = $source group by symbol
        """,
        {"source": source},
    )
    if frame.is_empty():
        sessions = calendar.frame(date.max, date.max)
    else:
        first, last = frame.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        sessions = calendar.frame(first, last)
    late = (pl.col("session") > pl.col("first_session")) & (pl.col("session") <= pl.col("high_water"))
    return (
        frame.join(sessions.select("session", "known_at"), on="session", how="left")
        .join(stored, on="symbol", how="left")
        .with_columns(late=late.fill_null(False), source=pl.lit(source))
        .with_columns(
            known_at=pl.when("late").then(pl.max_horizontal("known_at", pl.lit(seen_at, pl.Datetime("us")))).otherwise("known_at")
        )
    )


def _instruments(connection: Connection, source: str, calendar: TradingCalendar, stamp: datetime) -> pl.DataFrame:
    listed = query(
        connection,
        "select symbol, min(session) as valid_from from market_data.daily_bars where source = $source group by symbol",
        {"source": source},
    )
    if listed.is_empty():
        return pl.DataFrame(schema=INSTRUMENTS.polars_schema)
    known = calendar.frame(*listed.select(first=pl.col("valid_from").min(), last=pl.col("valid_from").max()).row(0))
    listed = listed.join(known.select(valid_from="session", known_at="known_at"), on="valid_from").with_columns(
        ticker="symbol", valid_to=pl.lit(None, pl.Date), source=pl.lit(source), recorded_at=pl.lit(stamp, pl.Datetime("us"))
    )
    return _declared(listed, INSTRUMENTS)


def _requests(connection: Connection, delivery: Delivery, stamp: datetime, run_id: str) -> pl.DataFrame:
    """One ledger row per receipt; files that were received before with the same content share one row."""
    before = query(
        connection,
        "select distinct payload_sha256 from market_data.fetch_ledger where source = $source and status in ('landed', 'partial')",
        {"source": delivery.source},
    )["payload_sha256"]
    again = delivery.receipts.filter(pl.col("payload_sha256").is_in(before.implode()))
    receipts = delivery.receipts.filter(~pl.col("payload_sha256").is_in(before.implode()).fill_null(False))
    if again.height:
        summary = {
            "symbol": None,
            "status": "unchanged",
            "rows": int(again["rows"].sum()),
            "payload_sha256": None,
            "detail": f"{again.height} payloads as received before",
        }
        receipts = pl.concat([receipts, pl.DataFrame([summary], schema=receipts.schema)])
    requests = receipts.with_columns(
        request_id=pl.coalesce("request_id", pl.Series([uuid.uuid4().hex for _ in range(receipts.height)], dtype=pl.String)),
        source=pl.lit(delivery.source),
        requested_at=pl.coalesce("requested_at", pl.lit(stamp, pl.Datetime("us"))),
        batch_id=pl.lit(delivery.batch_id),
        run_id=pl.lit(run_id),
    )
    return _declared(requests, FETCH_LEDGER)


def _declared(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    return frame.select(table.column_names)
