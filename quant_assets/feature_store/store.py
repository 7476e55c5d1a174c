"""Keep the feature tables equal to what the clean bars say, recomputing only what depends on a change.

A stored row carries `known_at`: the latest instant at which a bar, an action, a finding or a review at or before
its session became known. A row is stale when that instant, computed from the inputs, is not the stored one (landing
gives no change an instant at or before what was stored already, so that each one shows); each symbol is recomputed
from its first stale session on, over its whole history, so that incremental equals full.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.contract import source_hash
from quant_assets.feature_store.indicators import definition_hash, technical_v1
from quant_assets.feature_store.labels import HORIZONS, labels
from quant_assets.schemas import LABELS, TECHNICAL_V1, VIEW_BUILDS, Table
from quant_assets.warehouse import Connection, Warehouse, append_ledger, query, rewrite_current, scalar

FOREVER = "timestamp '9999-12-31'"
IN_SCOPE = """exists (
    select 1 from market_data.scope_as_of($as_of) as stretch
    where stretch.symbol = row.symbol and row.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
)"""
"""SQL that says of a `row` with symbol and session whether it was in scope, as known at `$as_of`: what signals and trainings select by."""


@dataclass(frozen=True)
class Refresh:
    """What one refresh changed: stale symbols, rows written and removed, and new rows per session (`session`, `rows`)."""

    symbols: int
    written: int
    removed: int
    rows_per_session: pl.DataFrame


UNCHANGED = Refresh(0, 0, 0, pl.DataFrame(schema={"session": pl.Date, "rows": pl.get_index_type()}))


def refresh_technical(warehouse: Warehouse, run_id: str) -> Refresh:
    """Bring `feature_store.technical_v1` up to date with the clean bars; a changed definition rebuilds all of it."""
    with warehouse.connect() as connection:
        stale = _stale(connection, TECHNICAL_V1, _EXPECTED, definition_hash())
        if stale.is_empty():
            return UNCHANGED
        bars, actions = _history(connection, stale)
    computed = technical_v1(forward_adjusted(bars, actions)).join(bars.select("symbol", "session", "known_at"), on=["symbol", "session"])
    return _store(warehouse, TECHNICAL_V1, computed, stale, definition_hash(), run_id)


def refresh_labels(warehouse: Warehouse, calendar: TradingCalendar, run_id: str) -> Refresh:
    """Bring `feature_store.labels` up to date: new outcomes as their sessions close, changed ones where bars changed."""
    definition = source_hash(*(str(Path(__file__).with_name(name)) for name in ("labels.py", "adjustment.py")))
    with warehouse.connect() as connection:
        sessions = _sessions(connection, calendar)
        connection.register("sessions", sessions)
        stale = _stale(connection, LABELS, _EXPECTED_LABELS, definition)
        connection.unregister("sessions")
        if stale.is_empty():
            return UNCHANGED
        bars, actions = _history(connection, stale)
    computed = labels(forward_adjusted(bars, actions), sessions)
    return _store(warehouse, LABELS, computed, stale, definition, run_id)


def features_as_of(connection: Connection, as_of: datetime, first: date, last: date) -> pl.DataFrame:
    """The rows of technical_v1 from first to last session as they were known at an instant, of symbols in scope on that session.

    Read from the table (as it was last refreshed) where nothing in reach is newer, otherwise recomputed from the bars
    known then. Who was in scope is told as known at the instant; bars outside of it are looked back on all the same.
    """
    if not _nothing_newer(connection, as_of, last):
        return _technical(_adjusted_as_of(connection, as_of), first, last)
    return query(
        connection,
        f"select * from feature_store.technical_v1 as row where session between $first and $last and {IN_SCOPE}",
        {"first": first, "last": last, "as_of": as_of},
    )


def training_frame(
    warehouse: Warehouse, calendar: TradingCalendar, features: list[str], horizon: int, as_of: datetime, first: date, last: date
) -> pl.DataFrame:
    """Features joined with the labels known at an instant: `symbol, session`, features, `forward_return, up, known_at`.

    `known_at` is when the outcome was known; no row needs anything known later than `as_of`. Restatements that came
    after it leave the frame as it was: features and labels are then recomputed from the bars known at the instant.
    A row's symbol was in scope on its session: who left later stays, and who joined later is no part of the time before.
    """
    with warehouse.connect() as connection:
        newest = scalar(connection, "select max(session) from market_data.daily_bars where known_at <= ?", [as_of])
        stored = _nothing_newer(connection, as_of, max(last, newest or last))  # labels reach beyond their last session
        if stored:
            rows = features_as_of(connection, as_of, first, last)
            outcomes = query(
                connection, "select * from feature_store.labels where session between $first and $last", {"first": first, "last": last}
            )
        else:
            adjusted, sessions = _adjusted_as_of(connection, as_of), _sessions(connection, calendar)
    if not stored:
        rows, outcomes = _technical(adjusted, first, last), labels(adjusted, sessions, [horizon])
    known = outcomes.filter((pl.col("horizon") == horizon) & (pl.col("known_at") <= as_of)).drop("horizon")
    return rows.select("symbol", "session", *features).join(known, on=["symbol", "session"]).sort("session", "symbol")


def _nothing_newer(connection: Connection, as_of: datetime, last: date) -> bool:
    """Whether nothing about the sessions up to one became known after an instant: the tables then hold what was known.

    The inputs are asked, for a row that was removed since has left nothing in the tables.
    """
    return not scalar(
        connection,
        """
        select exists (
            select 1 from (
                select session, known_at from market_data.daily_bars
                union all select session, known_at from market_data.corporate_actions
                union all select session, known_at from data_quality.anomalies where severity = 'critical'
                union all select session, decided_at from data_quality.reviews
            ) where session <= ? and known_at > ?
        )
        """,
        [last, as_of],
    )


def _technical(adjusted: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """The view's rows from first to last session, from adjusted bars that carry when each was known and whether it was in scope."""
    wanted = adjusted.filter("in_scope", pl.col("session").is_between(first, last)).select("symbol", "session", "known_at")
    return technical_v1(adjusted).join(wanted, on=["symbol", "session"]).select(TECHNICAL_V1.column_names)


def _adjusted_as_of(connection: Connection, as_of: datetime) -> pl.DataFrame:
    actions = "market_data.corporate_actions_as_of($as_of)"
    known_bars = _bars_sql("data_quality.clean_bars_as_of($as_of)", actions, "$as_of")
    bars = query(connection, f"select row.*, {IN_SCOPE} as in_scope from ({known_bars}) as row", {"as_of": as_of})
    known = query(
        connection,
        f"select symbol, session, kind, value, known_at from {actions} where source in (select source from data_quality.clean_bars)",
        {"as_of": as_of},
    )
    return forward_adjusted(bars, known)


def _bars_sql(bars: str, actions: str, until: str) -> str:
    """Clean bars whose `known_at` is the latest instant of anything at or before them that shaped the series."""
    return f"""
        with clean as materialized (select * from {bars}),
        events as (
            select symbol, session, known_at from clean
            union all select symbol, session, known_at from {actions} where source in (select source from clean)
            union all select symbol, session, known_at from data_quality.anomalies
                where severity = 'critical' and known_at <= {until} and source in (select source from clean)
            union all select symbol, session, decided_at from data_quality.reviews where decided_at <= {until} and source in (select source from clean)
        ),
        reach as (
            select distinct symbol, session, max(known_at) over (
                partition by symbol order by session range between unbounded preceding and current row
            ) as known_at
            from events
        )
        select clean.symbol, clean.session, open, high, low, close, volume, basis, reach.known_at
        from clean join reach using (symbol, session)
    """


_EXPECTED = _bars_sql("data_quality.clean_bars", "market_data.latest_corporate_actions", FOREVER)
_EXPECTED_LABELS = f"""
    with bars as materialized (
        select symbol, ordinal, session, bar.known_at, close.known_at as close_known_at
        from ({_EXPECTED}) as bar join sessions as close using (session)
    )
    """ + " union all ".join(  # one equality join per horizon: joined to a list of horizons at once, it took ten times as long
    f"""
    select start.symbol, start.session, {horizon}::integer as horizon, greatest(outcome.known_at, outcome.close_known_at) as known_at
    from bars as start join bars as outcome on outcome.symbol = start.symbol and outcome.ordinal = start.ordinal + {horizon}
    """
    for horizon in HORIZONS
)


def _stale(connection: Connection, table: Table, expected: str, definition: str) -> pl.DataFrame:
    """The symbols to recompute and the session from which on (`symbol, from_session`); all when the definition changed."""
    built = scalar(connection, "select arg_max(definition_hash, recorded_at) from feature_store.view_builds where view = ?", [table.name])
    changed = "true" if built != definition else "expected.known_at is distinct from stored.known_at"
    return query(
        connection,
        f"""
        with expected as ({expected})
        select symbol, min(session) as from_session
        from expected full join {table.full_name} as stored using ({", ".join(table.key)})
        where {changed}
        group by symbol
        """,
    )


def _history(connection: Connection, stale: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Clean bars and actions of the stale symbols, whole history."""
    connection.register("stale", stale)
    bars = query(connection, f"select * from ({_EXPECTED}) semi join stale using (symbol)")
    actions = query(
        connection,
        """
        select symbol, session, kind, value, known_at from market_data.latest_corporate_actions semi join stale using (symbol)
        where source in (select source from data_quality.clean_bars)
        """,
    )
    connection.unregister("stale")
    return bars, actions


def _store(warehouse: Warehouse, table: Table, computed: pl.DataFrame, stale: pl.DataFrame, definition: str, run_id: str) -> Refresh:
    """Replace the stale rows and note with which definition the view was built."""
    rows = computed.join(stale, on="symbol").filter(pl.col("session") >= pl.col("from_session")).select(table.column_names)
    with warehouse.transaction() as connection:
        written, removed = rewrite_current(connection, table, rows, stale)
        build = {"view": table.name, "recorded_at": utc_now(), "definition_hash": definition, "rows": written, "run_id": run_id}
        append_ledger(connection, VIEW_BUILDS, pl.DataFrame([build], schema=VIEW_BUILDS.polars_schema))
    return Refresh(stale.height, written, removed, rows.group_by("session").len("rows").sort("session"))


def _sessions(connection: Connection, calendar: TradingCalendar) -> pl.DataFrame:
    first, last = query(connection, "select min(session), max(session) from market_data.daily_bars").row(0)
    return calendar.frame(first or date.max, last or date.max)
