"""What the volume says of a bar."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.rules.moves import adjusted_features
from quant_assets.data_quality.rules.volumes import stale_close, volume_spike, zero_volume_move
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

PRICES = ("open", "high", "low", "close")


def copied(bars: pl.DataFrame, symbol: str, days: list[date], names: tuple[str, ...] = PRICES) -> pl.DataFrame:
    """A symbol's values on some sessions as they were on the first of them."""
    original = bars.filter((pl.col("symbol") == symbol) & (pl.col("session") == days[0]))
    there = (pl.col("symbol") == symbol) & pl.col("session").is_in(days)
    return bars.with_columns(pl.when(there).then(original[name].item()).otherwise(name).alias(name) for name in names)


class TestRegression:
    def test_a_run_of_copied_bars_is_critical_once_it_is_long_enough_and_then_all_of_it(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        findings = stale_close(panel(copied(traded(1, calendar), "S03", days[140:146]), calendar))
        critical = findings.filter(pl.col("severity") == "critical").sort("session")
        # The first of the six is the original. 120 sessions of 60 more that count for half a repeat: a chance of 1 in 360
        # for each, so that the second repeat (1 in 130,000, ten times that for the rules that share the rate) is enough.
        assert found(critical) == [("S03", day) for day in days[141:146]]
        assert critical["detector"].to_list() == ["rules_later_sessions", *["rules"] * 4]
        assert [known.date() for known in critical["known_at"]] == [days[142], *days[142:146]]
        assert critical["score"][1] == pytest.approx(1 - 10 * (0.5 / 180) ** 2)

    def test_a_close_alone_that_stands_still_is_at_most_a_warning(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        findings = stale_close(panel(copied(traded(1, calendar), "S03", days[140:150], ("close",)), calendar))
        assert set(findings.filter(pl.col("session") >= days[143])["severity"]) == {"warning"}

    def test_what_repeats_often_must_repeat_for_longer(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = traded(1, calendar)
        for start in range(4, 136, 3):  # a share that repeats its whole bar every third session
            bars = copied(bars, "S03", days[start : start + 2])
        findings = stale_close(panel(copied(bars, "S03", days[140:144]), calendar))
        assert "critical" not in set(findings["severity"])

    @pytest.mark.parametrize("volume", [0.0, None])
    def test_bars_on_which_nothing_traded_repeat_innocently(self, volume: float | None, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = copied(traded(1, calendar), "S03", days[140:150])
        idle = (pl.col("symbol") == "S03") & (pl.col("session") > days[140])
        still = bars.with_columns(volume=pl.when(idle).then(pl.lit(volume, pl.Float64)).otherwise("volume"))
        assert stale_close(panel(still, calendar)).is_empty()

    def test_a_price_that_moved_while_nothing_traded(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = changed(traded(1, calendar), "S03", days[100], volume=0.0)
        findings = zero_volume_move(panel(bars, calendar))
        assert found(findings) == [("S03", days[100])]
        assert findings["severity"].item() == "critical"
        assert findings["detail"].item().endswith("on volume 0; 0.0 % of its recent bars had none")
        assert zero_volume_move(panel(copied(bars, "S03", days[99:101]), calendar)).is_empty()
        idle = (pl.col("symbol") == "S03") & pl.col("session").is_in(days[::4])
        assert zero_volume_move(panel(bars.with_columns(volume=pl.when(idle).then(0.0).otherwise("volume")), calendar)).is_empty()

    def test_a_volume_alone_is_never_critical(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        ready = panel(changed(traded(1, calendar), "S03", days[150], volume=pl.col("volume") * 1000), calendar)
        findings = volume_spike(ready, adjusted_features(ready)).filter(pl.col("session") > days[145])
        assert found(findings) == [("S03", days[150])]
        assert findings["score"].item() == 0.9998
        assert findings["severity"].item() == "warning"

    def test_copied_runs_in_real_bars_are_found_and_nothing_else_is_critical(self) -> None:
        bars = real(date(2015, 1, 2), 50, date(2016, 6, 30))
        if bars is None:
            pytest.skip("the shared market data is not at hand")
        calendar, random = trading_calendar("XNYS", date(2013, 1, 2)), np.random.default_rng(7)
        days = bars["session"].unique().sort().to_list()
        planted: set[tuple[str, date]] = set()
        for symbol in bars["symbol"].unique().sort():
            start, length = int(random.integers(200, len(days) - 20)), int(random.integers(5, 12))
            bars = copied(bars, symbol, days[start : start + length + 1])
            planted |= {(symbol, day) for day in days[start + 1 : start + length + 1]}
        critical = set(found(stale_close(panel(bars, calendar)).filter(pl.col("severity") == "critical")))
        assert len(critical & planted) >= 0.95 * len(planted)
        assert len(critical - planted) <= 1


class TestProperties:
    def test_no_finding_looks_further_than_it_says(self, calendar: TradingCalendar) -> None:
        days, random = sessions(calendar, 130), np.random.default_rng(5)
        bars = traded(5, calendar, n=130)
        for n in range(60, 124, 6):
            symbol = f"S{random.integers(30):02d}"
            bars = copied(bars, symbol, days[n : n + int(random.integers(3, 6))])
            bars = changed(bars, f"S{random.integers(30):02d}", days[n], volume=0.0)
            bars = changed(bars, f"S{random.integers(30):02d}", days[n + 1], volume=pl.col("volume") * 60)
        cuts = [days[n] for n in (80, 91, 92, 110)]
        for rule in (stale_close, zero_volume_move, lambda frame: volume_spike(frame, adjusted_features(frame))):
            assert assert_no_look_ahead(rule, bars, calendar, cuts).height > 3

    def test_bars_that_cannot_be_are_no_reason_to_fail(self, calendar: TradingCalendar) -> None:
        for bars in hostile(4, calendar):
            ready = panel(bars, calendar)
            for findings in (stale_close(ready), zero_volume_move(ready), volume_spike(ready, adjusted_features(ready))):
                assert_sound(findings)
