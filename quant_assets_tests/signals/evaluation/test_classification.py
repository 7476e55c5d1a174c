"""Scores of probabilities and calls: against scikit-learn, against sums by hand, and against plain loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.signals.evaluation.classification import (
    auc,
    auc_of_counts,
    calibration,
    call_sums,
    classification_scores,
    dense_codes,
    equal_count_bins,
    probability_sums,
    rank_counts,
)  # fmt: skip

COLUMNS = st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60)


def scored(probability: np.ndarray, up: np.ndarray, base: np.ndarray, unit: np.ndarray) -> dict[str, float]:
    """All scores of rows spread over units (sessions), from their sums."""
    units, tenth = int(unit.max()) + 1, equal_count_bins(dense_codes(pl.Series(probability)), 10)
    sums = call_sums(unit, units, up, probability >= 0.5, base >= 0.5) | probability_sums(unit, units, up, probability, tenth, base)
    return {
        name: float(value[0]) for name, value in classification_scores({k: v.sum(axis=0, keepdims=True) for k, v in sums.items()}).items()
    }


class TestRegression:
    def test_calibration_by_hand(self) -> None:
        rows = pl.DataFrame({"probability": [0.7, 0.1, 0.5, 0.3], "up": [True, False, True, True]})
        assert calibration(rows, bins=2).rows() == [(0, 2, pytest.approx(0.2), 0.5), (1, 2, pytest.approx(0.6), 1.0)]

    def test_equal_probabilities_share_a_bin(self) -> None:
        rows = pl.DataFrame({"probability": [0.5, 0.5, 0.5, 0.9, None], "up": [True, False, True, True, True]})
        assert calibration(rows, bins=4).rows() == [(1, 3, 0.5, pytest.approx(2 / 3)), (3, 1, 0.9, 1.0)]

    def test_calls_by_hand(self) -> None:
        """Called .9, .6, .5, ups .9, .5, .3: two of three calls right, two of three ups found, base rate .4 calls all down."""
        probability, up = np.array([0.9, 0.6, 0.5, 0.3, 0.1]), np.array([True, False, True, True, False])
        found = scored(probability, up, np.full(5, 0.4), np.array([0, 0, 1, 1, 1]))
        assert [found[name] for name in ("accuracy", "accuracy_gain", "precision", "recall", "f1")] == pytest.approx(
            [3 / 5, 3 / 5 - 2 / 5, 2 / 3, 2 / 3, 2 / 3]
        )
        # Each row has a tenth of its own: the errors are its distances from what came.
        assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.5 + 0.7 + 0.1) / 5)
        assert found["log_loss_gain"] == pytest.approx(-(3 * np.log(0.4) + 2 * np.log(0.6)) / 5 - found["log_loss"])

    def test_nothing_called_has_no_precision(self) -> None:
        found = scored(np.array([0.1, 0.2]), np.array([True, False]), np.full(2, 0.4), np.array([0, 0]))
        assert np.isnan(found["precision"])
        assert (found["recall"], found["f1"]) == (0, 0)

    def test_scikit_learn_agrees(self) -> None:
        from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, precision_recall_fscore_support, roc_auc_score

        rng = np.random.default_rng(2)
        probability, unit = rng.random(3000).round(2).clip(0.01, 0.99), np.sort(rng.integers(0, 40, 3000))
        up, base = rng.random(3000) < 0.3 + 0.4 * probability, rng.choice([0.45, 0.55], 3000)
        precision, recall, f1, _ = precision_recall_fscore_support(up, probability >= 0.5, average="binary")
        expected = {
            "log_loss": log_loss(up, probability), "brier": brier_score_loss(up, probability), "precision": precision, "recall": recall,
            "f1": f1, "accuracy": accuracy_score(up, probability >= 0.5), "log_loss_gain": log_loss(up, base) - log_loss(up, probability),
            "accuracy_gain": accuracy_score(up, probability >= 0.5) - accuracy_score(up, base >= 0.5),
        }  # fmt: skip
        found = scored(probability, up, base, unit)
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
        assert auc(pl.Series(probability), pl.Series(up)) == pytest.approx(roc_auc_score(up, probability), abs=1e-12)

    def test_a_sure_error_costs_no_infinity(self) -> None:
        found = scored(np.array([0.0, 1.0]), np.array([True, False]), np.full(2, 0.5), np.array([0, 0]))
        assert found["log_loss"] == pytest.approx(-np.log(1e-15))

    def test_histogram_moves_as_the_exact_area_does(self) -> None:
        """Over resamples, the area from 32 bins strays from its own value as scikit-learn's from the exact one, to 5 % of the scatter."""
        from sklearn.metrics import roc_auc_score

        rng = np.random.default_rng(6)
        score, unit = rng.standard_normal(4000), np.repeat(np.arange(100), 40)
        up = rng.random(4000) < 1 / (1 + np.exp(-score))
        counts = rank_counts(unit, 100, up, equal_count_bins(dense_codes(pl.Series(score)), 32))
        weights = rng.multinomial(100, np.full(100, 0.01), size=100).astype(float)
        binned = auc_of_counts(weights @ counts["ups_by_score"], weights @ counts["downs_by_score"])
        whole = auc_of_counts(counts["ups_by_score"].sum(axis=0), counts["downs_by_score"].sum(axis=0))
        exact = np.array([roc_auc_score(up, score, sample_weight=row[unit]) for row in weights])
        difference = (binned - whole) - (exact - roc_auc_score(up, score))
        assert np.sqrt((difference**2).mean()) < 0.05 * exact.std()
        assert binned.std() == pytest.approx(exact.std(), rel=0.02)


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

    @given(values=st.lists(st.integers(0, 30), min_size=1, max_size=80), bins=st.integers(1, 12))
    def test_bins_keep_order_and_ties_and_are_as_full_as_ties_allow(self, values: list[int], bins: int) -> None:
        found = equal_count_bins(dense_codes(pl.Series(values)), bins)
        assert ((found >= 0) & (found < bins)).all()
        ordered = sorted(zip(values, found, strict=True))
        for (value, place), (later, behind) in pairwise(ordered):
            assert (place == behind) if value == later else (place <= behind)
        if len(set(values)) == len(values):
            assert max(np.bincount(found)) - min(np.bincount(found, minlength=bins)) <= 1

    @given(rows=COLUMNS)
    @settings(max_examples=60)
    def test_calibration_error_is_the_plain_loop(self, rows: list[tuple[int, bool, int]]) -> None:
        probability, up, unit = (np.array(values) for values in zip(*rows, strict=True))
        probability = probability / 20
        found = scored(probability, up, np.full(len(up), 0.5), unit)
        expected = 0.0
        for _, n, claimed, came in calibration(pl.DataFrame({"probability": probability, "up": up})).iter_rows():
            expected += n / len(up) * abs(claimed - came)
        assert found["ece"] == pytest.approx(expected, abs=1e-12)
