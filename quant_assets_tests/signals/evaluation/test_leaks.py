"""The positive control: a look at the future wins, and is named; skill and noise are not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from quant_assets.signals.evaluation import Evaluation, evaluate
from quant_assets.signals.evaluation.leaks import leak_report
from quant_assets_tests.signals.evaluation.panels import panel

SESSIONS, SYMBOLS = 300, 20


def market(seed: int, horizon: int = 5, *, rank_ic: float = 0.08) -> pl.DataFrame:
    """Predictions on returns of which `oracle_score` is all that can be known (its rank IC near `rank_ic`), sorted; the model knows half."""
    rng = np.random.default_rng(1000 + seed)  # not the numbers that the returns were drawn from
    rows = panel(seed, SYMBOLS, SESSIONS, horizon=horizon).sort("session", "symbol").drop("sector", "regime")
    returns = rows["forward_return"].to_numpy()
    truth = rank_ic * returns / returns.std() + np.sqrt(1 - rank_ic**2) * rng.standard_normal(len(rows))
    return claimed(rows.with_columns(oracle_score=pl.Series(truth)), truth + 1.7 * rng.standard_normal(len(rows)))


def claimed(rows: pl.DataFrame, score: np.ndarray) -> pl.DataFrame:
    return rows.with_columns(probability=pl.Series(1 / (1 + np.exp(-0.1 * score))))


def judged(rows: pl.DataFrame, horizon: int = 5) -> Evaluation:
    return evaluate(rows, horizon, resamples=50)


class TestRegression:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("horizon", [1, 5])
    def test_skill_is_no_leak(self, seed: int, horizon: int) -> None:
        sessions = judged(market(seed, horizon), horizon).sessions
        assert leak_report(sessions, horizon) == []
        assert leak_report(sessions.drop("oracle_rank_ic"), horizon) == []

    def test_a_future_column_wins_and_is_caught(self) -> None:
        """A probability made of a tenth of the forward return itself."""
        rows = market(1)
        future = rows["forward_return"].to_numpy() / rows["forward_return"].std()
        result = judged(claimed(rows, 0.5 * future + np.random.default_rng(2).standard_normal(len(rows))))
        assert result.summary["rank_ic"] > 4 * result.summary["oracle_rank_ic"]
        (finding,) = leak_report(result.sessions, 5)
        for part in ("Leak", f"{result.summary['rank_ic']:.4f}", f"{result.summary['oracle_rank_ic']:.4f}", "300 sessions", "purge"):
            assert part in finding
        (finding,) = leak_report(result.sessions.drop("oracle_rank_ic"), 5)
        for part in ("Implausible", f"{result.summary['rank_ic']:.4f}", "0.20", "known only after"):
            assert part in finding

    def test_a_label_one_session_off_wins_and_is_caught(self) -> None:
        """What should have been predicted a session later, at horizon 5: four of the five sessions are the same."""
        rows = market(2)
        later = rows.with_columns(pl.col("forward_return").shift(-1).over("symbol").fill_null(0.0).alias("later"))
        result = judged(claimed(rows, later["later"].to_numpy() / later["later"].std()))
        assert result.summary["rank_ic"] > 0.6
        assert result.summary["auc"] > 0.8
        assert "Leak" in leak_report(result.sessions, 5)[0]
        assert "Implausible" in leak_report(result.sessions.drop("oracle_rank_ic"), 5)[0]

    def test_a_sure_leak_needs_no_scatter(self) -> None:
        sessions = pl.DataFrame({"rank_ic": [1.0] * 30, "oracle_rank_ic": [0.1] * 30})
        assert "by 0.9000 over 30 sessions; the paired standard error is 0.0000" in leak_report(sessions, 1)[0]

    def test_limit_and_its_bound(self) -> None:
        """A mean of 0.25 over quiet sessions lies above 0.20 beyond doubt, over wild ones it may be luck; the limit is an argument."""
        noise = np.random.default_rng(3).standard_normal(60)
        quiet, wild = (pl.DataFrame({"rank_ic": 0.25 + size * (noise - noise.mean())}) for size in (0.05, 0.4))
        assert leak_report(quiet, 1)[0].startswith("Implausible: the mean rank IC 0.2500 over 60 sessions")
        assert leak_report(wild, 1) == []
        assert leak_report(quiet, 1, limit=0.3) == []

    def test_sessions_without_a_rank_ic_do_not_count(self) -> None:
        sessions = pl.DataFrame({"rank_ic": [0.9, None] * 30, "oracle_rank_ic": [0.1] * 60})
        assert "over 30 sessions" in leak_report(sessions, 1)[0]
        assert leak_report(sessions.head(38), 1) == []  # of 19 nothing can be said


class TestProperties:
    def test_noise_is_called_a_leak_no_more_than_chance_allows(self) -> None:
        """100 models no better than the truth, their ICs overlapping: none exceeds it by 3 standard errors, or one at most."""
        rng = np.random.default_rng(7)
        found = 0
        for _ in range(100):
            ics = [np.convolve(rng.standard_normal(256), np.ones(5) / 25, "valid")[:252] for _ in range(2)]
            found += len(leak_report(pl.DataFrame({"rank_ic": ics[0], "oracle_rank_ic": ics[1]}), 5, resamples=200))
        assert found <= 1
