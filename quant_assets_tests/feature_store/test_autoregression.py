"""The autoregression by hand, against the Toeplitz covariance, and its test of two means against the binomial."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_toeplitz, toeplitz
from scipy.signal import lfilter

from quant_assets.feature_store.autoregression import Autoregression, compare_means, fit_autoregression, reference_of
from quant_assets_tests.feature_store.test_drift import autoregression


class TestRegression:
    def test_sixty_sessions_of_a_slow_series_are_two_and_a_half(self) -> None:
        model = Autoregression(np.array([0.95]), 1.0, 1_000)
        effective = model.variances[0] / model.variance_of_mean(60)
        assert effective == pytest.approx((60 * 0.05 + 2 * 0.95) / 1.95)
        assert effective == pytest.approx(2.513, abs=0.001)

    @pytest.mark.parametrize("n", [2, 3, 4, 20, 60])
    def test_the_mean_is_that_of_the_toeplitz_covariance(self, n: int) -> None:
        """AR(3), partial autocorrelations 0.8, -0.3, 0.2; its autocovariances come from its impulse response."""
        model = Autoregression(np.array([0.8, -0.3, 0.2]), 2.0, 1_000)
        coefficients = np.array([0.8])
        for value in (-0.3, 0.2):
            coefficients = np.append(coefficients - value * coefficients[::-1], value)
        response = lfilter([1.0], np.append(1.0, -coefficients), np.append(1.0, np.zeros(2_000)))
        covariances = np.array([2.0 * response[lag:] @ response[: len(response) - lag] for lag in range(n)])
        x = np.random.default_rng(3).standard_normal(n)
        weights = solve_toeplitz(covariances, np.ones(n))
        white, ones = model.whitened(x)
        assert white @ ones / (ones @ ones) == pytest.approx(weights @ x / weights.sum())
        assert model.information(n) == pytest.approx(weights.sum())
        assert white @ white == pytest.approx(x @ np.linalg.solve(toeplitz(covariances), x))

    def test_the_fit_is_free_of_bias(self) -> None:
        """At 0.9 and n = 200 the bias of the plain estimate is -(1 + 3 · 0.9)/200 = -0.0185, eight standard errors here."""
        series = autoregression(np.random.default_rng(5), 300, 200, 0.9)
        models = [fit_autoregression(x) for x in series]
        assert np.mean([model.partial[0] for model in models]) == pytest.approx(0.9, abs=0.008)

    def test_independent_values_are_worth_their_number(self) -> None:
        reference = reference_of(np.random.default_rng(2).standard_normal(400))
        assert len(reference.model.partial) == 0
        assert reference.effective == pytest.approx(400)
        mean, statistic, p = compare_means(reference, np.full(100, reference.mean + 0.5 * np.sqrt(reference.model.variances[0])))
        assert mean == pytest.approx(reference.mean + 0.5 * np.sqrt(reference.model.variances[0]))
        assert statistic == pytest.approx(0.5 / np.sqrt(1 / 100 + 1 / 400))
        assert 0 < p < 0.0001


class TestProperties:
    @given(st.integers(0, 2**32 - 1), st.floats(-0.9, 0.95), st.floats(0.001, 1e3), st.floats(-100, 100))
    @settings(max_examples=30, deadline=None)
    def test_units_do_not_matter(self, seed: int, phi: float, scale: float, origin: float) -> None:
        x = autoregression(np.random.default_rng(seed), 1, 260, phi)[0]
        one, other = (
            compare_means(reference_of(x[:200]), x[200:]),
            compare_means(reference_of(x[:200] * scale + origin), x[200:] * scale + origin),
        )
        assert other[0] == pytest.approx(one[0] * scale + origin, rel=1e-6, abs=1e-6 * scale)
        assert other[1:] == pytest.approx(one[1:], rel=1e-5, abs=1e-8)

    @pytest.mark.parametrize(("phi", "least"), [(-0.6, 0.0), (0.0, 0.03), (0.8, 0.03)])
    def test_false_alarms_keep_to_their_level(self, phi: float, least: float) -> None:
        """Where values swing back the mean is known better than from independent ones; that is not used, so nothing alarms."""
        runs = 1_000
        series = autoregression(np.random.default_rng(4), runs, 560, phi)
        alarms = sum(compare_means(reference_of(x[:500]), x[500:])[2] <= 0.05 for x in series) / runs
        assert least <= alarms <= 0.05 + 3.1 * np.sqrt(0.05 * 0.95 / runs)
