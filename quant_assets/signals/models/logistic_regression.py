"""Logistic regression on robustly standardised features: the honest simple rival of the trees.

A feature is measured in its distance from the training median, in 1.4826 median absolute deviations, cut at ±4; unknown
is 0. A coefficient costs l2/1000 per row and half its square, so that `l2` means the same at any number of rows: alone,
at even odds, a coefficient shrinks by the share l2 / (l2 + 250).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.fitted import Fitted, importance_frame, unreadable
from quant_assets.signals.models.samples import Matrix, Samples, Vector

NORMAL = 1.4826  # a normal variable's standard deviation over its median absolute deviation
CUT = 4.0
PARTS = ("centres", "scales", "coefficients")


class LogisticRegression(Fitted):
    """A weighted sum of standardised features."""

    family = "logistic"

    @cached_property
    def numbers(self) -> dict[str, Vector]:
        """Per feature its centre, scale and coefficient; the intercept alone."""
        parts = json.loads(self.body)
        return {name: np.array(parts[name], dtype=np.float64) for name in (*PARTS, "intercept")}

    @cached_property
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain` (its |coefficient|, log-odds per deviation), `splits` (0)."""
        return importance_frame(self.features, np.abs(self.numbers["coefficients"]), [0] * len(self.features))

    def _log_odds(self, values: Matrix) -> Vector:
        standard = standardised(values, self.numbers["centres"], self.numbers["scales"])
        return np.asarray(np.einsum("ij,j->i", standard, self.numbers["coefficients"]) + self.numbers["intercept"])

    def _contributions(self, values: Matrix) -> Matrix:
        standard = standardised(values, self.numbers["centres"], self.numbers["scales"])
        base = np.full((len(values), 1), self.numbers["intercept"])
        return np.hstack([standard * self.numbers["coefficients"], base])


def fit(train: Samples, validation: Samples | None, features: Sequence[str], config: ModelConfig, seed: int) -> LogisticRegression:
    """Fit on the training rows; neither a validation nor a seed has a part in it."""
    from sklearn.linear_model import LogisticRegression as Solver
    from threadpoolctl import threadpool_limits

    centres, scales = centres_and_scales(train.values)
    cost = config.l2 / 1_000 * len(train.up)
    solver = Solver(C=1 / cost if cost else np.inf, solver="newton-cholesky", tol=1e-8, max_iter=1_000)
    with threadpool_limits(1):  # sums then do not depend on the number of threads; more were no faster
        solver.fit(standardised(train.values, centres, scales), train.up, sample_weight=train.weight)
    values: dict[str, Any] = dict(zip(PARTS, (centres.tolist(), scales.tolist(), solver.coef_[0].tolist()), strict=True))
    return from_body(json.dumps({"features": list(features), "intercept": float(solver.intercept_[0]), **values}), config.threads)


def from_body(body: str, threads: int) -> LogisticRegression:
    """Read the features and their numbers."""
    try:
        model = LogisticRegression(tuple(json.loads(body)["features"]), 0, body, threads)
        shapes = [model.numbers[name].shape for name in (*PARTS, "intercept")]
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable("logistic", error) from None
    if shapes != [(len(model.features),)] * len(PARTS) + [()]:
        raise unreadable("logistic", ValueError(f"numbers of the shapes {shapes} for {len(model.features)} features"))
    return model


def centres_and_scales(values: Matrix) -> tuple[Vector, Vector]:
    """Median and scaled median absolute deviation per feature of what is known.

    Where more than half the values are equal the scale is the standard deviation; a feature that never varies, or is never known, gets 1.
    """
    known = pl.from_numpy(values).fill_nan(None)
    centres = known.select(pl.all().median().fill_null(0.0))
    deviations = known.select((pl.col(name) - centres[name].item()).abs().median() * NORMAL for name in known.columns)
    spread = known.select(pl.all().std(ddof=0))
    scales = [next((s for s in (d, s) if s and np.isfinite(s)), 1.0) for d, s in zip(deviations.row(0), spread.row(0), strict=True)]
    return np.array(centres.row(0), dtype=np.float64), np.array(scales, dtype=np.float64)


def standardised(values: Matrix, centres: Vector, scales: Vector) -> Matrix:
    """Distances from the centres in scales, cut at ±4; 0 where unknown."""
    return np.nan_to_num(np.clip((values - centres) / scales, -CUT, CUT), nan=0.0)
