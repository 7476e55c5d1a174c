"""The universe by date, from a file of memberships: who was in scope when, and since when that was known."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.schemas import UNIVERSE
from quant_assets.warehouse import Warehouse, append_versions, query


def land_members(warehouse: Warehouse, members: pl.DataFrame, source: str, calendar: TradingCalendar, as_of: datetime) -> int:
    """Bring `market_data.universe` up to a file's memberships (`delivery.MEMBERS`); returns the versions written.

    The first file is history: a stretch is known when it began, its end when it ended, and never after `as_of`. What a
    later one adds, changes or leaves out is known from `as_of`. An open stretch that is left out ends with the last
    session, a closed one stays in the past; one that overlaps what the file now says of its symbol is taken back: it ends
    on the day before it began.
    """
    batch_id = f"members-{members.hash_rows(seed=1).sum():016x}"
    columns = {
        "source": pl.lit(source),
        "batch_id": pl.lit(batch_id),
        "recorded_at": pl.lit(utc_now(), pl.Datetime("us")),
    }
    with warehouse.transaction() as connection:
        stored = query(
            connection, "select symbol, valid_from, valid_to from market_data.latest_universe where source = $source", {"source": source}
        )
        members = _by_holder(
            members,
            query(
                connection,
                "select symbol, ticker, valid_from from market_data.latest_instruments where source = $source",
                {"source": source},
            ),
        )
        entity = ["symbol", "valid_from"]
        if stored.is_empty():
            began = members.with_columns(valid_to=pl.lit(None, pl.Date), known_at=_known("valid_from", members, calendar, as_of))
            over = members.filter(pl.col("valid_to").is_not_null())
            told = [began, over.with_columns(known_at=_known("valid_to", over, calendar, as_of))]
        else:
            gone = stored.join(members, on=entity, how="anti")
            said = gone.join(members, on="symbol", suffix="_said").filter(
                (pl.col("valid_from_said") <= pl.col("valid_to").fill_null(date.max))
                & (pl.col("valid_to_said").fill_null(date.max) >= pl.col("valid_from"))
            )
            ended = gone.filter(pl.col("valid_to").is_null()).join(said, on=entity, how="anti")
            last = pl.max_horizontal(pl.lit(calendar.last_known_session(as_of)), "valid_from")
            back = gone.join(said, on=entity, how="semi").with_columns(valid_to=pl.col("valid_from") - pl.duration(days=1))
            gone = pl.concat([ended.with_columns(valid_to=last), back])
            told = [pl.concat([members, gone]).with_columns(known_at=pl.lit(as_of, pl.Datetime("us")))]
        return sum(
            append_versions(connection, UNIVERSE, frame.with_columns(**columns).select(UNIVERSE.column_names)).height for frame in told
        )


def _by_holder(members: pl.DataFrame, instruments: pl.DataFrame) -> pl.DataFrame:
    """The memberships under our symbols: a file knows tickers, and each holder of one is in scope while it holds it."""
    holders = instruments.filter(pl.len().over("ticker") > 1).sort("ticker", "valid_from")
    spans = holders.select(
        pl.col("ticker"),
        holder="symbol",
        held_from=pl.when(pl.int_range(pl.len()).over("ticker") > 0).then("valid_from"),
        held_to=pl.col("valid_from").shift(-1).over("ticker") - pl.duration(days=1),
    )
    return (
        members.join(spans, left_on="symbol", right_on="ticker", how="left")
        .with_columns(
            symbol=pl.coalesce("holder", "symbol"),
            valid_from=pl.max_horizontal("valid_from", "held_from"),
            valid_to=pl.min_horizontal("valid_to", "held_to"),
        )
        .filter(pl.col("valid_to").is_null() | (pl.col("valid_to") >= pl.col("valid_from")))
        .select("symbol", "valid_from", "valid_to")
    )


def _known(column: str, members: pl.DataFrame, calendar: TradingCalendar, as_of: datetime) -> pl.Series:
    """When a date of a membership was known: with the last bar up to it, or the calendar's first."""

    def known(day: date) -> datetime:
        return min(calendar.known_at(calendar.session_on_or_before(max(day, calendar.sessions[0]))), as_of)

    return pl.Series([known(day) for day in members[column]], dtype=pl.Datetime("us"))
