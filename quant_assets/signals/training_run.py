"""One training from the warehouse to the registry: frame, fit, explain, decide, log, register, keep a verified copy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.inputs import SCOPE_THEN
from quant_assets.feature_store.training_sets import TrainingSet, training_set
from quant_assets.feature_store.views import definition_hash, features_of
from quant_assets.schemas import INSTANT, PREDICTIONS, PROMOTIONS
from quant_assets.settings import Settings
from quant_assets.signals.champions import MODEL, PROMOTED, REJECTED, champion_for, champion_in_use
from quant_assets.signals.evaluation.leaks import leak_report
from quant_assets.signals.explaining.evidence import CARD, card_of, explain, files_of
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.incumbents import incumbent_predictions
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.promotion import Decision, decide
from quant_assets.signals.registry import tracking
from quant_assets.signals.registry.local_copies import model_card_path, save_local_copy, save_model_card
from quant_assets.signals.retraining import TrainingFailed, train_in_own_process
from quant_assets.signals.sectors import with_sectors
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
RULE = "the promotion rule"


@dataclass(frozen=True)
class Trained:
    """What one training came to; `registered_before` when the registry had it already."""

    model_version: str
    registered_before: bool
    mlflow_url: str
    result: TrainingResult
    decision: str
    reason: str
    leaks: tuple[str, ...]
    card: str
    files: dict[str, bytes | str]


def train_and_register(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    settings: Settings,
    as_of: datetime,
    run_id: str,
    asset_key: str,
    symbols: Sequence[str] | None = None,
) -> Trained:
    """Train on what was known before the close of the last session as of an instant, so that the model may score it; then decide.

    `symbols` are those to train on, or None for the universe. The same data, settings and code return the registered version
    and the decision that was made about it, and write nothing. Raises `TooFewSessions`, `FeaturesUnavailable`, and
    `QuantAssetsError` when the registry gives a number that the ledger knows as another training's.
    """
    tonight = calendar.last_known_session(as_of)
    last = calendar.last_known_session(calendar.close(tonight) - timedelta(microseconds=1))
    floor = settings.first_session_floor
    first = max(floor, calendar.sessions_before(last, settings.look_back_sessions)) if settings.look_back_sessions else floor
    known = training_set(
        warehouse,
        calendar,
        settings.feature_view,
        symbols,
        (first, last),
        settings.horizon,
        calendar.known_at(last),
        settings.label_threshold,
    )
    frame = _beside(warehouse, settings, known.frame)
    setup = setup_of(settings, known)
    offered = [each for each in features_of(known.view) if each.name in setup.features]
    contract = FeatureContract.of(known.view, known.definition_hash, offered)
    registry = tracking.Registry.open(settings)
    result = train(frame, setup)
    leaks = tuple(leak_report(result.evaluation.sessions, setup.horizon))
    decision = _decision(warehouse, calendar, settings, as_of, result, frame, leaks)
    evidence = explain(result, frame)
    told = result, evidence, contract, known, settings.source, _basis(warehouse, settings.source), decision, leaks
    files = files_of(result, evidence, contract)
    found = registry.find_version(result.fingerprint)
    version = found or registry.log_training(result, contract, run_id, asset_key, artifacts=files)
    _refuse_foreign(warehouse, version)
    model_sha256 = save_local_copy(settings.models_path, version.version, result.model, contract)
    made, reason, anew = _keep(warehouse, result, contract, version, model_sha256, decision, as_of, run_id)
    path = model_card_path(settings.models_path, version.version)
    if anew or not path.exists():
        card = card_of(*told, version.version)
        registry.keep_files(version.run_id, {CARD: card})
        registry.set_decision(version.version, made, {"reason": reason, **decision.evidence})
        in_use = champion_in_use(warehouse, settings.horizon, known.view, known.definition_hash, settings.label_threshold)
        registry.sync_champion(in_use.model_version if in_use else None)
        save_model_card(path, card)  # last: after a crash before it, all of this is done again
    card = path.read_text(encoding="utf-8")
    return Trained(version.version, found is not None, version.url, result, made, reason, leaks, card, files)


def setup_of(settings: Settings, known: TrainingSet) -> TrainingSetup:
    """The training that the settings ask for on a training set; `small` is a logistic regression on the heuristic's features."""
    columns = model_columns(known.view)
    small = settings.model_family == "small"
    return TrainingSetup(
        features=tuple(name for name in columns if name in Heuristic.features) if small else tuple(columns),
        horizon=known.horizon,
        label_threshold=settings.label_threshold,
        definition_hash=known.definition_hash,
        config=ModelConfig(
            family="logistic" if small else settings.model_family,
            rounds=settings.model_rounds,
            early_stopping_rounds=settings.early_stopping_rounds,
            balanced=settings.balanced_classes,
            calibration=settings.calibration,
            threads=settings.model_threads,
        ),
        seed=settings.model_seed,
        train_min_sessions=settings.train_min_sessions,
        embargo=settings.embargo_sessions,
        expanding=settings.train_window == "expanding",
        test_sessions=settings.test_sessions,
        tuning_trials=settings.tuning_trials,
        fee_bps=settings.fee_bps,
    )


@dataclass(frozen=True)
class Ensured:
    """What became of the night's look for a champion, in words; `failed` where a training was due and did not do."""

    text: str
    failed: bool = False


def ensure_champion(warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, as_of: datetime) -> Ensured:
    """Train when no version may score the last session and there is history enough; says in words what was done.

    A version of another view than the settings name, or of another definition of it, may not score. Where a training of
    the same label and definition was turned down lately, none is started before the cool-down has passed.
    """
    if settings.scorer == "heuristic":
        return Ensured("the heuristic scores, as QUANT_SCORER says")
    tonight = calendar.last_known_session(as_of)
    now = settings.feature_view, definition_hash(settings.feature_view), settings.label_threshold
    champion = champion_for(warehouse, settings.horizon, calendar.close(tonight), as_of, *now)
    misfit = champion and champion.misfit(*now[:2])
    if champion is not None and misfit is None:
        return Ensured(f"champion is version {champion.model_version}, trained until {champion.trained_until} UTC")
    because = f"; {misfit}" if misfit else ""
    since = calendar.known_at(calendar.sessions_before(tonight, settings.retrain_cooldown_sessions - 1))
    if (turned_down := _turned_down(warehouse, settings, since, as_of)) is not None:
        return Ensured(f"no model: {turned_down}; the next training is due {settings.retrain_cooldown_sessions} sessions after it{because}")
    needed = settings.train_min_sessions + settings.horizon + settings.embargo_sessions + TrainingSetup.n_folds
    known = warehouse.read(
        f"""
        select count(distinct session) as sessions from feature_store.labels as row semi join {SCOPE_THEN}
        where horizon = $horizon and known_at < $close
        """,
        {"horizon": settings.horizon, "close": calendar.close(tonight), "as_of": as_of},
    )["sessions"].item()
    if known < needed:
        return Ensured(f"no model yet: {known} sessions have known outcomes of symbols in scope, training needs {needed}{because}")
    try:
        train_in_own_process(as_of)
    except TrainingFailed as error:
        return Ensured(f"no model: {error}{because}", failed=True)
    champion = champion_for(warehouse, settings.horizon, calendar.close(tonight), as_of, *now)
    if champion is not None and champion.misfit(*now[:2]) is None:
        return Ensured(f"champion is version {champion.model_version}, trained now, until {champion.trained_until} UTC{because}")
    if (turned_down := _turned_down(warehouse, settings, since, as_of)) is not None:
        return Ensured(f"no model: {turned_down}{because}")
    return Ensured(
        f"no model: the training ended well, but decided on no version that may score {tonight} as of {as_of} UTC{because}", failed=True
    )


def _turned_down(warehouse: Warehouse, settings: Settings, since: datetime, as_of: datetime) -> str | None:
    """The last training of this label and definition that was turned down at or after an instant, in words."""
    found = warehouse.read(
        f"""
        select model_version, reason from signals.promotions
        where model = $model and horizon = $horizon and label_threshold = $label_threshold and feature_view = $view
            and definition_hash = $definition_hash and decision = '{REJECTED}' and promoted_at between $since and $as_of
        order by promoted_at desc, model_version::bigint desc limit 1
        """,
        {
            "model": MODEL,
            "horizon": settings.horizon,
            "label_threshold": settings.label_threshold,
            "view": settings.feature_view,
            "definition_hash": definition_hash(settings.feature_view),
            "since": since,
            "as_of": as_of,
        },
    )
    return f"version {found['model_version'][0]} was turned down: {found['reason'][0]}" if len(found) else None


def _beside(warehouse: Warehouse, settings: Settings, frame: pl.DataFrame) -> pl.DataFrame:
    """What scores are grouped by and held against: sectors where the desk knows them, the oracle of a made market."""
    if settings.source == "synthetic":
        oracle = warehouse.read("select symbol, session, oracle_score from market_data.synthetic_truth_signal")
        frame = frame.join(oracle, on=["symbol", "session"], how="left", maintain_order="left")
    return with_sectors(frame, settings.sectors_path)


def _basis(warehouse: Warehouse, source: str) -> str | None:
    """Whether the source's prices are raw, restated, or mixed; None where it has no bars."""
    found = warehouse.read("select distinct basis from market_data.daily_bars where source = $source", {"source": source})[
        "basis"
    ].to_list()
    return "mixed" if len(found) > 1 else next(iter(found), None)


def _decision(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    settings: Settings,
    as_of: datetime,
    result: TrainingResult,
    frame: pl.DataFrame,
    leaks: Sequence[str],
) -> Decision:
    now = settings.feature_view, result.setup.definition_hash, settings.label_threshold
    champion = champion_for(warehouse, settings.horizon, calendar.close(calendar.last_known_session(as_of)), as_of, *now)
    fits = champion is not None and champion.misfit(*now[:2]) is None
    incumbent = incumbent_predictions(warehouse, calendar, settings, champion, frame) if champion is not None and fits else None
    return decide(
        result.predictions,
        incumbent,
        settings.horizon,
        settings.promotion_confidence,
        champion.model_version if champion is not None and fits else None,
        leaks,
    )


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
    decision: Decision,
    as_of: datetime,
    run_id: str,
) -> tuple[str, str, bool]:
    """Walk-forward predictions and the decision, in one transaction; returns the decision, its reason and whether it is new.

    A version is decided upon once: what was decided by the instant stands.
    """
    stamp = pl.lit(utc_now(), INSTANT)
    predictions = result.predictions.with_columns(
        model=pl.lit(MODEL), model_version=pl.lit(version.version), known_at=pl.lit(as_of, INSTANT), recorded_at=stamp
    ).select(PREDICTIONS.column_names)
    scores = {
        name: value
        for name, value in tracking.metrics_of(result.evaluation).items()
        if name.removesuffix("_low").removesuffix("_high") in LOOKED_AT
    }
    evidence = {name: result.evaluation.summary[name] for name in LOOKED_AT} | scores | {"family": result.config.family} | decision.evidence
    made = PROMOTED if decision.promoted else REJECTED
    row = pl.DataFrame(
        [
            {
                "model": MODEL,
                "model_version": version.version,
                "promoted_at": as_of,
                "decision": made,
                "decided_by": RULE,
                "reason": decision.reason,
                "incumbent_version": decision.incumbent,
                "trained_until": result.trained_until,
                "horizon": result.setup.horizon,
                "label_threshold": result.setup.label_threshold,
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
        before = query(
            connection,
            "select decision, reason from signals.promotions where model = $model and model_version = $version and promoted_at <= $as_of "
            "order by promoted_at desc limit 1",
            {"model": MODEL, "version": version.version, "as_of": as_of},
        )
        if len(before):
            return *before.row(0), False
        append_versions(connection, PREDICTIONS, predictions)
        append_ledger(connection, PROMOTIONS, row)
    return made, decision.reason, True
