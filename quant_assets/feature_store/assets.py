"""Indicators and labels from the dirty set, then the dbt views and tests over them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, dbt_assets

from quant_assets.assets import RESEARCH, record_partitions, row_count, table_spec
from quant_assets.data_quality.assets import CLEAN_BARS
from quant_assets.feature_store.dbt import MANIFEST_PATH, build
from quant_assets.feature_store.indicators import definition_hash
from quant_assets.feature_store.store import Refresh, refresh_labels, refresh_technical
from quant_assets.partitions import SESSIONS
from quant_assets.resources import DeskResource, Night, WarehouseResource
from quant_assets.schemas import LABELS, TECHNICAL_V1, VIEW_BUILDS, Table

FEATURES = dg.AssetKey(["feature_store", "technical_v1"])
LABELS_KEY = dg.AssetKey(["feature_store", "labels"])


def _result(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, night: Night, table: Table, refresh: Refresh, **more: str
) -> dg.MaterializeResult[None]:
    record_partitions(context, dg.AssetKey([table.schema, table.name]), warehouse.rows_per_session(table.full_name, night.sessions))
    with warehouse.get_connection() as connection:
        rows = row_count(connection, table.full_name)
    return dg.MaterializeResult(
        asset_key=[table.schema, table.name],
        metadata={
            "dagster/row_count": rows,
            "rows_written": refresh.written,
            "rows_removed": refresh.removed,
            "stale_symbols": refresh.symbols,
            **more,
        },
    )


@dg.multi_asset(
    specs=[
        table_spec(
            TECHNICAL_V1,
            code_version=definition_hash()[:12],
            deps=[CLEAN_BARS, ["market_data", "corporate_actions"]],
            owners=RESEARCH,
            kinds={"duckdb", "polars"},
        ),
        table_spec(VIEW_BUILDS, deps=[FEATURES], owners=RESEARCH, kinds={"duckdb"}),
        table_spec(LABELS, deps=[CLEAN_BARS, ["market_data", "corporate_actions"]], owners=RESEARCH, kinds={"duckdb", "polars"}),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def feature_store(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Recompute what the changed bars touch, and nothing else."""
    night = desk.night(context, warehouse.client)
    features = refresh_technical(warehouse.client, context.run.run_id)
    context.log.info(f"technical_v1: {features.written} rows written, {features.removed} removed, {features.symbols} symbols stale")
    yield _result(context, warehouse, night, TECHNICAL_V1, features, definition_hash=definition_hash())
    with warehouse.get_connection() as connection:
        yield dg.MaterializeResult(
            asset_key=["feature_store", "view_builds"], metadata={"dagster/row_count": row_count(connection, "feature_store.view_builds")}
        )
    outcomes = refresh_labels(warehouse.client, desk.calendar, context.run.run_id)
    context.log.info(f"labels: {outcomes.written} rows written, {outcomes.removed} removed, {outcomes.symbols} symbols stale")
    yield _result(context, warehouse, night, LABELS, outcomes)


class _Translator(DagsterDbtTranslator):
    """dbt's models and sources under the names of their tables."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        return dg.AssetKey([dbt_resource_props["schema"], dbt_resource_props["name"]])


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
                yield dg.MaterializeResult(asset_key=key, metadata={"dagster/row_count": rows})
