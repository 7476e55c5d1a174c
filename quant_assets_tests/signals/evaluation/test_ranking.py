"""Orders of symbols: against SciPy and statsmodels, against sums by hand, and against a plain loop over sessions."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.signals.evaluation.ranking import (
    average_ranks,
    newey_west_t,
    order_within,
    rank_ics,
    ranking_scores,
    ranking_sums,
    tranches,
)  # fmt: skip

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(-5, 5)), min_size=1, max_size=60)


def held(scores: list[list[float | None]], returns: list[list[float]], horizon: int, fee_bps: float = 0.0) -> dict[str, np.ndarray]:
    """`tranches` of a table of scores, a list per session, None where a symbol is missing."""
    rows = [(s, i, score, returns[s][i]) for s, of in enumerate(scores) for i, score in enumerate(of) if score is not None]
    unit, symbol, score, forward = (np.array(values) for values in zip(*rows, strict=True))
    codes = np.unique(score, return_inverse=True)[1]
    return tranches(unit, len(scores), len(scores), symbol, codes, order_within(unit, codes), forward, horizon, fee_bps)


def slow(scores: np.ndarray, returns: np.ndarray, horizon: int, fee_bps: float) -> dict[str, list[float]]:
    """The definition, session by session and name by name."""
    gross, turnover, legs = [], [], []
    for s, (score, forward) in enumerate(zip(scores, returns, strict=True)):
        there = [i for i in range(len(score)) if not np.isnan(score[i])]
        ordered, size = sorted(there, key=lambda i: (score[i], i)), max(1, len(there) // 10)
        if len({score[i] for i in there}) < 2:
            legs.append(None)
            gross.append(np.nan)
            turnover.append(np.nan)
            continue
        legs.append((set(ordered[-size:]), set(ordered[:size])))
        gross.append((np.mean([forward[i] for i in ordered[-size:]]) - np.mean([forward[i] for i in ordered[:size]])) / horizon)
        before = legs[s - horizon] if s >= horizon else None
        new = None if before is None else [sum(i not in old for i in now) / len(now) for now, old in zip(legs[s], before, strict=True)]
        turnover.append(np.nan if new is None else np.mean(new))
    # Two legs; of each its share of new names, sold and bought at the fee.
    net = [g - 2 * t * 2 * fee_bps / 10_000 / horizon for g, t in zip(gross, turnover, strict=True)]
    return {"spread_gross": gross, "spread_net": net, "turnover": turnover}


class TestRegression:
    def test_newey_west_by_hand(self) -> None:
        # Deviations from the mean 2 are -1, 0, 1, 0; their squares sum to 2, neighbours' products to 0, at lag 2 to -1.
        values = np.array([1.0, 2.0, 3.0, 2.0])
        assert newey_west_t(values, 0) == pytest.approx(2 / np.sqrt(2 / 3 / 4))
        assert newey_west_t(values, 2) == pytest.approx(2 / np.sqrt((2 + 2 * (0 * 2 / 3 - 1 / 3)) / 3 / 4))

    @pytest.mark.parametrize("lags", [0, 1, 8, 38])
    def test_newey_west_is_that_of_statsmodels(self, lags: int) -> None:
        import statsmodels.api as sm

        values = 0.05 + np.convolve(np.random.default_rng(9).standard_normal(204), np.ones(5), "valid")
        fitted = sm.OLS(values, np.ones(200)).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": True})
        assert newey_west_t(values, lags) == pytest.approx(fitted.tvalues[0])

    def test_overlapping_labels_do_not_inflate_t(self) -> None:
        """Sums of 5 neighbouring noises share 4 of them: uncorrected, t is wild; corrected, nearly a t."""
        noise = np.random.default_rng(5).standard_normal((300, 504))
        sums = np.stack([np.convolve(row, np.ones(5), "valid") for row in noise])
        plain, corrected = (np.std([newey_west_t(row, lags) for row in sums]) for lags in (0, 8))
        assert plain > 1.9
        assert 0.9 < corrected < 1.25

    def test_spread_by_hand(self) -> None:
        """Three symbols: long the best, short the worst. At horizon 2 session 2 replaces its long name alone, session 3 nothing."""
        scores = [[1, 2, 3], [1, 2, 3], [1, 3, 2], [1, 2, 3]]
        returns = [[-0.02, 0.0, 0.04], [0.0, 0.0, 0.0], [0.01, 0.03, 0.0], [0.0, 0.0, -0.02]]
        found = held(scores, returns, horizon=2, fee_bps=10)
        assert found["spread_gross"] == pytest.approx([0.03, 0.0, 0.01, -0.01])
        assert found["turnover"] == pytest.approx([np.nan, np.nan, 0.5, 0.0], nan_ok=True)
        # One new name of the long leg: 10 bps to sell the old one and 10 to buy it, over two sessions 10 bps each.
        assert found["spread_net"] == pytest.approx([np.nan, np.nan, 0.01 - 0.001, -0.01], nan_ok=True)

    def test_no_order_no_tranche(self) -> None:
        found = held([[1, 1], [1, 2], [None, 1], [2, 1], [2, 1]], [[0.1, 0.2]] * 5, horizon=1)
        assert found["spread_gross"] == pytest.approx([np.nan, 0.1, np.nan, -0.1, -0.1], nan_ok=True)
        assert found["turnover"] == pytest.approx([np.nan, np.nan, np.nan, np.nan, 0.0], nan_ok=True)

    def test_tenths_of_five_and_twenty_symbols_and_more(self) -> None:
        for symbols, size in ((5, 1), (19, 1), (20, 2), (29, 2), (30, 3)):
            returns = [float(i) for i in range(symbols)]
            expected = np.mean(returns[-size:]) - np.mean(returns[:size])
            assert held([returns], [returns], horizon=1)["spread_gross"] == pytest.approx([expected])

    def test_information_ratio(self) -> None:
        """Mean over standard deviation of three sessions; the one without an IC does not count."""
        sums = {name: values.sum(keepdims=True) for name, values in ranking_sums({"rank_ic": np.array([0.1, 0.2, np.nan, 0.0])}).items()}
        found = ranking_scores(sums)
        assert found["rank_ic"] == pytest.approx([0.1])
        assert found["icir"] == pytest.approx([1.0])
        same = ranking_sums({"rank_ic": np.array([0.1, 0.1])})
        assert np.isnan(ranking_scores({name: values.sum(keepdims=True) for name, values in same.items()})["icir"]).all()


class TestProperties:
    @given(values=st.lists(st.floats(-1, 1), max_size=30), lags=st.integers(0, 40))
    def test_newey_west_never_fails(self, values: list[float], lags: int) -> None:
        t = newey_west_t(np.array(values), lags)
        assert t is None or np.isfinite(t)

    @given(rows=ROWS)
    @settings(max_examples=60)
    def test_rank_ic_is_that_of_scipy(self, rows: list[tuple[int, int, int]]) -> None:
        from scipy.stats import rankdata, spearmanr

        unit, codes, forward = (np.array(values) for values in zip(*rows, strict=True))
        ranks = average_ranks(unit, codes, order_within(unit, codes))
        return_ranks = average_ranks(unit, forward + 5, order_within(unit, forward + 5))
        found = rank_ics(unit, 6, ranks, return_ranks)
        for session in range(6):
            own = unit == session
            assert ranks[own] == pytest.approx(rankdata(codes[own]))
            if own.sum() < 2 or np.ptp(codes[own]) == 0 or np.ptp(forward[own]) == 0:
                assert np.isnan(found[session])
            else:
                assert found[session] == pytest.approx(spearmanr(codes[own], forward[own]).statistic, abs=1e-12)

    @given(
        seed=st.integers(0, 10_000), symbols=st.integers(1, 45), sessions=st.integers(1, 12), horizon=st.integers(1, 5),
        fee_bps=st.floats(0, 50), levels=st.integers(1, 40),
    )  # fmt: skip
    @settings(max_examples=60, deadline=None)
    def test_tranches_are_the_plain_loop(self, seed: int, symbols: int, sessions: int, horizon: int, fee_bps: float, levels: int) -> None:
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, levels, (sessions, symbols)).astype(float)  # with ties
        scores[rng.random(scores.shape) < 0.15] = np.nan
        if np.isnan(scores).all():
            scores[0, 0] = 1.0
        returns = rng.standard_normal(scores.shape)
        table = [[None if np.isnan(score) else score for score in row] for row in scores]
        found, expected = held(table, returns.tolist(), horizon, fee_bps), slow(scores, returns, horizon, fee_bps)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, nan_ok=True, abs=1e-12), name
        assert pl.Series(found["turnover"]).fill_nan(0.0).is_between(0, 1).all()
