"""XGBoost: TreeSHAP against its definition; without the library, the extra is named."""

from __future__ import annotations

import json
from importlib.util import find_spec
from math import isnan
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import ConfigurationError
from quant_assets.signals.models import xgboost_trees
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.estimator import fit, from_text
from quant_assets.signals.models.fitted import sealed
from quant_assets_tests.signals.models.shapley import Leaf, Node, Split, shapley
from quant_assets_tests.signals.worlds import FEATURES

needs_xgboost = pytest.mark.skipif(find_spec("xgboost") is None, reason="the extra `xgboost` is not installed")


def node(tree: dict[str, Any], place: int = 0) -> Node:
    left, right, value = tree["left_children"][place], tree["right_children"][place], tree["split_conditions"][place]
    if left == -1:
        return Leaf(value, tree["sum_hessian"][place])
    missing_left = bool(tree["default_left"][place])

    def goes_left(asked: float) -> bool:
        return missing_left if isnan(asked) else np.float32(asked) < np.float32(value)

    return Split(tree["split_indices"][place], goes_left, node(tree, left), node(tree, right))


class TestRegression:
    def test_a_missing_library_names_the_extra(self, frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(xgboost_trees, "find_spec", lambda name: None)
        with pytest.raises(ConfigurationError, match=r"pip install 'quant-assets\[xgboost\]'"):
            fit(frame, FEATURES, "up", ModelConfig("xgboost", rounds=1), seed=7)
        with pytest.raises(ConfigurationError, match=r"pip install 'quant-assets\[xgboost\]'"):
            from_text("xgboost", sealed("xgboost", "{}"))

    @needs_xgboost
    def test_one_split_by_hand(self) -> None:
        """Each leaf moves from the base rate's log-odds by rate · gradient / (hessian + l2)."""
        known = pl.DataFrame({"x": [0.0] * 100 + [1.0] * 100, "up": [False] * 80 + [True] * 20 + [True] * 100})
        stump = fit(
            known,
            ["x"],
            "up",
            ModelConfig("xgboost", rounds=1, leaves=2, learning_rate=0.1, l2=5.0, feature_fraction=1.0, row_fraction=1.0),
            seed=1,
        )
        expected = [np.log(0.6 / 0.4) + 0.1 * (ups - 100 * 0.6) / (100 * 0.6 * 0.4 + 5) for ups in (20, 100)]
        np.testing.assert_allclose(stump.log_odds(pl.DataFrame({"x": [0.0, 1.0]})), expected, atol=1e-6)


@needs_xgboost
class TestProperties:
    @pytest.mark.parametrize("weight", [None, "weight"])
    def test_contributions_are_shapley_values(self, frame: pl.DataFrame, weight: str | None) -> None:
        model = fit(frame, FEATURES, "up", ModelConfig("xgboost", rounds=4, leaves=7, learning_rate=0.3), seed=7, weight=weight)
        learner = json.loads(model.to_text().split("\n", 1)[1])["model"]["learner"]
        trees = [node(tree) for tree in learner["gradient_booster"]["model"]["trees"]]
        start = float(learner["learner_model_param"]["base_score"].strip("[]"))
        rows = frame.head(30)
        expected = np.array([shapley(trees, row) for row in rows.select(FEATURES).to_numpy()])
        expected[:, -1] += np.log(start / (1 - start))
        np.testing.assert_allclose(model.contributions(rows).to_numpy(), expected, atol=2e-6)  # its own sums are float32
