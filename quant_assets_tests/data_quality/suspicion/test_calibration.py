"""From log odds to rates."""

from __future__ import annotations

import numpy as np
import pytest

from quant_assets.data_quality.suspicion.calibration import RATES, Calibration, fitted_calibration

STRAIGHT = Calibration(tuple(float(-np.log(rate)) for rate in RATES))


class TestRegression:
    def test_thresholds_have_their_rates_and_the_tail_goes_on(self) -> None:
        assert STRAIGHT.rate(np.array(STRAIGHT.thresholds)) == pytest.approx(RATES)
        assert STRAIGHT.rate(np.array([np.log(1e5)])) == pytest.approx(1e-5, rel=0.2)
        assert STRAIGHT.score(np.array([-100.0, 0.0, np.log(1000)])) == pytest.approx([0.0, 0.0, 0.999])

    def test_fitting_finds_the_quantiles(self) -> None:
        clean = np.random.default_rng(0).exponential(size=200_000)
        fitted = fitted_calibration(clean)
        assert fitted.rate(np.log([100.0, 1000.0])) == pytest.approx([1e-2, 1e-3], rel=0.15)
        share = (fitted.score(np.random.default_rng(1).exponential(size=200_000)) >= 1 - 1e-3).mean()
        assert share == pytest.approx(1e-3, rel=0.25)

    def test_rates_that_so_few_bars_cannot_tell_follow_from_the_last_slope(self) -> None:
        fitted = fitted_calibration(np.random.default_rng(0).exponential(size=4_000))
        assert fitted.thresholds[-1] == pytest.approx(np.log(10_000), rel=0.25)

    def test_too_few_bars_are_refused(self) -> None:
        with pytest.raises(ValueError, match="too few"):
            fitted_calibration(np.full(2000, np.nan))


class TestProperties:
    @pytest.mark.parametrize("values", [np.zeros(5000), np.random.default_rng(3).normal(size=5000)])
    def test_scores_rise_with_the_log_odds_and_stay_inside(self, values: np.ndarray) -> None:  # type: ignore[type-arg]
        fitted = fitted_calibration(values)
        grid = np.linspace(fitted.thresholds[0], fitted.thresholds[-1] + 60, 2000)
        rates = fitted.rate(grid)
        assert (np.diff(rates) < 0).all()
        assert (rates > 0).all()
        assert (rates <= 1).all()
