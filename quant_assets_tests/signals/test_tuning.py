"""Tuning: repeatable, within its ranges, never worse than the start by its own measure, blind to what it is not given."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.training import TrainingSetup, train
from quant_assets.signals.tuning import RANGES, tune
from quant_assets_tests.signals.worlds import FEATURES, world

CONFIG = ModelConfig(rounds=30, threads=1)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return world(31, rank_ic=0.2, symbols=12, sessions=160)


class TestRegression:
    def test_the_first_trial_is_the_configuration_as_it_stands(self, frame: pl.DataFrame) -> None:
        chosen, trials = tune(frame, FEATURES, CONFIG, 7, 1, 4)
        assert trials["trial"].to_list() == [0, 1, 2, 3]
        first = json.loads(trials["parameters"][0])
        assert first == {name: getattr(CONFIG, name) for name in RANGES}
        assert trials["rank_ic"].max() >= trials["rank_ic"][0]
        best = json.loads(trials.sort("rank_ic", "trial", descending=[True, False])["parameters"][0])
        assert chosen == replace(CONFIG, **best)

    def test_logistic_regression_has_one_thing_to_tune(self, frame: pl.DataFrame) -> None:
        _, trials = tune(frame, FEATURES, replace(CONFIG, family="logistic"), 7, 1, 2)
        assert {name for text in trials["parameters"] for name in json.loads(text)} == {"l2"}


class TestProperties:
    def test_the_same_study_twice(self, frame: pl.DataFrame) -> None:
        one, other = (tune(frame, FEATURES, CONFIG, 7, 1, 4) for _ in range(2))
        assert one[0] == other[0]
        assert one[1].equals(other[1])

    def test_every_trial_lies_within_its_ranges(self, frame: pl.DataFrame) -> None:
        for text in tune(frame, FEATURES, CONFIG, 3, 5, 5)[1]["parameters"]:
            assert all(RANGES[name][0] <= value <= RANGES[name][1] for name, value in json.loads(text).items())

    def test_a_training_tunes_on_nothing_that_it_is_tested_on(self, frame: pl.DataFrame) -> None:
        """Other outcomes after the first training's last session leave the study as it was."""
        setup = TrainingSetup(FEATURES, 1, "abc", CONFIG, n_folds=2, train_min_sessions=110, tuning_trials=3)
        result = train(frame, setup)
        later = pl.col("session") > result.folds["train_to"][0]
        other = frame.with_columns(
            up=pl.when(later).then(~pl.col("up")).otherwise("up"),
            forward_return=pl.when(later).then(-pl.col("forward_return")).otherwise("forward_return"),
        )
        assert result.trials.height == 3
        assert train(other, setup).trials.equals(result.trials)
        assert result.config != CONFIG or result.trials["rank_ic"][0] == result.trials["rank_ic"].max()
