"""The catalog agrees with the table's declaration and with what the view computes."""

from __future__ import annotations

import polars as pl
import pytest

from quant_assets import schemas as tables
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import ALPHA_V1, TECHNICAL_V1, Feature, model_columns
from quant_assets.feature_store.indicators import technical_v1
from quant_assets_tests.lookahead import NO_ACTIONS, random_history


class TestRegression:
    def test_names_and_order_are_those_of_the_view(self) -> None:
        assert [feature.name for feature in TECHNICAL_V1] == [
            "rsi_14",
            "macd",
            "macd_signal",
            "macd_hist",
            "bb_upper",
            "bb_middle",
            "bb_lower",
            "bb_width",
            "bb_position",
            "sma_5",
            "sma_10",
            "sma_20",
            "sma_50",
            "ema_12",
            "ema_26",
            "volume_ratio",
            "volume_sma_20",
            "obv",
            "price_change_1d",
            "price_change_5d",
            "price_change_20d",
            "high_low_range",
        ]

    def test_models_take_the_scale_free_features(self) -> None:
        changes = ["price_change_1d", "price_change_5d", "price_change_20d"]
        expected = ["rsi_14", "bb_width", "bb_position", "volume_ratio", *changes, "high_low_range"]
        assert model_columns("technical_v1") == expected

    def test_an_unknown_view_is_named(self) -> None:
        with pytest.raises(KeyError, match="'adjusted'"):
            model_columns("adjusted")


class TestProperties:
    @pytest.mark.parametrize("feature", ALPHA_V1, ids=lambda feature: str(feature.name))
    def test_each_feature_is_told_whole(self, feature: Feature) -> None:
        texts = (feature.definition, feature.unit, feature.null_rule, feature.sentence, feature.source)
        assert all(text and text == text.strip() and "{" not in text for text in texts)
        assert feature.sentence.endswith(".")
        assert not any(text.endswith(".") for text in (feature.definition, feature.null_rule, feature.source))
        assert feature.lookback >= 0
        assert feature.low is None or feature.high is None or feature.low < feature.high
        assert feature.scale_free == (feature.unit not in ("price", "shares", "currency", "1/currency"))

    def test_alpha_holds_technical_and_at_least_150_more(self) -> None:
        names = [feature.name for feature in ALPHA_V1]
        assert ALPHA_V1[: len(TECHNICAL_V1)] == TECHNICAL_V1
        assert len(names) == len(set(names)) >= len(TECHNICAL_V1) + 150

    def test_every_table_has_the_features_that_name_it(self) -> None:
        for table in (tables.TECHNICAL_V1, tables.ALPHA_HISTORY_V1, tables.ALPHA_MARKET_V1, tables.MARKET_V1):
            held = [name for name in table.column_names if name in {feature.name for feature in ALPHA_V1}]
            assert held == [feature.name for feature in ALPHA_V1 if feature.table == table.name]

    @pytest.mark.parametrize("feature", TECHNICAL_V1, ids=lambda feature: str(feature.name))
    def test_lookback_is_the_index_of_the_first_value(self, feature: Feature) -> None:
        bars = random_history(3, symbols=1, n=80, gaps=0.0)["bars"].with_columns(pl.col("volume").fill_null(5.0))
        values = technical_v1(forward_adjusted(bars, NO_ACTIONS))[feature.name]
        assert values.is_not_null().arg_max() == feature.lookback
        assert values[feature.lookback :].null_count() == 0
