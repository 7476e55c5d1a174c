"""Small finished trainings for the tests of what comes after one: a fitted model, and scores whose numbers are chosen."""

from __future__ import annotations

import atexit
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import duckdb
import polars as pl

from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.views import definition_hash, features_of
from quant_assets.schemas import PROMOTIONS
from quant_assets.settings import Settings, load_settings
from quant_assets.signals.calibration import Calibration
from quant_assets.signals.champions import MODEL, PROMOTED
from quant_assets.signals.evaluation import Evaluation
from quant_assets.signals.models import estimator
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.registry.desk import ModelDesk
from quant_assets.signals.registry.local_copies import model_card_path, save_local_copy
from quant_assets.signals.registry.mlflow_store import initialise
from quant_assets.signals.registry.tracking import MODEL_CARD, Registry, metrics_of
from quant_assets.signals.signal_model import SignalModel
from quant_assets.signals.training import TrainingResult, TrainingSetup
from quant_assets.signals.tuning import NO_TRIALS
from quant_assets.warehouse import Warehouse, append_ledger
from quant_assets_tests.signals.worlds import FEATURES, world

VIEW = "technical_v1"
CONTRACT = FeatureContract.of(VIEW, definition_hash(VIEW), [feature for feature in features_of(VIEW) if feature.scale_free][:4])
"""Over the first four features of the view as it is defined now; a contract is checked against those it names."""
NAMES = CONTRACT.names
FRAME = world(21, rank_ic=0.2, symbols=10, sessions=120).rename(dict(zip(FEATURES, NAMES, strict=True))).with_columns(weight=pl.lit(1.0))
TRAINED_UNTIL = datetime(2020, 4, 30, 21, 30)
FIRST_DECISION = datetime(2020, 5, 1, 22)
SCORES = ("group", "member", "predictor", "metric", "value", "low", "high", "rows", "sessions")


def trained(
    fingerprint: str = "f" * 64,
    *,
    folds: int = 2,
    rank_ic: float = 0.125,
    horizon: int = 1,
    label_threshold: float = 0.0,
    config: ModelConfig | None = None,
    contract: FeatureContract = CONTRACT,
) -> TrainingResult:
    """A training of that name: its model is fitted, its folds and scores are made up."""
    config = config or ModelConfig(rounds=5, threads=1)
    setup = TrainingSetup(contract.names, horizon, contract.definition_hash, config, label_threshold=label_threshold)
    model = SignalModel(estimator.fit(FRAME, setup.features, "up", config, 7), Calibration("none"), centred=True)
    table = pl.DataFrame(
        {
            "fold": pl.Series(range(folds), dtype=pl.Int32),
            "train_from": [date(2020, 1, 1)] * folds,
            "train_to": [date(2020, 3, 1 + fold) for fold in range(folds)],
            "test_from": [date(2020, 3, 10)] * folds,
            "test_to": [date(2020, 4, 1)] * folds,
            "trained_until": [datetime(2020, 3, 2, 21, 30)] * folds,
            "train_rows": [600] * folds,
            "rank_ic": [0.5 * fold for fold in range(folds)],
            "log_loss": pl.Series([None, *[0.69] * (folds - 1)], dtype=pl.Float64),
        }
    )
    scores = [
        ("all", "", "model", "rank_ic", rank_ic, 0.05, 0.2, 500, 50),
        ("all", "", "model", "log_loss", 0.6875, 0.68, None, 500, 50),
        ("all", "", "heuristic", "rank_ic", 0.01, -0.1, 0.1, 500, 50),
        ("year", "2020", "model", "rank_ic", 0.3, 0.2, 0.4, 500, 50),
    ]
    judged = Evaluation(
        scores=pl.DataFrame(scores, schema=list(SCORES), orient="row"),
        sessions=pl.DataFrame(schema={"session": pl.Date}),
        calibration=pl.DataFrame({"stage": ["raw"], "bin": [0], "rows": [500], "probability": [0.5], "up_share": [0.5]}),
        folds=table.select("fold", "rank_ic", "log_loss"),
        summary={"rank_ic": rank_ic, "log_loss": 0.6875, "base_rate_log_loss": 0.693, "auc": None, "rank_ic_t": float("nan"), "rows": 500},
    )
    days = FRAME["session"]
    return TrainingResult(
        setup=setup, fingerprint=fingerprint, model=model, config=config, fold_models=(), trained_until=TRAINED_UNTIL,
        predictions=pl.DataFrame(), folds=table, evaluation=judged, trials=NO_TRIALS, rows=len(FRAME), symbols=10,
        first_session=days[0], last_session=days[-1],
    )  # fmt: skip


@cache
def mlflow_store() -> bytes:
    """A fresh sqlite store of MLflow, whose making takes seconds."""
    with TemporaryDirectory() as folder:
        initialise(f"sqlite:///{folder}/mlflow.db", Path(folder))
        return (Path(folder) / "mlflow.db").read_bytes()


def settings_of(home: Path, **settings: object) -> Settings:
    """Settings of a HOME with a fresh store of MLflow, unless it has one."""
    path = home / "mlflow" / "mlflow.db"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mlflow_store())
    return load_settings(home=home, source="files", files_path="vendor", mlflow_tracking_uri="", **settings)


def decide(
    settings: Settings,
    version: str,
    promoted_at: datetime,
    decision: str = PROMOTED,
    result: TrainingResult | None = None,
    sha256: str = "",
) -> None:
    """Write what the rule decided about a version into the ledger."""
    result = result or trained()
    row = {
        "model": MODEL, "model_version": version, "promoted_at": promoted_at, "decision": decision, "decided_by": "the rule",
        "reason": "a gain in both", "incumbent_version": None, "trained_until": result.trained_until, "horizon": result.setup.horizon,
        "label_threshold": result.setup.label_threshold, "feature_view": VIEW, "definition_hash": result.setup.definition_hash,
        "fingerprint": result.fingerprint, "model_sha256": sha256, "mlflow_run_id": f"run-{version}", "run_id": "training",
        "evidence": json.dumps(metrics_of(result.evaluation)), "recorded_at": promoted_at,
    }  # fmt: skip
    with Warehouse(settings.warehouse_path, "files").transaction() as connection:
        append_ledger(connection, PROMOTIONS, pl.DataFrame([row], schema=PROMOTIONS.polars_schema))


@cache
def shelf() -> Path:
    """A HOME with three versions, registered, promoted one day after another, with their copies and cards; copied, not changed."""
    home = Path(mkdtemp())
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    settings = settings_of(home)
    registry = Registry.open(settings)
    for number in (1, 2, 3):
        result = trained(str(number) * 64, rank_ic=0.125 * number)
        version = registry.log_training(result, CONTRACT, "training", "signals/model", artifacts={MODEL_CARD: f"# Version {number}"})
        sha256 = save_local_copy(settings.models_path, version.version, result.model, CONTRACT)
        model_card_path(settings.models_path, version.version).write_text(f"# Version {number}, here")
        decide(settings, version.version, FIRST_DECISION + timedelta(days=number), result=result, sha256=sha256)
        registry.set_decision(version.version, PROMOTED, {"reason": "a gain in both"})
    return home


@contextmanager
def desk(home: Path, **settings: object) -> Iterator[ModelDesk]:
    """A copy of the shelf in a HOME of one's own, its database held open by this process, which is ten times as fast."""
    shutil.copytree(shelf(), home, dirs_exist_ok=True)
    told = settings_of(home, **settings)
    with duckdb.connect(told.warehouse_path):
        yield ModelDesk.open(Warehouse(told.warehouse_path, "files", lock_timeout_seconds=10), told)
