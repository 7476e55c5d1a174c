"""Boosters: a repeatable fit, exact contributions, and a text that is the whole model."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import ContractError, QuantAssetsError
from quant_assets.signals.boosters import Booster, BoosterConfig, fit, fit_labels
from quant_assets_tests.signals.worlds import FEATURES, world

CONFIG = BoosterConfig(rounds=20, threads=1)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    known = world(1, rank_ic=0.3, sessions=100).with_row_index()
    return known.with_columns(pl.when(pl.col("index") % 7 != 0).then(pl.col("first")).alias("first"))


@pytest.fixture(scope="module")
def booster(frame: pl.DataFrame) -> Booster:
    return fit(frame, FEATURES, "up", CONFIG, seed=7)


class TestRegression:
    def test_one_split_by_hand(self) -> None:
        """One stump on a feature that decides: each leaf moves from the base rate's log-odds by rate · gradient / hessian."""
        known = pl.DataFrame({"x": [0.0] * 100 + [1.0] * 100, "up": [False] * 80 + [True] * 20 + [True] * 100})
        stump = fit(known, ["x"], "up", BoosterConfig(rounds=1, leaves=2, learning_rate=0.1, lambda_l2=0.0, feature_fraction=1.0), seed=1)
        base = np.log(0.6 / 0.4)  # 120 of 200 are up
        for x, ups in ((0.0, 20), (1.0, 100)):
            log_odds = base + 0.1 * (ups - 100 * 0.6) / (100 * 0.6 * 0.4)
            assert stump.predict(pl.DataFrame({"x": [x]})).item() == pytest.approx(
                1 / (1 + np.exp(-log_odds)), abs=1e-8
            )  # gradients are float32

    def test_small_frames_get_smaller_leaves(self) -> None:
        assert BoosterConfig().parameters(1_000, seed=7)["min_data_in_leaf"] == 20
        assert BoosterConfig().parameters(600_000, seed=7)["min_data_in_leaf"] == 200

    def test_importance_ranks_what_tells_first(self, booster: Booster) -> None:
        assert booster.importance["feature"][0] == "first"
        assert booster.importance.columns == ["feature", "gain", "splits"]

    def test_missing_feature_and_broken_text_are_named(self, booster: Booster, frame: pl.DataFrame) -> None:
        with pytest.raises(ContractError, match=r"first, second, third, fourth; the frame lacks second\."):
            booster.predict(frame.drop("second"))
        with pytest.raises(QuantAssetsError, match="no LightGBM model text"):
            Booster.from_text("tree\nversion=v4\n")

    def test_unknown_labels_are_refused(self, frame: pl.DataFrame) -> None:
        unknown = frame.with_columns(up=pl.when(pl.int_range(pl.len()) > 2).then(pl.col("up")))
        with pytest.raises(ValueError, match="up is null in 3 of 2000 rows"):
            fit(unknown, FEATURES, "up", CONFIG, seed=7)


class TestProperties:
    def test_same_frame_same_bytes(self, booster: Booster, frame: pl.DataFrame) -> None:
        assert fit(frame, FEATURES, "up", CONFIG, seed=7).text == booster.text
        assert fit(frame, FEATURES, "up", CONFIG, seed=8).text != booster.text

    def test_sharing_the_bins_changes_nothing(self, booster: Booster, frame: pl.DataFrame) -> None:
        both = frame.with_columns(down=~pl.col("up"))
        down, up = fit_labels(both, FEATURES, ["down", "up"], CONFIG, seed=7)
        assert up == booster
        assert down == fit(both, FEATURES, "down", CONFIG, seed=7)

    def test_contributions_sum_to_the_log_odds(self, booster: Booster, frame: pl.DataFrame) -> None:
        probability = booster.predict(frame)
        assert probability.is_between(0, 1).all()
        logit = (probability / (1 - probability)).log()
        contributions = booster.contributions(frame)
        assert contributions.columns == [*FEATURES, "base"]
        np.testing.assert_allclose(contributions.sum_horizontal().to_numpy(), logit.to_numpy(), atol=1e-9)
        assert frame["first"].null_count() > 0
        assert sum(contributions.null_count().row(0)) == 0

    def test_text_is_the_whole_model(self, booster: Booster, frame: pl.DataFrame) -> None:
        again = Booster.from_text(booster.text)
        assert again == booster
        assert again.predict(frame).equals(booster.predict(frame))

    def test_other_columns_and_their_order_do_not_matter(self, booster: Booster, frame: pl.DataFrame) -> None:
        assert booster.predict(frame.select(*reversed(frame.columns))).equals(booster.predict(frame))

    def test_no_rows(self, booster: Booster, frame: pl.DataFrame) -> None:
        assert booster.predict(frame.head(0)).dtype == pl.Float64
        assert booster.contributions(frame.head(0)).shape == (0, 5)
