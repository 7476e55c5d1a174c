"""Calibration: known slopes come back, the level is the base rate's, and the order of a model is never turned over."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.errors import QuantAssetsError
from quant_assets.signals import calibration
from quant_assets.signals.calibration import Calibration, fit_calibration, sigmoid

METHODS = ("platt", "isotonic", "none")


def drawn(seed: int, *, slope: float, intercept: float = 0.0, rows: int = 40_000, deviation: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and outcomes whose true log-odds are intercept + slope · z."""
    rng = np.random.default_rng(seed)
    z = deviation * rng.standard_normal(rows)
    return z, rng.random(rows) < sigmoid(intercept + slope * z)


class TestRegression:
    @pytest.mark.parametrize("slope", [0.3, 1.0, 2.5])
    def test_platt_finds_the_slope(self, slope: float) -> None:
        z, up = drawn(1, slope=slope, intercept=0.4)
        fitted = fit_calibration("platt", z, up, float(up.mean()))
        assert fitted.slope == pytest.approx(slope, rel=0.05)
        assert fitted.intercept == pytest.approx(0.4, abs=0.05)

    def test_platt_is_logistic_regression_where_the_prior_is_weak(self) -> None:
        from sklearn.linear_model import LogisticRegression

        z, up = drawn(2, slope=0.7, intercept=-0.3)
        free = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1_000).fit(z[:, None], up)
        assert fit_calibration("platt", z, up, 0.5).slope == pytest.approx(free.coef_.item(), abs=2e-4)

    def test_platt_is_the_most_probable_slope(self) -> None:
        """Few rows: the posterior on a fine grid, each slope with its best intercept, peaks at the fitted slope."""
        from scipy.optimize import minimize_scalar

        z, up = drawn(3, slope=0.2, rows=60)

        def loss(slope: float) -> float:
            def given_slope(intercept: float) -> float:
                score = intercept + slope * z
                return float(np.sum(np.logaddexp(0, score) - up * score))

            return minimize_scalar(given_slope).fun + (slope - 1) ** 2 / (2 * 0.5**2)

        grid = np.arange(0.1, 2, 1e-3)
        best = grid[np.argmin([loss(slope) for slope in grid])]
        assert fit_calibration("platt", z, up, 0.5).slope == pytest.approx(best, abs=1e-3)

    def test_rows_that_tell_little_leave_the_prior(self) -> None:
        z, up = drawn(4, slope=-3.0, rows=50, deviation=1e-3)
        assert fit_calibration("platt", z, up, 0.5).slope == pytest.approx(1.0, abs=0.01)

    def test_a_model_is_not_turned_over(self) -> None:
        z, up = drawn(5, slope=-1.0)
        assert fit_calibration("platt", z, up, 0.5).slope == 0.1

    def test_all_log_odds_alike(self) -> None:
        z, up = np.full(100, 0.3), np.arange(100) < 40
        for method in ("platt", "isotonic"):
            fitted = fit_calibration(method, z, up, 0.55)
            assert fitted.probability(pl.Series([0.3])).item() == pytest.approx(0.55, abs=1e-12)

    def test_isotonic_by_hand(self) -> None:
        """Claimed 0.2, 0.4, 0.6, 0.8; outcomes 0, 1, 0, 1: the middle two pool to 1/2, the ends are kept off 0 and 1."""
        claimed = np.array([0.2, 0.4, 0.6, 0.8])
        z = calibration.logit(claimed)
        fitted = fit_calibration("isotonic", np.repeat(z, 250), np.repeat([0, 1, 0, 1], 250), 0.5)
        assert fitted.intercept == pytest.approx(0, abs=1e-9)
        asked = pl.Series([*z, *calibration.logit(np.array([0.3, 0.5, 0.01, 0.99]))])
        expected = [0.001, 0.5, 0.5, 0.999, (0.001 + 0.5) / 2, 0.5, 0.001, 0.999]
        np.testing.assert_allclose(fitted.probability(asked).to_numpy(), expected, atol=1e-9)

    def test_few_rows_make_no_steps(self) -> None:
        z, up = drawn(8, slope=1, rows=999)
        assert fit_calibration("isotonic", z, up, 0.5) == fit_calibration("platt", z, up, 0.5)

    def test_none_is_the_identity(self) -> None:
        fitted = fit_calibration("none", np.array([0.1]), np.array([True]), 0.5)
        assert fitted.log_odds(pl.Series([0.0, 2.0])).to_list() == [0.0, 2.0]
        assert fitted.probability(pl.Series([0.0, np.log(3)])).to_list() == pytest.approx([0.5, 0.75])

    def test_what_cannot_be_calibrated_is_named(self) -> None:
        z, up = drawn(6, slope=1, rows=10)
        with pytest.raises(ValueError, match="choose one of platt, isotonic, none"):
            fit_calibration("beta", z, up, 0.5)
        with pytest.raises(ValueError, match="there are 9 for 10"):
            fit_calibration("platt", z, up[1:], 0.5)
        with pytest.raises(ValueError, match="1 of 10 are not"):
            fit_calibration("isotonic", np.where(z == z[0], np.nan, z), up, 0.5)
        with pytest.raises(ValueError, match="outcomes of both kinds"):
            fit_calibration("platt", z, np.ones(10), 0.5)
        with pytest.raises(ValueError, match=r"this is 1\.0"):
            fit_calibration("platt", z, up, 1.0)

    def test_damaged_values_are_named(self) -> None:
        z, up = drawn(7, slope=1, rows=2000)
        whole = fit_calibration("isotonic", z, up, 0.5).to_dict()
        damages = (
            {"method": "beta"},
            {"slope": float("nan")},
            {"claimed": whole["claimed"][1:]},
            {"observed": whole["observed"][::-1]},
            {"intercept": None},
            {"claimed": [], "observed": []},
        )
        for damage in damages:
            with pytest.raises(QuantAssetsError, match="train the model again"):
                Calibration.from_dict(whole | damage)
        with pytest.raises(QuantAssetsError, match="slope"):
            Calibration.from_dict({key: value for key, value in whole.items() if key != "slope"})


@st.composite
def stretches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """A validation stretch of any slope, spread, level and base rate, with both outcomes in it."""
    rows = draw(st.integers(2, 200))
    z, up = drawn(
        draw(st.integers(0, 10_000)),
        slope=draw(st.floats(-3, 3)),
        intercept=draw(st.floats(-2, 2)),
        rows=rows,
        deviation=draw(st.floats(0, 5)),
    )
    up[0], up[1] = True, False
    return z + draw(st.floats(-3, 3)), up, draw(st.floats(0.02, 0.98))


class TestProperties:
    @settings(max_examples=150, deadline=None)
    @given(stretch=stretches(), method=st.sampled_from(METHODS), asked=st.lists(st.floats(-20, 20), min_size=2, max_size=30))
    def test_never_turns_the_order(self, stretch: tuple[np.ndarray, np.ndarray, float], method: str, asked: list[float]) -> None:
        probability = fit_calibration(method, *stretch).probability(pl.Series(sorted(asked), dtype=pl.Float64)).to_numpy()
        assert ((probability >= 0) & (probability <= 1)).all()
        assert (np.diff(probability) >= -1e-14).all()

    @settings(max_examples=150, deadline=None)
    @given(stretch=stretches(), method=st.sampled_from(("platt", "isotonic")))
    def test_the_mean_probability_is_the_base_rate(self, stretch: tuple[np.ndarray, np.ndarray, float], method: str) -> None:
        z, up, base_rate = stretch
        mean = fit_calibration(method, z, up, base_rate).probability(pl.Series(z)).mean()
        assert mean == pytest.approx(base_rate, abs=1e-9)

    @settings(max_examples=50, deadline=None)
    @given(stretch=stretches(), method=st.sampled_from(METHODS))
    def test_survives_json_bit_for_bit(self, stretch: tuple[np.ndarray, np.ndarray, float], method: str) -> None:
        fitted = fit_calibration(method, *stretch)
        again = Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
        assert again == fitted
        z = pl.Series(stretch[0])
        assert again.probability(z).equals(fitted.probability(z))

    @pytest.mark.parametrize("method", METHODS)
    def test_log_odds_are_those_of_the_probability(self, method: str) -> None:
        z, up = drawn(8, slope=0.5, rows=500)
        fitted = fit_calibration(method, z, up, 0.6)
        asked = pl.Series([-1.0, None, 0.5])
        probability = fitted.probability(asked)
        assert probability.is_null().to_list() == [False, True, False]
        np.testing.assert_allclose(sigmoid(fitted.log_odds(asked).to_numpy()), probability.to_numpy(), rtol=1e-14)
