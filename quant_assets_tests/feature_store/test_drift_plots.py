"""Pictures of drift: real PNGs that grow with what they show, and say so where there is nothing."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.feature_store.drift import pooled, shifts
from quant_assets.feature_store.drift_plots import paths_png, shifts_png
from quant_assets_tests.feature_store.test_drift import FIRST, panel_of
from quant_assets_tests.lookahead import sessions_from
from quant_assets_tests.signals.explaining.test_plots import size

Judged = tuple[pl.DataFrame, pl.DataFrame, date]


def judged(features: int, untold: int = 0) -> Judged:
    """Pooled series of 5 symbols, what is said of the last session, and that session; the first feature has moved by two."""
    x = np.random.default_rng(1).standard_normal((features, 5, 260))
    x[0, :, 200:] += 2
    x[features - untold :, :, :] = math.nan
    days = sessions_from(FIRST, 260)
    series = pooled(panel_of(x), (days[0], days[199]))
    return series, shifts(series, (days[0], days[199]), [days[-1]]), days[-1]


class TestRegression:
    @pytest.mark.parametrize(("features", "inches"), [(1, 1.8), (12, 5.1), (20, 7.5), (30, 7.5)])
    def test_a_bar_a_feature_and_at_most_twenty(self, features: int, inches: float) -> None:
        _, found, session = judged(features)
        assert size(shifts_png(found, session)) == (990, round(inches * 110))

    @pytest.mark.parametrize(("features", "panels"), [(1, 1), (3, 3), (9, 6)])
    def test_a_path_a_feature_and_at_most_six(self, features: int, panels: int) -> None:
        series, found, session = judged(features)
        assert size(paths_png(series, found, session)) == (990, int((1.35 * panels + 0.7) * 110))

    def test_nothing_that_can_be_told_is_a_sentence(self) -> None:
        series, found, session = judged(4, untold=4)
        assert size(shifts_png(found, session)) == size(paths_png(series, found, session)) == (880, 132)


class TestProperties:
    def test_what_moved_is_seen(self) -> None:
        series, found, session = judged(3)
        still = found.with_columns(shift=pl.lit(0.0), severity=pl.lit(None, pl.String))
        assert shifts_png(found, session) != shifts_png(still, session)
        assert paths_png(series, found, session) != paths_png(series, still, session)

    def test_nothing_after_the_session_is_shown(self) -> None:
        series, found, session = judged(2)
        days = sessions_from(FIRST, 261)
        later = series.filter(pl.col("session") == session).with_columns(session=pl.lit(days[-1]), location=pl.lit(9.0))
        assert paths_png(pl.concat([series, later]), found, session) == paths_png(series, found, session)

    def test_what_cannot_be_told_is_counted_not_drawn(self) -> None:
        _, found, session = judged(5, untold=3)
        assert size(shifts_png(found, session)) == size(shifts_png(judged(2)[1], session))
        assert shifts_png(found, session) != shifts_png(found.filter(pl.col("p_value").is_not_null()), session)
