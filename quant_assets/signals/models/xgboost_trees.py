"""XGBoost, an extra: depth-wise trees, contributions by its TreeSHAP (`pred_contribs`).

XGBoost works in float32 throughout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl

from quant_assets.errors import ConfigurationError
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.fitted import Fitted, importance_frame, unreadable
from quant_assets.signals.models.samples import Matrix, Samples, Vector, single_precision

HESSIAN = 0.25  # of one row's log loss at even odds


class XgboostTrees(Fitted):
    """XGBoost's trees; an unknown value goes each split's default way."""

    family = "xgboost"

    @cached_property
    def native(self) -> Any:
        """XGBoost's own object."""
        model = _library().Booster(params={"nthread": self.threads})
        model.load_model(bytearray(json.dumps(json.loads(self.body)["model"]), "utf-8"))
        return model

    @cached_property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (total loss saved), `splits` (count)."""
        gain, splits = (self.native.get_score(importance_type=kind) for kind in ("total_gain", "weight"))
        names = [f"f{place}" for place in range(len(self.features))]
        return importance_frame(self.features, [gain.get(name, 0.0) for name in names], [int(splits.get(name, 0)) for name in names])

    def _log_odds(self, values: Matrix) -> Vector:
        return np.asarray(self.native.predict(self._rows(values), output_margin=True), dtype=np.float64)

    def _contributions(self, values: Matrix) -> Matrix:
        rows = self._rows(values)
        parts = np.asarray(self.native.predict(rows, pred_contribs=True), dtype=np.float64)
        log_odds = np.asarray(self.native.predict(rows, output_margin=True), dtype=np.float64)
        parts[:, -1] = log_odds - parts[:, :-1].sum(axis=1)  # what float32 rounds away, some 1e-7, stays in the base
        return parts

    def _rows(self, values: Matrix) -> Any:
        return _library().DMatrix(single_precision(values), nthread=self.threads)


def parameters(config: ModelConfig, rows: int, seed: int) -> dict[str, Any]:
    """XGBoost's parameters for that many rows; a leaf's least hessian is that of its least rows at even odds."""
    return {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "max_depth": config.depth,
        "learning_rate": config.learning_rate,
        "min_child_weight": HESSIAN * config.smallest_leaf(rows),
        "colsample_bytree": config.feature_fraction,
        "subsample": config.drawn(rows),
        "reg_lambda": config.l2,
        "max_bin": config.max_bin,
        "nthread": config.threads,
        "seed": seed,
        "verbosity": 0,
    }


def fit(train: Samples, validation: Samples | None, features: Sequence[str], config: ModelConfig, seed: int) -> XgboostTrees:
    """Fit on the training rows; with a validation, keep the rounds up to its least log loss."""
    xgboost = _library()
    data, *watched = [
        xgboost.DMatrix(single_precision(rows.values), rows.up, weight=rows.weight, nthread=config.threads)
        for rows in (train, validation)
        if rows is not None
    ]
    start = float(np.average(train.up, weights=train.weight))  # versions differ in how they would estimate it
    model = xgboost.train(
        parameters(config, len(train.up), seed) | {"base_score": start},
        data,
        config.rounds,
        evals=[(rows, "validation") for rows in watched],
        early_stopping_rounds=config.early_stopping_rounds if watched else None,
        verbose_eval=False,
    )
    if watched:
        kept = model.best_iteration + 1
        model = model[:kept]
        model.set_attr(best_iteration=None, best_score=None)
    written = json.loads(bytes(model.save_raw("json")))
    return from_body(json.dumps({"features": list(features), "model": written}, sort_keys=True, separators=(",", ":")), config.threads)


def from_body(body: str, threads: int) -> XgboostTrees:
    """Read the features and XGBoost's JSON of its trees."""
    xgboost = _library()
    try:
        parts = json.loads(body)
        trees = parts["model"]["learner"]["gradient_booster"]["model"]["trees"]
        model = XgboostTrees(tuple(parts["features"]), len(trees), body, threads)
        read = model.native.num_boosted_rounds(), model.native.num_features()
    except (xgboost.core.XGBoostError, ValueError, KeyError, TypeError) as error:
        raise unreadable("xgboost", error) from None
    if read != (model.rounds, len(model.features)):
        raise unreadable("xgboost", ValueError(f"{read[0]} trees on {read[1]} features"))
    return model


def _library() -> Any:
    if find_spec("xgboost") is None:
        raise ConfigurationError("The model family xgboost needs the library xgboost, an extra: pip install 'quant-assets[xgboost]'.")
    return import_module("xgboost")
