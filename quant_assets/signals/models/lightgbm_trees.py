"""LightGBM: leaf-wise trees, contributions by its TreeSHAP (`pred_contrib`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.fitted import Fitted, importance_frame, unreadable
from quant_assets.signals.models.samples import Matrix, Samples, Vector

if TYPE_CHECKING:
    import lightgbm


class LightgbmTrees(Fitted):
    """LightGBM's trees; a null goes each split's default way."""

    family = "lightgbm"

    @cached_property
    def native(self) -> lightgbm.Booster:
        """LightGBM's own object."""
        import lightgbm

        return lightgbm.Booster(model_str=self.body)

    @cached_property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (total loss saved), `splits` (count)."""
        gain, splits = (self.native.feature_importance(kind) for kind in ("gain", "split"))
        return importance_frame(self.features, gain, splits)

    def _log_odds(self, values: Matrix) -> Vector:
        return np.asarray(self.native.predict(values, raw_score=True, num_threads=self.threads))

    def _contributions(self, values: Matrix) -> Matrix:
        return np.asarray(self.native.predict(values, pred_contrib=True, num_threads=self.threads))


def parameters(config: ModelConfig, rows: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters for that many rows; everything that could make two runs differ is fixed."""
    return {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": config.leaves,
        "learning_rate": config.learning_rate,
        "min_data_in_leaf": config.smallest_leaf(rows),
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.drawn(rows),
        "bagging_freq": 1,
        "lambda_l2": config.l2,
        "max_bin": config.max_bin,
        "bin_construct_sample_cnt": 50_000,  # places 63 borders as well as four times as many, in half the time
        "num_threads": config.threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def fit(train: Samples, validation: Samples | None, features: Sequence[str], config: ModelConfig, seed: int) -> LightgbmTrees:
    """Fit on the training rows; with a validation, keep the rounds up to its least log loss."""
    import lightgbm

    settings = parameters(config, len(train.up), seed)
    data = lightgbm.Dataset(train.values, train.up, weight=train.weight, feature_name=list(features), params=settings)
    watched, callbacks = [], []
    if validation is not None:
        watched = [lightgbm.Dataset(validation.values, validation.up, weight=validation.weight, reference=data, params=settings)]
        callbacks = [lightgbm.early_stopping(config.early_stopping_rounds, verbose=False)]
    trained = lightgbm.train(settings, data, num_boost_round=config.rounds, valid_sets=watched, callbacks=callbacks)
    text = trained.model_to_string(num_iteration=trained.best_iteration if validation is not None else -1)
    # how many threads fitted it is no part of what was learnt
    return from_body(re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text), config.threads)


def from_body(body: str, threads: int) -> LightgbmTrees:
    """Read LightGBM's text of its trees."""
    import lightgbm

    try:
        native = lightgbm.Booster(model_str=body)
    except (lightgbm.basic.LightGBMError, ValueError, IndexError) as error:
        raise unreadable("lightgbm", error) from None
    return LightgbmTrees(tuple(native.feature_name()), native.num_trees(), body, threads)
