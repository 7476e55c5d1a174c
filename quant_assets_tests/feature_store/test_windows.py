"""Windows and recursions over many symbols at once: against windows cut out one by one, and what must always hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.windows import Rows, by_blocks
from quant_assets_tests.lookahead import sessions_from

Floats = npt.NDArray[np.float64]
NS = (1, 2, 3, 7, 14, 16, 21)


def frame_of(lengths: list[int]) -> pl.DataFrame:
    """Sorted rows of symbols with that many sessions each."""
    days = sessions_from(date(2000, 1, 3), max(lengths))
    return pl.concat([pl.DataFrame({"symbol": [f"S{i:02}"] * n, "session": days[:n]}) for i, n in enumerate(lengths)])


def rows_of(*lengths: int) -> Rows:
    return Rows.of(frame_of(list(lengths)))


def cut_out(rows: Rows, n: int, statistic: Callable[[slice], float]) -> Floats:
    """A statistic of each row's last n rows of its symbol, NaN where there are fewer."""
    return np.array([statistic(slice(i - n + 1, i + 1)) if place >= n - 1 else np.nan for i, place in enumerate(rows.index)])


def products(x: Floats, y: Floats) -> float:
    return float(((x - x.mean()) * (y - y.mean())).sum())


class TestRegression:
    @pytest.mark.parametrize("lengths", [(40, 1, 25), (3,), (21, 20, 22)])
    def test_windows_of_several_symbols_are_those_cut_out_one_by_one(self, lengths: tuple[int, ...]) -> None:
        rows, random = rows_of(*lengths), np.random.default_rng(1)
        x, y = random.lognormal(0, 1, sum(lengths)), random.normal(3, 1, sum(lengths))
        time = np.arange(sum(lengths), dtype=float)
        power = {k: [cut_out(rows, n, lambda w, k=k: ((x[w] - x[w].mean()) ** k).sum()) for n in NS] for k in (2, 3, 4)}
        means = [cut_out(rows, n, lambda w: x[w].mean()) for n in NS]
        expected = {
            "sums": (rows.sums(x, *NS), [cut_out(rows, n, lambda w: x[w].sum()) for n in NS]),
            "means": (rows.means(x, *NS), means),
            "maxima": (rows.maxima(x, *NS), [cut_out(rows, n, lambda w: x[w].max()) for n in NS]),
            "minima": (rows.minima(x, *NS), [cut_out(rows, n, lambda w: x[w].min()) for n in NS]),
            "rows_since_max": (rows.rows_since_max(x, *NS), [cut_out(rows, n, lambda w: x[w][::-1].argmax()) for n in NS]),
            "max_drawdowns": (
                rows.max_drawdowns(x, *NS),
                [cut_out(rows, n, lambda w: (1 - x[w] / np.maximum.accumulate(x[w])).max()) for n in NS],
            ),
            "squares": ([found[1] for found in rows.squares(x, *NS)], power[2]),
            "deviation": ([rows.deviation(x, n) for n in NS], [np.sqrt(total / n) for total, n in zip(power[2], NS, strict=True)]),
            **{f"moments {k}": ([found[k - 1] for found in rows.moments(x, *NS)], power[k]) for k in (2, 3, 4)},
            "moments 1": ([found[0] for found in rows.moments(x, *NS)], means),
            "products xx": ([found[2] for found in rows.products(x, y, *NS)], power[2]),
            "products xy": (
                [found[4] for found in rows.products(x, y, *NS)],
                [cut_out(rows, n, lambda w: products(x[w], y[w])) for n in NS],
            ),
            "products yy": (
                [found[3] for found in rows.products(x, y, *NS)],
                [cut_out(rows, n, lambda w: products(y[w], y[w])) for n in NS],
            ),
            "trends": ([found[2] for found in rows.trends(x, *NS)], [cut_out(rows, n, lambda w: products(x[w], time[w])) for n in NS]),
            "absolute_deviation": (
                [rows.absolute_deviation(x, mean, n) for n, mean in zip(NS, rows.means(x, *NS), strict=True)],
                [cut_out(rows, n, lambda w: np.abs(x[w] - x[w].mean()).mean()) for n in NS],
            ),
        }
        for name, (found, wanted) in expected.items():
            for n, ours, theirs in zip(NS, found, wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12, err_msg=f"{name} of {n}")

    def test_the_latest_of_equal_highs_counts_rounding_or_not(self) -> None:
        (age,) = rows_of(6).rows_since_max(np.array([3.0, 5.0, 4.0, 5.0 * (1 - 1e-15), 2.0, -9.0]), 4)
        assert age[3:].tolist() == [0.0, 1.0, 2.0]
        (age,) = rows_of(4).rows_since_max(np.array([-5.0, -4.0, -4.0 * (1 + 1e-15), -6.0]), 4)
        assert age[3] == 1.0

    def test_a_lag_stays_within_its_symbol(self) -> None:
        np.testing.assert_array_equal(rows_of(3, 2).lag(np.arange(5.0), 2), [np.nan, np.nan, 0.0, np.nan, np.nan])

    def test_a_nan_blanks_the_windows_that_hold_it(self) -> None:
        values = np.arange(1.0, 31.0)
        values[12] = np.nan
        rows = rows_of(30)
        for found in (
            rows.sums(values, 5)[0], rows.maxima(values, 5)[0], rows.rows_since_max(values, 5)[0], rows.max_drawdowns(values, 5)[0],
            rows.moments(values, 5)[0][3], rows.products(values, values, 5)[0][4], rows.trends(values, 5)[0][2], rows.deviation(values, 5),
        ):  # fmt: skip
            assert np.flatnonzero(np.isnan(found)).tolist() == [0, 1, 2, 3, *range(12, 17)]

    def test_a_spike_leaves_no_trace(self) -> None:
        values = np.round(np.random.default_rng(2).normal(100, 1, 80), 2)
        values[20] = 1e14
        _, squares, _, fourths = rows_of(80).moments(values, 12)[0]
        for row in range(32, 80):
            window = [Fraction(float(value)) for value in values[row - 11 : row + 1]]
            mean = sum(window) / 12
            assert squares[row] == pytest.approx(float(sum((value - mean) ** 2 for value in window)), rel=1e-13)
            assert fourths[row] == pytest.approx(float(sum((value - mean) ** 4 for value in window)), rel=1e-13)

    def test_a_recursion_is_seeded_with_a_mean_and_goes_on_from_a_state_wherever_it_stood(self) -> None:
        """Also where fewer rows are given than the seed takes."""
        frame, values = frame_of([20, 12]), np.random.default_rng(3).normal(0, 1, 32)
        whole = Rows.of(frame).recursion("e", values, 1, 5, 0.3)
        assert np.isnan(whole[:5]).all()
        assert whole[5] == pytest.approx(values[1:6].mean())
        assert whole[6] == pytest.approx(0.7 * whole[5] + 0.3 * values[6])
        at = 9
        carried = frame.with_columns(pl.Series("e", whole)).filter(pl.col("session") == frame["session"][at])
        for first in (0, 5, 8, 9):
            kept = pl.int_range(pl.len()).over("symbol") >= first
            tail, rest = frame.filter(kept), values[frame.select(kept).to_series().to_numpy()]
            went_on = tail.with_columns(pl.Series("e", Rows.of(tail, carried).recursion("e", rest, 1, 5, 0.3)))
            expected = frame.with_columns(pl.Series("e", whole)).filter(pl.col("session") > frame["session"][at])
            assert went_on.filter(pl.col("session") > frame["session"][at]).equals(expected)
            assert went_on.filter(pl.col("session") < frame["session"][at])["e"].is_nan().all()

    def test_a_running_total_goes_on_from_a_state(self) -> None:
        frame, flows = frame_of([6, 4]), np.arange(1.0, 11.0)
        whole = Rows.of(frame).total("t", flows)
        assert whole.tolist() == [1, 3, 6, 10, 15, 21, 7, 15, 24, 34]
        carried = pl.DataFrame({"symbol": ["S00"], "session": [frame["session"][2]], "t": [100.0]})
        assert Rows.of(frame, carried).total("t", flows).tolist()[3:] == [104, 109, 115, 7, 15, 24, 34]


class TestProperties:
    @given(
        values=st.lists(st.integers(-(10**6), 10**6), min_size=30, max_size=60),
        before=st.lists(st.sampled_from([0.0, 1e-9, 7.7, 1e300, np.inf, np.nan]), min_size=1, max_size=40),
        n=st.integers(1, 25),
    )
    @settings(max_examples=40, deadline=None)
    def test_what_lies_before_a_window_changes_no_bit(self, values: list[int], before: list[float], n: int) -> None:
        alone, behind = np.array(values) / 100, np.array(before + [value / 100 for value in values])
        together, split = rows_of(len(behind)), rows_of(len(before), len(values))
        with np.errstate(all="ignore"):
            for statistic in (Rows.sums, Rows.maxima, Rows.rows_since_max, Rows.squares, Rows.moments, Rows.trends):
                expected = np.atleast_2d(np.array(statistic(rows_of(len(alone)), alone, n)[0]))
                for rows in (together, split):
                    found = np.atleast_2d(np.array(statistic(rows, behind, n)[0]))[:, len(before) :]
                    np.testing.assert_array_equal(found[:, n - 1 :], expected[:, n - 1 :])
                assert np.isnan(found[:, : n - 1]).all()

    @given(values=st.lists(st.integers(1, 500), min_size=25, max_size=60), ns=st.lists(st.integers(1, 30), min_size=1, max_size=5))
    @settings(max_examples=40, deadline=None)
    def test_windows_taken_together_are_those_taken_alone(self, values: list[int], ns: list[int]) -> None:
        rows, series = rows_of(len(values)), np.array(values, dtype=float)
        for statistic in (Rows.sums, Rows.minima, Rows.max_drawdowns, Rows.moments):
            for n, found in zip(ns, statistic(rows, series, *ns), strict=True):
                np.testing.assert_array_equal(np.array(found), np.array(statistic(rows, series, n)[0]))

    @pytest.mark.parametrize("rows", [1, 7, 50, 1000])
    def test_blocks_hold_whole_symbols_and_come_back_in_order(self, rows: int) -> None:
        frame = frame_of([9, 1, 30, 4, 17, 2]).with_row_index()

        def kernel(block: pl.DataFrame) -> pl.DataFrame:
            return block.with_columns(
                pl.len().over("symbol").alias("n"), pl.Series("mean", Rows.of(block).mean(block["index"].cast(float).to_numpy(), 3))
            )

        assert by_blocks(frame, kernel, rows).equals(kernel(frame))
        assert by_blocks(frame.clear(), kernel, rows).is_empty()
