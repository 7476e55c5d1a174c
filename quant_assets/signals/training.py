"""Training on a frame of features and known outcomes: walk-forward predictions beside their rivals, then the final model.

Nothing here reads a store: the same frame, set-up and code give the same result, byte for byte, and the same fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import polars as pl

from quant_assets.feature_store.contract import source_hash
from quant_assets.feature_store.fingerprints import fingerprint as fingerprint_of
from quant_assets.feature_store.labels import exceeds
from quant_assets.signals import splits, tuning
from quant_assets.signals.evaluation import Evaluation, evaluate
from quant_assets.signals.fitting import fit_signal_model
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.signal_model import SignalModel

LABEL_COLUMNS = ("forward_return", "up", "weight", "known_at")
BESIDE = ("sector", "regime", "oracle_score")
"""Columns that a frame may have: what scores are grouped by, and the oracle of a made market."""
CONTROL = "shuffled_up"
LIBRARIES = ("catboost", "lightgbm", "numpy", "optuna", "polars", "scikit-learn", "scipy", "xgboost-cpu")


@dataclass(frozen=True)
class TrainingSetup:
    """What a training is, apart from its frame and code; all of it is part of the fingerprint.

    `horizon` (sessions) and `label_threshold` (fraction) are the label's; the walk-forward purges `horizon` sessions and
    `embargo` more. The first fold trains on at least `train_min_sessions`, and so do all where the window is not
    `expanding`; the last `test_sessions` are tested on, or with 0 all that the first training leaves. With `tuning_trials`
    the configuration is what a study chose within the first fold's training sessions, which lie before every test.
    """

    features: tuple[str, ...]
    horizon: int
    definition_hash: str
    config: ModelConfig = field(default_factory=ModelConfig)
    seed: int = 7
    n_folds: int = 5
    train_min_sessions: int = 252
    embargo: int = 0
    expanding: bool = True
    test_sessions: int = 0
    label_threshold: float = 0.0
    tuning_trials: int = 0
    fee_bps: float = 5.0


@dataclass(frozen=True)
class TrainingResult:
    """A trained model and its evidence.

    `predictions`: one row per out-of-sample symbol and session, as `evaluation` takes them, sorted by session and symbol.
    `folds`: one row per fold, its sessions, sizes, `trained_until` and scores. `fold_models` are in their order.
    `trained_until`, `rows`, `symbols` and the sessions (of the result) are the final model's: it used nothing known after
    that instant. `trials`: what the study tried.
    """

    setup: TrainingSetup
    fingerprint: str
    model: SignalModel
    config: ModelConfig
    fold_models: tuple[SignalModel, ...]
    trained_until: datetime
    predictions: pl.DataFrame
    folds: pl.DataFrame
    evaluation: Evaluation
    trials: pl.DataFrame
    rows: int
    symbols: int
    first_session: date
    last_session: date


def train(frame: pl.DataFrame, setup: TrainingSetup) -> TrainingResult:
    """Train on a frame whose labels are all known: walk-forward predictions, scores beside rivals, the final model.

    `frame` has one row per symbol and session, in any order: `symbol`, `session`, the features (nulls allowed) and what the
    heuristic reads, where the view has it, `forward_return`, `up`, `weight` (of the label) and the label's `known_at`;
    perhaps some of `BESIDE`. Its sessions are what the splitter counts. A fold trains on labels known when the last of its
    training sessions' labels became known, so that a label restated later stays out of it; the final model on all of them, or
    on as many of the last sessions as a fold where the window rolls. The control is the same model
    on labels shuffled over all rows, before any fold is cut. Raises `TooFewSessions` for a short history and `ValueError`
    for a label that is not known or a repeated row.
    """
    ordered = _ordered(frame, setup)
    shuffled = ordered.with_columns(pl.Series(CONTROL, ordered["up"].sample(fraction=1, shuffle=True, seed=setup.seed)))
    sessions = ordered["session"].unique().sort().to_list()
    folds = walk(sessions, setup)
    config, trials = setup.config, tuning.NO_TRIALS
    if setup.tuning_trials:
        before_tests = _known(ordered, folds[0])
        config, trials = tuning.tune(
            before_tests, setup.features, setup.config, setup.seed, setup.horizon, setup.tuning_trials, setup.embargo
        )
    rows, models, scored = zip(*(_walked(shuffled, fold, setup, config) for fold in folds), strict=True)
    out_of_sample = pl.concat(scored)
    final = ordered if setup.expanding else ordered.filter(pl.col("session") >= sessions[-setup.train_min_sessions])
    judged = evaluate(out_of_sample, setup.horizon, fee_bps=setup.fee_bps, seed=setup.seed)
    table = pl.DataFrame(list(rows), schema_overrides={"fold": pl.Int32, "trained_until": pl.Datetime("us")})
    return TrainingResult(
        setup=setup,
        fingerprint=fingerprint(frame, setup),
        model=fit_signal_model(final, setup.features, config, setup.seed, setup.horizon, embargo=setup.embargo),
        config=config,
        fold_models=models,
        trained_until=final["known_at"].max(),  # type: ignore[arg-type]
        predictions=out_of_sample,
        folds=table.join(judged.folds, on="fold", how="left", maintain_order="left"),
        evaluation=judged,
        trials=trials,
        rows=len(final),
        symbols=final["symbol"].n_unique(),
        first_session=final["session"][0],
        last_session=sessions[-1],
    )


def _walked(
    ordered: pl.DataFrame, fold: splits.Fold, setup: TrainingSetup, config: ModelConfig
) -> tuple[dict[str, object], SignalModel, pl.DataFrame]:
    """One fold: its row of the table, its model, and what the model and its rivals say of its test."""
    known = _known(ordered, fold)
    test = ordered.filter(pl.col("session").is_between(fold.test_sessions[0], fold.test_sessions[-1]))
    model = fit_signal_model(known, setup.features, config, setup.seed, setup.horizon, embargo=setup.embargo)
    # One fit, for there is nothing to calibrate in labels that mean nothing.
    alike = replace(config, early_stopping_rounds=0, calibration="none")
    control = fit_signal_model(known, setup.features, alike, setup.seed, setup.horizon, CONTROL)
    row = {
        "fold": fold.number, "train_from": fold.train_sessions[0], "train_to": fold.train_sessions[-1],
        "test_from": fold.test_sessions[0], "test_to": fold.test_sessions[-1], "train_rows": len(known),
        "train_up_share": known["up"].mean(), "trained_until": known["known_at"].max(),
    }  # fmt: skip
    beside = [name for name in BESIDE if name in test.columns]
    said = test.select("symbol", "session", "forward_return", "up", *beside).with_columns(
        model.predict(test),
        model.uncalibrated(test),
        control.predict(test).alias("control_probability"),
        _heuristic(known, test),
        _previous_up(test, setup),
        pl.lit(fold.number, pl.Int32).alias("fold"),
        pl.lit(row["train_up_share"], pl.Float64).alias("train_up_share"),
        pl.lit(row["trained_until"], pl.Datetime("us")).alias("trained_until"),
        pl.lit(setup.horizon, pl.Int32).alias("horizon"),
    )
    return row, model, said


def walk(sessions: Sequence[date], setup: TrainingSetup) -> list[splits.Fold]:
    """The folds of a set-up over a history's sessions. Raises `TooFewSessions`."""
    return splits.walk_forward(
        sessions,
        n_folds=setup.n_folds,
        train_min_sessions=setup.train_min_sessions,
        purge=setup.horizon,
        embargo=setup.embargo,
        expanding=setup.expanding,
        test_sessions=max(1, setup.test_sessions // setup.n_folds) if setup.test_sessions else None,
    )


def fingerprint(frame: pl.DataFrame, setup: TrainingSetup) -> str:
    """Hash (hexadecimal sha256) of everything that decides a training: frame, set-up, code, the libraries' versions.

    Independent of the order of rows and columns, and of how many threads work.
    """
    parts = {
        "frame": fingerprint_of(_ordered(frame, setup)),
        "setup": asdict(replace(setup, config=replace(setup.config, threads=1))),
        "code": _code(),
        "libraries": {name: version(name) for name in LIBRARIES if name != "xgboost-cpu" or setup.config.family == "xgboost"},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    """Hash of all that computes a training."""
    here = Path(__file__).parent
    alone = [here / name for name in ("splits.py", "fitting.py", "calibration.py", "signal_model.py", "heuristic.py", "tuning.py")]
    rooms = [*(here / "models").glob("*.py"), *(here / "evaluation").glob("*.py")]
    return source_hash(*(str(file) for file in sorted([*alone, *rooms, Path(__file__)])))


def _known(ordered: pl.DataFrame, fold: splits.Fold) -> pl.DataFrame:
    """The training rows of a fold whose outcome was known before any of a later session's."""
    purged = ordered.filter(pl.col("session") > fold.train_sessions[-1])["known_at"].min()
    within = pl.col("session").is_between(fold.train_sessions[0], fold.train_sessions[-1])
    return ordered.filter(within, pl.col("known_at") < purged)


def _heuristic(known: pl.DataFrame, test: pl.DataFrame) -> pl.Series:
    """What the heuristic, calibrated on the fold's training rows, says of its test; null where a view lacks what it reads."""
    if any(name not in test.columns for name in Heuristic.reads):
        return pl.Series("heuristic_probability", [None] * len(test), dtype=pl.Float64)
    return Heuristic.calibrated(known).predict(test).rename("heuristic_probability")


def _previous_up(test: pl.DataFrame, setup: TrainingSetup) -> pl.Series:
    """Whether the return over the sessions before was above the threshold: the guess that things go on."""
    past = f"price_change_{setup.horizon}d"
    known = exceeds(setup.label_threshold, past) if past in test.columns else pl.repeat(None, pl.len(), dtype=pl.Boolean)
    return test.select(known.alias("previous_up")).to_series()


def _ordered(frame: pl.DataFrame, setup: TrainingSetup) -> pl.DataFrame:
    """The columns a training reads, one row per symbol and session, sorted; what cannot be trained on is refused."""
    rivals = (*Heuristic.reads, f"price_change_{setup.horizon}d")
    numbers = list(dict.fromkeys([*setup.features, *(name for name in rivals if name in frame.columns)]))
    beside = [name for name in BESIDE if name in frame.columns]
    ordered = frame.select("symbol", "session", *numbers, *beside, *LABEL_COLUMNS).sort("session", "symbol")
    for name in LABEL_COLUMNS:
        if nulls := ordered[name].null_count():
            raise ValueError(f"{name} is null in {nulls} of {len(ordered)} rows; train on rows whose outcome is known.")
    if repeated := len(ordered) - ordered.select(pl.struct("symbol", "session").n_unique()).item():
        raise ValueError(f"{repeated} of {len(ordered)} rows repeat a symbol and session; train on one row each.")
    return ordered.with_columns(pl.col(name).cast(pl.Float64).fill_nan(None) for name in numbers)
