"""A configuration says what cannot be, and survives JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from quant_assets.signals.models.config import ModelConfig


class TestRegression:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"family": "forest"}, "'forest'; choose one of lightgbm, catboost, logistic, xgboost, average"),
            ({"calibration": "beta"}, "'beta'; choose one of platt, isotonic, none"),
            ({"members": ()}, "at least one member"),
            ({"members": ("lightgbm", "average")}, "the member 'average'; choose from lightgbm, catboost, logistic, xgboost"),
            ({"members": ("logistic", "logistic")}, "counts once"),
            ({"rounds": 0}, "rounds must be at least 1; it is 0"),
            ({"leaves": 1}, "leaves must be at least 2"),
            ({"max_bin": 300}, "max_bin must be at least 2 and at most 255; it is 300"),
            ({"l2": float("nan")}, "l2 must be at least 0"),
            ({"learning_rate": 0.0}, "learning_rate must be above 0"),
            ({"feature_fraction": 1.1}, "feature_fraction must be above 0 and at most 1"),
            ({"early_stopping_rounds": -1}, "early_stopping_rounds must be at least 0"),
            ({"threads": 0}, "threads must be at least 1"),
        ],
    )
    def test_what_cannot_be_is_named(self, wrong: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            ModelConfig(**wrong)

    def test_depth_holds_the_leaves(self) -> None:
        assert [ModelConfig(leaves=leaves).depth for leaves in (2, 3, 4, 5, 8, 9)] == [1, 2, 2, 3, 3, 4]


class TestProperties:
    def test_survives_json(self) -> None:
        config = ModelConfig("average", members=("catboost", "logistic"), balanced=True)
        assert ModelConfig(**json.loads(json.dumps(asdict(config)))) == config
