"""Scores: against scikit-learn and SciPy, against sums by hand, and where there is nothing to score."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.signals.evaluation import auc, calibration, evaluate, newey_west_t


def panel(seed: int = 3, symbols: int = 12, sessions: int = 30) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    n = symbols * sessions
    returns = rng.standard_normal(n)
    return pl.DataFrame(
        {
            "symbol": [f"S{i:02}" for i in range(symbols)] * sessions,
            "session": [date(2020, 1, 1) + timedelta(days=i) for i in range(sessions) for _ in range(symbols)],
            "fold": np.repeat(np.arange(sessions) // 10, symbols).astype(np.int32),
            "probability": np.clip(0.5 + 0.02 * returns + 0.05 * rng.standard_normal(n), 0.01, 0.99).round(2),  # with ties
            "control_probability": np.clip(0.5 + 0.05 * rng.standard_normal(n), 0.01, 0.99),
            "train_up_share": np.repeat(np.array([0.48, 0.52, 0.55])[np.arange(sessions) // 10], symbols),
            "forward_return": returns,
            "up": returns > 0,
        }
    )


class TestRegression:
    def test_calibration_by_hand(self) -> None:
        rows = pl.DataFrame({"probability": [0.7, 0.1, 0.5, 0.3], "up": [True, False, True, True]})
        assert calibration(rows, bins=2).rows() == [(0, 2, pytest.approx(0.2), 0.5), (1, 2, pytest.approx(0.6), 1.0)]

    def test_four_rows_by_hand(self) -> None:
        rows = pl.DataFrame(
            {
                "symbol": ["A", "B", "C", "D"],
                "session": [date(2020, 1, 1)] * 4,
                "fold": pl.Series([0] * 4, dtype=pl.Int32),
                "probability": [0.6, 0.7, 0.4, 0.6],
                "control_probability": [0.5] * 4,
                "train_up_share": [0.4] * 4,
                "forward_return": [0.01, 0.03, 0.02, -0.01],
                "up": [True, True, True, False],
            }
        )
        summary = evaluate(rows, horizon=1).summary
        # Ups at .6, .7 and .4 against the down at .6: half, one and none of three pairs.
        assert summary["auc"] == pytest.approx(1.5 / 3)
        assert summary["brier"] == pytest.approx((0.16 + 0.09 + 0.36 + 0.36) / 4)
        assert summary["accuracy"] == 0.5
        assert summary["majority_accuracy"] == 0.25  # the training's majority was down
        assert summary["base_rate_log_loss"] == pytest.approx(-(3 * np.log(0.4) + np.log(0.6)) / 4)
        # Ranks 2.5, 4, 1, 2.5 against 2, 4, 3, 1: deviations 0, 1.5, -1.5, 0 against -0.5, 1.5, 0.5, -1.5.
        assert summary["rank_ic"] == pytest.approx(1.5 / np.sqrt(4.5 * 5.0))
        assert summary["control_auc"] == 0.5
        assert summary["control_rank_ic"] is None
        assert (summary["rows"], summary["sessions"], summary["rank_ic_sessions"]) == (4, 1, 1)
        assert summary["rank_ic_t"] is None

    def test_scikit_learn_and_scipy_agree(self) -> None:
        from scipy.stats import spearmanr, ttest_1samp
        from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

        rows = panel()
        result = evaluate(rows.sample(fraction=1, shuffle=True, seed=1), horizon=1)
        assert result.folds["fold"].to_list() == [0, 1, 2]
        for part, scores in [*((rows.filter(fold=row["fold"]), row) for row in result.folds.to_dicts()), (rows, result.summary)]:
            up, probability, base = (part[name].to_numpy() for name in ("up", "probability", "train_up_share"))
            ics = [spearmanr(day["probability"], day["forward_return"]).statistic for day in part.partition_by("session")]
            expected = {
                "auc": roc_auc_score(up, probability),
                "control_auc": roc_auc_score(up, part["control_probability"]),
                "log_loss": log_loss(up, probability),
                "brier": brier_score_loss(up, probability),
                "accuracy": accuracy_score(up, probability >= 0.5),
                "majority_accuracy": accuracy_score(up, base >= 0.5),
                "base_rate_log_loss": log_loss(up, base),
                "rank_ic": np.mean(ics),
                "rank_ic_t": ttest_1samp(ics, 0).statistic,
                "rank_ic_sessions": len(ics),
                "rows": len(part),
            }
            assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)

    def test_newey_west_by_hand(self) -> None:
        # Deviations from the mean 2 are -1, 0, 1, 0; their squares sum to 2, neighbours' products to 0, at lag 2 to -1.
        values = np.array([1.0, 2.0, 3.0, 2.0])
        assert newey_west_t(values, 0) == pytest.approx(2 / np.sqrt(2 / 3 / 4))
        assert newey_west_t(values, 2) == pytest.approx(2 / np.sqrt((2 + 2 * (0 * 2 / 3 - 1 / 3)) / 3 / 4))

    def test_overlapping_labels_do_not_inflate_t(self) -> None:
        """Sums of 5 neighbouring noises share 4 of them: uncorrected, t is wild; corrected, nearly a t."""
        noise = np.random.default_rng(5).standard_normal((300, 504))
        sums = np.stack([np.convolve(row, np.ones(5), "valid") for row in noise])
        plain, corrected = (np.std([newey_west_t(row, lags) for row in sums]) for lags in (0, 8))
        assert plain > 1.9
        assert 0.9 < corrected < 1.25

    def test_sessions_that_cannot_be_ranked_are_left_out(self) -> None:
        rows = panel(sessions=10)
        first, second = date(2020, 1, 1), date(2020, 1, 2)
        alone = rows.filter((pl.col("session") != first) | (pl.col("symbol") == "S00"))
        flat = alone.with_columns(pl.when(pl.col("session") == second).then(0.5).otherwise("probability").alias("probability"))
        result = evaluate(flat, horizon=1)
        assert result.summary["rank_ic_sessions"] == 8
        assert result.sessions.filter(pl.col("rank_ic").is_null())["session"].to_list() == [first, second]
        assert result.summary["rank_ic"] == pytest.approx(result.sessions["rank_ic"].drop_nulls().mean())

    def test_one_class_and_constant_predictions_are_null(self) -> None:
        rows = panel(sessions=10).with_columns(up=True, probability=pl.lit(0.5))
        summary = evaluate(rows, horizon=5).summary
        assert [summary[name] for name in ("auc", "rank_ic", "rank_ic_t")] == [None, None, None]
        assert summary["accuracy"] == 1.0


class TestProperties:
    @given(
        rows=st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40).filter(
            lambda rows: len({up for _, up in rows}) == 2
        )
    )
    def test_auc_counts_pairs(self, rows: list[tuple[int, bool]]) -> None:
        probability, up = pl.Series([p / 20 for p, _ in rows]), pl.Series([u for _, u in rows])
        ups, downs = probability.filter(up), probability.filter(~up)
        won = sum((p > q) + 0.5 * (p == q) for p in ups for q in downs)
        area = auc(probability, up)
        assert area == pytest.approx(won / (len(ups) * len(downs)))
        assert auc(probability**3 / 2, up) == pytest.approx(area)  # only the order counts
        assert auc(1 - probability, up) == pytest.approx(1 - area)

    @given(values=st.lists(st.floats(-1, 1), max_size=30), lags=st.integers(0, 40))
    def test_newey_west_never_fails(self, values: list[float], lags: int) -> None:
        t = newey_west_t(np.array(values), lags)
        assert t is None or np.isfinite(t)
