"""Explanations: exact shares, losses that a person can follow, and misses with the reasons of the model that made them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.errors import ContractError
from quant_assets.signals.explaining.explanation import (
    PERMUTATION,
    SHARED,
    UNUSED,
    combine,
    counter_examples,
    permutation_importance,
    sample_of,
    shap_summary,
    shap_values,
    worst,
)
from quant_assets.signals.fitting import fit_signal_model
from quant_assets.signals.models.config import ModelConfig
from quant_assets_tests.signals.worlds import FEATURES, world


@dataclass(frozen=True)
class Linear:
    """Log-odds = Σ weight · value (0 where unknown), held against the session's mean where `centred`."""

    weights: dict[str, float]
    centred: bool = True
    features: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.weights))

    @property
    def importance(self) -> pl.DataFrame:
        return pl.DataFrame({"feature": self.features, "gain": [abs(w) for w in self.weights.values()], "splits": [0] * len(self.weights)})

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        terms = [(pl.col(name) * weight).fill_null(0.0).alias(name) for name, weight in self.weights.items()]
        if self.centred:
            terms = [term - term.mean().over("session") for term in terms]
        return frame.select(*terms, base=pl.lit(0.0)).with_columns(base=pl.lit(0.0))

    def predict(self, frame: pl.DataFrame) -> pl.Series:
        log_odds = self.contributions(frame).sum_horizontal()
        return (1 / (1 + (-log_odds).exp())).alias("probability")


TRUTH = Linear({"first": 0.2, "second": -0.1, "third": 0.0, "fourth": 0.0})


def panel(values: dict[str, list[float | None]], symbols: int) -> pl.DataFrame:
    """Sessions of that many symbols with the values given; outcomes alternate."""
    n = len(next(iter(values.values())))
    days = [date(2024, 1, 1) + timedelta(days=i // symbols) for i in range(n)]
    names = [f"S{i % symbols}" for i in range(n)]
    outcome = [0.01 if i % 2 else -0.01 for i in range(n)]
    return pl.DataFrame({"symbol": names, "session": days, **values, "forward_return": outcome, "up": [r > 0 for r in outcome]})


class TestRegression:
    def test_a_sample_is_whole_sessions_evenly_spaced(self) -> None:
        frame = world(1, rank_ic=0.1, symbols=10, sessions=100)
        found = sample_of(frame, 200, seed=3)
        assert found.group_by("session").len()["len"].to_list() == [10] * 20
        gaps = found["session"].unique().sort().diff().drop_nulls().dt.total_days()
        assert gaps.unique().to_list() == [5]

    def test_contributions_beside_their_rows(self) -> None:
        frame = panel({"a": [1.0, 3.0], "b": [2.0, None]}, symbols=2)
        found = shap_values(Linear({"a": 2.0, "b": 1.0}), frame)
        expected = frame.select("symbol", "session").with_columns(a=pl.Series([-2.0, 2.0]), b=pl.Series([1.0, -1.0]), base=pl.lit(0.0))
        assert found.equals(expected)

    def test_a_summary_of_four_rows(self) -> None:
        frame = panel({"a": [1.0, 2.0, 3.0, None], "b": [1.0, 1.0, 1.0, 1.0]}, symbols=4)
        contributions = frame.select("symbol", "session").with_columns(a=pl.Series([0.3, 0.1, -0.1, 0.5]), b=pl.lit(0.02), base=pl.lit(0.0))
        first, second = shap_summary(contributions, frame).rows(named=True)
        assert (first["feature"], second["feature"]) == ("a", "b")
        assert first["mean_absolute"] == pytest.approx(0.25)
        assert first["mean_signed"] == pytest.approx(0.2)
        assert first["direction"] == pytest.approx(-1.0), "the row whose value is unknown has no direction"
        assert second["direction"] is None

    def test_a_feature_that_orders_two_symbols_loses_half_of_the_time(self) -> None:
        n = 400
        frame = panel({"a": [-1.0, 1.0] * n, "unused": [0.0, 1.0] * n, "market": [float(i // 2) for i in range(2 * n)]}, symbols=2)
        found = permutation_importance(Linear({"a": 1.0, "unused": 0.0, "market": 1.0}), frame, "up", 1, seed=5)
        rows = {row["feature"]: row for row in found.rows(named=True)}
        # exchanged or not with a chance of a half: the correlation falls by 2 or 0, the log loss rises by the log-odds of 1 or 0
        assert rows["a"]["rank_ic_loss"] == pytest.approx(1.0, abs=0.15)
        assert rows["a"]["log_loss_rise"] == pytest.approx(rows["a"]["rank_ic_loss"] / 2)
        assert rows["a"]["rank_ic_loss_se"] == pytest.approx(1 / np.sqrt(n), rel=0.25)
        assert (rows["unused"]["rank_ic_loss"], rows["unused"]["note"]) == (0.0, UNUSED)
        assert (rows["market"]["rank_ic_loss"], rows["market"]["note"]) == (None, SHARED)

    def test_folds_are_combined_by_their_sessions(self) -> None:
        def fold(loss: float | None, error: float | None, sessions: int, note: str | None = None) -> pl.DataFrame:
            row = {"feature": "a", "rank_ic_loss": loss, "rank_ic_loss_se": error, "log_loss_rise": 0.0, "log_loss_rise_se": 0.0}
            return pl.DataFrame([{**row, "sessions": sessions, "note": note}], schema=PERMUTATION)

        (row,) = combine([fold(0.01, 0.003, 100), fold(0.04, 0.004, 300)]).rows(named=True)
        assert row["rank_ic_loss"] == pytest.approx(0.0325)
        assert row["rank_ic_loss_se"] == pytest.approx(np.hypot(0.3, 1.2) / 400)
        (row,) = combine([fold(0.0, 0.0, 100, UNUSED), fold(0.04, 0.004, 100), fold(None, None, 50, SHARED)]).rows(named=True)
        assert (row["rank_ic_loss"], row["note"]) == (pytest.approx(0.02), "not used in 1 of 3 folds")
        (row,) = combine([fold(0.02, None, 10), fold(0.04, 0.004, 100)]).rows(named=True)
        assert row["rank_ic_loss_se"] is None, "an error that one fold does not know is not known"

    def test_the_worst_miss_stands_first_with_its_reasons(self) -> None:
        frame = panel({"a": [1.0, -1.0, 3.0, -3.0], "b": [0.5, None, 0.1, 0.2], "c": [0.0] * 4, "d": [0.0] * 4}, symbols=4)
        model = Linear({"a": 1.0, "b": 2.0, "c": 1.0, "d": 1.0}, centred=False)
        predictions = frame.select("symbol", "session", "forward_return", "up", model.predict(frame), fold=pl.lit(0))
        found = counter_examples(predictions, model, frame)
        assert found["symbol"].to_list() == ["S2", "S3", "S0", "S1"]
        assert found["log_loss"][0] == pytest.approx(np.log1p(np.exp(3.2)))
        assert json.loads(found["contributions"][0]) == [
            {"feature": "a", "value": 3.0, "contribution": 3.0},
            {"feature": "b", "value": 0.1, "contribution": 0.2},
            {"feature": "c", "value": 0.0, "contribution": 0.0},
        ]
        assert json.loads(found["contributions"][3])[1] == {"feature": "b", "value": None, "contribution": 0.0}

    def test_what_is_missing_is_named(self) -> None:
        frame = world(1, rank_ic=0.1, symbols=3, sessions=30)
        with pytest.raises(ContractError, match="lacks second"):
            shap_values(TRUTH, frame.drop("second"))
        unknown = frame.with_columns(forward_return=pl.when(pl.int_range(pl.len()) > 0).then("forward_return"))
        with pytest.raises(ValueError, match="outcome of 1 of 90 rows is null"):
            permutation_importance(TRUTH, unknown, "up", 1, seed=1)
        with pytest.raises(ContractError, match="3 of 90 rows with contributions"):
            shap_summary(shap_values(TRUTH, frame), frame.tail(87))
        predictions = frame.with_columns(TRUTH.predict(frame))
        with pytest.raises(ContractError, match="misses have no features"):
            counter_examples(predictions, TRUTH, frame.head(30))


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 400), st.integers(0, 50), st.randoms(use_true_random=False))
    def test_a_sample_never_depends_on_the_order_of_rows(self, rows: int, seed: int, random: object) -> None:
        frame = world(2, rank_ic=0.1, symbols=4, sessions=60)
        shuffled = frame.sample(fraction=1, shuffle=True, seed=random.randint(0, 10**6))  # type: ignore[attr-defined]
        found = sample_of(frame, rows, seed)
        assert found.equals(sample_of(shuffled, rows, seed))
        assert found["session"].n_unique() == max(1, min(60, rows // 4))
        assert len(found) == 4 * found["session"].n_unique()

    def test_what_tells_loses_and_what_tells_nothing_does_not(self) -> None:
        frame = world(3, rank_ic=0.2, symbols=20, sessions=300)
        model = Linear({"first": 0.2, "second": -0.1, "third": 0.02, "fourth": 0.0})
        rows = {row["feature"]: row for row in permutation_importance(model, frame, "up", 1, seed=7).rows(named=True)}
        assert rows["first"]["rank_ic_loss"] > 5 * rows["first"]["rank_ic_loss_se"]
        assert rows["first"]["log_loss_rise"] > 5 * rows["first"]["log_loss_rise_se"]
        assert rows["first"]["rank_ic_loss"] > rows["second"]["rank_ic_loss"] > 0
        assert abs(rows["third"]["rank_ic_loss"]) < 3 * rows["third"]["rank_ic_loss_se"]

    def test_the_same_seed_gives_the_same_table_in_any_order_of_rows(self) -> None:
        frame = world(4, rank_ic=0.1, symbols=5, sessions=60)
        one, other = (permutation_importance(TRUTH, each, "up", 5, seed=7) for each in (frame, frame.reverse()))
        assert one.equals(other)
        assert not one.equals(permutation_importance(TRUTH, frame, "up", 5, seed=8))

    def test_a_wide_fold_keeps_sessions_enough_for_an_error(self) -> None:
        found = permutation_importance(TRUTH, world(4, rank_ic=0.1, symbols=40, sessions=60), "up", 1, seed=7, rows=100)
        assert found["sessions"].unique().to_list() == [30]
        assert found["rank_ic_loss_se"].null_count() == 0

    def test_too_few_sessions_have_no_error(self) -> None:
        found = permutation_importance(TRUTH, world(4, rank_ic=0.1, symbols=5, sessions=10), "up", 1, seed=7)
        assert found.filter(pl.col("note").is_null())["rank_ic_loss_se"].null_count() == 2

    def test_misses_of_several_folds_are_those_of_all_at_once(self) -> None:
        frame = world(5, rank_ic=0.1, symbols=12, sessions=40)
        predictions = frame.with_columns(TRUTH.predict(frame))
        cut = frame["session"].unique().sort()[20]
        halves = [
            counter_examples(part, TRUTH, frame, count=7)
            for part in (predictions.filter(pl.col("session") < cut), predictions.filter(pl.col("session") >= cut))
        ]
        whole = counter_examples(predictions, TRUTH, frame, count=7)
        assert worst(halves, 7).equals(whole)
        assert whole.equals(counter_examples(predictions, shap_values(TRUTH, frame), frame, count=7))
        assert whole["log_loss"].is_sorted(descending=True)
        assert ((whole["probability"] >= 0.5) != whole["up"]).all()

    def test_contributions_of_a_real_model_sum_to_its_log_odds(self) -> None:
        frame = world(6, rank_ic=0.3, symbols=20, sessions=120).with_columns(weight=pl.lit(1.0))
        model = fit_signal_model(frame, FEATURES, ModelConfig(rounds=20, threads=1), 7, 1)
        found = shap_values(model, frame)
        probability = model.predict(frame)
        assert np.allclose(found.select(*FEATURES, "base").sum_horizontal(), (probability / (1 - probability)).log(), atol=1e-9)
        assert shap_summary(found, frame)["feature"][0] == "first"
        assert permutation_importance(model, frame, "up", 1, seed=7)["feature"][0] == "first"
