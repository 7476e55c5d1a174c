"""From the source to stored bars: one step, because a delivery lands as a whole or not at all."""

from collections.abc import Iterator

import dagster as dg

from quant_assets import schemas
from quant_assets.assets import DATA_ENGINEERING, record_partitions, row_count, table_spec
from quant_assets.market_data.landing import land
from quant_assets.partitions import SESSIONS
from quant_assets.resources import DeskResource, WarehouseResource

BARS = dg.AssetKey(["market_data", "daily_bars"])
LANDED = (schemas.FETCH_LEDGER, schemas.REJECTED_ROWS, schemas.DAILY_BARS, schemas.CORPORATE_ACTIONS, schemas.INSTRUMENTS)
TRUTH = (schemas.SYNTHETIC_TRUTH_STATES, schemas.SYNTHETIC_TRUTH_FAULTS, schemas.SYNTHETIC_TRUTH_SIGNAL)


@dg.multi_asset(
    specs=[
        *(table_spec(table, owners=DATA_ENGINEERING, kinds={"duckdb", "polars"}) for table in LANDED),
        *(table_spec(table, owners=DATA_ENGINEERING, kinds={"duckdb", "polars"}, skippable=True) for table in TRUTH),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def market_data(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Fetch what the source has up to the run's last session and land what is new or changed."""
    night = desk.night(context, warehouse.client, desk.source.last_session())
    delivery = desk.source.deliver(desk.settings.first_session_floor, night.sessions[-1])
    landing = land(warehouse.client, delivery, desk.calendar, night.as_of, context.run.run_id)
    context.log.info(
        f"{landing.delivered} bars of {landing.symbols} symbols: {landing.new} new, {landing.restated} restated, {landing.rejected} rows rejected"
    )
    record_partitions(context, BARS, warehouse.rows_per_session("market_data.latest_daily_bars", night.sessions))
    numbers: dict[str, int | str] = {
        "new_bars": landing.new,
        "restated_bars": landing.restated,
        "rejected_rows": landing.rejected,
        "failed_requests": landing.failed_requests,
        "symbols": landing.symbols,
        "batch_id": landing.batch_id,
        "source": delivery.source,
        "as_of": str(night.as_of),
    }
    with warehouse.get_connection() as connection:
        for table in (*LANDED, *(schemas.TABLES[name] for name in delivery.truth)):
            yield dg.MaterializeResult(
                asset_key=[table.schema, table.name],
                metadata={"dagster/row_count": row_count(connection, table.full_name), **(numbers if table is schemas.DAILY_BARS else {})},
            )
