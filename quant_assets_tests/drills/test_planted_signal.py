"""The synthetic market whole: what is planted is found, nothing is found where nothing is, and a look at the future is told.

Ten seeds of thirty symbols over 1,260 sessions, the last 756 out of sample; the oracle is the planted score itself.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.signals.evaluation.bootstrap import block_length, paired_difference
from quant_assets.signals.evaluation.leaks import leak_report
from quant_assets.signals.models import estimator
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.promotion import decide
from quant_assets.signals.training import train
from quant_assets_tests.signals.markets import FEATURES, market, setup

SEEDS = range(1, 11)
pytestmark = [pytest.mark.drill, pytest.mark.timeout(1500)]


def rank_ics(scored: pl.DataFrame, score: str) -> pl.DataFrame:
    """Per session the rank IC of a score and of the oracle, as `leak_report` takes them."""
    told = scored.drop_nulls("oracle_score").group_by("session").agg(
        rank_ic=pl.corr(score, "forward_return", method="spearman"), oracle_rank_ic=pl.corr("oracle_score", "forward_return", method="spearman")
    )  # fmt: skip
    return told.fill_nan(None).sort("session")


def out_of_sample(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.join(frame.select("session").unique().sort("session").tail(756), on="session", how="semi")


def test_most_of_what_is_planted_is_found_and_never_more() -> None:
    found = []
    for seed in SEEDS:
        judged = train(market(seed), setup()).evaluation
        both = judged.sessions.drop_nulls(["rank_ic", "oracle_rank_ic"])
        excess = paired_difference(both["rank_ic"], both["oracle_rank_ic"], block_length(len(both), 1))
        assert excess.mean is not None
        assert excess.standard_error is not None
        assert excess.mean < 3 * excess.standard_error
        assert leak_report(judged.sessions, 1) == []
        assert judged.sessions.height >= 750
        found.append((judged.summary["rank_ic"], judged.summary["oracle_rank_ic"], judged.summary["rank_ic_t"]))
    model, oracle, t = np.array(found, dtype=float).T
    assert model.mean() >= 0.6 * oracle.mean()
    assert (t > 3).sum() >= 9


def test_nothing_is_found_where_nothing_is_planted() -> None:
    results = [train(market(seed, 0.0), setup()) for seed in SEEDS]
    assert all(abs(result.evaluation.summary["rank_ic_t"]) < 3 for result in results)
    assert not any(decide(result.predictions, None, 1, 0.99).promoted for result in results)


class TestPlantedLeaks:
    """Each beats the oracle by more than three paired standard errors, and is told."""

    def test_a_label_one_session_early(self) -> None:
        frame = market(1).sort("symbol", "session")
        early = frame.with_columns(pl.col(*FEATURES).shift(-1).over("symbol")).drop_nulls(FEATURES)
        (finding,) = leak_report(train(early, setup()).evaluation.sessions, 1)
        assert finding.startswith("Leak: the model's mean rank IC")

    def test_a_column_from_the_future(self) -> None:
        rng = np.random.default_rng(1)
        frame = market(1)
        noise = pl.Series(rng.standard_normal(len(frame)) * frame["forward_return"].std())  # type: ignore[operator]
        (finding,) = leak_report(train(frame.with_columns(rsi_14=pl.col("forward_return") + 2 * noise), setup()).evaluation.sessions, 1)
        assert finding.startswith("Leak: the model's mean rank IC")

    def test_shuffled_folds_of_overlapping_labels(self) -> None:
        """Price levels tell trees the symbol and its time, and the neighbours' labels share four sessions of five."""
        levels = [feature.name for feature in TECHNICAL_V1]
        frame = market(1, horizon=5, columns=tuple(levels))
        days = frame["session"].unique().sort()
        fold = pl.DataFrame({"session": days, "fold": np.random.default_rng(0).integers(0, 5, len(days))})
        rows = frame.join(fold, on="session")
        config = ModelConfig(leaves=31, rounds=150, min_data_in_leaf=10, learning_rate=0.15, l2=1.0, max_bin=255)
        parts = []
        for number in range(5):
            trained = estimator.fit(rows.filter(pl.col("fold") != number), levels, "up", config, 7)
            tested = rows.filter(pl.col("fold") == number)
            parts.append(tested.with_columns(trained.log_odds(tested).alias("score")))
        (finding,) = leak_report(rank_ics(out_of_sample(pl.concat(parts)), "score"), 5)
        assert finding.startswith("Leak: the model's mean rank IC")
