"""The universe by date, from the lists that deliveries bring: who comes, who goes, who was only left out for a while."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from quant_assets.schemas import INSTRUMENTS, UNIVERSE
from quant_assets.warehouse import Connection, append_versions, query

WHOLE = 0.9
"""A list with a smaller share of those in scope before its session is cut off: it takes nobody out."""
BACK_DAYS = 30
"""Calendar days within which a symbol that comes back was only left out: its stretch goes on."""


def land_listing(
    connection: Connection,
    listed: pl.Series,
    source: str,
    session: date,
    previous: date,
    known_at: datetime,
    batch_id: str,
    stamp: datetime,
) -> pl.DataFrame:
    """Bring `market_data.universe`, and the ends of the instruments, up to a list of one session; returns the versions of the first.

    A symbol that is new to the list begins a stretch on that session; one that is no longer on it ended on the last
    session before; one that returns soon goes on as if it had stayed.
    """
    connection.register("listed", listed.alias("symbol").to_frame().unique())
    versions = query(
        connection,
        """
        with stretches as (
            select symbol, valid_from, valid_to, known_at from market_data.latest_universe where source = $source
            qualify row_number() over (partition by symbol order by valid_from desc) = 1
        ),
        whole as (select count(*) filter (listed.symbol is not null) >= $whole * count(*) as list from stretches left join listed using (symbol)
            where valid_to is null and known_at <= $session)
        select symbol, case when valid_from is null or valid_to < $session - to_days($back) then $session else valid_from end as valid_from, null::date as valid_to
        from listed left join stretches using (symbol)
        where valid_from is null or valid_to is not null
        union all
        select symbol, valid_from, greatest(valid_from, $previous)
        from stretches anti join listed using (symbol)
        where valid_to is null and valid_from <= $session and (select list from whole)
        """,
        {"source": source, "session": session, "previous": previous, "whole": WHOLE, "back": BACK_DAYS},
    )
    connection.unregister("listed")
    declared = versions.with_columns(
        pl.col("valid_from", "valid_to").cast(pl.Date),
        source=pl.lit(source),
        known_at=pl.lit(known_at, pl.Datetime("us")),
        batch_id=pl.lit(batch_id),
        recorded_at=pl.lit(stamp, pl.Datetime("us")),
    )
    written = append_versions(connection, UNIVERSE, declared.select(UNIVERSE.column_names), {"known_at": known_at})
    append_versions(connection, INSTRUMENTS, _ends(connection, written, source, known_at, stamp), {"known_at": known_at})
    return written


def _ends(connection: Connection, written: pl.DataFrame, source: str, known_at: datetime, stamp: datetime) -> pl.DataFrame:
    """The instruments that end with what was written about the universe, or go on after all; who has lost a ticker stays ended."""
    if written.is_empty():
        return pl.DataFrame(schema=INSTRUMENTS.polars_schema)
    connection.register("told", written.select("symbol", until="valid_to"))
    ends = query(
        connection,
        """
        with held as (
            select *, max(valid_from) over (partition by ticker) as newest from market_data.latest_instruments where source = $source
        )
        select symbol, $known_at::timestamp as known_at, ticker, valid_from, told.until as valid_to, source, $stamp::timestamp as recorded_at
        from held join told using (symbol)
        where valid_from = newest and valid_to is distinct from told.until and (told.until is null or told.until >= valid_from)
        """,
        {"source": source, "known_at": known_at, "stamp": stamp},
    )
    connection.unregister("told")
    return ends.select(INSTRUMENTS.column_names)
