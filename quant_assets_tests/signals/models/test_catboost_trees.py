"""CatBoost: TreeSHAP against its definition, and a text without a guid or a clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.models.catboost_trees import CatboostTrees, from_body
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.models.estimator import fit
from quant_assets_tests.signals.models.shapley import Leaf, Node, Split, shapley
from quant_assets_tests.signals.worlds import FEATURES

CONFIG = ModelConfig("catboost", rounds=4, leaves=7, learning_rate=0.3)


def node(tree: dict[str, Any], level: int, place: int) -> Node:
    """A symmetric tree as splits: bit i of a leaf's place says whether the value lies above split i's border."""
    if level < 0:
        return Leaf(tree["leaf_values"][place], tree["leaf_weights"][place])
    split = tree["splits"][level]
    border = split["border"]
    below, above = (node(tree, level - 1, place + bit * 2**level) for bit in (0, 1))
    return Split(split["float_feature_index"], lambda value: not np.float32(value) > border, below, above)


class TestRegression:
    def test_the_file_carries_no_trace_of_its_making(
        self, frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        model = fit(frame, FEATURES, "up", CONFIG, seed=7)
        assert sorted(json.loads(model.to_text().split("\n", 1)[1])["model"]) == ["features_info", "oblivious_trees", "scale_and_bias"]
        assert list(tmp_path.iterdir()) == []
        assert capfd.readouterr() == ("", "")

    def test_features_that_never_vary_are_refused(self) -> None:
        flat = pl.DataFrame({"x": [1.0] * 100, "up": [True, False] * 50})
        with pytest.raises(QuantAssetsError, match=r"cannot learn from these 100 rows: .*constant"):
            fit(flat, ["x"], "up", CONFIG, seed=1)

    def test_trees_lost_are_seen(self, frame: pl.DataFrame) -> None:
        body = json.loads(fit(frame, FEATURES, "up", CONFIG, seed=7).to_text().split("\n", 1)[1])
        del body["model"]["features_info"]["float_features"][-1]
        with pytest.raises(QuantAssetsError, match="cannot read this catboost model"):
            from_body(json.dumps(body), 1)
        with pytest.raises(QuantAssetsError, match="cannot read this catboost model"):
            from_body("{}", 1)


class TestProperties:
    @pytest.mark.parametrize("weight", [None, "weight"])
    def test_contributions_are_shapley_values(self, frame: pl.DataFrame, weight: str | None) -> None:
        model = fit(frame, FEATURES, "up", CONFIG, seed=7, weight=weight)
        assert isinstance(model, CatboostTrees)
        written = json.loads(model.body)["model"]
        trees = [node(tree, len(tree["splits"]) - 1, 0) for tree in written["oblivious_trees"]]
        assert all(len(tree["splits"]) == 3 for tree in written["oblivious_trees"])
        scale, (bias,) = written["scale_and_bias"]
        assert scale == 1
        rows = frame.head(30)
        assert rows["first"].null_count() > 0
        expected = np.array([shapley(trees, row) for row in rows.select(FEATURES).to_numpy()])
        expected[:, -1] += bias
        np.testing.assert_allclose(model.contributions(rows).to_numpy(), expected, atol=1e-9)
