"""Hyperparameters by an Optuna study that sees a training's own sessions only.

The study walks forward within the sessions it is given and asks for the mean rank IC over its inner tests. Its first
trial is the configuration as it stands, so that a study never chooses worse by its own measure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from quant_assets.signals import splits
from quant_assets.signals.models import estimator
from quant_assets.signals.models.config import ModelConfig

if TYPE_CHECKING:
    import optuna

INNER_FOLDS = 3
_TRIAL = {"trial": pl.Int64, "rank_ic": pl.Float64, "parameters": pl.String}
NO_TRIALS = pl.DataFrame(schema=_TRIAL)
RANGES: dict[str, tuple[float, float, bool]] = {
    "rounds": (25, 400, True),
    "leaves": (2, 32, True),
    "learning_rate": (0.01, 0.2, True),
    "min_data_in_leaf": (20, 1000, True),
    "feature_fraction": (0.3, 1.0, False),
    "l2": (0.1, 1000.0, True),
}
"""What is tuned: lowest, highest, and whether on a logarithmic scale, stretched to the configuration as it stands; never more
rounds than it allows. Logistic regression has `l2` alone."""


def tune(
    frame: pl.DataFrame, features: Sequence[str], config: ModelConfig, seed: int, purge: int, trials: int, embargo: int = 0
) -> tuple[ModelConfig, pl.DataFrame]:
    """The best of some configurations on a training frame, and all that were tried (`trial`, `rank_ic`, `parameters` as JSON).

    `frame` as `fit_signal_model` takes it. The same frame and seed give the same trials. Raises `TooFewSessions`.
    """
    import optuna

    sessions = frame["session"].unique().sort().to_list()
    folds = splits.walk_forward(sessions, n_folds=INNER_FOLDS, train_min_sessions=len(sessions) // 2, purge=purge, embargo=embargo)
    names = [name for name in RANGES if config.family != "logistic" or name == "l2"]

    def objective(trial: optuna.Trial) -> float:
        suggested: dict[str, Any] = {name: _suggested(trial, name, config) for name in names}
        return _rank_ic(pl.concat(_tested(frame, fold, features, replace(config, **suggested), seed) for fold in folds))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({name: getattr(config, name) for name in names})
    study.optimize(objective, n_trials=trials)
    tried = pl.DataFrame([(each.number, each.value, json.dumps(each.params)) for each in study.trials], schema=_TRIAL, orient="row")
    return replace(config, **study.best_params), tried


def _suggested(trial: optuna.Trial, name: str, config: ModelConfig) -> float:
    low, high, logarithmic = RANGES[name]
    now = getattr(config, name)
    low, high = min(low, now), now if name == "rounds" else max(high, now)
    if isinstance(now, int):
        return trial.suggest_int(name, int(low), int(high), log=logarithmic)
    return trial.suggest_float(name, low, high, log=logarithmic)


def _tested(frame: pl.DataFrame, fold: splits.Fold, features: Sequence[str], config: ModelConfig, seed: int) -> pl.DataFrame:
    train = frame.filter(pl.col("session").is_between(fold.train_sessions[0], fold.train_sessions[-1]))
    test = frame.filter(pl.col("session").is_between(fold.test_sessions[0], fold.test_sessions[-1]))
    fitted = estimator.fit(train, features, "up", replace(config, early_stopping_rounds=0), seed, "weight")
    return test.select("session", "forward_return", fitted.log_odds(test).rename("score"))


def _rank_ic(scored: pl.DataFrame) -> float:
    """Mean rank correlation per session; 0 where nothing is told apart."""
    by_session = scored.group_by("session").agg(rank_ic=pl.corr("score", "forward_return", method="spearman")).sort("session")
    return by_session["rank_ic"].fill_nan(None).mean() or 0.0  # type: ignore[return-value]
