"""Bars that look like faults and are none."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.calibration_report.genuine_events import genuine_events
from quant_assets_tests.data_quality.market import market

PRICES = ("open", "high", "low", "close")
BARS = market(seed=6)
DAYS = BARS["session"].unique().sort().to_list()
DAY = DAYS[100]


def kinds(bars: pl.DataFrame, calendar: TradingCalendar, symbol: str = "S05", session: date = DAY) -> set[str]:
    return set(genuine_events(bars, calendar).filter(pl.col("symbol") == symbol, pl.col("session") == session)["kind"])


def moved(factor: float, volume: float, *, for_good: bool, symbols: str = "S05") -> pl.DataFrame:
    """The market with one symbol (or all that the pattern names) moved from a day on, or on that day alone, on so many usual volumes."""
    whose = pl.col("symbol").str.contains(symbols)
    when = pl.col("session") >= DAY if for_good else pl.col("session") == DAY
    prices = (pl.when(whose & when).then(pl.col(name) * factor).otherwise(name).alias(name) for name in PRICES)
    usual = pl.col("volume").shift(1).rolling_median(20).over("symbol")
    return BARS.with_columns(*prices, volume=pl.when(whose & (pl.col("session") == DAY)).then(usual * volume).otherwise("volume"))


class TestRegression:
    @pytest.mark.parametrize(
        ("factor", "volume", "for_good", "told"),
        [
            (0.75, 3.5, True, {"jump"}),
            (1.3, 3.5, True, {"jump"}),
            (0.75, 10.0, True, {"jump", "volume_spike"}),
            (0.75, 3.5, False, {"ordinary"}),  # what is taken back is no news
            (0.75, 0.5, True, {"ordinary"}),  # nor is what nobody traded on
            (1.0, 10.0, True, {"volume_spike"}),
        ],
    )
    def test_jumps_and_volume_spikes(self, factor: float, volume: float, for_good: bool, told: set[str], calendar: TradingCalendar) -> None:
        assert kinds(moved(factor, volume, for_good=for_good), calendar) == told

    def test_a_move_of_the_whole_market_is_one_of_all_its_bars(self, calendar: TradingCalendar) -> None:
        fallen = genuine_events(moved(0.9, 1.0, for_good=True, symbols="."), calendar).filter(pl.col("kind") == "market_move")
        assert set(fallen.filter(pl.col("session") == DAY)["symbol"]) == set(BARS["symbol"])
        assert fallen["session"].n_unique() == 2  # of 159 sessions with a return

    def test_half_days_are_the_calendars(self, calendar: TradingCalendar) -> None:
        days = [date(2021, 11, 24), date(2021, 11, 26), date(2021, 11, 29), date(2021, 7, 2)]
        bars = BARS.filter(pl.col("session").is_in(DAYS[:4]), pl.col("symbol") == "S00").with_columns(session=pl.Series(days))
        told = genuine_events(bars, calendar).filter(pl.col("kind") == "half_day")
        assert told["session"].to_list() == [date(2021, 11, 26)]


class TestProperties:
    def test_every_bar_is_ordinary_or_an_event(self, calendar: TradingCalendar) -> None:
        for bars in (
            BARS,
            BARS.filter(pl.col("symbol") == "S00"),
            BARS.head(3),
            BARS.with_columns(close=pl.lit(None, pl.Float64)),
            BARS.clear(),
        ):
            events = genuine_events(bars, calendar)
            assert events.select("symbol", "session").n_unique() == bars.height
            ordinary = events.filter(pl.col("kind") == "ordinary")
            assert events.filter(pl.col("kind") != "ordinary").join(ordinary, on=["symbol", "session"], how="semi").is_empty()
