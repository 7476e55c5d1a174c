"""Findings about bars, and the bars that may go on."""

from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg
import polars as pl

from quant_assets.assets import DATA_ENGINEERING, markdown_table, picture, row_count, table_spec
from quant_assets.data_quality.blast_radius.edges import NOTHING_REACHED, impact, record
from quant_assets.data_quality.pictures import counts_png, worst_table
from quant_assets.data_quality.quarantine import quarantine
from quant_assets.data_quality.reviews import EVERY_RULE, desk_clock, parse_decision, review
from quant_assets.data_quality.rules.seasonal_volume import volume_model
from quant_assets.data_quality.summary import Summary
from quant_assets.market_data.assets import BARS
from quant_assets.partitions import SESSIONS
from quant_assets.resources import AS_OF_TAG, DeskResource, WarehouseResource
from quant_assets.schemas import ANOMALIES, BLAST_RADIUS, DAILY_BARS, JUDGED_BATCHES, REVIEWS
from quant_assets.warehouse import Connection, query

CLEAN_BARS = dg.AssetKey(["data_quality", "clean_bars"])
ANOMALIES_KEY = dg.AssetKey(["data_quality", "anomalies"])
MEASURED = 20
"""Bars of a night whose reach is measured by itself, about a second each; `quant-assets quality impact` measures any."""

_bars = table_spec(DAILY_BARS, deps=[BARS, ANOMALIES_KEY], owners=DATA_ENGINEERING, kinds={"duckdb", "sql"})


@dg.multi_asset(
    specs=[
        table_spec(ANOMALIES, deps=[BARS, ["market_data", "corporate_actions"]], owners=DATA_ENGINEERING, kinds={"duckdb", "scikitlearn"}),
        table_spec(JUDGED_BATCHES, deps=[BARS], owners=DATA_ENGINEERING, kinds={"duckdb"}),
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
    """Judge every bar that has not been judged; critical findings hold their bar out of `clean_bars`."""
    night = desk.night(context, warehouse.client)
    fresh = quarantine(
        warehouse.client,
        desk.settings.source,
        desk.calendar,
        context.run.run_id,
        desk.settings.anomaly_rates,
        volume_model(desk.settings.volume_model),
    )
    with warehouse.get_connection() as connection:
        summary = Summary(connection, desk.settings.source, night.as_of)
        worst = summary.worst()
        yield dg.MaterializeResult(
            asset_key=ANOMALIES_KEY,
            metadata={
                "dagster/row_count": row_count(connection, "data_quality.anomalies"),
                "new_findings": fresh.height,
                **{f"new_{severity}": fresh.filter(pl.col("severity") == severity).height for severity in ("critical", "warning", "info")},
                "over_time": picture(counts_png(summary.counts())),
                "by_rule": markdown_table(summary.by_rule().select("rule", "critical", "warning", "info", "open", "decided", "released")),
                "worst": markdown_table(worst_table(worst, summary.around(worst)), "nothing is open"),
                **{name: figure for name, figure in asdict(summary.steering()).items() if figure is not None},
            },
        )
        yield dg.MaterializeResult(
            asset_key=["data_quality", "judged_batches"],
            metadata={
                "dagster/row_count": row_count(connection, JUDGED_BATCHES.full_name),
                "deliveries": markdown_table(summary.deliveries()),
                "not_judged": markdown_table(_not_judged(connection)),
            },
        )
        clean, stored = row_count(connection, "data_quality.clean_bars"), row_count(connection, "market_data.latest_daily_bars")
        yield dg.MaterializeResult(asset_key=CLEAN_BARS, metadata={"dagster/row_count": clean, "held_back": stored - clean})


def _not_judged(connection: Connection) -> pl.DataFrame:
    """What could not be judged in the last deliveries."""
    return query(
        connection,
        "select batch_id, bars, not_judged from data_quality.judged_batches where not_judged is not null order by landed_at desc limit 20",
    )


@dg.multi_asset(
    specs=[
        table_spec(BLAST_RADIUS, deps=[ANOMALIES_KEY, ["signals", "daily_signals"]], owners=DATA_ENGINEERING, kinds={"duckdb", "polars"})
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def blast_radius(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Tell what rested on the bars that were found out in the run's nights, after they had been used; at most the worst twenty."""
    night = desk.night(context, warehouse.client)
    found_out = warehouse.client.read(
        """
        select symbol, session, max(score) as score from data_quality.anomalies as anomaly
        semi join market_data.latest_daily_bars as bar on bar.symbol = anomaly.symbol and bar.session = anomaly.session
            and bar.source = anomaly.source and bar.known_at = anomaly.bar_known_at
        where source = $source and severity = 'critical' and known_at > bar_known_at and known_at >= $since and known_at <= $as_of
        group by all order by score desc, session desc, symbol
        """,
        {"source": desk.settings.source, "since": desk.calendar.known_at(night.sessions[0]), "as_of": night.as_of},
    )
    measured = pl.concat(
        [
            NOTHING_REACHED,
            *(
                impact(warehouse.client, desk.settings, desk.calendar, symbol, session, night.as_of)
                for symbol, session in found_out.head(MEASURED).select("symbol", "session").iter_rows()
            ),
        ]
    )
    record(warehouse.client, measured)
    moved = measured.filter(pl.col("edge") == "signal").with_columns(move=(pl.col("value_with") - pl.col("value_without")).abs())
    with warehouse.get_connection() as connection:
        rows = row_count(connection, BLAST_RADIUS.full_name)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            "bars_found_out": found_out.height,
            "bars_measured": min(found_out.height, MEASURED),
            "reached": markdown_table(
                measured.group_by("symbol", "session", "edge").len("items").sort("symbol", "session", "edge").head(100)
            ),
            "signals_that_move_most": markdown_table(
                moved.drop_nulls("move").sort("move", descending=True).head(20).drop("measured_at", "edge")
            ),
        }
    )


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
