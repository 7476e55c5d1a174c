"""The heuristic: numbers by hand, bounds that always hold, reasons that add up."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.errors import ContractError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.signals.heuristic import RULES, Heuristic

NAMES = Heuristic.features
NEUTRAL = {"price_change_20d": 0.0, "price_change_5d": 0.0, "price_change_1d": 0.0, "rsi_14": 50.0, "bb_position": 0.5, "volume_ratio": 1.0}


def row(**values: float | None) -> pl.DataFrame:
    return pl.DataFrame([NEUTRAL | values], schema=dict.fromkeys(NAMES, pl.Float64))


class TestRegression:
    @pytest.mark.parametrize(
        ("values", "log_odds"),
        [
            ({}, 0.0),
            ({"price_change_20d": 0.10}, 0.08 * math.tanh(1)),
            ({"price_change_5d": 0.05}, -0.08 * math.tanh(1)),
            ({"price_change_1d": -0.02}, 0.05 * math.tanh(1)),
            ({"rsi_14": 25.0}, 0.04),
            ({"bb_position": 1.0}, -0.06),
            ({"bb_position": -0.3}, 0.06),
            ({"volume_ratio": math.e}, 0.05 * math.tanh(1)),
            ({"volume_ratio": 0.0}, -0.05),
            ({"rsi_14": None, "volume_ratio": None}, 0.0),
            ({"rsi_14": 0.0, "bb_position": 0.0, "price_change_5d": None}, 0.14),
        ],
    )
    def test_rules_by_hand(self, values: dict[str, float | None], log_odds: float) -> None:
        assert Heuristic().predict(row(**values)).item() == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-12)

    def test_weights_sum_to_what_is_documented(self) -> None:
        assert sum(rule.weight for rule in RULES) == pytest.approx(0.40)

    def test_it_reads_only_what_models_read(self) -> None:
        assert set(NAMES) <= set(model_columns())

    def test_missing_feature_is_named(self) -> None:
        with pytest.raises(ContractError, match=r"the frame lacks rsi_14\."):
            Heuristic().predict(row().drop("rsi_14"))


class TestProperties:
    @given(values=st.lists(st.fixed_dictionaries({name: st.none() | st.floats() for name in NAMES}), min_size=1, max_size=8))
    def test_any_numbers_give_a_modest_probability_that_its_terms_explain(self, values: list[dict[str, float | None]]) -> None:
        frame = pl.DataFrame(values, schema=dict.fromkeys(NAMES, pl.Float64))
        probability, contributions = Heuristic().predict(frame), Heuristic().contributions(frame)
        assert probability.null_count() == 0
        assert probability.is_between(0.401, 0.599).all()
        assert (contributions["base"] == 0).all()
        logit = np.log(probability / (1 - probability))
        np.testing.assert_allclose(contributions.sum_horizontal(), logit, atol=1e-12)
        absent = frame.with_columns(pl.lit(None, pl.Float64).alias("rsi_14"))
        assert (Heuristic().contributions(absent)["rsi_14"] == 0).all()

    def test_no_rows(self) -> None:
        assert Heuristic().predict(row().head(0)).dtype == pl.Float64
