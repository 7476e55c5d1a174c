"""Drift: numbers by hand, alarms on simulated series counted against the binomial, and what must always hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.signal import lfilter

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.drift import DRIFT, POOLED, SAMPLE, drift, pooled, shifts
from quant_assets.feature_store.indicators import technical_v1
from quant_assets_tests.lookahead import NO_ACTIONS, sessions_from, sp500_panel

RUNS, REFERENCE = 250, 1_000
FIRST = date(2010, 1, 4)


def autoregression(random: np.random.Generator, runs: int, n: int, *coefficients: float, tails: float | None = None) -> np.ndarray:
    """Independent autoregressions, one a row, from their stationary distribution; `tails` are the degrees of freedom of Student's t."""
    size = (runs, n + 500)
    noise = random.standard_normal(size) if tails is None else random.standard_t(tails, size)
    return lfilter([1.0], [1.0, *(-value for value in coefficients)], noise, axis=1)[:, 500:]


def panel_of(x: np.ndarray) -> pl.DataFrame:
    """A panel from values by feature (`f0`, …), symbol (`S000`, …) and session, the sessions being weekdays."""
    features, symbols, n = x.shape
    days = pl.Series("session", sessions_from(FIRST, n), dtype=pl.Date)
    keys = pl.DataFrame({"symbol": [f"S{number:03d}" for number in range(symbols)]}).join(days.to_frame(), how="cross")
    return keys.with_columns(pl.Series(f"f{number}", x[number].ravel()) for number in range(features))


def judged(x: np.ndarray, window: int = 60, **arguments: float) -> pl.DataFrame:
    """The last session's row of each feature, the first 1,000 sessions being the reference."""
    days = sessions_from(FIRST, x.shape[2])
    return drift(panel_of(x), (days[0], days[REFERENCE - 1]), [days[-1]], window=window, **arguments)


def alarms(x: np.ndarray, window: int, shift: float, column: str = "p_value") -> float:
    """The share of the series (one a row) that are called shifted, once everything after the reference is moved."""
    moved = x.copy()
    moved[:, REFERENCE:] += shift * x.std()
    return int((judged(moved[:, None, :], window)[column] <= 0.05).sum()) / len(x)


def most(share: float, runs: int = RUNS) -> float:
    """What a true share exceeds once in a thousand."""
    return share + 3.1 * math.sqrt(share * (1 - share) / runs)


def least(share: float, runs: int = RUNS) -> float:
    """What a true share falls short of once in a thousand."""
    return share - 3.1 * math.sqrt(share * (1 - share) / runs)


class TestRegression:
    def test_a_shift_is_told_in_standard_deviations(self) -> None:
        x = np.random.default_rng(1).normal(50, 10, (1, 40, 1_060))
        x[:, :, REFERENCE:] += 5
        row = judged(x).row(0, named=True)
        assert row["shift"] == pytest.approx(0.5, abs=0.03)
        assert row["spread_ratio"] == pytest.approx(1, abs=0.03)
        assert (row["window_sessions"], row["symbols"], row["verdict"], row["severity"]) == (60, 40, "shifted", "warning")
        assert row["p_value"] < 1e-6

    def test_a_wider_cross_section_changes_the_spread_alone(self) -> None:
        x = np.random.default_rng(2).normal(0, 1, (1, 200, 1_060))
        x[:, :, REFERENCE:] *= 1.5
        row = judged(x).row(0, named=True)
        assert (row["verdict"], row["severity"]) == ("spread changed", "info")
        assert row["spread_ratio"] == pytest.approx(1.5, abs=0.05)

    def test_a_value_shared_by_all_symbols_is_judged_by_its_changes(self) -> None:
        x = np.random.default_rng(2).normal(0, 1, (1, 1, 1_060))
        x[:, :, REFERENCE:] *= 2
        row = judged(x.repeat(5, axis=1)).row(0, named=True)
        assert row["verdict"] == "spread changed"
        assert row["spread_ratio"] == pytest.approx(2, abs=0.4)
        assert row["spread_p_value"] == pytest.approx(judged(x)["spread_p_value"].item())

    def test_adjusted_as_benjamini_and_hochberg_do(self) -> None:
        """p of 0.01, 0.02, 0.03, 0.5 become 0.04, 0.04, 0.04, 0.5: the smallest of p · 4 / rank from the rank upwards."""
        x = autoregression(np.random.default_rng(4), 8, 1_060)
        x[0] = 1.0
        found = judged(x[:, None, :]).drop_nulls("p_value").sort("p_value")
        p = found["p_value"].to_numpy()
        raised = p * 7 / np.arange(1, 8)
        assert len(p) == 7
        np.testing.assert_allclose(found["p_adjusted"], [raised[k:].min() for k in range(7)])

    def test_what_cannot_be_told_says_why(self) -> None:
        random = np.random.default_rng(6)
        x = np.full((6, 2, 1_060), np.nan)
        x[0] = 3.0
        x[2, :, 950:] = random.standard_normal((2, 110))
        x[3, :, :1_010] = random.standard_normal((2, 1_010))
        x[4] = np.cumsum(random.standard_normal(1_060))
        x[5] = random.standard_normal((2, 1_060))
        found = judged(x)
        assert found["verdict"].to_list() == ["cannot be told"] * 5 + ["steady"]
        assert found["p_value"].null_count() == 5
        reasons = found["reason"].to_list()
        assert reasons[:4] == [
            "the reference is constant",
            "the reference holds no values",
            "the reference holds 50 sessions, fewer than 100",
            "the window holds 10 sessions, fewer than 20",
        ]
        assert reasons[4].startswith("the reference may be a random walk: ")
        assert reasons[5] is None

    def test_what_a_calendar_repeats_has_not_shifted(self) -> None:
        steps = np.arange(1_060)
        series = [steps % 2, steps % 5, steps % 5 == 4, np.sin(steps * 2 * math.pi / 20)]
        found = judged(np.array(series, float)[:, None, :].repeat(3, axis=1))
        assert found["verdict"].to_list() == ["steady"] * 4
        assert found["effective_sessions"].max() <= 60 + 1e-9

    def test_sessions_of_the_reference_are_no_window(self) -> None:
        days = sessions_from(FIRST, 1_060)
        panel = panel_of(np.random.default_rng(8).standard_normal((1, 3, 1_060)))
        found = drift(panel, (days[0], days[REFERENCE - 1]), [days[500], days[1_009], days[1_029]])
        assert found["reason"].to_list() == [
            "the session does not lie after the reference",
            "the window holds 10 sessions, fewer than 20",
            None,
        ]
        assert found["window_sessions"].to_list() == [None, 10, 30]

    def test_bad_input_is_named(self) -> None:
        days = sessions_from(FIRST, 200)
        panel = panel_of(np.random.default_rng(8).standard_normal((1, 2, 200))).with_columns(text=pl.lit("a"))
        ends, last = (days[0], days[120]), [days[-1]]
        with pytest.raises(ValueError, match="no column nothing"):
            drift(panel, ends, last, features=["f0", "nothing"])
        with pytest.raises(ValueError, match=r"not numeric: text \(String\)"):
            drift(panel, ends, last, features=["f0", "text"])
        with pytest.raises(ValueError, match="not unique by symbol and session"):
            drift(pl.concat([panel, panel.head(1)]), ends, last)
        with pytest.raises(ValueError, match="before it begins"):
            drift(panel, (days[120], days[0]), last)
        with pytest.raises(ValueError, match="no row of the panel in session 2031-01-01"):
            drift(panel, ends, [*last, date(2031, 1, 1)])
        with pytest.raises(ValueError, match="a window of 5 sessions"):
            drift(panel, ends, last, window=5)
        with pytest.raises(ValueError, match="level 5"):
            drift(panel, ends, last, level=5)

    def test_the_real_panel_says_something_of_each_indicator(self) -> None:
        bars = sp500_panel()
        if bars is None:
            pytest.skip("the real panel is not at hand")
        some = bars.filter(pl.col("symbol").is_in(bars["symbol"].unique().sort().gather_every(25).to_list()))
        names = [
            "rsi_14",
            "bb_width",
            "bb_position",
            "volume_ratio",
            "price_change_1d",
            "price_change_20d",
            "high_low_range",
            "sma_50",
            "obv",
        ]
        panel = technical_v1(forward_adjusted(some, NO_ACTIONS)).select("symbol", "session", *names)
        days = panel["session"].unique().sort()
        found = drift(panel, (days[0], days[999]), [days[1_059], days[-1]])
        assert found.height == 18
        told = found.filter(pl.col("feature").is_in(["rsi_14", "volume_ratio", "price_change_1d", "high_low_range"]))
        assert told["p_value"].null_count() == 0
        # Prices rose through all five years: their level is a random walk for all that 1,000 sessions can say.
        assert found.filter(pl.col("feature") == "sma_50")["verdict"].to_list() == ["cannot be told"] * 2


class TestProperties:
    @pytest.mark.parametrize(("phi", "window"), [(0.95, 60), (0.95, 400), (0.5, 60), (0.0, 60)])
    def test_false_alarms_keep_to_their_level(self, phi: float, window: int) -> None:
        x = autoregression(np.random.default_rng(7), RUNS, REFERENCE + window, phi)
        assert alarms(x, window, 0) <= most(0.07 if phi > 0.5 else 0.05)

    @pytest.mark.parametrize(("phi", "window", "shift", "power"), [(0.95, 60, 2.0, 0.80), (0.95, 400, 1.0, 0.70), (0.5, 60, 1.0, 0.80)])
    def test_shifts_are_seen(self, phi: float, window: int, shift: float, power: float) -> None:
        x = autoregression(np.random.default_rng(7), RUNS, REFERENCE + window, phi)
        assert alarms(x, window, shift) >= least(power)

    @pytest.mark.parametrize(
        "draw",
        [
            lambda random, n: autoregression(random, RUNS, n, 1.5, -0.75),
            lambda random, n: autoregression(random, RUNS, n, 0.5, tails=3),
            lambda random, n: np.lib.stride_tricks.sliding_window_view(random.standard_normal((RUNS, n + 19)), 20, axis=1).mean(axis=2),
        ],
        ids=["second order", "heavy tails", "rolling mean"],
    )
    def test_other_dependence_raises_no_false_alarms(self, draw: Callable[[np.random.Generator, int], np.ndarray]) -> None:
        assert alarms(draw(np.random.default_rng(9), 1_060), 60, 0) <= most(0.05)

    def test_the_spread_has_a_level_of_its_own(self) -> None:
        x = autoregression(np.random.default_rng(10), RUNS, 1_060, 0.5)
        assert alarms(x, 60, 0, "spread_p_value") <= most(0.05)
        x[:, REFERENCE:] *= 2
        assert alarms(x, 60, 0, "spread_p_value") >= 0.95
        assert alarms(x, 60, 0) <= most(0.05)

    def test_a_random_walk_is_seldom_judged(self) -> None:
        x = np.cumsum(np.random.default_rng(11).standard_normal((RUNS, 1_060)), axis=1)
        assert alarms(x, 60, 0) <= most(0.05)
        assert judged(x[:, None, :])["p_value"].count() <= most(0.1) * RUNS

    def test_many_symbols_are_not_many_observations(self) -> None:
        """One factor in all 20 symbols: the alarms stay at the level, and the effective sessions below the factor's own and noise's."""
        random, runs = np.random.default_rng(12), 200
        own = autoregression(random, runs * 20, 1_060, 0.9).reshape(runs, 20, 1_060)
        x = autoregression(random, runs, 1_060, 0.9)[:, None, :] + own
        found = judged(x)
        assert int((found["p_value"] <= 0.05).sum()) / runs <= most(0.06, runs)
        assert found["effective_sessions"].median() == pytest.approx((60 * 0.1 + 1.8) / 1.9, rel=0.15)

    @given(st.integers(0, 2**32 - 1), st.floats(0.01, 1e6), st.floats(-1e6, 1e6))
    @settings(max_examples=20, deadline=None)
    def test_units_do_not_matter(self, seed: int, scale: float, origin: float) -> None:
        x = np.random.default_rng(seed).standard_normal((1, 3, 260))
        days = sessions_from(FIRST, 260)
        one, other = (drift(panel_of(values), (days[0], days[199]), [days[-1]]) for values in (x, x * scale + origin))
        assert_frame_equal(one, other, rel_tol=1e-4, abs_tol=1e-4)

    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=20, deadline=None)
    def test_nothing_later_and_no_order_of_rows_changes_a_row(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        x = random.standard_normal((2, 4, 300))
        x[random.random(x.shape) < 0.1] = np.nan
        panel, days = panel_of(x), sessions_from(FIRST, 300)
        asked = [days[240], days[262]]
        full = drift(panel.sample(fraction=1, shuffle=True, seed=seed), (days[0], days[199]), asked)
        cut = drift(panel.filter(pl.col("session") <= asked[-1]), (days[0], days[199]), asked)
        assert_frame_equal(full, cut, rel_tol=1e-9)
        assert_frame_equal(full, shifts(pooled(panel, (days[0], days[199])), (days[0], days[199]), asked), rel_tol=1e-9)

    def test_a_sample_of_the_reference_does_not_depend_on_the_order(self) -> None:
        panel, days = panel_of(np.random.default_rng(14).standard_normal((1, 120, 600))), sessions_from(FIRST, 600)
        one, other = (pooled(frame, (days[0], days[499])) for frame in (panel, panel.sample(fraction=1, shuffle=True, seed=1)))
        assert SAMPLE < 120 * 500
        assert_frame_equal(one, other, rel_tol=1e-9)

    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2, 0.9]))
    @settings(max_examples=30, deadline=None)
    def test_any_panel_gets_one_row_a_feature_and_session(self, seed: int, missing: float) -> None:
        """Nulls, infinities, flags, counts, constants and symbols that come and go; a p value or a reason, and in [0, 1]."""
        random = np.random.default_rng(seed)
        panel = panel_of(random.standard_normal((1, 5, 250))).with_columns(
            heavy=pl.col("f0").exp().exp(),
            endless=pl.when(pl.col("f0") > 1).then(math.inf).otherwise("f0"),
            flag=(pl.col("f0") > 2.2),
            rare=(pl.col("f0") == pl.col("f0").max()).cast(pl.Int8),
            count=pl.col("f0").round().cast(pl.Int64),
            month=pl.col("session").dt.month(),
            constant=pl.lit(0.1),
            empty=pl.lit(None, pl.Float64),
        )
        panel = panel.filter(pl.Series(random.random(panel.height) >= missing) | (pl.col("symbol") == "S000"))
        names = panel.columns[2:]
        days = sessions_from(FIRST, 250)
        found = drift(panel, (days[0], days[149]), [days[180], days[249]], features=names)
        assert found.schema == DRIFT
        assert found.select("feature", "session").unique().height == 2 * len(names) == found.height
        assert found.filter(pl.col("p_value").is_null() == pl.col("reason").is_null()).is_empty()
        for name in ("p_value", "p_adjusted", "spread_p_value", "spread_p_adjusted"):
            assert found[name].drop_nulls().is_between(0, 1).all()
        assert found.select(pl.selectors.float().is_finite().all()).to_numpy().all()
        assert found.filter(pl.col("feature") == "constant")["reason"].unique().to_list() == ["the reference is constant"]

    def test_a_stray_symbol_is_no_cross_section(self) -> None:
        """A session of which one of 40 symbols is there says nothing, whatever its value."""
        panel = panel_of(np.random.default_rng(13).standard_normal((1, 40, 1_060)))
        days = sessions_from(FIRST, 1_060)
        stray = pl.DataFrame({"symbol": ["S000"], "session": [days[-1] + timedelta(days=30)], "f0": [1e9]})
        series = pooled(pl.concat([panel, stray]), (days[0], days[REFERENCE - 1]))
        assert series.schema == POOLED
        assert series.row(-1) == ("f0", stray["session"].item(), 1, None, None)
        assert shifts(series, (days[0], days[REFERENCE - 1]), [days[-1]])["window_sessions"].item() == 60
