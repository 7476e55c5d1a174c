"""The feature tables and what each is computed from; `building.py` says how they are brought up to date."""

from __future__ import annotations

from datetime import date

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store import catalog
from quant_assets.feature_store.adjustment import with_adjusted
from quant_assets.feature_store.building import UNCHANGED, Batch, Kernel, Refresh, note_build, refresh
from quant_assets.feature_store.inputs import Changes, adjusted_bars, changes_since_build, clean_bars_of
from quant_assets.feature_store.labels import HORIZONS, labels
from quant_assets.feature_store.market_sessions import changed_sessions, market_rows
from quant_assets.feature_store.views import build_hash, definition_hash, labels_hash
from quant_assets.schemas import ALPHA_HISTORY_V1, ALPHA_MARKET_V1, LABELS, MARKET_V1, TECHNICAL_V1
from quant_assets.warehouse import Connection, Warehouse, query, rewrite_current


def _lookback(table: str) -> int:
    """Rows before a row that any feature of a table needs, and one more for the state that stands on the row before."""
    return max((feature.lookback for feature in catalog.ALPHA_V1 if feature.table == table), default=0) + 1


def _technical(connection: Connection, batch: Batch, *columns: str) -> pl.DataFrame:
    """Columns of `technical_v1` for a batch."""
    return query(
        connection,
        f"""
        select symbol, session, {", ".join(columns)} from feature_store.technical_v1
        where session >= $first and symbol in (select unnest($symbols))
        """,
        {"first": batch.first, "symbols": batch.symbols},
    )


def refresh_technical(warehouse: Warehouse, run_id: str) -> Refresh:
    """Bring `feature_store.technical_v1` up to date with the clean bars; a changed definition rebuilds all of it."""
    from quant_assets.feature_store.indicators import STATES, with_states

    def read(connection: Connection, batch: Batch) -> pl.DataFrame:
        factors = None
        if batch.carried is not None:
            factors = query(
                connection,
                """
                select symbol, price_factor, share_factor, known_at from feature_store.technical_v1
                where session >= $first and symbol in (select unnest($symbols))
                qualify row_number() over (partition by symbol order by session) = 1
                """,
                {"first": batch.first, "symbols": batch.symbols},
            )
        return adjusted_bars(connection, warehouse.preferred_source, batch.symbols, batch.first, factors)

    def features(adjusted: pl.DataFrame, carried: pl.DataFrame | None) -> pl.DataFrame:
        return with_states(adjusted, carried).hstack(adjusted.select("price_factor", "share_factor", "known_at"))

    return refresh(
        warehouse, Kernel(TECHNICAL_V1, definition_hash("technical_v1"), _lookback("technical_v1"), STATES, (), read, features), run_id
    )


def refresh_alpha_history(warehouse: Warehouse, run_id: str) -> Refresh:
    """Bring `feature_store.alpha_history_v1` up to date; `technical_v1` has to be, for its factors and returns are taken."""
    from quant_assets.feature_store.alpha.history import STATES, with_states

    def read(connection: Connection, batch: Batch) -> pl.DataFrame:
        bars = clean_bars_of(connection, warehouse.preferred_source, batch.symbols, batch.first)
        rows = _technical(connection, batch, "price_factor", "share_factor", "price_change_1d", "known_at")
        return with_adjusted(bars.drop("known_at").join(rows, on=["symbol", "session"], maintain_order="left"))

    def features(bars: pl.DataFrame, carried: pl.DataFrame | None) -> pl.DataFrame:
        return with_states(bars, carried).hstack(bars.select("known_at"))

    return refresh(
        warehouse,
        Kernel(ALPHA_HISTORY_V1, definition_hash("alpha_v1"), _lookback("alpha_history_v1"), STATES, (TECHNICAL_V1,), read, features),
        run_id,
    )


def refresh_market(warehouse: Warehouse, calendar: TradingCalendar, run_id: str) -> Refresh:
    """Bring `feature_store.market_v1` up to date: the sessions whose own returns or whose scope changed."""
    definition = build_hash(MARKET_V1.name, "alpha_v1", calendar)
    with warehouse.connect() as connection:
        changes = changes_since_build(connection, MARKET_V1, definition, warehouse.preferred_source, (TECHNICAL_V1,))
        if changes.nothing:
            return UNCHANGED
        sessions = changed_sessions(connection, calendar, changes)
        rows = market_rows(connection, calendar, warehouse.preferred_source, sessions)
    with warehouse.transaction() as connection:
        written, removed = rewrite_current(connection, MARKET_V1, rows, pl.DataFrame({"session": sessions}, schema={"session": pl.Date}))
        note_build(connection, MARKET_V1, definition, warehouse.preferred_source, changes, written, run_id)
    return Refresh(0, written, removed)


def refresh_alpha_market(warehouse: Warehouse, calendar: TradingCalendar, run_id: str) -> Refresh:
    """Bring `feature_store.alpha_market_v1` up to date; `technical_v1` and `market_v1` have to be.

    A session of the market that changed is looked back on by every symbol with a bar in it or after it: these are
    computed again from there, and rows that come out the same stay.
    """
    from quant_assets.feature_store.alpha_market import alpha_market

    def read(connection: Connection, batch: Batch) -> pl.DataFrame:
        return query(
            connection,
            """
            select symbol, session, price_change_1d, market_return_1d, row.known_at, market.known_at as market_known_at
            from feature_store.technical_v1 as row left join feature_store.market_v1 as market using (session)
            where session >= $first and symbol in (select unnest($symbols))
            order by symbol, session
            """,
            {"first": batch.first, "symbols": batch.symbols},
        )

    def widened(connection: Connection, changes: Changes) -> pl.DataFrame:
        sessions = changed_sessions(connection, calendar, changes)
        if not sessions:
            return changes.histories
        reached = query(
            connection,
            "select symbol, min(session) as from_session from feature_store.technical_v1 where session >= $first group by symbol",
            {"first": min(sessions)},
        )
        return pl.concat([changes.histories, reached]).group_by("symbol").agg(pl.col("from_session").min())

    kernel = Kernel(
        ALPHA_MARKET_V1,
        build_hash(ALPHA_MARKET_V1.name, "alpha_v1", calendar),
        _lookback("alpha_market_v1"),
        (),
        (TECHNICAL_V1, MARKET_V1),
        read,
        lambda rows, _: alpha_market(rows),
        widened,
    )
    return refresh(warehouse, kernel, run_id)


def refresh_labels(warehouse: Warehouse, calendar: TradingCalendar, run_id: str) -> Refresh:
    """Bring `feature_store.labels` up to date: new outcomes as their sessions close, changed ones where bars changed."""

    def read(connection: Connection, batch: Batch) -> pl.DataFrame:
        bars = clean_bars_of(connection, warehouse.preferred_source, batch.symbols, batch.first).select("symbol", "session", "close")
        rows = bars.join(_technical(connection, batch, "price_factor", "known_at"), on=["symbol", "session"])
        return rows.with_columns(adj_close=pl.col("close") * pl.col("price_factor"))

    def outcomes(adjusted: pl.DataFrame, _: pl.DataFrame | None) -> pl.DataFrame:
        first, last = adjusted.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        return labels(adjusted, calendar.frame(first or date.max, last or date.max))

    def before(_: Connection, changes: Changes) -> pl.DataFrame:
        """A changed bar is the outcome of the rows up to the longest horizon before it."""
        days = changes.histories["from_session"].unique()
        starts = [calendar.sessions_before(day, max(HORIZONS)) for day in days]
        return changes.histories.with_columns(pl.col("from_session").replace_strict(days, starts, return_dtype=pl.Date))

    return refresh(warehouse, Kernel(LABELS, labels_hash(calendar), 0, (), (TECHNICAL_V1,), read, outcomes, before), run_id)
