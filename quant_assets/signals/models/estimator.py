"""One interface for every family of models: fit by configuration, read back from text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import polars as pl

from quant_assets.signals.models.config import FAMILIES, ModelConfig
from quant_assets.signals.models.fitted import opened
from quant_assets.signals.models.samples import samples

MODULES = {
    "lightgbm": "lightgbm_trees",
    "catboost": "catboost_trees",
    "logistic": "logistic_regression",
    "xgboost": "xgboost_trees",
    "average": "average_of_models",
}


class Estimator(Protocol):
    """A fitted model: raw log-odds that the label is true, what adds to them, and the whole of it as text."""

    @property
    def family(self) -> str:
        """One of `FAMILIES`."""

    @property
    def features(self) -> tuple[str, ...]:
        """The columns it reads, in its own order."""

    @property
    def rounds(self) -> int:
        """Boosting rounds kept; 0 for logistic, the most of any member for average."""

    @property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (in the family's own unit), `splits` (count)."""

    def log_odds(self, frame: pl.DataFrame) -> pl.Series:
        """Raw log-odds per row, in the frame's order, never null; raises `ContractError` where a feature is missing."""

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What each feature adds to the log-odds: one column per feature and `base`; a row's sum is its log-odds."""

    def to_text(self) -> str:
        """The whole model; the same fit gives the same text, byte for byte."""


def fit(
    frame: pl.DataFrame,
    features: Sequence[str],
    label: str,
    config: ModelConfig,
    seed: int,
    weight: str | None = None,
    validation: pl.DataFrame | None = None,
) -> Estimator:
    """Fit one model on every row of a frame: the same rows in the same order give the same text, byte for byte.

    `features` are numeric, nulls allowed; `label` is a boolean column without nulls; `weight` a column of numbers from 0 on.
    `validation` is looked at for early stopping alone. Raises `ValueError` for labels, weights or a validation that cannot
    serve, `ContractError` for a missing feature, `ConfigurationError` where an optional library is not installed.
    """
    if not features:
        raise ValueError("A model needs at least one feature.")
    if config.early_stopping_rounds and validation is None:
        raise ValueError(f"Stopping after {config.early_stopping_rounds} rounds without gain needs a validation frame; none was given.")
    watched = validation if config.early_stopping_rounds else None
    train, validated = samples(frame, features, label, weight, config.balanced, watched)
    fitted: Estimator = family_module(config.family).fit(train, validated, features, config, seed)
    return fitted


def from_text(family: str, text: str, threads: int = 2) -> Estimator:
    """Read a model's text; raises `QuantAssetsError` where it is damaged or of another family. `threads` serve its predictions."""
    if family not in FAMILIES:
        raise ValueError(f"There is no model family {family!r}; choose one of {', '.join(FAMILIES)}.")
    read: Estimator = family_module(family).from_body(opened(family, text), threads)
    return read


def family_module(family: str) -> Any:
    """The module of a family, which brings its library along: `fit` and `from_body`."""
    return import_module(f"quant_assets.signals.models.{MODULES[family]}")
