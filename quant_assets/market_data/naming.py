"""Tickers of a delivery into our symbols, against what is stored; and the instruments that begin or end with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.market_data import instruments
from quant_assets.market_data.corporate_actions import without_repeats
from quant_assets.market_data.delivery import Delivery
from quant_assets.schemas import INSTRUMENTS
from quant_assets.warehouse import Connection, query

RECENT_DAYS = 21
"""Calendar days before a delivery in which nearly every symbol has its last bar: reading these alone costs the same in any year."""


def named(connection: Connection, delivery: Delivery, calendar: TradingCalendar) -> tuple[Delivery, pl.DataFrame]:
    """The delivery under our symbols, each split once, and the instruments that begin with it (`instruments.SCHEMA`).

    Series that their vendor restates are taken as they are: there, jumps have been explained away.
    """
    known = query(
        connection,
        "select symbol, ticker, valid_from, valid_to from market_data.latest_instruments where source = $source",
        {"source": delivery.source},
    )
    newcomers = instruments.namesakes(delivery.bars, known)
    known = pl.concat([known, newcomers])
    bars, actions = instruments.resolve(delivery.bars, known), instruments.resolve(delivery.actions, known)
    if delivery.basis == "raw" and bars.height:
        last = _last_bars(connection, bars, delivery.source, known)
        listed = _listed_since(connection, delivery, calendar)
        first = min(frame["session"].min() for frame in (bars, last, listed) if frame.height)  # type: ignore[type-var]
        sessions = calendar.frame(first - timedelta(days=RECENT_DAYS), bars["session"].max())  # type: ignore[arg-type,operator]
        stored = _stored_actions(connection, bars, delivery.source)
        actions = without_repeats(actions, bars, stored, sessions)
        explained = pl.concat([frame.select("symbol", "session") for frame in (actions, stored)])
        changed = instruments.changed_hands(bars, last, explained, sessions, listed.rename({"session": "listed_from"}), known)
        if changed.height:
            newcomers = pl.concat([newcomers, changed.join(known, on="symbol", how="anti")])
            firsts = bars.group_by("symbol").agg(valid_from=pl.col("session").min()).join(known, on="symbol", how="anti")
            holders = pl.concat(
                [known.join(changed, on="symbol", how="anti"), firsts.with_columns(ticker="symbol"), changed], how="diagonal_relaxed"
            )
            bars, actions = (instruments.resolve(frame, holders) for frame in (delivery.bars, delivery.actions))
            actions = without_repeats(actions, bars, stored, sessions)
            known = holders
    listing = delivery.listed
    if listing is not None and delivery.delivered_at is not None:
        today = calendar.last_known_session(delivery.delivered_at)
        listing = instruments.resolve(listing.alias("symbol").to_frame().with_columns(session=pl.lit(today)), known)["symbol"]
    return replace(delivery, bars=bars, actions=actions, listed=listing), newcomers


def instrument_versions(
    connection: Connection, bars: pl.DataFrame, newcomers: pl.DataFrame, source: str, known_at: datetime, stamp: datetime
) -> pl.DataFrame:
    """Versions of the instruments that a delivery's bars begin, lengthen backwards or end (`schemas.INSTRUMENTS`).

    `bars` are the rows to be written (`symbol`, `session`, `known_at`). An instrument begins with its first bar and is
    known when that is; it ends, where its ticker changed hands, with the last session before the next holder's first.
    """
    connection.register("written", bars.select("symbol", "session", "known_at"))
    connection.register("newcomers", newcomers)
    versions = query(
        connection,
        """
        with known as (select * from market_data.latest_instruments where source = $source),
        firsts as (select symbol, min(session) as session, arg_min(known_at, session) as known_at from written group by symbol)
        select firsts.symbol, coalesce(newcomers.ticker, known.ticker, firsts.symbol) as ticker,
            least(firsts.session, coalesce(known.valid_from, firsts.session)) as valid_from, known.valid_to, firsts.known_at
        from firsts left join known using (symbol) left join newcomers using (symbol)
        where known.symbol is null or firsts.session < known.valid_from
        """,
        {"source": source},
    )
    ended = versions.clear() if newcomers.is_empty() else _ended(connection, versions, source, known_at)
    connection.unregister("written")
    connection.unregister("newcomers")
    changed = pl.concat([versions.join(ended, on="symbol", how="anti"), ended], how="diagonal_relaxed")
    return changed.with_columns(source=pl.lit(source), recorded_at=pl.lit(stamp, pl.Datetime("us"))).select(INSTRUMENTS.column_names)


def _ended(connection: Connection, begun: pl.DataFrame, source: str, known_at: datetime) -> pl.DataFrame:
    """The holders whose ticker another one has from now on, with their last session."""
    connection.register("begun", begun)
    ended = query(
        connection,
        """
        with holders as (
            select symbol, ticker, valid_from from begun
            union all select symbol, ticker, valid_from from market_data.latest_instruments anti join begun using (symbol)
            where source = $source and valid_to is null
        ),
        nexts as (
            select holders.symbol, holders.ticker, holders.valid_from, min(newcomers.valid_from) as until
            from holders join newcomers on newcomers.ticker = holders.ticker and newcomers.valid_from > holders.valid_from
            group by all
        )
        select symbol, ticker, valid_from, (
            select max(session) from (select symbol, session from market_data.daily_bars where source = $source union all select symbol, session from written) as bar
            where bar.symbol = nexts.symbol and bar.session < nexts.until
        ) as valid_to
        from nexts
        """,
        {"source": source},
    ).with_columns(known_at=pl.lit(known_at, pl.Datetime("us")))
    connection.unregister("begun")
    return ended


def _last_bars(connection: Connection, bars: pl.DataFrame, source: str, known: pl.DataFrame) -> pl.DataFrame:
    """The stored bar before each symbol's newest delivered one: `symbol`, `session`, `close` (the last above zero)."""
    delivered = bars.group_by("symbol").agg(newest=pl.col("session").max())
    last = """
        select bar.symbol, max(bar.session) as session, arg_max(bar.close, (bar.session, bar.known_at)) filter (bar.close > 0) as close
        from market_data.daily_bars as bar join delivered on bar.symbol = delivered.symbol and bar.session < delivered.newest
        where source = $source and bar.session between $since and $until
        group by bar.symbol
    """
    until: date = bars["session"].max()  # type: ignore[assignment]
    since = {"source": source, "until": until}
    connection.register("delivered", delivered)
    found = query(connection, last, {**since, "since": until - timedelta(days=RECENT_DAYS)})
    connection.unregister("delivered")
    absent = delivered.join(found, on="symbol", how="anti").join(known, on="symbol", how="semi")
    if absent.height:
        connection.register("delivered", absent)
        found = pl.concat([found, query(connection, last, {**since, "since": known["valid_from"].min()})])
        connection.unregister("delivered")
    return found


def _stored_actions(connection: Connection, bars: pl.DataFrame, source: str) -> pl.DataFrame:
    """The actions known around a delivery's sessions: `symbol`, `session`, `kind`, `value`."""
    around = bars.select(since=pl.col("session").min() - pl.duration(days=RECENT_DAYS), until=pl.col("session").max()).row(0, named=True)
    return query(
        connection,
        """
        select symbol, session, kind, value from market_data.latest_corporate_actions
        where source = $source and session between $since and $until
        """,
        {"source": source, **around},
    )


def _listed_since(connection: Connection, delivery: Delivery, calendar: TradingCalendar) -> pl.DataFrame:
    """Since when each symbol is listed (`symbol`, `session`); who was there from the first list on tells nothing."""
    stored = query(
        connection,
        "select symbol, valid_from as session from market_data.latest_universe where source = $source and valid_to is null",
        {"source": delivery.source},
    )
    since = stored.filter(pl.col("session") > pl.col("session").min())
    if delivery.listed is None or delivery.delivered_at is None or stored.is_empty():
        return since
    today = pl.lit(calendar.last_known_session(delivery.delivered_at))
    fresh = delivery.listed.alias("symbol").to_frame().join(stored, on="symbol", how="anti").with_columns(session=today)
    return pl.concat([since, fresh])
