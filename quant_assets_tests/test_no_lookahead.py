"""No look-ahead: history cut anywhere changes nothing before the cut, and errors planted on purpose are caught."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.labels import labels
from quant_assets_tests.lookahead import (
    NO_ACTIONS,
    calendar_frame,
    offending_rows,
    random_history,
    sp500_panel,
    stocknet_panel,
)

History = dict[str, pl.DataFrame]


def features(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """The view as the pipeline computes it, with the instant from which each row was known."""
    adjusted = forward_adjusted(bars, actions)
    return technical_v1(adjusted).hstack(adjusted.select("known_at"))


def outcomes(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    return labels(forward_adjusted(bars, actions), calendar_frame(date(2020, 1, 1), 400))


def cuts_of(history: History, seed: int, n: int = 6, clock: str = "session") -> list[date | datetime]:
    """Random moments of a history, among them its second and its last but one."""
    moments = history["bars"][clock].unique().sort()
    inner = np.random.default_rng(seed).choice(len(moments) - 1, size=n, replace=False)
    return [moments[1], *(moments[int(i)] for i in inner), moments[-2]]


def real_history(panel: Callable[[], pl.DataFrame | None], symbols: int = 5, sessions: int = 400) -> History:
    bars = panel()
    if bars is None:
        pytest.skip("the shared market data is not at hand")
    chosen = bars["symbol"].unique().sort().gather_every(17).head(symbols)
    first = bars["session"].unique().sort().head(sessions)
    return {"bars": bars.filter(pl.col("symbol").is_in(chosen.implode()) & pl.col("session").is_in(first.implode())), "actions": NO_ACTIONS}


def known_late(history: History, seed: int) -> History:
    """Delay when some bars and actions became known by up to 30 days."""
    random = np.random.default_rng(seed)

    def delay(frame: pl.DataFrame) -> pl.DataFrame:
        days = np.where(random.random(frame.height) < 0.1, random.integers(1, 30, frame.height), 0)
        return frame.with_columns(pl.col("known_at") + pl.duration(days=pl.Series(days)))

    return {"bars": delay(history["bars"]), "actions": delay(history["actions"])}


class TestProperties:
    @pytest.mark.parametrize("seed", range(5))
    def test_features_of_generated_histories(self, seed: int) -> None:
        history = random_history(seed)
        assert set(features(**history).columns) >= {feature.name for feature in TECHNICAL_V1}
        assert offending_rows(features, history, cuts_of(history, seed)).is_empty()

    @pytest.mark.parametrize("panel", [sp500_panel, stocknet_panel])
    def test_features_of_real_histories(self, panel: Callable[[], pl.DataFrame | None]) -> None:
        history = real_history(panel)
        assert offending_rows(features, history, cuts_of(history, 1)).is_empty()

    @pytest.mark.parametrize("compute", [features, outcomes])
    @pytest.mark.parametrize("seed", range(4))
    def test_rows_are_reproduced_from_what_was_known_at_their_known_at(self, compute: Callable[..., pl.DataFrame], seed: int) -> None:
        history = known_late(random_history(seed), seed)
        key = ("symbol", "session", "horizon") if compute is outcomes else ("symbol", "session")
        assert offending_rows(compute, history, cuts_of(history, seed, clock="known_at"), key=key, clock="known_at").is_empty()

    @pytest.mark.parametrize("seed", range(4))
    def test_a_label_is_known_when_its_outcome_is(self, seed: int) -> None:
        history = random_history(seed)
        rows = outcomes(**history)
        assert rows.height > 0
        cuts = cuts_of(history, seed, clock="known_at")
        assert offending_rows(outcomes, history, cuts, key=("symbol", "session", "horizon"), clock="known_at").is_empty()


def _on_bars(expression: pl.Expr) -> Callable[..., pl.DataFrame]:
    def compute(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
        return forward_adjusted(bars, actions).select("symbol", "session", expression.over("symbol").alias("feature"))

    return compute


def _misaligned(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    return features(bars, actions).select("symbol", "session", pl.col("rsi_14").shift(-1).over("symbol"))


def _z_scored(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    volume = pl.col("volume_ratio")
    return features(bars, actions).select("symbol", "session", ((volume - volume.mean()) / volume.std()).alias("feature"))


def _backward_adjusted(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    factor = pl.col("price_factor") / pl.col("price_factor").last().over("symbol")
    return forward_adjusted(bars, actions).select("symbol", "session", (pl.col("close") * factor).alias("feature"))


def _label_known_too_early(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    return outcomes(bars, actions).with_columns(
        (pl.col("session").cast(pl.Datetime("us")) + timedelta(hours=21, minutes=30)).alias("known_at")
    )


PLANTED: dict[str, Callable[..., pl.DataFrame]] = {
    "centred window": _on_bars(pl.col("adj_close").rolling_mean(5, center=True)),
    "back-fill": _on_bars(pl.col("adj_volume").backward_fill()),
    "full-sample z-score": _z_scored,
    "shifted label as a feature": _on_bars(pl.col("adj_close").shift(-1) / pl.col("adj_close") - 1),
    "one-session misalignment": _misaligned,
    "later split in an earlier level": _backward_adjusted,
}
HONEST: dict[str, Callable[..., pl.DataFrame]] = {
    "trailing window": _on_bars(pl.col("adj_close").rolling_mean(5)),
    "forward-fill": _on_bars(pl.col("adj_volume").forward_fill()),
    "past return": _on_bars(pl.col("adj_close") / pl.col("adj_close").shift(1) - 1),
}


class TestRegression:
    @pytest.mark.parametrize("error", PLANTED)
    @pytest.mark.parametrize("seed", range(3))
    def test_a_planted_error_is_caught(self, error: str, seed: int) -> None:
        history = random_history(seed)
        missing = history["bars"].filter(pl.col("volume").is_null())["session"].to_list()
        found = offending_rows(PLANTED[error], history, [*cuts_of(history, seed), *missing])
        assert not found.is_empty(), error
        assert found.columns == ["cut", "symbol", "session", "column", "stored", "recomputed"]

    @pytest.mark.parametrize("twin", HONEST)
    @pytest.mark.parametrize("seed", range(3))
    def test_its_honest_twin_is_not_flagged(self, twin: str, seed: int) -> None:
        history = random_history(seed)
        assert offending_rows(HONEST[twin], history, cuts_of(history, seed), tolerance=1e-12).is_empty()

    def test_a_label_said_to_be_known_at_its_own_session_is_caught(self) -> None:
        history = random_history(1)
        cuts = cuts_of(history, 1, clock="known_at")
        found = offending_rows(_label_known_too_early, history, cuts, key=("symbol", "session", "horizon"), clock="known_at")
        assert set(found["column"]) == {"row"}

    def test_features_said_to_be_known_with_their_own_bar_are_caught_where_an_earlier_one_came_late(self) -> None:
        history = known_late(random_history(1), 1)

        def own_bar_only(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
            return features(bars, actions).drop("known_at").join(bars.select("symbol", "session", "known_at"), on=["symbol", "session"])

        assert not offending_rows(own_bar_only, history, cuts_of(history, 1, clock="known_at"), clock="known_at").is_empty()

    def test_the_offending_value_is_named(self) -> None:
        days = [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]
        bars = pl.DataFrame({"symbol": ["A"] * 3, "session": days, "close": [1.0, 2.0, 4.0]})
        found = offending_rows(
            lambda bars: bars.select("symbol", "session", pl.col("close") / pl.col("close").max()), {"bars": bars}, days[1:2]
        )
        assert found.rows() == [(days[1], "A", days[0], "close", "0.25", "0.5"), (days[1], "A", days[1], "close", "0.5", "1.0")]

    def test_a_null_that_becomes_a_number_is_an_offence_at_any_tolerance(self) -> None:
        days = [date(2024, 1, 2), date(2024, 1, 3)]
        bars = pl.DataFrame({"symbol": ["A", "A"], "session": days, "close": [None, 2.0]})
        filled = offending_rows(lambda bars: bars.with_columns(pl.col("close").backward_fill()), {"bars": bars}, days[:1], tolerance=1.0)
        assert filled["recomputed"].to_list() == [None]
