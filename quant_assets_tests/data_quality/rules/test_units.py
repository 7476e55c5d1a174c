"""Prices in another unit: where the power of ten lies, when it can be known, and what real bars look like."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from quant_assets.data_quality.rules.units import LASTING, unit_errors
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.lookahead import offending_rows
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.lookahead import NO_ACTIONS, evening, sp500_panel, stocknet_panel

PRICES = ("open", "high", "low", "close")
KEY = ("symbol", "session", "rule", "detector")
AT = 60


def panel(bars: pl.DataFrame, actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    """Bars as `judge.prepared` gives them, but for their place in a calendar."""
    if "basis" not in bars.columns:
        bars = bars.with_columns(basis=pl.lit("restated"))
    bars = bars.with_columns(evening(), evening().alias("version"))
    return forward_adjusted(bars, actions).with_columns(known_at="version").drop("version")


def scaled(bars: pl.DataFrame, factor: float, first: int, last: int, names: tuple[str, ...] = PRICES) -> pl.DataFrame:
    """Every symbol's prices from its first to its last bar given, times a factor."""
    row = pl.int_range(pl.len()).over("symbol")
    return bars.with_columns(pl.when(row.is_between(first, last)).then(pl.col(name) * factor).otherwise(name).alias(name) for name in names)


def told(found: pl.DataFrame, *, critical: bool = True) -> dict[str, set[int]]:
    """Which bars (by their number in the symbol's series) were found, by detector."""
    wanted = found.filter(pl.col("severity") == "critical") if critical else found
    days = market(1, symbols=1)["session"].to_list()
    return {name: {days.index(day) for day in group["session"]} for (name,), group in wanted.group_by("detector")}


class TestRegression:
    def test_a_hundredfold_bar_is_known_on_its_session_and_again_once_the_price_is_back(self) -> None:
        found = unit_errors(panel(scaled(market(1, symbols=1), 100, AT, AT)))
        assert told(found) == {"rules": {AT}, "rules_next_session": {AT}}
        proposal = json.loads(found["suggestion"][0])
        right = market(1, symbols=1)["close"][AT]
        assert proposal["column"] == "close"
        assert proposal["value"] == pytest.approx(right)

    def test_a_tenth_of_the_price_may_be_a_crash_until_it_is_back(self) -> None:
        found = unit_errors(panel(scaled(market(1, symbols=1), 0.1, AT, AT)))
        assert told(found) == {"rules_next_session": {AT}}
        assert told(found, critical=False)["rules"] == {AT}

    def test_every_bar_of_a_short_stretch_in_pence_is_found(self) -> None:
        found = unit_errors(panel(scaled(market(1, symbols=1), 100, AT, AT + 6)))
        assert told(found)["rules"] == set(range(AT, AT + 7))
        assert set().union(*told(found).values()) == set(range(AT, AT + 7))

    def test_where_pence_stay_the_bar_before_is_doubtful_too(self) -> None:
        found = unit_errors(panel(scaled(market(1, symbols=1), 0.01, AT, 10_000)))
        assert AT in told(found)["rules"]
        before = found.filter(pl.col("detector") == "rules_later_sessions")
        assert before["severity"].to_list() == ["warning"]
        days = market(1, symbols=1)["session"].to_list()
        assert before["session"].item() == days[AT - 1]
        assert before["known_at"].item().date() == days[AT + LASTING - 1]

    @pytest.mark.parametrize(("name", "factor"), [("high", 10.0), ("low", 0.01), ("open", 100.0), ("close", 0.1)])
    def test_a_single_price_is_named(self, name: str, factor: float) -> None:
        found = unit_errors(panel(scaled(market(1, symbols=1), factor, AT, AT, (name,))))
        assert AT in told(found)["rules"]
        proposals = [json.loads(text) for text in found.filter(pl.col("detector") == "rules")["suggestion"]]
        assert [proposal["column"] for proposal in proposals] == [name]

    def test_a_reverse_split_that_is_told_is_none(self) -> None:
        bars = scaled(market(1, symbols=1), 0.1, 0, AT - 1).with_columns(basis=pl.lit("raw"))
        day = bars["session"][AT]
        split = pl.DataFrame({"symbol": ["S00"], "session": [day], "kind": ["split"], "value": [0.1]}).with_columns(evening())
        assert unit_errors(panel(bars, split)).is_empty()

    def test_a_lasting_change_by_ten_with_the_volume_against_it_is_a_split(self) -> None:
        bars = scaled(scaled(market(1, symbols=1), 0.1, 0, AT - 1), 10.0, 0, AT - 1, ("volume",))
        assert unit_errors(panel(bars)).is_empty()


@pytest.mark.parametrize("source", [sp500_panel, stocknet_panel])
class TestRealBars:
    def test_errors_in_real_bars_are_found_and_hardly_any_clean_bar(self, source: Callable[[], pl.DataFrame | None]) -> None:
        bars = source()
        if bars is None:
            pytest.skip("shared market data is not at hand")
        symbols = bars["symbol"].unique().sort().sample(60, seed=3)
        bars = bars.filter(pl.col("symbol").is_in(symbols.to_list()) & (pl.len().over("symbol") > 100))
        random = np.random.default_rng(2026)
        row, count = pl.int_range(pl.len()).over("symbol"), bars.select(pl.len().over("symbol")).to_series().to_numpy()
        # One error in every twenty-five bars of a symbol, away from its ends.
        offset = int(random.integers(0, 20))
        hit = (bars.select(row).to_series().to_numpy() % 25 == offset) & (bars.select(row).to_series().to_numpy() > 25)
        hit &= bars.select(row).to_series().to_numpy() < count - 12
        factor = np.where(hit, random.choice([100.0, 10.0, 0.01], bars.height), 1.0)
        faulty = bars.with_columns(pl.col(name) * pl.Series(factor) for name in PRICES)
        truth = bars.filter(pl.Series(hit)).select("symbol", "session")
        found = unit_errors(panel(faulty)).filter((pl.col("severity") == "critical") & (pl.col("detector") != "rules_later_sessions"))
        bad = found.select("symbol", "session").unique()
        caught = bad.join(truth, on=["symbol", "session"], how="semi").height
        assert caught >= 0.95 * truth.height
        assert bad.height - caught <= 1e-4 * bars.height


class TestProperties:
    def test_what_was_told_stays_told(self) -> None:
        bars = market(4, symbols=5)
        for n, (factor, length) in enumerate([(100.0, 1), (0.1, 1), (10.0, 4), (0.01, 200), (1000.0, 7)]):
            chosen = pl.col("symbol") == f"S{n:02d}"
            bars = pl.concat([bars.filter(~chosen), scaled(bars.filter(chosen), factor, AT + n, AT + n + length - 1)])
        history = panel(bars)
        found = unit_errors(history)
        assert found["symbol"].n_unique() == 5
        cuts = history.filter(pl.col("symbol") == "S00")["known_at"][50:90].to_list()
        assert offending_rows(unit_errors, {"bars": history}, cuts, key=KEY, clock="known_at").is_empty()

    def test_nothing_to_judge_by_is_no_crash(self) -> None:
        bars = market(2, symbols=2, n=30)
        odd = bars.with_columns(
            close=pl.when(pl.col("symbol") == "S00").then(None).otherwise(pl.col("close")),
            open=pl.lit(float("nan")), low=pl.lit(-1.0), volume=pl.lit(None, pl.Float64),
        )  # fmt: skip
        assert unit_errors(panel(odd)).is_empty()
        assert unit_errors(panel(bars.head(1))).is_empty()
        assert unit_errors(panel(bars.clear())).is_empty()
