"""Findings about bars, and the bars that may go on."""

from collections.abc import Iterator

import dagster as dg

from quant_assets.assets import DATA_ENGINEERING, markdown_table, row_count, table_spec
from quant_assets.data_quality.quarantine import quarantine
from quant_assets.data_quality.reviews import EVERY_RULE, desk_clock, parse_decision, review
from quant_assets.data_quality.seasonal_volume import volume_model
from quant_assets.market_data.assets import BARS
from quant_assets.partitions import SESSIONS
from quant_assets.resources import AS_OF_TAG, DeskResource, WarehouseResource
from quant_assets.schemas import ANOMALIES, DAILY_BARS, REVIEWS

CLEAN_BARS = dg.AssetKey(["data_quality", "clean_bars"])
ANOMALIES_KEY = dg.AssetKey(["data_quality", "anomalies"])

_bars = table_spec(DAILY_BARS, deps=[BARS, ANOMALIES_KEY], owners=DATA_ENGINEERING, kinds={"duckdb", "sql"})


@dg.multi_asset(
    specs=[
        table_spec(ANOMALIES, deps=[BARS], owners=DATA_ENGINEERING, kinds={"duckdb", "polars"}),
        _bars.replace_attributes(
            key=CLEAN_BARS,
            group_name="data_quality",
            metadata={**_bars.metadata, "dagster/table_name": "data_quality.clean_bars"},
            description="The newest version of each bar of the preferred source that no unreleased critical anomaly covers.\n\n"
            "One row is one symbol in one session; key: `symbol`, `session`. A view: `clean_bars_as_of(T)` shows it as of an instant.",
        ),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def data_quality(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Judge every bar known as of the run; critical findings hold their bar out of `clean_bars`."""
    fresh = quarantine(
        warehouse.client,
        desk.settings.source,
        desk.calendar,
        context.run.run_id,
        desk.settings.anomaly_rates,
        volume_model(desk.settings.volume_model),
    )
    with warehouse.get_connection() as connection:
        by_rule = fresh.group_by("rule", "severity").len("new").sort("rule")
        yield dg.MaterializeResult(
            asset_key=ANOMALIES_KEY,
            metadata={
                "dagster/row_count": row_count(connection, "data_quality.anomalies"),
                "new_findings": fresh.height,
                "by_rule": markdown_table(by_rule, "nothing new"),
                "newest": markdown_table(
                    fresh.sort("session", descending=True).select("symbol", "session", "rule", "detail").head(20), "nothing new"
                ),
            },
        )
        clean, stored = row_count(connection, "data_quality.clean_bars"), row_count(connection, "market_data.latest_daily_bars")
        yield dg.MaterializeResult(asset_key=CLEAN_BARS, metadata={"dagster/row_count": clean, "held_back": stored - clean})


class ReviewDecision(dg.Config):
    """One decision, in the words of `quant-assets quarantine`; without a rule, about every critical finding on the bar."""

    symbol: str
    session: str
    rule: str = EVERY_RULE
    decision: str
    decided_by: str
    reason: str
    version: str | None = None
    overrule: bool = False


class Decisions(dg.Config):
    """What people have decided; all of it is written, or nothing where one decision is refused."""

    decisions: list[ReviewDecision]


@dg.multi_asset(specs=[table_spec(REVIEWS, deps=[ANOMALIES_KEY], owners=DATA_ENGINEERING, kinds={"duckdb"}, daily=False)])
def reviews(
    context: dg.AssetExecutionContext, config: Decisions, warehouse: WarehouseResource, desk: DeskResource
) -> dg.MaterializeResult[None]:
    """Write people's decisions, as `quant-assets quarantine release` and `confirm` do; a refused one fails the run."""
    decisions = [parse_decision(**entry.model_dump()) for entry in config.decisions]
    as_of = desk_clock(warehouse.client, desk.calendar, desk.source.live, context.run.tags.get(AS_OF_TAG))
    outcomes = review(warehouse.client, desk.calendar, decisions, as_of)
    lines = [f"- {line}" for outcome in outcomes for line in outcome.in_words]
    with warehouse.get_connection() as connection:
        rows = row_count(connection, REVIEWS.full_name)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            "new_decisions": sum(outcome.written.height for outcome in outcomes),
            "outcome": dg.MetadataValue.md("\n".join(lines) or "nothing to decide"),
        }
    )
