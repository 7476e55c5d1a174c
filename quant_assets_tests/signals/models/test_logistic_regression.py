"""Logistic regression: standardising by hand, the optimum by its own condition."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.calibration import sigmoid
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.estimator import fit
from quant_assets.signals.models.logistic_regression import LogisticRegression, centres_and_scales, from_body, standardised
from quant_assets.signals.models.samples import matrix
from quant_assets_tests.signals.worlds import FEATURES


class TestRegression:
    def test_standardised_by_hand(self) -> None:
        """Known 1, 2, 3, 4, 100: median 3, deviations 2, 1, 0, 1, 97 with median 1; 100 is cut at 4, unknown is 0."""
        values = np.array([[1.0], [2.0], [3.0], [4.0], [100.0], [np.nan]])
        centres, scales = centres_and_scales(values)
        assert centres.tolist() == [3.0]
        assert scales.tolist() == [1.4826]
        np.testing.assert_allclose(standardised(values, centres, scales)[:, 0], [-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826, 4, 0])

    def test_scale_without_a_median_deviation(self) -> None:
        rare = [0.0] * 9 + [1.0]
        values = np.column_stack([rare, [5.0] * 10, [np.nan] * 10])
        centres, scales = centres_and_scales(values)
        assert centres.tolist() == [0, 5, 0]
        np.testing.assert_allclose(scales, [0.3, 1, 1])  # a share of 1/10 deviates by sqrt(0.1 * 0.9)

    def test_numbers_lost_are_seen(self) -> None:
        with pytest.raises(QuantAssetsError, match="cannot read this logistic model"):
            from_body('{"features": ["a", "b"], "centres": [0], "scales": [1], "coefficients": [1], "intercept": 0}', 1)


class TestProperties:
    @pytest.mark.parametrize("weight", [None, "weight"])
    def test_the_gradient_vanishes(self, frame: pl.DataFrame, weight: str | None) -> None:
        """At the optimum each feature's weighted residual sum equals its penalty's pull, the intercept's is 0."""
        model = fit(frame, FEATURES, "up", ModelConfig("logistic", l2=10), seed=7, weight=weight)
        assert isinstance(model, LogisticRegression)
        numbers = model.numbers
        x = standardised(matrix(frame, FEATURES), numbers["centres"], numbers["scales"])
        weights = np.ones(len(frame)) if weight is None else frame[weight].to_numpy() * len(frame) / frame[weight].sum()
        residual = weights * (frame["up"].to_numpy() - sigmoid(model.log_odds(frame).to_numpy()))
        np.testing.assert_allclose(x.T @ residual, 0.01 * len(frame) * numbers["coefficients"], atol=1e-4)
        assert residual.sum() == pytest.approx(0, abs=1e-4)

    def test_unknown_and_extreme_values(self, frame: pl.DataFrame) -> None:
        model = fit(frame, FEATURES, "up", ModelConfig("logistic"), seed=7)
        unknown = frame.head(1).with_columns(pl.lit(None, pl.Float64).alias(name) for name in FEATURES)
        assert model.contributions(unknown).drop("base").row(0) == (0, 0, 0, 0)
        far, farther = (model.log_odds(frame.head(1).with_columns(first=pl.lit(x))).item() for x in (1e3, float("inf")))
        assert far == farther
