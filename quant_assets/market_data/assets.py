"""From the source to stored bars: one step, because a delivery lands as a whole or not at all."""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import polars as pl

from quant_assets import schemas
from quant_assets.assets import DATA_ENGINEERING, markdown_table, record_partitions, row_count, table_spec
from quant_assets.market_data.delivery import Owed
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import Landing, land
from quant_assets.market_data.membership import land_members
from quant_assets.market_data.restatements import RESTATEMENTS, restated_in
from quant_assets.market_data.universe import members_frame
from quant_assets.partitions import SESSIONS
from quant_assets.resources import DeskResource, WarehouseResource

BARS = dg.AssetKey(["market_data", "daily_bars"])
LANDED = (schemas.FETCH_LEDGER, schemas.REJECTED_ROWS, schemas.DAILY_BARS, schemas.CORPORATE_ACTIONS, schemas.INSTRUMENTS, schemas.UNIVERSE)
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
    holdings = StoredHoldings(warehouse.client, desk.source.name)
    landings, owed = list[Landing](), list[Owed]()
    if (members := members_frame(desk.settings)) is not None:
        land_members(warehouse.client, members, desk.source.name, desk.calendar, night.as_of)
    for delivery in desk.source.deliveries(desk.settings.first_session_floor, night.sessions[-1], night.as_of, holdings):
        if members is not None:  # whose scope it is, the file says and not the vendor
            delivery = replace(delivery, listed=None)  # noqa: PLW2901
        landing = land(warehouse.client, delivery, desk.calendar, night.as_of, context.run.run_id)
        landings.append(landing)
        context.log.info(landing.in_words)
        if delivery.owed:
            owed.append(delivery.owed)
            context.log.warning(f"Still owed: {delivery.owed.sessions} sessions of {delivery.owed.symbols} symbols. {delivery.owed.reason}")
        if delivery.fault:
            raise delivery.fault
    record_partitions(context, BARS, warehouse.rows_per_session("market_data.latest_daily_bars", night.sessions))
    numbers: dict[str, dg.MetadataValue | int | str] = {
        "new_bars": sum(landing.new for landing in landings),
        "restated_bars": sum(landing.restated for landing in landings),
        "late_bars": sum(landing.late for landing in landings),
        "new_actions": sum(landing.actions for landing in landings),
        "rejected_rows": sum(landing.rejected for landing in landings),
        "failed_requests": sum(landing.failed_requests for landing in landings),
        "symbols": max((landing.symbols for landing in landings), default=0),
        "tickers_in_new_hands": ", ".join(symbol for landing in landings for symbol in landing.newcomers) or "none",
        "owed_symbols": sum(debt.symbols for debt in owed),
        "owed_sessions": sum(debt.sessions for debt in owed),
        "deliveries": len(landings),
        "not_as_they_should_be": markdown_table(_faults(landings).head(50)),
        "batch_id": landings[-1].batch_id if landings else "",
        "source": desk.source.name,
        "as_of": str(night.as_of),
    }
    truth = [schemas.TABLES[name] for name in sorted({name for landing in landings for name in landing.truth})]
    with warehouse.get_connection() as connection:
        for table in (*LANDED, *truth):
            yield dg.MaterializeResult(
                asset_key=[table.schema, table.name],
                metadata={"dagster/row_count": row_count(connection, table.full_name), **(numbers if table is schemas.DAILY_BARS else {})},
            )


@dg.multi_asset(
    specs=[
        table_spec(RESTATEMENTS, deps=[BARS], owners=DATA_ENGINEERING, kinds={"duckdb", "sql"}).replace_attributes(
            description=f"{RESTATEMENTS.description}\n\nOne row is {RESTATEMENTS.grain}. A view: `restatements_between(since, until)` shows a stretch of time."
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def restatements(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Tell how many bars were changed in the run's nights, whose they are and by how much."""
    night = desk.night(context, warehouse.client)
    with warehouse.get_connection() as connection:
        found = restated_in(connection, desk.settings.source, desk.calendar, night.sessions[0], night.sessions[-1])
    key = dg.AssetKey([RESTATEMENTS.schema, RESTATEMENTS.name])
    record_partitions(context, key, found.rows_per_night)
    return dg.MaterializeResult(
        asset_key=key,
        metadata={"dagster/row_count": found.in_all, **found.numbers, "most_restated": markdown_table(found.by_symbol)},
    )


def _faults(landings: list[Landing]) -> pl.DataFrame:
    """What did not come as it should, by request or delivery."""
    receipts = pl.concat([landing.receipts.select("symbol", "status", "rows", "detail") for landing in landings] or [pl.DataFrame()])
    return receipts.filter(~pl.col("status").is_in(["landed", "unchanged"])) if receipts.width else receipts
