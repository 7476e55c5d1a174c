"""The model in its own job, and the night's signals."""

import json
from collections.abc import Iterator

import dagster as dg

from quant_assets.assets import RESEARCH, markdown_table, picture, record_partitions, row_count, table_spec
from quant_assets.partitions import SESSIONS
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.schemas import DAILY_SIGNALS, PREDICTIONS, PROMOTIONS
from quant_assets.settings import load_settings

FEATURES = ["feature_store", load_settings().feature_view]
LABELS = ["feature_store", "labels"]
UNIVERSE = ["market_data", "universe"]
MODEL_KEY = dg.AssetKey(["signals", "model"])


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            MODEL_KEY,
            deps=[FEATURES, LABELS, UNIVERSE],
            group_name="signals",
            kinds={"lightgbm", "mlflow"},
            owners=RESEARCH,
            description="The signal model: LightGBM on the scale-free features of the view that the settings name, judged by purged walk-forward, registered in MLflow.\n\n"
            "It is trained on what was known before the close of the last session, so that it may score that session. "
            "Training on the same data, settings and code returns the registered version.",
        ),
        table_spec(PREDICTIONS, deps=[MODEL_KEY], owners=RESEARCH, kinds={"duckdb", "lightgbm"}, daily=False),
        table_spec(PROMOTIONS, deps=[MODEL_KEY], owners=RESEARCH, kinds={"duckdb", "mlflow"}, daily=False),
    ],
)
def signals_model(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Train, judge, register, promote; then keep the walk-forward predictions and the promotion."""
    from quant_assets.signals.plots import calibration_png, importance_png
    from quant_assets.signals.training_run import train_and_register

    night = desk.night(context, warehouse.client)
    trained = train_and_register(
        warehouse.client, desk.calendar, desk.settings, night.as_of, context.run.run_id, MODEL_KEY.to_user_string()
    )
    with warehouse.get_connection() as connection:
        predictions, promotions = row_count(connection, PREDICTIONS.full_name), row_count(connection, PROMOTIONS.full_name)
    yield dg.MaterializeResult(
        asset_key=MODEL_KEY,
        metadata={
            "dagster/row_count": trained.training_rows,
            "model_version": trained.model_version,
            "registered_before": trained.registered_before,
            "mlflow_run": dg.MetadataValue.url(trained.mlflow_url),
            "fingerprint": trained.fingerprint,
            "trained_until": str(trained.trained_until),
            "folds": markdown_table(trained.folds),
            "calibration": picture(calibration_png(trained.calibration)),
            "importance": picture(importance_png(trained.importance)),
            **{name: value for name, value in trained.metrics.items() if value is not None},
        },
        data_version=dg.DataVersion(trained.fingerprint),
    )
    yield dg.MaterializeResult(asset_key=["signals", "predictions"], metadata={"dagster/row_count": predictions})
    yield dg.MaterializeResult(asset_key=["signals", "promotions"], metadata={"dagster/row_count": promotions})


@dg.multi_asset(
    specs=[
        table_spec(
            DAILY_SIGNALS, deps=[FEATURES, UNIVERSE, MODEL_KEY, ["signals", "predictions"]], owners=RESEARCH, kinds={"duckdb", "lightgbm"}
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def daily_signals(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Score the session with the champion; the first night trains one, in a process of its own."""
    from quant_assets.signals.nightly import score_night, scorers
    from quant_assets.signals.training_run import ensure_champion

    night = desk.night(context, warehouse.client)
    context.log.info(ensure_champion(warehouse.client, desk.calendar, desk.settings, night.as_of))
    scored = score_night(
        warehouse.client,
        desk.calendar,
        desk.settings.models_path,
        desk.settings.horizon,
        night.as_of,
        night.tonight,
        night.sessions,
        context.run.run_id,
        desk.settings.feature_view,
    )
    for note in scored.notes:
        context.log.warning(note)
    key = dg.AssetKey(["signals", "daily_signals"])
    record_partitions(context, key, warehouse.rows_per_session(DAILY_SIGNALS.full_name, night.sessions))
    made_by = scorers(warehouse.client, desk.settings.horizon, night.sessions[-1], night.as_of)
    with warehouse.get_connection() as connection:
        rows = row_count(connection, DAILY_SIGNALS.full_name)
    strongest = scored.written.sort((scored.written["probability"] - 0.5).abs(), descending=True).head(20)
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": rows,
            "new_signals": scored.written.height,
            "as_of": str(night.as_of),
            "scorer": ", ".join(made_by["scorer"].unique(maintain_order=True)) or "none",
            "model_version": ", ".join(made_by["model_version"].drop_nulls()) or "none",
            "notes": json.dumps(scored.notes),
            "strongest": markdown_table(strongest.select("symbol", "session", "probability", "recommendation"), "nothing new"),
        },
    )
