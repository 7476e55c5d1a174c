"""LightGBM: leaves by hand, TreeSHAP against its definition."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.estimator import fit
from quant_assets.signals.models.lightgbm_trees import LightgbmTrees, parameters
from quant_assets_tests.signals.models.shapley import Leaf, Node, Split, shapley
from quant_assets_tests.signals.worlds import FEATURES


def node(dumped: dict[str, Any]) -> Node:
    if "leaf_value" in dumped:
        return Leaf(dumped["leaf_value"], dumped["leaf_count"])
    assert dumped["decision_type"] == "<="
    threshold, missing_left, knows_missing = dumped["threshold"], dumped["default_left"], dumped["missing_type"] == "NaN"

    def goes_left(value: float) -> bool:
        if isnan(value):
            return bool(missing_left) if knows_missing else threshold >= 0
        return value <= threshold

    return Split(dumped["split_feature"], goes_left, node(dumped["left_child"]), node(dumped["right_child"]))


class TestRegression:
    def test_one_split_by_hand(self) -> None:
        """One stump on a feature that decides: each leaf moves from the base rate's log-odds by rate · gradient / (hessian + l2)."""
        known = pl.DataFrame({"x": [0.0] * 100 + [1.0] * 100, "up": [False] * 80 + [True] * 20 + [True] * 100})
        config = ModelConfig(rounds=1, row_fraction=1.0, leaves=2, learning_rate=0.1, l2=5.0, feature_fraction=1.0)
        stump = fit(known, ["x"], "up", config, seed=1)
        base = np.log(0.6 / 0.4)  # 120 of 200 are up
        leaves = [base + 0.1 * (ups - 100 * 0.6) / (100 * 0.6 * 0.4 + 5) for ups in (20, 100)]
        asked = pl.DataFrame({"x": [0.0, 1.0]})
        np.testing.assert_allclose(stump.log_odds(asked), leaves, atol=1e-7)  # gradients are float32
        parts = stump.contributions(asked)
        np.testing.assert_allclose(parts["base"], np.full(2, np.mean(leaves)), atol=1e-7)  # half the rows went each way
        np.testing.assert_allclose(parts["x"], leaves - np.mean(leaves), atol=1e-7)

    def test_small_frames_get_smaller_leaves(self) -> None:
        assert parameters(ModelConfig(), 1_000, seed=7)["min_data_in_leaf"] == 20
        assert parameters(ModelConfig(), 600_000, seed=7)["min_data_in_leaf"] == 200


class TestProperties:
    @pytest.mark.parametrize("weight", [None, "weight"])
    def test_contributions_are_shapley_values(self, frame: pl.DataFrame, weight: str | None) -> None:
        config = ModelConfig(rounds=4, leaves=5, learning_rate=0.3)
        model = fit(frame, FEATURES, "up", config, seed=7, weight=weight)
        assert isinstance(model, LightgbmTrees)
        trees = [node(tree["tree_structure"]) for tree in model.native.dump_model()["tree_info"]]
        rows = frame.head(30)
        assert rows["first"].null_count() > 0
        expected = [shapley(trees, row) for row in rows.select(FEATURES).to_numpy()]
        np.testing.assert_allclose(model.contributions(rows).to_numpy(), expected, atol=1e-12)
