"""From a delivery to stored versions: when each row became known, and what was new, changed or refused."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.market_data.delivery import RECEIPTS, Delivery
from quant_assets.market_data.listing import land_listing
from quant_assets.market_data.naming import instrument_versions, named
from quant_assets.market_data.refusal import refused, shared_series
from quant_assets.schemas import CORPORATE_ACTIONS, DAILY_BARS, FETCH_LEDGER, INSTRUMENTS, REJECTED_ROWS, TABLES, Table
from quant_assets.warehouse import Connection, Warehouse, append_ledger, append_versions, query, rewrite_current, scalar

CORRECTION = timedelta(seconds=1)
"""What was delivered at an instant, and is known so little after it, is the same delivery told again."""
SAME_VALUE = 1e-4
"""An action's value that differs by a smaller share was inferred from other digits: that is no news."""


@dataclass(frozen=True)
class Landing:
    """What one delivery changed: counts of bars, the new and restated bars per session (`session`, `rows`), its receipts.

    `late` counts new bars of sessions before the delivery's newest: an earlier delivery should have brought them.
    """

    delivered: int
    new: int
    restated: int
    late: int
    actions: int
    rejected: int
    failed_requests: int
    symbols: int
    batch_id: str
    rows_per_session: pl.DataFrame
    truth: tuple[str, ...] = ()
    newcomers: tuple[str, ...] = ()
    receipts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RECEIPTS))

    @property
    def in_words(self) -> str:
        """One line for a log."""
        extras = {"late": self.late, "rows rejected": self.rejected, "actions": self.actions, "tickers in new hands": len(self.newcomers)}
        more = "".join(f", {count:,} {what}" for what, count in extras.items() if count)
        return f"{self.batch_id}: {self.delivered:,} bars of {self.symbols:,} symbols: {self.new:,} new, {self.restated:,} restated{more}"


def land(warehouse: Warehouse, delivery: Delivery, calendar: TradingCalendar, as_of: datetime, run_id: str) -> Landing:
    """Write a delivery in one transaction; landing it again changes nothing but the fetch ledger.

    Bars of history are known at their close plus delay (`assumed`), and so is tonight's bar (`observed`). A changed value,
    or a row that fills a hole in what was already loaded, is known from `as_of` (`observed`); where something else was
    stored as known at that instant or later, from one microsecond after it, for what was read as of then must stay.

    What was delivered at an instant is known from that instant, all of it (`observed`). A delivery that comes after a
    later one was landed brings what is missing and changes nothing else. One in which many symbols carry one series
    is refused as a whole: only its receipts are kept.
    """
    stamp = utc_now()
    if why := shared_series(delivery.bars):
        delivery = refused(delivery, why)
    instant = delivery.delivered_at or as_of
    with warehouse.transaction() as connection:
        newest = newest_known(connection, delivery.source, instant, judged=delivery.delivered_at is None)
        seen_at = newest + timedelta(microseconds=1) if newest else instant
        overtaken = delivery.delivered_at is not None and seen_at - instant > CORRECTION
        if overtaken:
            late = pl.format(
                "late: a delivery of a later date was landed before, so that this one fills holes and changes nothing; {}", "detail"
            )
            delivery = replace(delivery, receipts=delivery.receipts.with_columns(status=pl.lit("late"), detail=late))
        delivery, newcomers = named(connection, delivery, calendar)
        marks = {"batch_id": pl.lit(delivery.batch_id), "recorded_at": pl.lit(stamp, pl.Datetime("us"))}
        bars = _clocked(connection, delivery.bars, delivery, calendar, seen_at).with_columns(
            basis=pl.lit(delivery.basis),
            known_at_basis=pl.when(pl.col("late") | (pl.col("session") == calendar.last_known_session(as_of)))
            .then(pl.lit("observed"))
            .otherwise(pl.lit("assumed")),
            **marks,
        )
        actions = _news(connection, _clocked(connection, delivery.actions, delivery, calendar, seen_at)).with_columns(**marks)
        if overtaken:
            bars, actions = _missing(connection, bars, DAILY_BARS), _missing(connection, actions, CORPORATE_ACTIONS)
        seen = {"known_at": seen_at} if delivery.delivered_at is None else {}  # dated deliveries carry it row by row
        written = append_versions(connection, DAILY_BARS, _declared(bars, DAILY_BARS), {**seen, "known_at_basis": "observed"})
        actions_written = append_versions(connection, CORPORATE_ACTIONS, _declared(actions, CORPORATE_ACTIONS), seen)
        begun = instrument_versions(connection, written, newcomers, delivery.source, seen_at, stamp)
        append_versions(connection, INSTRUMENTS, begun, {"known_at": seen_at})
        if delivery.listed is not None and not overtaken:
            session = calendar.last_known_session(instant)
            previous = calendar.previous(session) if session > calendar.sessions[0] else session
            land_listing(connection, delivery.listed, delivery.source, session, previous, seen_at, delivery.batch_id, stamp)
        append_ledger(connection, REJECTED_ROWS, _declared(delivery.rejected.with_columns(**marks), REJECTED_ROWS))
        append_ledger(connection, FETCH_LEDGER, _requests(connection, delivery, stamp, run_id))
        for name, truth in delivery.truth.items():
            rewrite_current(connection, TABLES[name], _declared(truth, TABLES[name]), truth.select(pl.col("session").unique()))
    fresh = written.filter(~pl.col("was_known"))
    newest_session = pl.lit(delivery.bars["session"].max(), pl.Date)
    return Landing(
        delivered=delivery.bars.height,
        new=fresh.height,
        restated=written.height - fresh.height,
        late=fresh.filter((pl.col("known_at_basis") == "observed") & (pl.col("session") < newest_session)).height,
        actions=actions_written.height,
        rejected=delivery.rejected.height,
        failed_requests=delivery.receipts.filter(
            pl.col("status").is_in(["failed", "refused", "empty"]) | (pl.col("reply_class") != "data").fill_null(value=False)
        ).height,
        symbols=delivery.bars["symbol"].n_unique(),
        batch_id=delivery.batch_id,
        rows_per_session=written.group_by("session").len("rows").sort("session"),
        truth=tuple(delivery.truth),
        newcomers=tuple(newcomers["symbol"]),
        receipts=delivery.receipts,
    )


def default_as_of(warehouse: Warehouse, source: str, calendar: TradingCalendar, last_session: date) -> datetime:
    """The instant a run works as of when none is given: the last session's, or a later restatement's or review's, if one is stored."""
    known = warehouse.read(
        """
        select known_at from market_data.daily_bars where source = $source
        union all select known_at from market_data.corporate_actions where source = $source
        union all select decided_at from data_quality.reviews where source = $source
        order by known_at desc limit 1
        """,
        {"source": source},
    )["known_at"]
    newest = known.max()
    return max(calendar.known_at(last_session), newest) if isinstance(newest, datetime) else calendar.known_at(last_session)


def newest_known(connection: Connection, source: str, instant: datetime, judged: bool) -> datetime | None:
    """The newest instant, not before the given one, from which something stored of a source is known; None where there is none.

    A change that shared its instant with something stored before would alter what was read as of it, and would leave
    no trace in the `known_at` of the rows that rest on it. With `judged`, what holds its bars back and decisions about them count too.
    """
    judgements = """
            union all select known_at from data_quality.anomalies where source = $1 and severity = 'critical' and known_at >= $2
            union all select decided_at from data_quality.reviews where source = $1 and decided_at >= $2
    """
    newest: datetime | None = scalar(
        connection,
        f"""
        select max(known_at) from (
            select known_at from market_data.daily_bars where source = $1 and known_at >= $2
            union all select known_at from market_data.corporate_actions where source = $1 and known_at >= $2
            {judgements if judged else ""}
        )
        """,
        [source, instant],
    )
    return newest


def _clocked(connection: Connection, frame: pl.DataFrame, delivery: Delivery, calendar: TradingCalendar, seen_at: datetime) -> pl.DataFrame:
    """Add `source`, `known_at` and `late`: whether the row fills a hole behind what its symbol already had."""
    frame = frame.with_columns(source=pl.lit(delivery.source))
    seen = pl.lit(seen_at, pl.Datetime("us"))
    if delivery.delivered_at is not None:
        return _after_judgements(connection, frame.with_columns(known_at=seen, late=pl.lit(True)), seen_at)
    stored = query(
        connection,
        """
        select symbol, min(session) as first_session, (select max(session) from market_data.daily_bars where source = $source) as high_water
        from market_data.daily_bars where source = $source group by symbol
        """,
        {"source": delivery.source},
    )
    first, last = frame.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    sessions = calendar.frame(first or date.max, last or date.max)
    late = (pl.col("session") > pl.col("first_session")) & (pl.col("session") <= pl.col("high_water"))
    return (
        frame.join(sessions.select("session", "known_at"), on="session", how="left")
        .join(stored, on="symbol", how="left")
        .with_columns(late=late.fill_null(False))
        .with_columns(known_at=pl.when("late").then(pl.max_horizontal("known_at", seen)).otherwise("known_at"))
    )


def _after_judgements(connection: Connection, frame: pl.DataFrame, seen_at: datetime) -> pl.DataFrame:
    """Let what changes a judged past be known after the judgement: a review may come between a delivery's date and its landing.

    What rests on the past would otherwise not show that it changed, for its newest instant would stay that of the review.
    """
    judged = query(
        connection,
        """
        select symbol, source, session as judged, max(instant) as judged_at from (
            select symbol, source, session, known_at as instant from data_quality.anomalies where known_at >= $seen and severity = 'critical'
            union all select symbol, source, session, decided_at from data_quality.reviews where decided_at >= $seen
        ) group by symbol, source, session
        """,
        {"seen": seen_at},
    )
    reached = (
        frame.select("symbol", "session", "source").join(judged, on=["symbol", "source"]).filter(pl.col("judged") <= pl.col("session"))
    )
    if reached.is_empty():
        return frame
    key = ["symbol", "session", "source"]
    newest = reached.group_by(key).agg(after=pl.col("judged_at").max() + timedelta(microseconds=1))
    connection.register("newest", newest)
    past = query(connection, "select * from newest semi join market_data.daily_bars using (symbol, session, source)")
    connection.unregister("newest")
    return frame.join(past, on=key, how="left").with_columns(known_at=pl.max_horizontal("known_at", "after")).drop("after")


def _news(connection: Connection, actions: pl.DataFrame) -> pl.DataFrame:
    """The actions that are not stored with nearly the same value."""
    connection.register("told", actions.select("symbol", "session", "kind", "source", "value"))
    known = query(
        connection,
        """
        select symbol, session, kind, source from told join market_data.latest_corporate_actions as known using (symbol, session, kind, source)
        where abs(told.value - known.value) <= $share * abs(known.value)
        """,
        {"share": SAME_VALUE},
    )
    connection.unregister("told")
    return actions.join(known, on=["symbol", "session", "kind", "source"], how="anti", maintain_order="left")


def _missing(connection: Connection, frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The rows of which no version is stored."""
    names = ", ".join(table.entity)
    connection.register("offered", frame.select(table.entity))
    stored = query(connection, f"select {names} from offered semi join {table.full_name} using ({names})")
    connection.unregister("offered")
    return frame.join(stored, on=table.entity, how="anti")


def _requests(connection: Connection, delivery: Delivery, stamp: datetime, run_id: str) -> pl.DataFrame:
    """One ledger row per receipt; files that were received before with the same content share one row."""
    receipts = delivery.receipts
    received = pl.Series("payload_sha256", [], pl.String)
    if delivery.delivered_at is None:
        received = query(
            connection,
            "select distinct payload_sha256 from market_data.fetch_ledger where source = $source and status in ('landed', 'partial')",
            {"source": delivery.source},
        )["payload_sha256"]
    # A vendor's reply is a request of its own, whatever it says; a file lies there and is only read again.
    is_again = pl.col("payload_sha256").is_in(received.implode()).fill_null(False) & pl.col("request_id").is_null()
    again, receipts = receipts.filter(is_again), receipts.filter(~is_again)
    if again.height:
        summary = {"status": "unchanged", "rows": int(again["rows"].sum()), "detail": f"{again.height} payloads as received before"}
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
