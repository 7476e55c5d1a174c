"""What every family must keep: a repeatable fit, exact contributions, a text that is the whole model, clear refusals."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from quant_assets.errors import ContractError, QuantAssetsError
from quant_assets.signals.models.config import FAMILIES, ModelConfig
from quant_assets.signals.models.estimator import Estimator, fit, from_text
from quant_assets_tests.signals.worlds import FEATURES, world

CONFIG = ModelConfig(rounds=15, threads=1)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(family, marks=pytest.mark.skipif(find_spec("xgboost") is None, reason="the extra `xgboost` is not installed"))
        if family == "xgboost"
        else family
        for family in FAMILIES
    ],
)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return replace(CONFIG, family=request.param)


@pytest.fixture(scope="module")
def model(config: ModelConfig, frame: pl.DataFrame) -> Estimator:
    return fit(frame, FEATURES, "up", config, seed=7, weight="weight")


class TestRegression:
    def test_what_tells_comes_first(self, model: Estimator, config: ModelConfig) -> None:
        assert model.importance["feature"][0] == "first"
        assert model.importance.schema == {"feature": pl.String, "gain": pl.Float64, "splits": pl.Int64}
        assert model.rounds == (0 if config.family == "logistic" else 15)
        assert model.importance["splits"].sum() > 0 or config.family == "logistic"

    def test_missing_feature_is_named(self, model: Estimator, frame: pl.DataFrame) -> None:
        for ask in (model.log_odds, model.contributions):
            with pytest.raises(ContractError, match=r"first, second, third, fourth; the frame lacks second\."):
                ask(frame.drop("second"))

    def test_damaged_texts_are_named(self, model: Estimator) -> None:
        text = model.to_text()
        other = "logistic" if model.family == "lightgbm" else "lightgbm"
        digit = text.rindex("1")
        for damaged in ("", text[:-1], text[: len(text) // 2], text[:digit] + "2" + text[digit + 1 :], text.split("\n", 1)[1]):
            with pytest.raises(QuantAssetsError, match=f"no text of a {model.family} model"):
                from_text(model.family, damaged)
        with pytest.raises(QuantAssetsError, match=f"no text of a {other} model"):
            from_text(other, text)

    def test_labels_that_cannot_teach_are_refused(self, config: ModelConfig, frame: pl.DataFrame) -> None:
        unknown = frame.with_columns(up=pl.when(pl.int_range(pl.len()) > 2).then(pl.col("up")))
        with pytest.raises(ValueError, match="up is null in 3 of 2000 rows"):
            fit(unknown, FEATURES, "up", config, seed=7)
        with pytest.raises(ValueError, match="up is True in all"):
            fit(frame.filter("up"), FEATURES, "up", config, seed=7)
        with pytest.raises(ValueError, match="no rows"):
            fit(frame.head(0), FEATURES, "up", config, seed=7)

    def test_weights_that_cannot_weigh_are_refused(self, frame: pl.DataFrame) -> None:
        wrong = frame.with_columns(weight=pl.when(pl.int_range(pl.len()) > 1).then("weight"), none=pl.lit(0.0))
        with pytest.raises(ValueError, match="weight is null, negative or infinite in 2 of 2000 rows"):
            fit(wrong, FEATURES, "up", CONFIG, seed=7, weight="weight")
        with pytest.raises(ValueError, match="none is 0 in all 2000 rows"):
            fit(wrong, FEATURES, "up", CONFIG, seed=7, weight="none")

    def test_stopping_needs_a_validation(self, frame: pl.DataFrame) -> None:
        with pytest.raises(ValueError, match="needs a validation frame"):
            fit(frame, FEATURES, "up", replace(CONFIG, early_stopping_rounds=5), seed=7)


class TestProperties:
    def test_same_frame_same_bytes(self, config: ModelConfig, model: Estimator, frame: pl.DataFrame) -> None:
        for threads in (1, 2):
            again = fit(frame, FEATURES, "up", replace(config, threads=threads), seed=7, weight="weight")
            assert again.to_text() == model.to_text()
            assert again.log_odds(frame).equals(model.log_odds(frame))
        other = fit(frame, FEATURES, "up", config, seed=8, weight="weight")
        assert (other.to_text() == model.to_text()) == (config.family == "logistic")

    def test_contributions_sum_to_the_log_odds(self, model: Estimator, frame: pl.DataFrame) -> None:
        parts, log_odds = model.contributions(frame), model.log_odds(frame)
        assert parts.columns == [*FEATURES, "base"]
        np.testing.assert_allclose(parts.sum_horizontal(), log_odds, atol=1e-9)
        assert frame["first"].null_count() > 0
        assert sum(parts.null_count().row(0)) == 0
        assert log_odds.is_finite().all()
        assert log_odds.n_unique() > 10

    def test_text_is_the_whole_model(self, model: Estimator, frame: pl.DataFrame) -> None:
        again = from_text(model.family, model.to_text())
        assert again == model
        assert (again.features, again.rounds, again.to_text()) == (model.features, model.rounds, model.to_text())
        assert again.log_odds(frame).equals(model.log_odds(frame))
        assert again.contributions(frame).equals(model.contributions(frame))
        assert again.importance.equals(model.importance)

    def test_values_never_seen(self, model: Estimator, frame: pl.DataFrame) -> None:
        """Nulls where training had none, and infinities, give numbers; null and NaN are the same."""
        row = frame.head(1)
        for value in (None, float("inf"), float("-inf")):
            odd = row.with_columns(pl.lit(value, pl.Float64).alias(name) for name in FEATURES)
            assert model.log_odds(odd).is_finite().all()
            np.testing.assert_allclose(model.contributions(odd).sum_horizontal(), model.log_odds(odd), atol=1e-9)
        unknown, nan = (row.with_columns(first=pl.lit(value, pl.Float64)) for value in (None, float("nan")))
        assert model.log_odds(unknown).equals(model.log_odds(nan))

    def test_other_columns_rows_and_their_order_do_not_matter(self, model: Estimator, frame: pl.DataFrame) -> None:
        log_odds = model.log_odds(frame)
        assert model.log_odds(frame.select(*reversed(frame.columns))).equals(log_odds)
        assert model.log_odds(frame.tail(100)).equals(log_odds.tail(100))

    def test_no_rows(self, model: Estimator, frame: pl.DataFrame) -> None:
        assert model.log_odds(frame.head(0)).dtype == pl.Float64
        assert model.contributions(frame.head(0)).shape == (0, 5)

    def test_balanced_classes_meet_at_even_odds(self, config: ModelConfig, frame: pl.DataFrame) -> None:
        rare = frame.with_columns(up=pl.col("forward_return") > 0.01)
        share = rare["up"].mean()
        assert isinstance(share, float)
        assert share < 0.2
        plain, balanced = (
            fit(rare, FEATURES, "up", replace(config, balanced=flag), seed=7).log_odds(rare).mean() for flag in (False, True)
        )
        assert plain == pytest.approx(np.log(share / (1 - share)), abs=0.15)
        assert balanced == pytest.approx(0, abs=0.15)

    def test_weights_count_by_proportion(self, config: ModelConfig, frame: pl.DataFrame) -> None:
        doubled = frame.with_columns(weight=2 * pl.col("weight"))  # exact in binary
        one, two = (fit(rows, FEATURES, "up", config, seed=7, weight="weight") for rows in (frame, doubled))
        assert one.to_text() == two.to_text()

    def test_stopping_early_keeps_the_best_round(self, config: ModelConfig) -> None:
        """Nothing to find: boosting stops near its start, and no other number of rounds kept would have been better before it."""
        noise = world(3, rank_ic=0.0, sessions=100)
        train, validation = noise.head(1_000), noise.tail(1_000)
        long = replace(config, rounds=40, learning_rate=0.3, early_stopping_rounds=5, members=("lightgbm", "catboost"))
        stopped = fit(train, FEATURES, "up", long, seed=7, validation=validation)
        if config.family == "logistic":
            assert stopped.rounds == 0
            return
        assert 1 <= stopped.rounds < 40
        if config.family == "average":
            return
        up = validation["up"].to_numpy()

        def loss(rounds: int) -> float:
            z = fit(train, FEATURES, "up", replace(long, rounds=rounds, early_stopping_rounds=0), seed=7).log_odds(validation).to_numpy()
            return float(np.mean(np.logaddexp(0, z) - up * z))

        losses = [loss(rounds) for rounds in range(1, stopped.rounds + 6)]
        assert losses[stopped.rounds - 1] == pytest.approx(min(losses), abs=1e-9)

    def test_an_average_is_the_mean_of_its_members(self, frame: pl.DataFrame) -> None:
        members = ("lightgbm", "logistic")
        average = fit(frame, FEATURES, "up", replace(CONFIG, family="average", members=members), seed=7)
        alone = [fit(frame, FEATURES, "up", replace(CONFIG, family=family), seed=7) for family in members]
        np.testing.assert_allclose(average.log_odds(frame), sum(model.log_odds(frame) for model in alone) / 2, rtol=1e-14)
        assert average.importance["gain"].sum() == pytest.approx(1)
