"""The universe by date, from a file of memberships: who was in scope when, and since when that was known."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.schemas import UNIVERSE
from quant_assets.warehouse import Warehouse, append_versions, query


def land_members(warehouse: Warehouse, members: pl.DataFrame, source: str, calendar: TradingCalendar, as_of: datetime) -> int:
    """Bring `market_data.universe` up to a file's memberships (`delivery.MEMBERS`); returns the versions written.

    A stretch that was not stored is history: known when it began, its end when it ended, and never after `as_of`. What
    is changed later, or left out of the file, is known from `as_of`; a stretch that is left out ends with the last session.
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
        entity = ["symbol", "valid_from"]
        fresh = members.join(stored, on=entity, how="anti")
        gone = stored.filter(pl.col("valid_to").is_null()).join(members, on=entity, how="anti")
        last = pl.lit(calendar.last_known_session(as_of))
        held = members.join(stored, on=entity, how="semi")
        ended = pl.concat([held, gone.with_columns(valid_to=pl.max_horizontal(last, "valid_from"))])
        began = fresh.with_columns(valid_to=pl.lit(None, pl.Date), known_at=_known("valid_from", fresh, calendar, as_of))
        over = fresh.filter(pl.col("valid_to").is_not_null())
        over = over.with_columns(known_at=_known("valid_to", over, calendar, as_of))
        changed = ended.with_columns(known_at=pl.lit(as_of, pl.Datetime("us")))
        return sum(
            append_versions(connection, UNIVERSE, frame.with_columns(**columns).select(UNIVERSE.column_names)).height
            for frame in (began, over, changed)
        )


def _known(column: str, members: pl.DataFrame, calendar: TradingCalendar, as_of: datetime) -> pl.Series:
    """When a date of a membership was known: with the last bar up to it, or the calendar's first."""

    def known(day: date) -> datetime:
        return min(calendar.known_at(calendar.session_on_or_before(max(day, calendar.sessions[0]))), as_of)

    return pl.Series([known(day) for day in members[column]], dtype=pl.Datetime("us"))
