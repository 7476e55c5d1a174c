"""How long a bar is remembered: to the session by windows, by recursions until it falls below the tolerance, by on-balance volume for ever."""

from __future__ import annotations

from datetime import date
from math import floor, log

import polars as pl
import pytest

from quant_assets.data_quality.blast_radius.counterfactual import FEATURES, TOLERANCE, Histories
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets_tests.lookahead import NO_ACTIONS, evening, random_history, sessions_from

N, AT = 500, 100


def changes(bars: pl.DataFrame, actions: pl.DataFrame, at: int) -> pl.DataFrame:
    """What differs without the bar of one position, with the position of each row."""
    without = bars.filter(pl.col("session") != bars["session"][at])
    both = (forward_adjusted(side, actions) for side in (bars, without))
    return Histories(False, *both).feature_changes.join(bars.select("session").with_row_index("position"), on="session")


@pytest.fixture(scope="module")
def spike() -> pl.DataFrame:
    """A price that stands at 100 and once at 130."""
    close = pl.when(pl.int_range(pl.len()) == AT).then(130.0).otherwise(100.0)
    bars = pl.DataFrame({"session": sessions_from(date(2020, 1, 1), N)}).with_columns(
        *(close.alias(name) for name in ("open", "high", "low", "close")),
        evening(),
        symbol=pl.lit("S"),
        volume=pl.lit(1000.0),
        basis=pl.lit("raw"),
    )
    return changes(bars, NO_ACTIONS, AT)


class TestRegression:
    @pytest.mark.parametrize(
        ("feature", "after"),
        [
            ("sma_5", range(5)),
            ("sma_50", range(50)),
            ("bb_width", range(20)),
            ("price_change_1d", range(2)),
            ("price_change_20d", (0, 20)),
            ("high_low_range", (0,)),
        ],
    )
    def test_a_window_forgets_the_bar_when_it_has_passed(self, feature: str, after: range, spike: pl.DataFrame) -> None:
        assert spike.filter(pl.col("feature") == feature)["position"].sort().to_list() == [AT + n for n in after]

    @pytest.mark.parametrize(("feature", "n"), [("ema_12", 12), ("ema_26", 26)])
    def test_a_recursion_forgets_it_when_what_is_left_falls_below_the_tolerance(self, feature: str, n: int, spike: pl.DataFrame) -> None:
        left, kept = 30 * 2 / (n + 1), 1 - 2 / (n + 1)  # of the spike on its own session, and of that after each later one
        last = floor(log(TOLERANCE * 100 / left) / log(kept))
        assert spike.filter(pl.col("feature") == feature)["position"].sort().to_list() == list(range(AT, AT + last + 1))
        assert last == {"ema_12": 105, "ema_26": 219}[feature]

    def test_the_size_of_a_change_is_told_in_standard_deviations_of_the_history_without_the_bar(self) -> None:
        history = random_history(3, symbols=1, n=N, gaps=0.0)
        found = changes(**history, at=AT).filter(pl.col("feature") == "rsi_14", pl.col("position") > AT).sort("position")
        row = found.row(0, named=True)
        without = history["bars"].filter(pl.col("session") != history["bars"]["session"][AT])
        adjusted = forward_adjusted(without, history["actions"])
        spread = Histories(False, adjusted, adjusted).features_with["rsi_14"].std()
        assert row["position"] == AT + 1
        assert row["size"] == pytest.approx(abs(row["value_with"] - row["value_without"]) / spread, rel=1e-12)

    def test_on_balance_volume_never_forgets_it(self) -> None:
        positions = changes(**random_history(1, symbols=1, n=N, gaps=0.0), at=AT).filter(pl.col("feature") == "obv")["position"]
        assert positions.max() == N - 1


class TestProperties:
    @pytest.mark.parametrize("at", [0, 1, 13, 250, N - 1])
    def test_nothing_before_the_bar_and_every_feature_of_its_own_session(self, at: int) -> None:
        found = changes(**random_history(at, symbols=1, n=N, gaps=0.0), at=at)
        assert found["position"].min() == at
        own = found.filter(pl.col("position") == at)
        assert sorted(own["feature"]) == sorted(FEATURES)
        assert own["value_without"].null_count() == len(FEATURES)
        assert found["size"].null_count() == found["size"].is_nan().sum() == 0

    def test_a_history_compared_with_itself_has_no_change(self) -> None:
        adjusted = forward_adjusted(*random_history(2, symbols=1, n=N).values())
        assert Histories(False, adjusted, adjusted).feature_changes.is_empty()
