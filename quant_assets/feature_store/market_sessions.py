"""The sessions of the market series that a change reaches, and their rows, from the returns of the symbols in scope."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.inputs import BEGINNING, FOREVER, SCOPE_CHANGES, SCOPE_THEN, Changes
from quant_assets.feature_store.market_series import market_series
from quant_assets.schemas import MARKET_V1
from quant_assets.warehouse import Connection, query


def changed_sessions(connection: Connection, calendar: TradingCalendar, changes: Changes) -> list[date]:
    """The sessions whose market row a change reaches: its own and the next, whose return starts there; all for a rebuild."""
    held = "(select session from feature_store.technical_v1 union all select session from feature_store.market_v1)"  # some may have to go
    first, last = query(connection, f"select min(session), max(session) from {held}").row(0)
    if first is None:
        return []
    if changes.rebuild:
        stored = query(connection, "select session from feature_store.market_v1")["session"]
        return sorted({*calendar.between(first, last), *stored})
    days = [day for day in (calendar.session_on_or_after(day) for day in changes.sessions) if day]
    reached = {*days, *(day for day in map(calendar.session_after, days) if day)}
    for scope_first, scope_last in changes.scopes.iter_rows():
        reached |= set(calendar.between(max(scope_first, first), min(scope_last, last)))
    return sorted(day for day in reached if first <= day <= last)


def market_rows(
    connection: Connection,
    calendar: TradingCalendar,
    source: str,
    sessions: Sequence[date],
    rows: str = "feature_store.technical_v1",
    as_of: datetime = FOREVER,
) -> pl.DataFrame:
    """Rows of `market_v1` for some sessions in order, as known at an instant, from a relation with the symbols' one-session returns.

    A session counts the symbols in scope that have a bar on the session before too. `known_at` is the latest instant of
    anything about these two sessions, and about who was in scope.
    """
    sessions = [day for day in sessions if calendar.is_session(day)]
    previous = [calendar.sessions_before(day, 1) for day in sessions]
    earlier = [calendar.sessions_before(day, 2) for day in sessions]
    # The calendar's second session has none two before it: all that lies before counts for it.
    after = [start if start < day else BEGINNING for start, day in zip(earlier, previous, strict=True)]
    spans = {"session": sessions, "previous_session": previous, "after": after}
    given = {"source": source, "until": as_of, "first": min(spans["after"], default=date.max)}
    connection.register("sessions", pl.DataFrame(spans, schema=dict.fromkeys(spans, pl.Date)))
    returns = query(
        connection,
        f"""
        select row.symbol, row.session, row.price_change_1d
        from {rows} as row join sessions using (session)
        semi join {rows} as before on before.symbol = row.symbol and before.session = sessions.previous_session
        semi join {SCOPE_THEN}
        where row.price_change_1d is not null
        """,
        {"as_of": as_of},
    )
    known = query(
        connection,
        f"""
        with events as (
            select session, known_at from data_quality.clean_bars_as_of($until) where session > $first
            union all select session, known_at from market_data.corporate_actions
                where session > $first and source = $source and known_at <= $until
            union all select session, known_at from data_quality.anomalies
                where session > $first and source = $source and severity = 'critical' and known_at <= $until
            union all select session, decided_at from data_quality.reviews
                where session > $first and source = $source and decided_at <= $until
        ),
        moments as (select session, max(known_at) as known_at from events group by session),
        own as (
            select sessions.session, max(moments.known_at) as known_at
            from sessions join moments on moments.session > sessions.after and moments.session <= sessions.session
            group by sessions.session
        )
        select own.session, greatest(own.known_at, max(scope.known_at)) as known_at
        from own left join ({SCOPE_CHANGES}) as scope on own.session between scope.changed_from and scope.changed_to
        group by own.session, own.known_at
        """,
        given,
    )
    connection.unregister("sessions")
    return market_series(returns).join(known, on="session", maintain_order="left").select(MARKET_V1.column_names)
