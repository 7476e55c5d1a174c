"""CatBoost: symmetric trees, contributions by its TreeSHAP (`ShapValues`).

CatBoost works on float32 features; `min_data_in_leaf` has no meaning for symmetric trees and is not used. It fits on one
thread whatever `threads` says, so that the same rows give the same trees; predictions use `threads`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.fitted import Fitted, importance_frame, unreadable
from quant_assets.signals.models.samples import Matrix, Samples, Vector, single_precision

MODEL_PARTS = ("features_info", "oblivious_trees", "scale_and_bias")  # the rest of its file is a guid, a clock and a log


class CatboostTrees(Fitted):
    """CatBoost's trees; an unknown value counts as the least."""

    family = "catboost"

    @cached_property
    def native(self) -> Any:
        """CatBoost's own object."""
        import catboost

        model = catboost.CatBoost()
        with TemporaryDirectory() as folder:  # it reads JSON from a file alone
            path = Path(folder) / "model.json"
            path.write_text(json.dumps(json.loads(self.body)["model"]))
            model.load_model(str(path), format="json")
        return model

    @cached_property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (mean change of a prediction, percent), `splits` (count)."""
        trees = json.loads(self.body)["model"]["oblivious_trees"]
        used = [split["float_feature_index"] for tree in trees for split in tree["splits"] or ()]
        gain = self.native.get_feature_importance(type="PredictionValuesChange", thread_count=self.threads)
        return importance_frame(self.features, gain, [used.count(place) for place in range(len(self.features))])

    def _log_odds(self, values: Matrix) -> Vector:
        return np.asarray(self.native.predict(single_precision(values), prediction_type="RawFormulaVal", thread_count=self.threads))

    def _contributions(self, values: Matrix) -> Matrix:
        import catboost

        pool = catboost.Pool(single_precision(values), thread_count=self.threads)
        return np.asarray(self.native.get_feature_importance(pool, type="ShapValues", thread_count=self.threads))


def parameters(config: ModelConfig, rows: int, seed: int) -> dict[str, Any]:
    """CatBoost's parameters for that many rows; everything that could make two runs differ is fixed, and nothing is written beside the model."""
    return {
        "loss_function": "Logloss",
        "iterations": config.rounds,
        "depth": config.depth,
        "learning_rate": config.learning_rate,
        "rsm": config.feature_fraction,  # drawn anew for each level of a tree
        "bootstrap_type": "Bernoulli",
        "subsample": config.drawn(rows),
        "l2_leaf_reg": config.l2,
        "border_count": config.max_bin - 1,
        "boost_from_average": True,
        "thread_count": 1,  # more give other trees, and now and then others than the time before
        "random_seed": seed,
        "allow_writing_files": False,
        "logging_level": "Silent",
    }


def fit(train: Samples, validation: Samples | None, features: Sequence[str], config: ModelConfig, seed: int) -> CatboostTrees:
    """Fit on the training rows; with a validation, keep the rounds up to its least log loss."""
    import catboost

    pools = [
        catboost.Pool(single_precision(rows.values), rows.up, weight=rows.weight, thread_count=1)
        for rows in (train, validation)
        if rows is not None
    ]
    stopping = {"od_type": "Iter", "od_wait": config.early_stopping_rounds, "use_best_model": True} if validation is not None else {}
    model = catboost.CatBoost(parameters(config, len(train.up), seed) | stopping)
    try:
        model.fit(pools[0], eval_set=pools[1] if len(pools) > 1 else None)
    except catboost.CatBoostError as error:
        raise QuantAssetsError(f"CatBoost cannot learn from these {len(train.up)} rows: {error}") from None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        written = json.loads(path.read_text())
    kept = {part: written[part] for part in MODEL_PARTS}
    return from_body(json.dumps({"features": list(features), "model": kept}, sort_keys=True, separators=(",", ":")), config.threads)


def from_body(body: str, threads: int) -> CatboostTrees:
    """Read the features and CatBoost's JSON of its trees."""
    import catboost

    try:
        parts = json.loads(body)
        model = CatboostTrees(tuple(parts["features"]), len(parts["model"]["oblivious_trees"]), body, threads)
        read = model.native.tree_count_, len(model.native.feature_names_)
    except (catboost.CatBoostError, ValueError, KeyError, TypeError) as error:
        raise unreadable("catboost", error) from None
    if read != (model.rounds, len(model.features)):  # it takes half a file for a small model, without a word
        raise unreadable("catboost", ValueError(f"{read[0]} trees on {read[1]} features"))
    return model
