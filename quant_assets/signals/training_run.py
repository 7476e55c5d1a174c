"""One training from the warehouse to the registry: frame, fit, log, register, keep a verified copy, promote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.inputs import SCOPE_THEN
from quant_assets.feature_store.training_sets import training_set
from quant_assets.feature_store.views import definition_hash, features_of
from quant_assets.schemas import INSTANT, PREDICTIONS, PROMOTIONS
from quant_assets.settings import Settings
from quant_assets.signals import tracking
from quant_assets.signals.champions import MODEL, champion_for
from quant_assets.signals.local_copies import save_local_copy
from quant_assets.signals.retraining import TrainingFailed, train_in_own_process
from quant_assets.signals.training import TrainingResult, TrainingSetup, train
from quant_assets.warehouse import Warehouse, append_ledger, append_versions, query

LOOKED_AT = (
    "auc",
    "rank_ic",
    "rank_ic_t",
    "accuracy",
    "majority_accuracy",
    "log_loss",
    "base_rate_log_loss",
    "control_auc",
    "control_rank_ic",
)


@dataclass(frozen=True)
class Trained:
    """What one training came to; `registered_before` when the registry had it already."""

    model_version: str
    registered_before: bool
    mlflow_url: str
    fingerprint: str
    trained_until: datetime
    training_rows: int
    folds: pl.DataFrame
    metrics: dict[str, float | None]
    calibration: pl.DataFrame
    importance: pl.DataFrame


def train_and_register(
    warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, as_of: datetime, run_id: str, asset_key: str
) -> Trained:
    """Train on what was known before the close of the last session as of an instant, so that the model may score it.

    The same data, settings and code return the registered version and write nothing. Raises `TooFewSessions`, and
    `QuantAssetsError` when the registry gives a number that the ledger knows as another training's.
    """
    tonight = calendar.last_known_session(as_of)
    last = calendar.last_known_session(calendar.close(tonight) - timedelta(microseconds=1))
    known = training_set(
        warehouse, calendar, settings.feature_view, None, (settings.first_session_floor, last), settings.horizon, calendar.known_at(last)
    )
    setup = TrainingSetup(
        features=tuple(model_columns(known.view)),
        horizon=known.horizon,
        definition_hash=known.definition_hash,
        seed=settings.model_seed,
        train_min_sessions=settings.train_min_sessions,
    )
    contract = FeatureContract.of(known.view, known.definition_hash, [each for each in features_of(known.view) if each.scale_free])
    registry = tracking.Registry.open(settings)
    result = train(known.frame, setup)
    found = registry.find_version(result.fingerprint)
    version = found or registry.log_training(result, contract, run_id, asset_key)
    _refuse_foreign(warehouse, version)
    model_sha256 = save_local_copy(settings.models_path, version.version, result.booster, contract)
    _keep(warehouse, result, contract, version, model_sha256, as_of, run_id)
    return Trained(
        model_version=version.version,
        registered_before=found is not None,
        mlflow_url=version.url,
        fingerprint=result.fingerprint,
        trained_until=result.trained_until,
        training_rows=result.rows,
        folds=result.folds,
        metrics=result.evaluation.summary,
        calibration=result.evaluation.calibration,
        importance=result.booster.importance,
    )


def ensure_champion(warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, as_of: datetime) -> str:
    """Train when no version may score the last session and there is history enough; says in words what was done.

    A version of another view than the settings name, or of another definition of it, may not score.
    """
    tonight = calendar.last_known_session(as_of)
    now = settings.feature_view, definition_hash(settings.feature_view)
    champion = champion_for(warehouse, settings.horizon, calendar.close(tonight), as_of, *now)
    misfit = champion and champion.misfit(*now)
    if champion is not None and misfit is None:
        return f"champion is version {champion.model_version}, trained until {champion.trained_until} UTC"
    because = f"; {misfit}" if misfit else ""
    needed = settings.train_min_sessions + settings.horizon + TrainingSetup.n_folds
    known = warehouse.read(
        f"""
        select count(distinct session) as sessions from feature_store.labels as row semi join {SCOPE_THEN}
        where horizon = $horizon and known_at < $close
        """,
        {"horizon": settings.horizon, "close": calendar.close(tonight), "as_of": as_of},
    )["sessions"].item()
    if known < needed:
        return f"no model yet: {known} sessions have known outcomes of symbols in scope, training needs {needed}{because}"
    try:
        train_in_own_process(as_of)
    except TrainingFailed as error:
        return f"no model: {error}{because}"
    champion = champion_for(warehouse, settings.horizon, calendar.close(tonight), as_of, *now)
    if champion is None or champion.misfit(*now):
        return f"no model: the training ended well, but promoted no version that may score {tonight} as of {as_of} UTC{because}"
    return f"champion is version {champion.model_version}, trained now, until {champion.trained_until} UTC{because}"


def _refuse_foreign(warehouse: Warehouse, version: tracking.Version) -> None:
    """Stop before a champion's local copy is replaced by another model of the same number."""
    known = warehouse.read(
        "select fingerprint from signals.promotions where model = $model and model_version = $version and fingerprint <> $fingerprint limit 1",
        {"model": MODEL, "version": version.version, "fingerprint": version.fingerprint},
    )["fingerprint"]
    if len(known):
        raise QuantAssetsError(
            f"The registry numbered this training {version.version} (fingerprint {version.fingerprint[:12]}…), but signals.promotions knows "
            f"version {version.version} as another training ({known[0][:12]}…): it is not the registry that the promoted versions are in. "
            "Point QUANT_MLFLOW_TRACKING_URI back to that one, or choose a new QUANT_HOME."
        )


def _keep(
    warehouse: Warehouse,
    result: TrainingResult,
    contract: FeatureContract,
    version: tracking.Version,
    model_sha256: str,
    as_of: datetime,
    run_id: str,
) -> None:
    """Walk-forward predictions and the promotion, in one transaction; a version promoted by then is not promoted again."""
    stamp = pl.lit(utc_now(), INSTANT)
    predictions = result.predictions.with_columns(
        model=pl.lit(MODEL), model_version=pl.lit(version.version), known_at=pl.lit(as_of, INSTANT), recorded_at=stamp
    ).select(PREDICTIONS.column_names)
    evidence = {name: result.evaluation.summary[name] for name in LOOKED_AT}
    promotion = pl.DataFrame(
        [
            {
                "model": MODEL,
                "model_version": version.version,
                "promoted_at": as_of,
                "trained_until": result.trained_until,
                "horizon": result.setup.horizon,
                "feature_view": contract.view,
                "definition_hash": result.setup.definition_hash,
                "fingerprint": result.fingerprint,
                "model_sha256": model_sha256,
                "mlflow_run_id": version.run_id,
                "evidence": json.dumps(evidence, sort_keys=True),
                "run_id": run_id,
                "recorded_at": utc_now(),
            }
        ],
        schema=PROMOTIONS.polars_schema,
    )
    with warehouse.transaction() as connection:
        known = query(connection, "select model, model_version from signals.promotions where promoted_at <= $as_of", {"as_of": as_of})
        if promotion.join(known, on=["model", "model_version"], how="anti").height:
            append_versions(connection, PREDICTIONS, predictions)
            append_ledger(connection, PROMOTIONS, promotion)
