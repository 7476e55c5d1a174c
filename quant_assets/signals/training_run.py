"""One training from the warehouse to the registry: frame, fit, explain, log, register, keep a verified copy, decide."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.training_sets import TrainingSet, training_set
from quant_assets.feature_store.views import definition_hash, features_of
from quant_assets.schemas import INSTANT, PREDICTIONS, PROMOTIONS
from quant_assets.settings import Settings
from quant_assets.signals.champions import AT_ONCE, MODEL, PROMOTED, REJECTED, champion_in_use
from quant_assets.signals.evaluation.leaks import leak_report
from quant_assets.signals.explaining.evidence import card_of, explain, files_of
from quant_assets.signals.fitting import telling_features
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.incumbents import incumbent, unseen_predictions
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.promotion import EVIDENCE, Decision, Verdict, decide
from quant_assets.signals.registry import tracking
from quant_assets.signals.registry.local_copies import model_card_path, save_local_copy, save_model_card
from quant_assets.signals.sectors import with_sectors
from quant_assets.signals.training import TrainingResult, TrainingSetup, train
from quant_assets.warehouse import Warehouse, append_ledger, append_versions, scalar

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
    """What one training came to; `registered_before` when the registry had it already, `note` where nights do not score with its label."""

    model_version: str
    registered_before: bool
    mlflow_url: str
    result: TrainingResult
    verdict: Verdict
    leaks: tuple[str, ...]
    card: str
    files: dict[str, bytes | str]
    note: str


def train_and_register(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    desk: Settings,
    as_of: datetime,
    run_id: str,
    asset_key: str,
    asked: Mapping[str, object] | None = None,
    symbols: Sequence[str] | None = None,
) -> Trained:
    """Train on what was known before the close of the last session as of an instant, so that the model may score it; then decide.

    `asked` are settings that this training takes otherwise than the `desk`, `symbols` those to train on, or None for the
    universe. The same data, settings and code return the registered version and the decision that was made about it, and
    write nothing. Raises `ConfigurationError`, `TooFewSessions`, `FeaturesUnavailable`, and `QuantAssetsError` when the registry
    gives a number that the ledger knows as another training's.
    """
    settings = desk.overridden(**(asked or {}))
    known = _known_before(warehouse, calendar, settings, as_of, symbols)
    frame = _beside(warehouse, settings, known.frame)
    setup = setup_of(settings, known.definition_hash)
    setup = replace(setup, features=telling_features(frame, setup.features))
    offered = [each for each in features_of(known.view) if each.name in setup.features]
    contract = FeatureContract.of(known.view, known.definition_hash, offered)
    registry = tracking.Registry.open(settings)
    result = train(frame, setup)
    leaks = tuple(leak_report(result.evaluation.sessions, setup.horizon))
    evidence = explain(result, frame)
    files = files_of(result, evidence, contract)
    found = registry.find_version(result.fingerprint)
    version = found or registry.log_training(result, contract, run_id, asset_key, artifacts=files)
    _refuse_foreign(warehouse, version)
    # What was registered before is kept as it was registered, for the ledger knows that file.
    kept = (result.model, contract) if found is None else registry.model(version.version)
    model_sha256 = save_local_copy(settings.models_path, version.version, *kept)
    verdict, anew = _decided(warehouse, version, as_of), False
    if verdict is None:
        decision = _decision(warehouse, calendar, settings, as_of, result, frame, leaks, symbols)
        verdict, anew = Verdict(PROMOTED if decision.promoted else REJECTED, decision.reason, decision.evidence), True
        _keep(warehouse, result, contract, version, model_sha256, verdict, decision.incumbent, as_of, run_id)
    path = model_card_path(settings.models_path, version.version)
    if anew or not path.exists():
        basis = _basis(warehouse, settings.source)
        card = card_of(result, evidence, contract, known.as_of, settings.source, basis, verdict, leaks, version.version)
        registry.keep_files(version.run_id, {tracking.MODEL_CARD: card})
        registry.set_decision(version.version, verdict.decision, {"reason": verdict.reason, **verdict.evidence})
        in_use = champion_in_use(warehouse, desk.horizon, desk.feature_view, definition_hash(desk.feature_view), desk.label_threshold)
        registry.sync_champion(in_use.model_version if in_use else None)
        save_model_card(path, card)  # last: after a crash before it, all of this is done again
    note = _other_label(settings, desk)
    card = path.read_text(encoding="utf-8")
    return Trained(version.version, found is not None, version.url, result, verdict, leaks, card, files, note)


def setup_of(settings: Settings, definition: str) -> TrainingSetup:
    """The training that the settings ask for, on their view as it is defined; `small` is a logistic regression on the heuristic's features."""
    columns = model_columns(settings.feature_view)
    small = settings.model_family == "small"
    return TrainingSetup(
        features=tuple(name for name in columns if name in Heuristic.features) if small else tuple(columns),
        horizon=settings.horizon,
        label_threshold=settings.label_threshold,
        definition_hash=definition,
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


def _known_before(
    warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, as_of: datetime, symbols: Sequence[str] | None
) -> TrainingSet:
    """The settings' training set as it was known before the close of the last session as of an instant."""
    tonight = calendar.last_known_session(as_of)
    last = calendar.last_known_session(calendar.close(tonight) - timedelta(microseconds=1))
    floor = settings.first_session_floor
    first = max(floor, calendar.sessions_before(last, settings.look_back_sessions - 1)) if settings.look_back_sessions else floor
    return training_set(
        warehouse,
        calendar,
        settings.feature_view,
        symbols,
        (first, last),
        settings.horizon,
        calendar.known_at(last),
        settings.label_threshold,
    )


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


def _other_label(settings: Settings, desk: Settings) -> str:
    """That nights score another label than this training's, in words; empty where they do not."""
    this, theirs = ((each.feature_view, each.horizon, each.label_threshold) for each in (settings, desk))
    if this == theirs:
        return ""
    return (
        f"this version is for the view {this[0]}, horizon {this[1]} and threshold {this[2]:g}; the nights score with {theirs[0]}, "
        f"{theirs[1]} and {theirs[2]:g}, as QUANT_FEATURE_VIEW, QUANT_HORIZON and QUANT_LABEL_THRESHOLD say"
    )


def _decision(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    settings: Settings,
    as_of: datetime,
    result: TrainingResult,
    frame: pl.DataFrame,
    leaks: Sequence[str],
    symbols: Sequence[str] | None,
) -> Decision:
    if symbols is not None:
        told = f"it was trained on {len(symbols)} chosen symbols, which is a study: promote it by hand if it shall score the universe"
        return Decision(False, told, None, 0, None, None, None, None)
    found = incumbent(warehouse, settings, result.setup.definition_hash, as_of)
    said = unseen_predictions(warehouse, calendar, *found, settings.horizon, frame) if found else None
    version = found[0].model_version if found else None
    return decide(result.predictions, said, settings.horizon, settings.promotion_confidence, version, leaks)


def _decided(warehouse: Warehouse, version: tracking.Version, as_of: datetime) -> Verdict | None:
    """What the rule decided about a version by an instant; None where it has not. A version is decided upon once."""
    found = warehouse.read(
        """
        select decision, reason, evidence from signals.promotions
        where model = $model and model_version = $version and promoted_at <= $until and decided_by = $rule order by promoted_at desc limit 1
        """,
        {"model": MODEL, "version": version.version, "until": as_of + AT_ONCE, "rule": RULE},
    )
    if found.is_empty():
        return None
    decision, reason, evidence = found.row(0)
    stored = json.loads(evidence)
    return Verdict(decision, reason, {name: stored[name] for name in EVIDENCE if name in stored})


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
    verdict: Verdict,
    incumbent_version: str | None,
    as_of: datetime,
    run_id: str,
) -> None:
    """Walk-forward predictions and the decision, in one transaction; the decision stands after those of the same instant."""
    stamp = pl.lit(utc_now(), INSTANT)
    predictions = result.predictions.with_columns(
        model=pl.lit(MODEL), model_version=pl.lit(version.version), known_at=pl.lit(as_of, INSTANT), recorded_at=stamp
    ).select(PREDICTIONS.column_names)
    scores = {
        name: value
        for name, value in tracking.metrics_of(result.evaluation).items()
        if name.removesuffix("_low").removesuffix("_high") in LOOKED_AT
    }
    evidence = dict.fromkeys(LOOKED_AT) | scores | {"family": result.config.family} | dict(verdict.evidence)
    with warehouse.transaction() as connection:
        before = scalar(
            connection,
            "select max(promoted_at) from signals.promotions where model = ? and promoted_at between ? and ?",
            [MODEL, as_of, as_of + AT_ONCE],
        )
        row = {
            "model": MODEL,
            "model_version": version.version,
            "promoted_at": as_of if before is None else before + timedelta(microseconds=1),
            "decision": verdict.decision,
            "decided_by": RULE,
            "reason": verdict.reason,
            "incumbent_version": incumbent_version,
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
        append_versions(connection, PREDICTIONS, predictions)
        append_ledger(connection, PROMOTIONS, pl.DataFrame([row], schema=PROMOTIONS.polars_schema))
