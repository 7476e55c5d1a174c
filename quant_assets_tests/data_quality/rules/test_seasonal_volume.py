"""Volumes that the symbol's own pattern does not foresee."""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.rules import seasonal_volume as module
from quant_assets.data_quality.rules.moves import adjusted_features
from quant_assets.data_quality.rules.seasonal_volume import (
    MSTLVolume,
    ProphetVolume,
    VolumeModel,
    marketwide_days,
    seasonal_volume,
    volume_model,
)
from quant_assets.errors import ConfigurationError
from quant_assets_tests.data_quality.rules.panels import (
    assert_no_look_ahead,
    assert_sound,
    changed,
    found,
    hostile,
    panel,
    sessions,
    traded,
)

MODELS = [
    MSTLVolume(),
    pytest.param(ProphetVolume(), marks=pytest.mark.skipif(not find_spec("prophet"), reason="the extra prophet is missing")),
]


def judged(bars: pl.DataFrame, calendar: TradingCalendar, model: VolumeModel | None = None) -> pl.DataFrame:
    return seasonal_volume(bars, adjusted_features(bars), calendar, model=model)


def weekly(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Weekdays without some holidays, and log volumes that are higher by one each Friday, with a little noise."""
    days = np.arange(np.datetime64("2021-01-04"), np.datetime64("2022-01-04"))
    days = days[np.is_busday(days)]
    days = np.delete(days, [10, 31, 32, 77])[:n]
    fridays = (days.astype("datetime64[D]").view("int64") - 1) % 7 == 0
    return days, 10.0 + fridays + np.random.default_rng(seed).normal(0, 0.05, n)


class TestRegression:
    @pytest.mark.parametrize("model", MODELS)
    def test_a_model_carries_the_week_forward(self, model: VolumeModel) -> None:
        days, values = weekly(150)
        assert values[:5].round().tolist() == [10, 10, 10, 10, 11]
        for end in range(140, 145):  # each day of the week
            expected, scatter = model.forecast(days[:end], values[:end], days[end])
            assert expected == pytest.approx(values[end].round(), abs=0.35)
            assert scatter < 0.4

    @pytest.mark.parametrize("model", MODELS)
    def test_a_day_after_a_holiday_is_foreseen_as_its_own_weekday(self, model: VolumeModel) -> None:
        days, values = weekly(150)
        friday = next(n for n in range(140, 150) if values[n] > 10.5)
        expected, _ = model.forecast(days[: friday - 1], values[: friday - 1], days[friday])  # Thursday is missing
        assert expected == pytest.approx(11, abs=0.35)

    @pytest.mark.parametrize("model", MODELS)
    def test_a_volume_out_of_its_pattern_is_a_warning_at_most(self, model: VolumeModel, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = changed(traded(1, calendar), "S03", days[150], volume=pl.col("volume") * 1e9)
        findings = judged(panel(bars, calendar), calendar, model)
        assert ("S03", days[150]) in found(findings)
        one = findings.filter((pl.col("symbol") == "S03") & (pl.col("session") == days[150]))
        assert one["severity"].item() == "warning"
        assert one["score"].item() == 0.9998
        assert one["detector"].item() == model.name
        assert one["known_at"].item().date() == days[150]

    def test_a_volume_that_every_symbol_shares_is_usual(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = traded(1, calendar).with_columns(
            volume=pl.when(pl.col("session") == days[150]).then(pl.col("volume") * 30).otherwise("volume")
        )
        assert days[150] not in {session for _, session in found(judged(panel(bars, calendar), calendar))}

    def test_days_of_the_whole_market(self, calendar: TradingCalendar) -> None:
        days = marketwide_days(calendar)
        in_2021 = sorted(day for day in days if day.year == 2021)
        assert in_2021 == [date(2021, 3, 19), date(2021, 6, 18), date(2021, 9, 17), date(2021, 11, 26), date(2021, 12, 17)]
        assert date(2024, 7, 3) in days  # the afternoon before Independence Day

    def test_without_a_cross_section_such_a_day_is_not_judged(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        for day, expected in ((date(2021, 6, 18), []), (date(2021, 6, 17), [("S03", date(2021, 6, 17))])):
            assert day in days
            lone = changed(traded(1, calendar).filter(pl.col("symbol") == "S03"), "S03", day, volume=pl.col("volume") * 1000)
            assert [at for at in found(judged(panel(lone, calendar), calendar)) if at[1] == day] == expected

    def test_only_the_asked_sessions_are_judged_and_of_each_the_most_unusual(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = traded(1, calendar)
        for n in range(12):
            bars = changed(bars, f"S{n:02d}", days[150], volume=pl.col("volume") * 1000 * (n + 1))
            bars = changed(bars, f"S{n:02d}", days[140], volume=pl.col("volume") * 1000)
        ready = panel(bars, calendar)
        findings = seasonal_volume(ready, adjusted_features(ready), calendar, [days[150]])
        assert set(findings["session"]) == {days[150]}
        assert findings.height == module.MOST

    def test_a_model_that_is_not_there_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert volume_model("mstl") == MSTLVolume()
        with pytest.raises(ConfigurationError, match=r"no volume model 'arima'; use mstl or prophet"):
            volume_model("arima")
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        with pytest.raises(ConfigurationError, match=r"pip install 'quant-assets\[prophet\]'"):
            volume_model("prophet")


class TestProperties:
    def test_no_finding_looks_further_than_its_session(self, calendar: TradingCalendar) -> None:
        days, random = sessions(calendar, 130), np.random.default_rng(5)
        bars = traded(5, calendar, n=130)
        for n in range(80, 124, 4):
            bars = changed(bars, f"S{random.integers(30):02d}", days[n], volume=pl.col("volume") * 300)
        bars = bars.filter(pl.Series(random.random(bars.height) > 0.01))
        cuts = [days[n] for n in (88, 96, 97)]
        assert assert_no_look_ahead(lambda frame: judged(frame, calendar), bars, calendar, cuts).height > 4

    def test_bars_that_cannot_be_are_no_reason_to_fail(self, calendar: TradingCalendar) -> None:
        for bars in hostile(4, calendar):
            assert_sound(judged(panel(bars, calendar), calendar))
