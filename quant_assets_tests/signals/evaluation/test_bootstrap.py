"""Block resampling: what a resample is, and how often its intervals hold the truth."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.signals.evaluation.bootstrap import block_length, block_weights, intervals, paired_difference, scatter


def overlapping(series: int, n: int, horizon: int, persistence: float) -> np.ndarray:
    """AR(1) of mean zero, each summed over `horizon` neighbours: like daily rank ICs whose labels overlap."""
    steps = np.random.default_rng(5).standard_normal((n + horizon + 50, series))
    for i in range(1, len(steps)):
        steps[i] += persistence * steps[i - 1]
    total = steps[50:].cumsum(axis=0)
    return (total[horizon:] - total[:-horizon]).T


class TestRegression:
    @pytest.mark.parametrize(
        ("sessions", "horizon", "length"), [(1000, 1, 10), (1000, 5, 10), (1000, 20, 40), (756, 1, 9), (60, 20, 20), (2, 5, 1), (1, 1, 1)]
    )
    def test_block_length(self, sessions: int, horizon: int, length: int) -> None:
        assert block_length(sessions, horizon) == length

    def test_weights_count_the_blocks_of_the_same_starts(self) -> None:
        starts = np.random.default_rng(4).integers(0, 7, size=(50, 3))  # seven sessions in blocks of three, three and one
        expected = np.zeros((50, 7))
        for row, (first, second, third) in enumerate(starts):
            for session in [*range(first, first + 3), *range(second, second + 3), third]:
                expected[row, session % 7] += 1
        assert (block_weights(7, 3, 50, seed=4) == expected).all()

    def test_one_block_of_all_sessions_changes_nothing(self) -> None:
        assert (block_weights(5, 5, 10, seed=1) == 1).all()

    def test_impossible_blocks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="a block of 6 sessions cannot be drawn from 5"):
            block_weights(5, 6, 10, seed=1)

    def test_interval_by_hand(self) -> None:
        """101 resamples 0, 0.01 … 1: percentiles 0.025 and 0.975. Four blocks widen by 3.182 / 1.960 (Student, 3 degrees) and √(4/3)."""
        ((low, high),) = intervals(np.array([0.5]), np.arange(101)[np.newaxis] / 100, n_sessions=40, block=10, horizon=1)
        widened = 3.182446 / 1.959964 * np.sqrt(4 / 3)
        assert (low, high) == pytest.approx((0.5 - 0.475 * widened, 0.5 + 0.475 * widened), rel=1e-6)

    def test_scatter_of_overlapping_sums(self) -> None:
        """Sums over 2 sessions: variance 2, neighbours 1, so that a mean's is (2 + 2) / n; blocks of 4 see 2 + 2 · 3/4, seven eighths."""
        assert scatter(10**9, 4, 2) == pytest.approx(np.sqrt(8 / 7))
        sums = overlapping(1, 2000, 2, 0.0)[0]
        resampled = block_weights(2000, 4, 1000, seed=1) @ sums / 2000
        assert resampled.std() * scatter(2000, 4, 2) == pytest.approx(np.sqrt(4 / 2000), rel=0.1)

    def test_resamples_that_cannot_be_computed(self) -> None:
        values = np.tile(np.arange(100.0), (3, 1))
        values[0, :5], values[1, :6], values[2, 0] = np.nan, np.nan, np.inf
        found = intervals(np.array([50.0, 50.0, np.nan]), values, n_sessions=500, block=10, horizon=1)
        assert np.isfinite(found).all(axis=1).tolist() == [True, False, False]
        assert np.isnan(found[1:]).all()

    def test_standard_error_is_that_of_the_mean(self) -> None:
        """Independent noise: the standard error of a mean is sigma / √n, and blocks do not change that."""
        noise = np.random.default_rng(8).standard_normal(4000)
        found = paired_difference(pl.Series(noise + 0.5), pl.Series(np.full(4000, 0.5)), block=5)
        assert found.mean == pytest.approx(noise.mean())
        assert found.standard_error == pytest.approx(1 / np.sqrt(4000), rel=0.06)
        assert (found.high - found.low) / 2 == pytest.approx(1.96 * found.standard_error, rel=0.06)

    def test_pairs_that_lack_a_side_are_left_out(self) -> None:
        a, b = pl.Series([1.0, None, 3.0, 4.0]), pl.Series([0.0, 1.0, None, 2.0])
        assert paired_difference(a, b, block=1) == (1.5, None, None, None)
        assert paired_difference(a[:0], b[:0], block=1) == (None, None, None, None)
        with pytest.raises(ValueError, match="a has 3 sessions and b 4"):
            paired_difference(a[:3], b, block=1)

    @pytest.mark.parametrize(("horizon", "persistence"), [(1, 0.3), (5, 0.0), (5, 0.3), (20, 0.0)])
    def test_coverage_with_overlapping_labels(self, horizon: int, persistence: float) -> None:
        """200 series of 378 sessions: 95 % intervals hold the truth in nearly so many (binomial error 1.5 %), and not always."""
        block, zeros, series = block_length(378, horizon), np.zeros(378), overlapping(200, 378, horizon, persistence)
        found = [paired_difference(ics, zeros, block, 200, seed, horizon=horizon) for seed, ics in enumerate(series)]
        assert 0.90 <= np.mean([d.low <= 0 <= d.high for d in found]) <= 0.99

    def test_single_sessions_would_claim_too_much(self) -> None:
        """The reason for blocks: drawn one by one, overlapping labels make the interval hold the truth in well under 80 %."""
        found = [paired_difference(ics, np.zeros(378), 1, 200, seed) for seed, ics in enumerate(overlapping(200, 378, 5, 0.0))]
        assert np.mean([d.low <= 0 <= d.high for d in found]) < 0.8


class TestProperties:
    @given(sessions=st.integers(1, 80), data=st.data(), seed=st.integers(0, 2**32))
    @settings(max_examples=50)
    def test_every_resample_is_as_long_as_the_sessions(self, sessions: int, data: st.DataObject, seed: int) -> None:
        weights = block_weights(sessions, data.draw(st.integers(1, sessions)), 20, seed)
        assert weights.shape == (20, sessions)
        assert (weights.sum(axis=1) == sessions).all()
        assert (weights >= 0).all()
        assert (weights == weights.round()).all()

    @given(sessions=st.integers(20, 200), shift=st.floats(-3, 3), seed=st.integers(0, 1000))
    @settings(max_examples=30)
    def test_a_difference_turned_round_or_shifted(self, sessions: int, shift: float, seed: int) -> None:
        a, b = np.random.default_rng(seed).standard_normal((2, sessions))
        found, turned, moved = (paired_difference(x, y, 5, 200, seed) for x, y in ((a, b), (b, a), (a + shift, b)))
        assert turned == pytest.approx((-found.mean, -found.high, -found.low, found.standard_error))
        assert moved == pytest.approx((found.mean + shift, found.low + shift, found.high + shift, found.standard_error))
