"""The model in its own job, and the night's signals."""

import json
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from quant_assets.assets import RESEARCH, markdown_table, picture, record_partitions, row_count, table_spec
from quant_assets.partitions import SESSIONS
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.schemas import DAILY_SIGNALS, HEURISTIC_CALIBRATIONS, PREDICTIONS, PROMOTIONS, SIGNAL_SCORECARD
from quant_assets.settings import load_settings
from quant_assets.signals.sensors import SCORECARD_KEY

FEATURES = ["feature_store", load_settings().feature_view]
LABELS = ["feature_store", "labels"]
UNIVERSE = ["market_data", "universe"]
MODEL_KEY = dg.AssetKey(["signals", "model"])


class TrainingOptions(dg.Config):
    """What one training does otherwise than the settings say; what is left out stays as they say."""

    symbols: list[str] = Field([], description="Symbols to train on; empty: the universe.")
    model_family: str | None = Field(None, description="lightgbm, catboost, logistic, xgboost, average or small; as QUANT_MODEL_FAMILY.")
    look_back_sessions: int | None = Field(None, description="Sessions of history to train on, 0 for all; as QUANT_LOOK_BACK_SESSIONS.")
    model_rounds: int | None = Field(None, description="Boosting rounds at most; as QUANT_MODEL_ROUNDS.")
    label_threshold: float | None = Field(None, description="The return to be exceeded, 0.02 for 2 %; as QUANT_LABEL_THRESHOLD.")
    test_sessions: int | None = Field(None, description="Last sessions to test on, 0 for all that can be; as QUANT_TEST_SESSIONS.")
    tuning_trials: int | None = Field(None, description="Trials of the study that tunes on the first training; as QUANT_TUNING_TRIALS.")


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            MODEL_KEY,
            deps=[FEATURES, LABELS, UNIVERSE],
            group_name="signals",
            kinds={"lightgbm", "mlflow"},
            owners=RESEARCH,
            description="The signal model on the scale-free features of the view that the settings name, judged by purged walk-forward beside its rivals, registered in MLflow.\n\n"
            "It is trained on what was known before the close of the last session, so that it may score that session, and becomes champion only on evidence. "
            "Training on the same data, settings and code returns the registered version.",
        ),
        table_spec(PREDICTIONS, deps=[MODEL_KEY], owners=RESEARCH, kinds={"duckdb"}, daily=False),
        table_spec(PROMOTIONS, deps=[MODEL_KEY], owners=RESEARCH, kinds={"duckdb", "mlflow"}, daily=False),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "no_leak", asset=MODEL_KEY, description="The model is not better than what can be known; one that is, is turned down."
        ),
    ],
)
def signals_model(
    context: dg.AssetExecutionContext, config: TrainingOptions, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Train, judge, explain, register, decide; then keep the walk-forward predictions and the decision."""
    from quant_assets.signals.training_run import train_and_register

    night = desk.night(context, warehouse.client)
    trained = train_and_register(
        warehouse.client,
        desk.calendar,
        desk.settings,
        night.as_of,
        context.run.run_id,
        MODEL_KEY.to_user_string(),
        config.model_dump(exclude={"symbols"}),
        config.symbols or None,
    )
    result = trained.result
    if trained.note:
        context.log.warning(trained.note)
    with warehouse.get_connection() as connection:
        predictions, promotions = row_count(connection, PREDICTIONS.full_name), row_count(connection, PROMOTIONS.full_name)
    yield dg.MaterializeResult(
        asset_key=MODEL_KEY,
        metadata={
            "dagster/row_count": result.rows,
            "model_version": trained.model_version,
            "decision": trained.verdict.decision,
            "reason": trained.verdict.reason,
            "note": trained.note,
            "registered_before": trained.registered_before,
            "mlflow_run": dg.MetadataValue.url(trained.mlflow_url),
            "fingerprint": result.fingerprint,
            "trained_until": str(result.trained_until),
            "leaks": "; ".join(trained.leaks) or "none",
            "card": dg.MetadataValue.md(trained.card),
            **{name.replace(".png", "_plot"): picture(file) for name, file in trained.files.items() if isinstance(file, bytes)},
            **{name: value for name, value in result.evaluation.summary.items() if value is not None},
        },
        data_version=dg.DataVersion(result.fingerprint),
    )
    yield dg.AssetCheckResult(
        asset_key=MODEL_KEY,
        check_name="no_leak",
        passed=not trained.leaks,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(trained.leaks) or "Nothing out of sample is too good to be true.",
    )
    yield dg.MaterializeResult(asset_key=["signals", "predictions"], metadata={"dagster/row_count": predictions})
    yield dg.MaterializeResult(asset_key=["signals", "promotions"], metadata={"dagster/row_count": promotions})


@dg.multi_asset(
    specs=[
        table_spec(
            DAILY_SIGNALS, deps=[FEATURES, UNIVERSE, MODEL_KEY, ["signals", "predictions"]], owners=RESEARCH, kinds={"duckdb", "polars"}
        ),
        table_spec(HEURISTIC_CALIBRATIONS, deps=[FEATURES, LABELS], owners=RESEARCH, kinds={"duckdb"}),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "champion_scores",
            asset=["signals", "daily_signals"],
            description="A training that was due ended well, and the champion, where there is one, could score; else the heuristic stands in.",
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def daily_signals(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Score the session with the champion; the first night trains one, in a process of its own."""
    from quant_assets.signals.next_champion import ensure_champion
    from quant_assets.signals.nightly import score_night, scorers

    night = desk.night(context, warehouse.client)
    champion = ensure_champion(warehouse.client, desk.calendar, desk.settings, night.as_of)
    context.log.info(champion.text)
    scored = score_night(
        warehouse.client,
        desk.calendar,
        desk.settings,
        night.as_of,
        night.tonight,
        night.sessions,
        context.run.run_id,
    )
    for note in scored.notes:
        context.log.warning(note)
    key = dg.AssetKey(["signals", "daily_signals"])
    record_partitions(context, key, warehouse.rows_per_session(DAILY_SIGNALS.full_name, night.sessions))
    made_by = scorers(warehouse.client, desk.settings.horizon, night.sessions[-1], night.as_of)
    with warehouse.get_connection() as connection:
        rows, calibrations = (row_count(connection, table.full_name) for table in (DAILY_SIGNALS, HEURISTIC_CALIBRATIONS))
    strongest = scored.written.sort((scored.written["probability"] - 0.5).abs(), descending=True).head(20)
    yield dg.MaterializeResult(
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
    yield dg.MaterializeResult(asset_key=["signals", "heuristic_calibrations"], metadata={"dagster/row_count": calibrations})
    faults = [*([champion.text] if champion.failed else []), *scored.faults]
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name="champion_scores",
        passed=not faults,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(faults) or champion.text,
    )


@dg.multi_asset(
    specs=[
        table_spec(
            SIGNAL_SCORECARD,
            deps=[["signals", "daily_signals"], LABELS, ["signals", "predictions"], ["signals", "promotions"], ["feature_store", "drift"]],
            owners=RESEARCH,
            kinds={"duckdb", "polars"},
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    partitions_def=SESSIONS,
)
def scorecard(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Put outcomes beside signals; say how live ones did, whether the champion has decayed, and why to train again, if so."""
    from quant_assets.signals.live.performance import live_performance
    from quant_assets.signals.live.scorecard import refresh_scorecard

    night = desk.night(context, warehouse.client)
    refreshed = refresh_scorecard(warehouse.client, desk.calendar, night.as_of, context.run.run_id)
    if refreshed.note:
        context.log.warning(refreshed.note)
    live = live_performance(warehouse.client, desk.calendar, desk.settings, night.as_of, night.tonight)
    record_partitions(context, SCORECARD_KEY, warehouse.rows_per_session(SIGNAL_SCORECARD.full_name, night.sessions))
    with warehouse.get_connection() as connection:
        rows = row_count(connection, SIGNAL_SCORECARD.full_name)
    return dg.MaterializeResult(
        asset_key=SCORECARD_KEY,
        metadata={
            "dagster/row_count": rows,
            "written": refreshed.written,
            "removed": refreshed.removed,
            "late": refreshed.late,
            **{f"rows_{mode}": count for mode, count in live.rows.items()},
            "live_sessions": live.live_sessions,
            **live.rank_ic,
            "decay": live.decay,
            "by_month": markdown_table(live.months, "no outcome is known yet"),
            "retraining_reason": live.reason,
            "as_of": str(night.as_of),
        },
    )
