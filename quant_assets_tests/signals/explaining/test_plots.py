"""Pictures: real PNGs that show what they are given, also of very little and of very much."""

from __future__ import annotations

import struct
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from quant_assets.signals.explaining.explanation import shap_values
from quant_assets.signals.explaining.plots import calibration_png, dependence_png, importance_png, rank_ic_png, shap_summary_png
from quant_assets_tests.signals.explaining.test_explanation import TRUTH, Linear
from quant_assets_tests.signals.worlds import world

CALIBRATION = pl.DataFrame(
    {
        "stage": ["raw", "raw", "calibrated", "calibrated"],
        "bin": [0, 1, 0, 1],
        "rows": [5, 5, 5, 5],
        "probability": [0.3, 0.7, 0.4, 0.6],
        "up_share": [0.5, 0.5, 0.4, 0.6],
    }
)


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def rank_ics(sessions: int, *rivals: str) -> pl.DataFrame:
    random = np.random.default_rng(1)
    days = [date(2020, 1, 1) + timedelta(days=i) for i in range(sessions)]
    frame = pl.DataFrame(
        {"fold": [5 * i // max(1, sessions) for i in range(sessions)], "session": days}, schema_overrides={"session": pl.Date}
    )
    return frame.with_columns(pl.Series(name, random.normal(0.02, 0.1, sessions)) for name in ("rank_ic", *rivals))


class TestRegression:
    def test_calibration_shows_both_stages(self) -> None:
        assert size(calibration_png(CALIBRATION)) == (715, 605)
        after = CALIBRATION.filter(pl.col("stage") == "calibrated")
        assert calibration_png(CALIBRATION) != calibration_png(after)

    def test_importance_grows_with_its_features_up_to_twenty_five(self) -> None:
        def table(count: int) -> pl.DataFrame:
            return pl.DataFrame({"feature": [f"f{i}" for i in range(count)], "gain": [float(i) for i in range(count)]})

        heights = [size(importance_png(table(count)))[1] for count in (2, 8, 25, 250)]
        assert heights == [202, 380, 885, 885]

    def test_rank_ic_draws_the_rivals_that_are_there(self) -> None:
        alone, beside = rank_ics(60), rank_ics(60, "heuristic_rank_ic", "control_rank_ic")
        assert size(rank_ic_png(alone, 1)) == size(rank_ic_png(beside, 1)) == (990, 440)
        assert rank_ic_png(alone, 1) != rank_ic_png(beside, 1)
        assert rank_ic_png(beside, 1) != rank_ic_png(beside, 5), "the band is that of overlapping labels"

    def test_the_grid_has_as_many_panels_as_features_that_add_something(self) -> None:
        frame = world(1, rank_ic=0.1, symbols=5, sessions=30)
        two = dependence_png(shap_values(TRUTH, frame), frame)
        four = dependence_png(shap_values(Linear(dict.fromkeys(TRUTH.features, 0.1)), frame), frame)
        assert (size(two), size(four)) == ((726, 352), (1089, 649))


class TestProperties:
    def test_nothing_to_plot_is_said_in_words(self) -> None:
        frame = world(1, rank_ic=0.1, symbols=2, sessions=3)
        nothing = shap_values(TRUTH, frame).clear()
        silent = shap_values(Linear({"first": 0.0}), frame)
        pictures = [
            calibration_png(CALIBRATION.clear()), shap_summary_png(nothing, frame), dependence_png(nothing, frame),
            dependence_png(silent, frame), rank_ic_png(rank_ics(19), 1), rank_ic_png(rank_ics(0), 1),
        ]  # fmt: skip
        assert {size(png) for png in pictures} == {(880, 132)}

    @pytest.mark.parametrize("features", [1, 8, 250])
    def test_any_count_of_features_and_unknown_values(self, features: int) -> None:
        names = [f"feature_{i}" for i in range(features)]
        random = np.random.default_rng(2)
        frame = world(2, rank_ic=0.1, symbols=5, sessions=20).select("symbol", "session").with_columns(
            pl.Series(name, np.where(random.random(100) < 0.2, np.nan, random.standard_normal(100)), nan_to_null=True) for name in names
        )  # fmt: skip
        frame = frame.with_columns(pl.lit(None, pl.Float64).alias(names[0]))
        contributions = shap_values(Linear({name: 0.1 * (i + 1) for i, name in enumerate(names)}), frame)
        assert size(shap_summary_png(contributions, frame))[0] == 990
        assert size(dependence_png(contributions, frame, dict.fromkeys(names, "fraction")))[1] >= 132

    def test_one_frame_gives_one_picture(self) -> None:
        frame = world(3, rank_ic=0.1, symbols=5, sessions=30)
        contributions = shap_values(TRUTH, frame)
        assert shap_summary_png(contributions, frame) == shap_summary_png(contributions, frame.reverse())
        assert dependence_png(contributions, frame, {"first": "ratio"}) != dependence_png(contributions, frame)
