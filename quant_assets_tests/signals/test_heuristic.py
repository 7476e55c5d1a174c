"""The heuristic: numbers by hand, bounds that always hold, reasons that add up."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.errors import ContractError
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.signals.calibration import Calibration
from quant_assets.signals.heuristic import RULES, Heuristic

NAMES = Heuristic.reads
NEUTRAL = {
    "price_change_20d": 0.0, "price_change_5d": 0.0, "price_change_1d": 0.0, "rsi_14": 50.0, "macd_hist": 0.0, "sma_20": 100.0,
    "bb_position": 0.5, "volume_ratio": 1.0,
}  # fmt: skip


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
            ({"macd_hist": 1.0}, 0.05 * math.tanh(1)),
            ({"macd_hist": -2.0, "sma_20": 200.0}, -0.05 * math.tanh(1)),
            ({"macd_hist": 1.0, "sma_20": None}, 0.0),
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
        assert sum(rule.weight for rule in RULES) == pytest.approx(0.45)

    def test_it_reads_what_every_view_has(self) -> None:
        assert set(NAMES) <= {feature.name for feature in TECHNICAL_V1}

    def test_outcomes_say_what_the_sum_is_worth(self) -> None:
        """Sums of -0.04 and +0.04, which came out up in 30 % and 70 %: a slope that the prior holds near 1, the base rate of 50 %."""
        frame = pl.concat([row(rsi_14=75.0)] * 500 + [row(rsi_14=25.0)] * 500)
        ups = [n < 150 for n in range(500)] + [n < 350 for n in range(500)]
        heuristic = Heuristic.calibrated(frame.with_columns(up=pl.Series(ups)))
        low, high = heuristic.predict(frame)[0], heuristic.predict(frame)[-1]
        assert low + high == pytest.approx(1, abs=1e-9)
        # Without a prior the slope would be logit(0.7)/0.04 = 21; one of N(1, 0.5²) moves 1 as far as these outcomes bear.
        # d/ds [sum(y - p) z - (s - 1)/0.25] = 0 at s: 1000 * 0.04 * (0.7 - sigmoid(0.04 s)) = 4 (s - 1).
        slope = heuristic.calibration.slope
        assert 1000 * 0.04 * (0.7 - 1 / (1 + math.exp(-0.04 * slope))) == pytest.approx(4 * (slope - 1), abs=1e-4)

    def test_outcomes_all_alike_leave_it_as_written(self) -> None:
        frame = pl.concat([row(), row(rsi_14=25.0)])
        assert Heuristic.calibrated(frame.with_columns(up=True)) == Heuristic.calibrated(frame.head(0).with_columns(up=True)) == Heuristic()

    def test_missing_feature_is_named(self) -> None:
        with pytest.raises(ContractError, match=r"the frame lacks rsi_14\."):
            Heuristic().predict(row().drop("rsi_14"))


class TestProperties:
    @given(values=st.lists(st.fixed_dictionaries({name: st.none() | st.floats() for name in NAMES}), min_size=1, max_size=8))
    def test_any_numbers_give_a_modest_probability_that_its_terms_explain(self, values: list[dict[str, float | None]]) -> None:
        frame = pl.DataFrame(values, schema=dict.fromkeys(NAMES, pl.Float64))
        probability, contributions = Heuristic().predict(frame), Heuristic().contributions(frame)
        assert probability.null_count() == 0
        assert probability.is_between(0.389, 0.611).all()
        assert (contributions["base"] == 0).all()
        logit = np.log(probability / (1 - probability))
        np.testing.assert_allclose(contributions.sum_horizontal(), logit, atol=1e-12)
        calibrated = Heuristic(Calibration("platt", -0.2, 0.6))
        logit = np.log(calibrated.predict(frame) / (1 - calibrated.predict(frame)))
        np.testing.assert_allclose(calibrated.contributions(frame).sum_horizontal(), logit, atol=1e-12)
        absent = frame.with_columns(pl.lit(None, pl.Float64).alias("rsi_14"))
        assert (Heuristic().contributions(absent)["rsi_14"] == 0).all()

    def test_no_rows(self) -> None:
        assert Heuristic().predict(row().head(0)).dtype == pl.Float64
        assert Heuristic().predict(row().head(0)).is_empty()
