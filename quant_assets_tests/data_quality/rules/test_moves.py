"""Moves that nothing explains."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.rules import moves
from quant_assets.data_quality.rules.moves import adjusted_features, close_off_next_open, jump_without_cause, spike_and_revert
from quant_assets_tests.data_quality.rules.panels import (
    assert_no_look_ahead,
    assert_sound,
    changed,
    found,
    hostile,
    panel,
    real,
    sessions,
    traded,
)
from quant_assets_tests.lookahead import ACTIONS

RULES = (jump_without_cause, spike_and_revert, close_off_next_open)
PRICES = ("open", "high", "low", "close")


def judged(rule: Callable[..., pl.DataFrame], bars: pl.DataFrame) -> pl.DataFrame:
    return rule(bars, adjusted_features(bars))


def lifted(bars: pl.DataFrame, symbol: str, since: date, by: float) -> pl.DataFrame:
    """A symbol's prices at another level from a session on."""
    there = (pl.col("symbol") == symbol) & (pl.col("session") >= since)
    return bars.with_columns(pl.when(there).then(pl.col(name) * by).otherwise(name).alias(name) for name in PRICES)


class TestRegression:
    def test_score_at_the_thresholds_of_a_rule(self) -> None:
        scores = moves.tail_score(np.array([1.0, 2.0, 3.0, 4.0, 9.0]), (1.0, 2.0, 3.0, 4.0))
        assert scores == pytest.approx([0.99, 0.999, 0.9999, 0.99999, 0.99999])

    def test_a_jump_on_usual_volume_is_found_in_its_session_and_none_after_it(self, calendar: TradingCalendar) -> None:
        day = sessions(calendar, 160)[120]
        findings = judged(jump_without_cause, panel(lifted(traded(1, calendar), "S03", day, 1.5), calendar))
        strong = findings.filter(pl.col("severity") != "info")
        assert found(strong) == [("S03", day)]
        assert strong["severity"].item() == "warning"  # never more: it may be a spin-off
        assert strong["detector"].item() == "rules"
        assert strong["known_at"].item() == datetime(day.year, day.month, day.day, 21, 30)
        assert strong["detail"].item().startswith("moved 4")

    def test_volume_explains_a_jump_and_so_does_a_corporate_action(self, calendar: TradingCalendar) -> None:
        day = sessions(calendar, 160)[120]
        bars = lifted(traded(1, calendar), "S03", day, 1.5)
        loud = changed(bars, "S03", day, volume=pl.col("volume") * 40)
        assert "critical" not in set(judged(jump_without_cause, panel(loud, calendar))["severity"])
        action = pl.DataFrame([("S03", day, "split", 1.0001, datetime(2020, 1, 1))], schema=ACTIONS, orient="row")
        assert ("S03", day) not in found(judged(jump_without_cause, panel(bars, calendar, action)))

    def test_a_close_off_by_eight_sigmas_is_taken_back_by_the_next_open(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = changed(traded(1, calendar), "S03", days[120], close=pl.col("close") * 1.12, high=pl.col("high") * 1.12)
        for rule in (spike_and_revert, close_off_next_open):
            findings = judged(rule, panel(bars, calendar)).filter(pl.col("severity") == "critical")
            assert found(findings) == [("S03", days[120])]
            assert findings["detector"].item() == "rules_next_session"
            assert findings["known_at"].item().date() == days[121]
        # The session after it goes back to where the price was: that is no jump.
        assert ("S03", days[121]) not in found(judged(jump_without_cause, panel(bars, calendar)))

    def test_a_day_on_which_everything_moves_is_none(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        quiet = traded(2, calendar)
        crash = quiet.with_columns(
            pl.when(pl.col("session") >= days[120]).then(pl.col(name) * 0.88).otherwise(name).alias(name) for name in PRICES
        )
        for rule in RULES:
            before, after = (found(judged(rule, panel(bars, calendar))) for bars in (quiet, crash))
            assert {at for at in after if at[1] in days[119:122]} <= set(before)

    def test_a_symbol_that_seldom_trades_is_not_judged(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = lifted(traded(1, calendar), "S03", days[120], 1.5)
        idle = (pl.col("symbol") == "S03") & pl.col("session").is_in(days[:120:3])
        seldom = bars.with_columns(volume=pl.when(idle).then(0.0).otherwise("volume"))
        assert ("S03", days[120]) not in found(judged(jump_without_cause, panel(seldom, calendar)))

    def test_real_bars_are_hardly_ever_critical(self) -> None:
        bars = real(date(2015, 8, 1), 150, date(2017, 3, 1))
        if bars is None:
            pytest.skip("the shared market data is not at hand")
        ready = panel(bars, trading_calendar("XNYS", date(2013, 1, 2)))
        features = adjusted_features(ready)
        critical = sum(rule(ready, features).filter(pl.col("severity") == "critical").height for rule in RULES)
        assert critical <= 0.3 * ready.height / 1e4 + 1


class TestProperties:
    @pytest.mark.parametrize("rule", RULES)
    def test_no_finding_looks_further_than_it_says(self, rule: Callable[..., pl.DataFrame], calendar: TradingCalendar) -> None:
        random, days = np.random.default_rng(5), sessions(calendar, 130)
        bars = traded(5, calendar, n=130)
        for n in range(70, 128, 4):
            symbol, by = f"S{random.integers(30):02d}", float(np.exp(random.choice([-1, 1]) * random.uniform(0.04, 0.2)))
            bars = changed(bars, symbol, days[n], close=pl.col("close") * by)
        bars = bars.filter(pl.Series(random.random(bars.height) > 0.01))
        findings = assert_no_look_ahead(lambda frame: judged(rule, frame), bars, calendar, [days[n] for n in (80, 95, 110, 111)])
        assert findings.height > 2

    @pytest.mark.parametrize("rule", RULES)
    def test_bars_that_cannot_be_are_no_reason_to_fail(self, rule: Callable[..., pl.DataFrame], calendar: TradingCalendar) -> None:
        for bars in hostile(3, calendar):
            assert_sound(judged(rule, panel(bars, calendar)))
