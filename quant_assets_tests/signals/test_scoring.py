"""Scoring: every row answered, the reasons told, the wrong features refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.errors import ContractError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.fitting import fit_signal_model
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.scoring import KEYS, SIGNAL_COLUMNS, Thresholds, score
from quant_assets.signals.signal_model import SignalModel
from quant_assets_tests.signals.worlds import world

NAMES = (*Heuristic.reads, "bb_width", "high_low_range")
CONTRACT = FeatureContract("technical_v1", "a" * 64, NAMES, ("Float64",) * len(NAMES), ("ratio",) * len(NAMES))
VIEW = CONTRACT.view, CONTRACT.definition_hash


@pytest.fixture(scope="module")
def known() -> pl.DataFrame:
    """Features whose outcome is known: keys, features in the contract's order, label."""
    rng = np.random.default_rng(2)
    rows = world(2, rank_ic=0.2, sessions=60)
    features = {name: pl.Series(rng.standard_normal(len(rows))) for name in NAMES}
    features["price_change_1d"] = rows["first"]
    features["rsi_14"] = pl.Series([value if value > -1 else None for value in features["rsi_14"]])
    return rows.select(*KEYS, "up", "weight").with_columns(**features)


@pytest.fixture(scope="module")
def frame(known: pl.DataFrame) -> pl.DataFrame:
    return known.select(*KEYS, *NAMES)


@pytest.fixture(scope="module")
def model(known: pl.DataFrame) -> SignalModel:
    return fit_signal_model(known, NAMES, ModelConfig(rounds=20, leaves=8, threads=1), 7, 1)


class TestRegression:
    @pytest.mark.parametrize(
        ("probability", "word"),
        [(0.0, "strong_sell"), (0.44, "strong_sell"), (0.4401, "sell"), (0.48, "sell"), (0.4801, "hold"), (0.5199, "hold"), (0.52, "buy"),
         (0.5599, "buy"), (0.56, "strong_buy"), (1.0, "strong_buy")],
    )  # fmt: skip
    def test_thresholds_belong_to_the_stronger_word(self, probability: float, word: str) -> None:
        assert pl.select(Thresholds().recommendation(pl.lit(probability))).item() == word

    def test_thresholds_out_of_order_are_refused(self) -> None:
        with pytest.raises(ValueError, match="must ascend"):
            Thresholds(buy=0.57)

    def test_heuristic_reasons_by_hand(self) -> None:
        values = {
            "symbol": "A",
            "price_change_20d": 0.1,
            "price_change_5d": 0.0,
            "price_change_1d": -0.02,
            "rsi_14": None,
            "macd_hist": 0.0,
            "sma_20": 50.0,
            "bb_position": 0.25,
            "volume_ratio": 1.0,
        }
        schema = {"symbol": pl.String, **dict.fromkeys(Heuristic.reads, pl.Float64)}
        night = pl.DataFrame([values], schema=schema).with_columns(session=pl.date(2020, 1, 1))
        signal = score(night, Heuristic(), None, "technical_v1", "").row(0, named=True)
        assert signal["scorer"] == "heuristic"
        assert json.loads(signal["contributions"]) == [
            {"feature": "price_change_20d", "value": 0.1, "contribution": 0.0609275},
            {"feature": "price_change_1d", "value": -0.02, "contribution": 0.0380797},
            {"feature": "bb_position", "value": 0.25, "contribution": 0.03},
            {"feature": "price_change_5d", "value": 0.0, "contribution": 0.0},
            {"feature": "rsi_14", "value": None, "contribution": 0.0},
        ]
        assert signal["probability"] == pytest.approx(1 / (1 + np.exp(-0.1290072)), abs=1e-7)
        assert signal["recommendation"] == "buy"
        assert signal["confidence"] == pytest.approx(2 * signal["probability"] - 1)
        assert signal["centre"] is None

    def test_what_all_symbols_share_adds_nothing(self) -> None:
        """Twelve symbols a session, of which nothing but a feature of the session differs between sessions: all get the base rate."""
        rng = np.random.default_rng(4)
        known = world(4, rank_ic=0.2, symbols=12, sessions=80).drop("first").join(
            pl.DataFrame({"session": world(4, rank_ic=0.2, symbols=1, sessions=80)["session"], "first": rng.standard_normal(80)}), on="session"
        )  # fmt: skip
        known = known.with_columns(up=pl.col("first") > 0)
        model = fit_signal_model(known, ("first",), ModelConfig(threads=1), 7, 1)
        assert model.centred
        base_rate = known["up"].mean()
        assert model.predict(known).to_list() == pytest.approx([base_rate] * len(known))
        assert model.contributions(known)["first"].to_list() == pytest.approx([0.0] * len(known))
        assert model.uncalibrated(known).n_unique() > 1  # of its own it would call the market

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda frame: frame.drop("bb_width"), "missing: bb_width"),
            (lambda frame: frame.with_columns(obv=1.0), "extra: obv"),
            (
                lambda frame: frame.select(*KEYS, "high_low_range", *NAMES[:-1]),
                "reordered: high_low_range stands where price_change_20d belongs, at 1; moved: high_low_range (10 → 1)",
            ),
            (lambda frame: frame.with_columns(pl.col("bb_width").cast(pl.Float32)), "retyped: bb_width is Float32, was Float64"),
        ],
    )
    def test_other_features_are_refused(self, change: object, told: str, frame: pl.DataFrame, model: SignalModel) -> None:
        with pytest.raises(ContractError) as refused:
            score(change(frame), model, CONTRACT, *VIEW)  # type: ignore[operator]
        assert f"view technical_v1: {told}. Offer" in str(refused.value)

    def test_another_definition_view_or_contract_is_refused(self, frame: pl.DataFrame, model: SignalModel) -> None:
        with pytest.raises(ContractError, match="redefined: definition bbbbbbbbbbbb, was aaaaaaaaaaaa"):
            score(frame, model, CONTRACT, CONTRACT.view, "b" * 64)
        with pytest.raises(ContractError, match="another view: alpha_v1, was technical_v1"):
            score(frame, model, CONTRACT, "alpha_v1", CONTRACT.definition_hash)
        reversed_frame, reversed_contract = frame.select(*KEYS, *NAMES[::-1]), replace(CONTRACT, names=NAMES[::-1])
        with pytest.raises(ContractError, match="does not belong to this contract of view technical_v1: reordered"):
            score(reversed_frame, model, reversed_contract, *VIEW)
        with pytest.raises(ValueError, match="only with its feature contract"):
            score(frame, model, None, *VIEW)

    def test_keys_may_stand_anywhere_and_known_at_be_missing(self, frame: pl.DataFrame, model: SignalModel) -> None:
        signals = score(frame, model, CONTRACT, *VIEW)
        assert score(frame.select(*NAMES, "session", "symbol"), model, CONTRACT, *VIEW).equals(signals)


class TestProperties:
    @pytest.mark.parametrize("scorer", ["model", "heuristic"])
    def test_every_row_is_answered_and_explained(self, scorer: str, frame: pl.DataFrame, model: SignalModel) -> None:
        asked = model if scorer == "model" else Heuristic()
        signals = score(frame, asked, CONTRACT if scorer == "model" else None, *VIEW)
        assert tuple(signals.columns) == SIGNAL_COLUMNS
        assert sum(signals.drop("centre").null_count().row(0)) == 0
        assert signals["centre"].null_count() == (0 if scorer == "model" else signals.height)
        assert signals.select("session", "symbol").equals(frame.select("session", "symbol").sort("session", "symbol"))
        assert set(signals["scorer"]) == {scorer}

        ordered = frame.sort("session", "symbol")
        whole = asked.contributions(ordered).drop("base").to_dicts()
        for told, amounts, values in zip(signals["contributions"], whole, ordered.to_dicts(), strict=True):
            entries = json.loads(told)
            largest = sorted(amounts, key=lambda name: -abs(amounts[name]))[:5]
            assert [entry["feature"] for entry in entries] == largest
            assert [entry["contribution"] for entry in entries] == pytest.approx([amounts[name] for name in largest], rel=1e-5)
            expected = [None if values[name] is None else pytest.approx(values[name], rel=1e-5) for name in largest]
            assert [entry["value"] for entry in entries] == expected

    def test_order_and_company_of_rows_do_not_matter(self, frame: pl.DataFrame, model: SignalModel) -> None:
        signals = score(frame, model, CONTRACT, *VIEW)
        assert score(frame.sample(fraction=1, shuffle=True, seed=3), model, CONTRACT, *VIEW).equals(signals)
        last = frame.filter(pl.col("session") == frame["session"].max())
        assert score(last, model, CONTRACT, *VIEW).equals(signals.tail(len(last)))

    def test_no_rows(self, frame: pl.DataFrame, model: SignalModel) -> None:
        for scorer, contract in ((model, CONTRACT), (Heuristic(), None)):
            empty = score(frame.head(0), scorer, contract, *VIEW)
            assert empty.schema == score(frame.head(3), scorer, contract, *VIEW).schema
            assert empty.is_empty()

    @given(data=st.data())
    def test_a_model_takes_no_other_order_and_no_other_number_of_columns(
        self, data: st.DataObject, frame: pl.DataFrame, model: SignalModel
    ) -> None:
        columns = tuple(data.draw(st.permutations([*NAMES, "obv"])))[: data.draw(st.integers(1, len(NAMES) + 1))]
        offered = frame.head(2).with_columns(obv=1.0).select(*KEYS, *columns)
        if columns == NAMES:
            assert len(score(offered, model, CONTRACT, *VIEW)) == 2
        else:
            with pytest.raises(ContractError, match=r"missing|extra|reordered"):
                score(offered, model, CONTRACT, *VIEW)
