"""Checks on landed bars: what must never pass blocks, what people should know warns."""

from collections.abc import Iterator

import dagster as dg

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
    """Judge the stored bars as a whole."""
    from quant_assets.migrations import sql_type

    stored = dict(
        warehouse.client.read(
            "select column_name, data_type from duckdb_columns() where schema_name = 'market_data' and table_name = 'daily_bars'"
        ).iter_rows()
    )
    difference = sorted(set(stored.items()) ^ {(column.name, sql_type(column.dtype)) for column in DAILY_BARS.columns})
    yield dg.AssetCheckResult(check_name="schema", asset_key=BARS, passed=not difference, metadata={"difference": str(difference)})

    doubled = warehouse.client.read(
        f"select {', '.join(DAILY_BARS.key)}, count(*) as rows from market_data.daily_bars group by all having count(*) > 1 limit 20"
    )
    yield dg.AssetCheckResult(check_name="key", asset_key=BARS, passed=doubled.is_empty(), metadata={"doubled": markdown_table(doubled)})

    last = warehouse.client.read(
        """
        with newest as (select symbol, max(session) as last_session from market_data.latest_daily_bars where source = $source group by symbol)
        select symbol, last_session from newest, (select max(last_session) as last_stored from newest)
        where last_session < last_stored and last_session >= last_stored - interval 30 days order by last_session, symbol
        """,
        {"source": desk.settings.source},
    )
    tagged = context.run.tags.get("quant/as_of")
    newest = warehouse.client.read(
        "select max(session) as session from market_data.daily_bars where source = $source", {"source": desk.settings.source}
    )
    expected = desk.calendar.as_of(tagged) if tagged else None
    newest_session = newest["session"].item()
    due = desk.calendar.last_known_session(expected) if expected else newest_session
    yield dg.AssetCheckResult(
        check_name="fresh",
        asset_key=BARS,
        passed=last.is_empty() and newest_session == due,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Last session stored: {newest_session}, due: {due}; {last.height} symbols end before it.",
        metadata={
            "late_symbols": last.height,
            "last_session": str(newest_session),
            "due": str(due),
            "symbols": markdown_table(last.head(20)),
        },
    )
