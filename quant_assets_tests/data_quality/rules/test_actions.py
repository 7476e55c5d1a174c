"""Splits and dividends that the prices contradict, in generated bars whose right actions are known, and in real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from quant_assets.data_quality.rules.actions import impossible_actions
from quant_assets.data_quality.rules.dividends import adjusted_closes, dividends
from quant_assets.data_quality.rules.splits import splits
from quant_assets.lookahead import offending_rows
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.data_quality.rules.test_units import AT, KEY, panel, scaled
from quant_assets_tests.lookahead import NO_ACTIONS, evening, sp500_panel, stocknet_panel

DAYS = market(1, symbols=1)["session"].to_list()


def actions(*rows: tuple[int, str, float], symbol: str = "S00") -> pl.DataFrame:
    """Actions of a symbol: the number of the bar, the kind and the value."""
    schema = {"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64}
    return pl.DataFrame([(symbol, DAYS[at], kind, value) for at, kind, value in rows], schema=schema, orient="row").with_columns(evening())


def as_traded(bars: pl.DataFrame, ratio: float, at: int = AT) -> pl.DataFrame:
    """The bars of every symbol as they were traded before a split on bar `at`, and since."""
    return scaled(scaled(bars, ratio, 0, at - 1), 1 / ratio, 0, at - 1, ("volume",)).with_columns(basis=pl.lit("raw"))


def paying(amount: float, at: int = AT, seed: int = 1) -> pl.DataFrame:
    """One symbol whose price falls by a dividend on bar `at`, as restated bars."""
    bars = market(seed, symbols=1)
    before = bars["close"][at - 1]
    return scaled(bars, 1 - amount / before, at, 10_000)


def adjusted(bars: pl.DataFrame, *paid: tuple[int, float]) -> pl.DataFrame:
    """Add the vendor's adjusted close, for these dividends (bar, amount)."""
    factor = np.ones(bars.height)
    for at, amount in paid:
        factor[:at] *= 1 - amount / bars["close"][at - 1]
    return bars.with_columns(vendor_adj_close=pl.col("close") * pl.Series(factor))


def rows(found: pl.DataFrame) -> list[tuple[int, str, str, str]]:
    return sorted((DAYS.index(day), *rest) for day, *rest in found.select("session", "rule", "detector", "severity").iter_rows())


class TestRegressionSplits:
    @pytest.mark.parametrize("ratio", [2.0, 3.0, 0.1, 20.0])
    def test_a_split_that_nobody_tells_is_suspected_and_then_certain(self, ratio: float) -> None:
        found = splits(panel(as_traded(market(1, symbols=1), ratio)), NO_ACTIONS)
        assert rows(found) == [(AT, "unadjusted_split", "rules", "warning"), (AT, "unadjusted_split", "rules_next_session", "critical")]
        assert json.loads(found["suggestion"][0])["value"] == pytest.approx(ratio)

    def test_a_split_that_is_told_is_none(self) -> None:
        told = actions((AT, "split", 4.0))
        assert splits(panel(as_traded(market(1, symbols=1), 4.0), told), told).is_empty()

    def test_a_split_of_bars_that_were_adjusted_already(self) -> None:
        told = actions((AT, "split", 2.0))
        found = splits(panel(market(1, symbols=1).with_columns(basis=pl.lit("raw")), told), told)
        assert rows(found) == [(AT, "split_without_move", "rules", "critical")]

    def test_half_the_price_on_ten_times_the_volume_is_news(self) -> None:
        bars = scaled(market(1, symbols=1), 0.5, AT, 10_000)
        assert splits(panel(scaled(bars, 10.0, AT, AT + 5, ("volume",))), NO_ACTIONS).is_empty()

    def test_a_wrong_bar_is_no_split_and_neither_is_the_way_back(self) -> None:
        found = splits(panel(scaled(market(1, symbols=1), 0.5, AT, AT)), NO_ACTIONS)
        assert AT + 1 not in {row[0] for row in rows(found)}

    def test_a_restated_history_that_is_adjusted_twice_before_a_split(self) -> None:
        told = actions((AT, "split", 0.1))
        bars = scaled(market(1, symbols=1), 10.0, 0, AT + 3)
        found = splits(panel(bars, told), told).filter(pl.col("rule") == "split_in_history")
        assert rows(found) == [
            (AT, "split_in_history", "rules_later_sessions", "critical"),
            (AT + 3, "split_in_history", "rules_later_sessions", "warning"),
            (AT + 4, "split_in_history", "rules", "critical"),
        ]

    def test_one_bar_of_a_restated_history_left_as_it_was_traded(self) -> None:
        told = actions((AT, "split", 0.4))
        found = splits(panel(scaled(market(1, symbols=1), 0.4, AT - 5, AT - 5), told), told)
        assert {row[0] for row in rows(found)} == {AT - 5}
        history = found.filter(pl.col("rule") == "split_in_history")
        assert history["severity"].to_list() == ["critical"]
        assert history["known_at"].item().date() == DAYS[AT]


class TestRegressionDividends:
    def test_a_dividend_that_the_price_confirms(self) -> None:
        told = actions((AT, "dividend", 3.0), (AT + 20, "dividend", 0.01))
        assert dividends(panel(paying(3.0)), told).is_empty()

    def test_a_dividend_in_pence(self) -> None:
        found = dividends(panel(paying(0.5)), actions((AT, "dividend", 50.0)))
        assert rows(found) == [(AT, "dividend_too_large", "rules", "critical")]
        assert json.loads(found["suggestion"].item())["value"] == pytest.approx(0.5)

    def test_dividends_in_pounds_of_a_price_in_pence_show_together(self) -> None:
        bars, told = market(1, symbols=1), []
        for at in (40, 80, 120):
            amount = 0.03 * bars["close"][at - 1]
            bars = scaled(bars, 0.97, at, 10_000)
            told.append((at, "dividend", amount / 100))
        found = dividends(panel(bars), actions(*told))
        assert {row[1] for row in rows(found)} == {"dividend_too_small"}
        assert 120 in {row[0] for row in rows(found)}

    def test_of_two_equal_dividends_a_day_apart_the_one_without_a_fall_is_the_phantom(self) -> None:
        found = dividends(panel(paying(4.0)), actions((AT - 1, "dividend", 4.0), (AT, "dividend", 4.0)))
        repeated = found.filter(pl.col("rule") == "dividend_repeated")
        assert rows(repeated) == [
            (AT - 1, "dividend_repeated", "rules_next_session", "critical"),
            (AT, "dividend_repeated", "rules", "warning"),
        ]

    def test_an_adjusted_close_for_the_dividend_is_right(self) -> None:
        bars = adjusted(paying(1.0), (AT, 1.0))
        assert adjusted_closes(panel(bars), actions((AT, "dividend", 1.0))).is_empty()

    @pytest.mark.parametrize(("told", "in_adjusted"), [(1.0, 0.0), (1.0, 0.01), (5.0, 1.0), (0.0, 1.0)])
    def test_dividend_and_adjusted_close_that_disagree(self, told: float, in_adjusted: float) -> None:
        bars = adjusted(paying(1.0), (AT, in_adjusted))
        found = adjusted_closes(panel(bars), actions((AT, "dividend", told)) if told else NO_ACTIONS)
        assert rows(found) == [(AT, "dividend_adjustment", "rules", "critical")]
        proposal = json.loads(found["suggestion"].item())
        right = bars["close"][AT - 1] - 1.0
        assert proposal["value"] == pytest.approx(right if proposal["column"] == "adj_close" else 1.0)
        assert (proposal["column"] == "dividend") == (told in (0.0, 5.0))

    def test_a_capital_gain_that_is_taken_off_twice(self) -> None:
        bars = adjusted(paying(8.0), (AT, 14.0))
        told = actions((AT, "dividend", 8.0), (AT, "capital_gain", 6.0))
        assert rows(adjusted_closes(panel(bars), told)) == [(AT, "capital_gain_twice", "rules", "critical")]
        # Where the price fell by both, the dividend was told without the gain.
        bars = adjusted(paying(14.0), (AT, 14.0))
        assert adjusted_closes(panel(bars), told).is_empty()

    def test_an_action_that_cannot_be_is_told_with_its_bar(self) -> None:
        bars = panel(market(1, symbols=1).with_columns(basis=pl.lit("raw")))
        told = actions((AT, "dividend", 1e6), (AT + 1, "split", -2.0), (AT + 2, "capital_gain", 1.0))
        assert [row[0] for row in rows(impossible_actions(bars, told))] == [AT, AT + 1]


@pytest.mark.parametrize("source", [sp500_panel, stocknet_panel])
class TestRealBars:
    def test_splits_in_real_bars(self, source: Callable[[], pl.DataFrame | None]) -> None:
        bars = source()
        if bars is None:
            pytest.skip("shared market data is not at hand")
        names = bars.filter(pl.len().over("symbol") > 200)["symbol"].unique().sort().sample(80, seed=5).to_list()
        bars = bars.filter(pl.col("symbol").is_in(names))
        row, at = pl.int_range(pl.len()).over("symbol"), 100
        truth = bars.filter(row == at).select("symbol", "session")
        for ratio in (2.0, 0.1):
            found = splits(panel(as_traded(bars, ratio, at)), NO_ACTIONS)
            sure = found.filter(pl.col("severity") == "critical").select("symbol", "session").unique()
            caught = sure.join(truth, on=["symbol", "session"], how="semi").height
            assert caught >= 0.95 * truth.height
            assert sure.height - caught <= 1
        told = truth.select("symbol", "session", kind=pl.lit("split"), value=pl.lit(3.0)).with_columns(evening())
        found = splits(panel(bars.with_columns(basis=pl.lit("raw")), told), told).filter(pl.col("rule") == "split_without_move")
        assert found.height == truth.height


class TestProperties:
    def test_what_was_told_stays_told(self) -> None:
        bars = market(6, symbols=5)
        by = {name: bars.filter(pl.col("symbol") == name) for name in bars["symbol"].unique().sort()}
        by["S00"] = as_traded(by["S00"], 2.0)
        by["S01"] = scaled(by["S01"], 10.0, 0, AT + 3)
        by["S02"] = scaled(by["S02"], 0.4, AT - 5, AT - 5)
        history = pl.concat([frame if "basis" in frame.columns else frame.with_columns(basis=pl.lit("restated")) for frame in by.values()])
        told = pl.concat(
            [
                actions((AT, "split", 0.1), symbol="S01"),
                actions((AT, "split", 0.4), symbol="S02"),
                actions((AT - 1, "dividend", 3.0), (AT + 1, "dividend", 3.0), symbol="S03"),
                actions((AT, "dividend", 60.0), (AT + 9, "dividend", 0.001), symbol="S04"),
            ]
        )
        prepared = panel(history, told)

        def judged(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
            return pl.concat([splits(bars, actions), dividends(bars, actions)])

        assert judged(prepared, told)["symbol"].n_unique() == 5
        cuts = prepared.filter(pl.col("symbol") == "S00")["known_at"][AT - 8 : AT + 14].to_list()
        assert offending_rows(judged, {"bars": prepared, "actions": told}, cuts, key=KEY, clock="known_at").is_empty()

    def test_nothing_to_judge_by_is_no_crash(self) -> None:
        bars = market(2, symbols=1, n=30)
        odd = bars.with_columns(
            close=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).when(pl.int_range(pl.len()) % 3 == 1).then(0.0).otherwise("close"),
            open=pl.lit(float("nan")), volume=pl.lit(None, pl.Float64), vendor_adj_close=pl.lit(-1.0),
        )  # fmt: skip
        day = bars["session"][5]
        told = pl.DataFrame(
            {"symbol": ["S00"] * 4, "session": [day, day, day + timedelta(days=400), date(1990, 1, 1)], "kind": ["split", "dividend"] * 2,
             "value": [float("nan"), None, 2.0, 1.0]}
        ).with_columns(evening())  # fmt: skip
        for frame in (odd, odd.head(1), odd.clear()):
            for rule in (splits, dividends, adjusted_closes, impossible_actions):
                found = rule(panel(frame, told), told)
                assert found["score"].is_finite().all()
