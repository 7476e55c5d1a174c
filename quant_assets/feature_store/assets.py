"""Indicators and labels from the dirty set, then the dbt views and tests over them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import polars as pl
import polars.selectors as cs
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, dbt_assets

from quant_assets.assets import RESEARCH, markdown_table, picture, record_partitions, row_count, table_spec
from quant_assets.data_quality.assets import CLEAN_BARS
from quant_assets.feature_store.dbt import MANIFEST_PATH, build
from quant_assets.feature_store.store import (
    refresh_alpha_history,
    refresh_alpha_market,
    refresh_labels,
    refresh_market,
    refresh_technical,
)
from quant_assets.feature_store.views import definition_hash, labels_hash
from quant_assets.partitions import SESSIONS
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.schemas import (
    ALPHA_HISTORY_V1,
    ALPHA_MARKET_V1,
    CARRIED_STATES,
    DRIFT,
    LABELS,
    MARKET_V1,
    TECHNICAL_V1,
    VIEW_BUILDS,
)

FEATURES = dg.AssetKey(["feature_store", "technical_v1"])
ALPHA = dg.AssetKey(["feature_store", "alpha_v1"])
MARKET = dg.AssetKey(["feature_store", "market_v1"])
DRIFT_KEY = dg.AssetKey(["feature_store", "drift"])
BARS = [CLEAN_BARS, ["market_data", "corporate_actions"]]
VERDICTS = ("shifted", "spread changed", "steady", "cannot be told")
TECHNICAL, ALPHA_CODE = definition_hash("technical_v1"), definition_hash("alpha_v1")


@dg.multi_asset(
    specs=[
        table_spec(TECHNICAL_V1, code_version=TECHNICAL[:12], deps=BARS, owners=RESEARCH, kinds={"duckdb", "numpy"}),
        table_spec(LABELS, deps=[*BARS, FEATURES], owners=RESEARCH, kinds={"duckdb", "polars"}),
        table_spec(
            MARKET_V1,
            code_version=ALPHA_CODE[:12],
            deps=[FEATURES, ["market_data", "universe"]],
            owners=RESEARCH,
            kinds={"duckdb", "numpy"},
        ),
        table_spec(ALPHA_HISTORY_V1, code_version=ALPHA_CODE[:12], deps=[*BARS, FEATURES], owners=RESEARCH, kinds={"duckdb", "numpy"}),
        table_spec(ALPHA_MARKET_V1, code_version=ALPHA_CODE[:12], deps=[FEATURES, MARKET], owners=RESEARCH, kinds={"duckdb", "numpy"}),
        table_spec(CARRIED_STATES, deps=BARS, owners=RESEARCH, kinds={"duckdb"}),
        table_spec(VIEW_BUILDS, deps=BARS, owners=RESEARCH, kinds={"duckdb"}),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def feature_store(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Recompute what the changed bars touch, and nothing else."""
    night, run_id = desk.night(context, warehouse.client), context.run.run_id
    refreshed = {
        TECHNICAL_V1: (refresh_technical(warehouse.client, run_id), TECHNICAL),
        LABELS: (refresh_labels(warehouse.client, desk.calendar, run_id), labels_hash(desk.calendar)),
        MARKET_V1: (refresh_market(warehouse.client, desk.calendar, run_id), ALPHA_CODE),
        ALPHA_HISTORY_V1: (refresh_alpha_history(warehouse.client, run_id), ALPHA_CODE),
        ALPHA_MARKET_V1: (refresh_alpha_market(warehouse.client, desk.calendar, run_id), ALPHA_CODE),
    }
    for table, (refresh, definition) in refreshed.items():
        context.log.info(f"{table.name}: {refresh.written} rows written, {refresh.removed} removed, {refresh.symbols} symbols looked at")
        key = dg.AssetKey([table.schema, table.name])
        record_partitions(context, key, warehouse.rows_per_session(table.full_name, night.sessions))
        with warehouse.get_connection() as connection:
            rows = row_count(connection, table.full_name)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "dagster/row_count": rows,
                "rows_written": refresh.written,
                "rows_removed": refresh.removed,
                "stale_symbols": refresh.symbols,
                "definition_hash": definition,
            },
        )
    for table in (CARRIED_STATES, VIEW_BUILDS):
        with warehouse.get_connection() as connection:
            rows = row_count(connection, table.full_name)
        yield dg.MaterializeResult(asset_key=[table.schema, table.name], metadata={"dagster/row_count": rows})


@dg.multi_asset(
    specs=[table_spec(DRIFT, deps=[FEATURES, ALPHA, ["signals", "promotions"]], owners=RESEARCH, kinds={"duckdb", "numpy"})],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def drift(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Hold the features' trailing window against the champion's training window."""
    from quant_assets.feature_store.drift_plots import paths_png, shifts_png
    from quant_assets.feature_store.drift_tonight import judge_drift

    night, settings = desk.night(context, warehouse.client), desk.settings
    judged = judge_drift(
        warehouse.client,
        desk.calendar,
        settings.feature_view,
        settings.horizon,
        night.as_of,
        night.tonight,
        settings.first_session_floor,
        settings.label_threshold,
    )
    record_partitions(context, DRIFT_KEY, warehouse.rows_per_session(DRIFT.full_name, night.sessions))
    with warehouse.get_connection() as connection:
        rows = row_count(connection, DRIFT.full_name)
    plots = {}
    if judged.note:
        context.log.warning(f"drift cannot be told: {judged.note}")
    else:
        shown = judged.drift.filter(pl.col("p_value").is_not_null()).sort("p_value")
        plots = {
            "most_shifted": markdown_table(
                shown.select("feature", "shift", "effective_sessions", "p_value", "p_adjusted", "verdict")
                .head(10)
                .with_columns(cs.float().round(3))
            ),
            "shifts": picture(shifts_png(judged.drift, night.tonight)),
            "paths": picture(paths_png(judged.series, judged.drift, night.tonight)),
        }
    return dg.MaterializeResult(
        asset_key=DRIFT_KEY,
        metadata={
            "dagster/row_count": rows,
            "view": settings.feature_view,
            "features": judged.drift.height,
            **{f"features_{verdict.replace(' ', '_')}": judged.drift.filter(verdict=verdict).height for verdict in VERDICTS},
            "critical": judged.drift.filter(severity="critical").height,
            **plots,
        },
    )


class _Translator(DagsterDbtTranslator):
    """dbt's models and sources under the names of their tables."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        stated = dbt_resource_props["meta"].get("dagster", {}).get("asset_key")
        return dg.AssetKey(stated or [dbt_resource_props["schema"], dbt_resource_props["name"]])


@dbt_assets(
    manifest=MANIFEST_PATH,
    dagster_dbt_translator=_Translator(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True)),
    partitions_def=SESSIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def dbt_features(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Build all views and tables and run all tests, whichever are asked for; a failing test is a failed check that shows how many rows offend."""
    nodes = json.loads(MANIFEST_PATH.read_text())["nodes"]
    checks = {spec.metadata["dagster_dbt/unique_id"]: spec for spec in context.assets_def.check_specs}
    for outcome in build(warehouse.client, desk.calendar):
        spec = checks.get(outcome.unique_id)
        if spec is not None and spec.key in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                asset_key=spec.asset_key,
                check_name=spec.name,
                passed=outcome.passed,
                description=f"{spec.description} {outcome.message or f'{outcome.failures} rows offend.'}",
                metadata={"offending_rows": outcome.failures},
            )
        elif outcome.is_model:
            node = nodes[outcome.unique_id]
            key = dg.AssetKey([node["schema"], node["name"]])
            if key in context.selected_asset_keys:
                with warehouse.get_connection() as connection:
                    rows = row_count(connection, f"{node['schema']}.{node['name']}")
                definition = {"definition_hash": ALPHA_CODE} if key == ALPHA else {}
                yield dg.MaterializeResult(asset_key=key, metadata={"dagster/row_count": rows, **definition})
