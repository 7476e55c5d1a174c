"""One fit: stopped and calibrated on sessions apart, whatever the family, the classes and the columns."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.fitting import fit_signal_model, telling_features
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.signal_model import SignalModel
from quant_assets_tests.signals.worlds import FEATURES, world

FRAME = world(3, rank_ic=0.25, symbols=12, sessions=150)


def logit(probability: pl.Series) -> np.ndarray:
    return np.log(probability.to_numpy() / (1 - probability.to_numpy()))


@pytest.mark.parametrize("family", ["lightgbm", "catboost", "logistic", "average", "xgboost"])
@pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
@pytest.mark.parametrize("stopping", [0, 5])
def test_every_family_fits_explains_and_comes_back(family: str, calibration: str, stopping: int) -> None:
    config = ModelConfig(family=family, rounds=20, calibration=calibration, early_stopping_rounds=stopping, threads=1)
    model = fit_signal_model(FRAME, FEATURES, config, 7, 5, embargo=2)
    probability = model.predict(FRAME)
    assert probability.is_between(0, 1, closed="none").all()
    assert probability.mean() == pytest.approx(FRAME["up"].mean(), abs=0.02)
    assert SignalModel.from_json(model.to_json()).predict(FRAME).equals(probability)
    assert fit_signal_model(FRAME, FEATURES, config, 7, 5, embargo=2).to_json() == model.to_json()
    if model.calibration.method != "isotonic":
        told = model.contributions(FRAME).sum_horizontal().to_numpy()
        np.testing.assert_allclose(told, logit(probability), atol=1e-6)
    by_session = FRAME.select("session").with_columns(z=pl.Series(logit(probability)))
    assert model.centred
    assert by_session.group_by("session").agg(pl.col("z").std())["z"].min() > 0


class TestRegression:
    def test_stopping_keeps_the_rounds_that_the_inner_split_chose(self) -> None:
        noise = world(5, rank_ic=0.0, symbols=12, sessions=150)
        config = ModelConfig(rounds=200, learning_rate=0.3, early_stopping_rounds=5, threads=1)
        assert fit_signal_model(noise, FEATURES, config, 7, 1).estimator.rounds < 60
        average = ModelConfig(family="average", rounds=200, learning_rate=0.3, early_stopping_rounds=5, threads=1)
        fitted = fit_signal_model(noise, FEATURES, average, 7, 1).estimator
        assert len(set(fitted.member_rounds)) > 1  # type: ignore[attr-defined]

    def test_labels_all_alike_are_refused_with_the_remedy(self) -> None:
        with pytest.raises(QuantAssetsError, match=r"All 1800 training labels .* are true: .*QUANT_LABEL_THRESHOLD"):
            fit_signal_model(FRAME.with_columns(up=True), FEATURES, ModelConfig(threads=1), 7, 1)

    def test_rare_labels_of_late_sessions_alone_still_give_a_model(self) -> None:
        last = FRAME["session"].unique().sort()[-5]
        rare = FRAME.with_columns(up=(pl.col("session") >= last) & pl.col("up"))
        model = fit_signal_model(rare, FEATURES, ModelConfig(rounds=10, threads=1), 7, 1)
        assert model.calibration.method == "none"
        assert model.predict(rare).mean() == pytest.approx(rare["up"].mean(), abs=0.02)

    def test_what_all_symbols_share_is_no_feature_of_a_centred_model(self) -> None:
        days = FRAME.select("session").unique().sort("session").with_row_index("day").with_columns(market=(pl.col("day") * 0.1).sin())
        frame = FRAME.join(days, on="session").with_columns(nearly=pl.col("market") + 1e-3 * pl.col("first"), constant=1.0)
        names = [*FEATURES, "market", "nearly", "constant"]
        assert telling_features(frame, names) == FEATURES
        few = frame.filter(pl.col("symbol") < "S05")
        assert telling_features(few, names) == tuple(names)

    def test_damage_is_named(self) -> None:
        text = fit_signal_model(FRAME, FEATURES, ModelConfig(rounds=5, threads=1), 7, 1).to_json()
        for damaged in ("", "{}", text[:-40], json.dumps({**json.loads(text), "family": "oracle"})):
            with pytest.raises(QuantAssetsError, match=r"The copy is no signal model \("):
                SignalModel.from_json(damaged, "The copy")
