"""Checks on landed bars: what must never pass blocks, what people should know warns."""

from collections.abc import Iterator
from datetime import date, timedelta

import dagster as dg
import polars as pl

from quant_assets.assets import markdown_table
from quant_assets.market_data.assets import BARS
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.schemas import DAILY_BARS


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec("schema", asset=BARS, blocking=True, description="The stored columns and types are the declared ones."),
        dg.AssetCheckSpec("key", asset=BARS, blocking=True, description="No two rows share symbol, session, source and known_at."),
        dg.AssetCheckSpec(
            "fresh", asset=BARS, description="The last session is there, for every symbol that traded in the 30 days before it."
        ),
    ],
)
def daily_bars_checks(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.AssetCheckResult]:
    """Judge the stored bars as a whole, and whether those due are there."""
    from quant_assets.migrations import sql_type

    stored = dict(
        warehouse.client.read(
            "select column_name, data_type from duckdb_columns() where schema_name = 'market_data' and table_name = 'daily_bars'"
        ).iter_rows()
    )
    difference = sorted(set(stored.items()) ^ {(column.name, sql_type(column.dtype)) for column in DAILY_BARS.columns})
    yield dg.AssetCheckResult(
        check_name="schema",
        asset_key=BARS,
        passed=not difference,
        description=f"Stored and declared columns differ in: {difference or 'nothing'}.",
    )
    doubled = warehouse.client.read(
        f"select {', '.join(DAILY_BARS.key)}, count(*) as rows from market_data.daily_bars group by all having count(*) > 1"
    )
    yield dg.AssetCheckResult(
        check_name="key",
        asset_key=BARS,
        passed=doubled.is_empty(),
        description=f"{doubled.height} keys stand in more than one row.",
        metadata={"offending_rows": doubled.height, "doubled": markdown_table(doubled.head(20))},
    )
    night = desk.night(context, warehouse.client)
    last = warehouse.client.read(
        """
        select symbol, max(session) as last_session from market_data.latest_daily_bars
        where source = $source and session <= $due group by symbol order by last_session, symbol
        """,
        {"source": desk.settings.source, "due": night.tonight},
    )
    newest: date | None = last["last_session"].max()  # type: ignore[assignment]
    late = last.filter(pl.col("last_session").is_between(night.tonight - timedelta(days=30), night.tonight, closed="left"))
    yield dg.AssetCheckResult(
        check_name="fresh",
        asset_key=BARS,
        passed=late.is_empty() and newest == night.tonight,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Last session stored: {newest or 'none'}, due: {night.tonight}; {late.height} symbols end in the 30 days before it.",
        metadata={
            "late_symbols": late.height,
            "last_session": str(newest),
            "due": str(night.tonight),
            "symbols": markdown_table(late.head(20)),
        },
    )
