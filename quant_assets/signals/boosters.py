"""Gradient-boosted trees behind a small interface: fit, predict, explain, and a text that is the whole model.

The defaults are small and regularised, since daily returns are nearly noise: few leaves, many rows in each, a slow
learning rate, no early stopping (which would need a purged inner split to be honest).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quant_assets.errors import ContractError, QuantAssetsError

if TYPE_CHECKING:
    import lightgbm

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class BoosterConfig:
    """Hyperparameters of one fit, in LightGBM's meaning; part of a training's fingerprint.

    `min_data_in_leaf` is lowered on small frames to a fiftieth of the rows, so that trees can still split.
    """

    rounds: int = 100
    leaves: int = 4
    learning_rate: float = 0.03
    min_data_in_leaf: int = 200
    feature_fraction: float = 0.8
    lambda_l2: float = 10.0
    max_bin: int = 63
    threads: int = 2

    def parameters(self, rows: int, seed: int) -> dict[str, Any]:
        """LightGBM's parameters for a frame of that many rows; everything that could make two runs differ is fixed."""
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": max(1, min(self.min_data_in_leaf, rows // 50)),
            "feature_fraction": self.feature_fraction,
            "lambda_l2": self.lambda_l2,
            "max_bin": self.max_bin,
            "num_threads": self.threads,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }


@dataclass(frozen=True)
class Booster:
    """A fitted model: its ordered features and LightGBM's text of its trees. Equal texts are equal models."""

    features: tuple[str, ...]
    text: str

    @classmethod
    def from_text(cls, text: str) -> Booster:
        """Read a model's text; raises `QuantAssetsError` where it is not one."""
        import lightgbm

        try:
            names = lightgbm.Booster(model_str=text).feature_name()
        except (lightgbm.basic.LightGBMError, ValueError, IndexError) as error:
            raise QuantAssetsError(f"This is no LightGBM model text ({error}); train the model again to write one.") from None
        return cls(tuple(names), text)

    @cached_property
    def native(self) -> lightgbm.Booster:
        """LightGBM's own object."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def predict(self, frame: pl.DataFrame) -> pl.Series:
        """Probability per row that the label is true, in the frame's order; a null feature goes its trees' default way.

        Raises `ContractError` where a feature is missing; other columns and their order do not matter.
        """
        values = self.native.predict(matrix(frame, self.features), num_threads=2) if len(frame) else []
        return pl.Series("probability", values, dtype=pl.Float64)

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What each feature adds to the log-odds, per row, exact for trees; `base` is the rest, never null.

        One column per feature and `base`; a row's sum is the logit of its probability.
        Source: Lundberg and others, From local explanations to global understanding with explainable AI for trees (2020).
        """
        columns = [*self.features, "base"]
        if frame.is_empty():
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64))
        values = self.native.predict(matrix(frame, self.features), pred_contrib=True, num_threads=2)
        return pl.from_numpy(np.asarray(values), schema=columns, orient="row")

    @cached_property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (total loss saved), `splits` (count)."""
        gain, splits = (self.native.feature_importance(kind) for kind in ("gain", "split"))
        return pl.DataFrame({"feature": self.features, "gain": gain, "splits": splits}).sort(["gain", "feature"], descending=[True, False])


def fit(frame: pl.DataFrame, features: Sequence[str], label: str, config: BoosterConfig, seed: int) -> Booster:
    """Fit one model on every row of a frame: the same rows in the same order give the same text, byte for byte.

    `features` are numeric, nulls allowed; `label` is a boolean column without nulls.
    """
    return fit_labels(frame, features, [label], config, seed)[0]


def fit_labels(frame: pl.DataFrame, features: Sequence[str], labels: Sequence[str], config: BoosterConfig, seed: int) -> list[Booster]:
    """Fit one model per label column on the same features, which are binned once; each equals what `fit` gives alone."""
    import lightgbm

    for label in labels:
        if nulls := frame[label].null_count():
            raise ValueError(f"Label {label} is null in {nulls} of {len(frame)} rows; train on rows whose outcome is known.")
    parameters = config.parameters(len(frame), seed)
    dataset = lightgbm.Dataset(matrix(frame, features), feature_name=list(features), params=parameters)
    boosters = []
    for label in labels:
        dataset.set_label(frame[label].cast(pl.Float32).to_numpy())
        trained = lightgbm.train(parameters, dataset, num_boost_round=config.rounds)
        boosters.append(Booster(tuple(features), trained.model_to_string()))
    return boosters


def matrix(frame: pl.DataFrame, features: Sequence[str]) -> Matrix:
    """The features as LightGBM takes them: rows by features, in the model's order, NaN for null."""
    if missing := [name for name in features if name not in frame.columns]:
        raise ContractError(f"The model needs {', '.join(features)}; the frame lacks {', '.join(missing)}.")
    return frame.select(pl.col(name).cast(pl.Float64) for name in features).to_numpy()
