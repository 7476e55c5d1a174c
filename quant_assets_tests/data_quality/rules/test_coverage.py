"""Bars that are twice, missing, or where none belongs; deliveries that are partial, stale or ahead."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.rules.coverage import (
    closed_session,
    duplicate_bar,
    missing_session,
    partial_session,
    repeated_session,
    ticker_reuse,
)
from quant_assets.data_quality.rules.moves import adjusted_features
from quant_assets_tests.data_quality.rules.panels import (
    assert_no_look_ahead,
    assert_sound,
    found,
    hostile,
    panel,
    real,
    rows,
    sessions,
    traded,
)

VALUES = ("open", "high", "low", "close", "volume")


def without(bars: pl.DataFrame, symbol: str, days: list[date]) -> pl.DataFrame:
    return bars.filter((pl.col("symbol") != symbol) | ~pl.col("session").is_in(days))


def listing(symbol: str, valid_from: date, valid_to: date | None) -> pl.DataFrame:
    schema = {"symbol": pl.String, "valid_from": pl.Date, "valid_to": pl.Date}
    return pl.DataFrame([(symbol, valid_from, valid_to)], schema=schema, orient="row")


def shifted_session(bars: pl.DataFrame, symbols: list[str], to: date, source: date) -> pl.DataFrame:
    """The bars with one session's values of some symbols replaced by another session's."""
    there = bars.filter(pl.col("symbol").is_in(symbols) & (pl.col("session") == source)).with_columns(session=pl.lit(to))
    return pl.concat([bars.join(there, on=["symbol", "session"], how="anti"), there.select(bars.columns)])


class TestRegression:
    def test_duplicates_are_one_finding_for_each_version(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 3)
        bars = rows(*[("AAA", day, 10, 11, 9, 10, 500) for day in (days[0], days[1], days[1], days[2])])
        findings = duplicate_bar(panel(bars, calendar))
        assert found(findings) == [("AAA", days[1])]
        assert findings["severity"].item() == "critical"
        assert findings["detail"].item() == "2 bars of one symbol in one session"

    def test_bars_on_closed_days_but_for_special_sessions(self, calendar: TradingCalendar) -> None:
        saturday, holiday = date(2021, 1, 9), date(2021, 1, 18)
        bars = rows(*[("AAA", day, 10, 11, 9, 10, 500) for day in (date(2021, 1, 8), saturday, holiday)])
        findings = closed_session(panel(bars, calendar), calendar)
        assert found(findings) == [("AAA", saturday), ("AAA", holiday)]
        assert findings["detail"].to_list()[0] == "XNYS is closed on Saturday 2021-01-09"
        special = trading_calendar(calendar.name, calendar.sessions[0], special_sessions=(saturday,))
        assert found(closed_session(panel(bars, special), special)) == [("AAA", holiday)]

    def test_a_hole_is_found_when_the_next_bar_arrives(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        findings = missing_session(panel(without(traded(1, calendar), "S03", days[100:102]), calendar), calendar)
        assert found(findings) == [("S03", day) for day in days[100:102]]
        assert set(findings["score"]) == {1.0}
        assert set(findings["detector"]) == {"rules_next_session"}
        assert {known.date() for known in findings["known_at"]} == {days[102]}
        assert findings["bar_known_at"].to_list() == findings["known_at"].to_list()

    def test_a_long_hole_is_one_finding(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        findings = missing_session(panel(without(traded(1, calendar), "S03", days[100:130]), calendar), calendar)
        assert found(findings) == [("S03", days[100])]
        assert findings["detail"].item() == "no bar for 30 sessions from this one on; 0.0 % of those before had none"

    def test_who_often_has_no_bar_is_no_fault(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        rare, often = without(traded(1, calendar), "S03", days[2:150:10]), without(traded(1, calendar), "S03", days[2:150:3])
        last = missing_session(panel(rare, calendar), calendar).filter(pl.col("session") == days[142])
        assert last["score"].item() == pytest.approx(0.9, abs=0.01)
        # Four of twenty sessions, the least that a share is taken of, are still a fifth; five are more.
        assert found(missing_session(panel(often, calendar), calendar)) == [("S03", days[n]) for n in (2, 5, 8, 11, 14)]

    def test_a_listed_symbol_is_missed_in_the_session_itself(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = without(traded(1, calendar), "S03", days[:3] + days[100:108] + days[158:])
        findings = missing_session(panel(bars, calendar), calendar, listing("S03", days[1], None))
        assert found(findings) == [("S03", day) for day in days[1:3] + days[100:105] + days[158:]]
        assert [known.date() for known in findings["known_at"]] == findings["session"].to_list()
        assert set(findings["detector"]) == {"rules"}
        delisted = missing_session(panel(bars, calendar), calendar, listing("S03", days[3], days[157]))
        assert found(delisted) == [("S03", day) for day in days[100:105]]

    def test_a_partial_delivery_is_told_by_its_many_missing_symbols(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = traded(1, calendar)
        for n in range(12):
            bars = without(bars, f"S{n:02d}", [days[100]])
        findings = partial_session(panel(bars, calendar))
        assert found(findings) == [(f"S{n:02d}", days[100]) for n in range(12)]
        assert {known.date() for known in findings["known_at"]} == {days[100]}
        assert findings["detail"][0] == "no bar, like 12 of the 30 symbols that had one the session before: the delivery is partial"
        assert missing_session(panel(bars, calendar), calendar).is_empty()  # said once

    def test_a_missing_delivery_is_told_with_the_next_one(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        findings = missing_session(panel(traded(1, calendar).filter(pl.col("session") != days[100]), calendar), calendar)
        assert found(findings) == [(f"S{n:02d}", days[100]) for n in range(30)]
        assert set(findings["detail"]) == {"no symbol has a bar in this session: the delivery is missing"}
        assert {known.date() for known in findings["known_at"]} == {days[101]}

    def test_a_stale_delivery_and_one_that_ran_ahead(self, calendar: TradingCalendar) -> None:
        days, symbols = sessions(calendar, 160), [f"S{n:02d}" for n in range(20)]
        ready = panel(shifted_session(traded(1, calendar), symbols, days[100], days[99]), calendar)
        stale = repeated_session(ready, adjusted_features(ready))
        assert found(stale) == [(symbol, days[100]) for symbol in symbols]
        assert set(stale["detector"]) == {"rules"}
        assert set(stale["severity"]) == {"critical"}
        ready = panel(shifted_session(traded(1, calendar), symbols, days[100], days[101]), calendar)
        ahead = repeated_session(ready, adjusted_features(ready))
        assert found(ahead) == [(symbol, days[100]) for symbol in symbols]
        assert set(ahead["detector"]) == {"rules_next_session"}
        assert {known.date() for known in ahead["known_at"]} == {days[101]}

    def test_a_delivery_that_stays_stale_is_stale_in_every_session(self, calendar: TradingCalendar) -> None:
        days, symbols = sessions(calendar, 160), [f"S{n:02d}" for n in range(20)]
        bars = traded(1, calendar)
        for n in (100, 101, 102):
            bars = shifted_session(bars, symbols, days[n], days[99])
        ready = panel(bars, calendar)
        assert found(repeated_session(ready, adjusted_features(ready))) == [(symbol, day) for symbol in symbols for day in days[100:103]]

    def test_bars_outside_the_life_of_their_instrument(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        ready = panel(traded(1, calendar).filter(pl.col("symbol").is_in(["S03", "S04"])), calendar)
        findings = ticker_reuse(ready, listing("S03", days[2], days[157]))
        assert found(findings) == [("S03", days[n]) for n in (0, 1, 158, 159)]
        assert findings["detail"][0] == f"outside the life of its instrument, {days[2]} to {days[157]}"
        assert found(ticker_reuse(ready, pl.concat([listing("S03", days[0], days[80]), listing("S03", days[81], None)]))) == []

    def test_another_price_after_a_long_absence(self, calendar: TradingCalendar) -> None:
        days = sessions(calendar, 160)
        bars = without(traded(1, calendar), "S03", days[60:100])
        new = (pl.col("symbol") == "S03") & (pl.col("session") >= days[100])
        other = bars.with_columns(
            pl.when(new).then(pl.col(name) * 8).otherwise(name).alias(name) for name in ("open", "high", "low", "close")
        )
        findings = ticker_reuse(panel(other, calendar))
        assert found(findings) == [("S03", days[100])]
        assert findings["severity"].item() == "critical"
        assert ticker_reuse(panel(bars, calendar)).is_empty()

    def test_missing_sessions_planted_in_real_bars_are_found(self) -> None:
        bars = real(date(2015, 1, 2), 50, date(2016, 6, 30))
        if bars is None:
            pytest.skip("the shared market data is not at hand")
        calendar, random = trading_calendar("XNYS", date(2013, 1, 2)), np.random.default_rng(11)
        inner = pl.col("session").is_between(date(2015, 1, 5), date(2016, 6, 28))
        gone = bars.filter(inner).sample(fraction=0.005, seed=int(random.integers(100)))
        left = bars.join(gone, on=["symbol", "session"], how="anti")
        critical = set(found(missing_session(panel(left, calendar), calendar).filter(pl.col("severity") == "critical")))
        planted = set(gone.select("symbol", "session").rows())
        assert len(critical & planted) >= 0.95 * len(planted)


class TestProperties:
    def test_no_finding_looks_further_than_it_says(self, calendar: TradingCalendar) -> None:
        days, random = sessions(calendar, 130), np.random.default_rng(5)
        bars = traded(5, calendar, n=130)
        bars = bars.filter(pl.Series(random.random(bars.height) > 0.01))
        bars = bars.filter((pl.col("session") != days[90]) | pl.Series(random.random(bars.height) > 0.5))
        bars = without(bars, "S07", days[70:95])
        tripled = (pl.col("symbol") == "S07") & (pl.col("session") > days[94])
        bars = bars.with_columns(pl.when(tripled).then(pl.col(name) * 4).otherwise(name).alias(name) for name in VALUES)
        symbols = [f"S{n:02d}" for n in range(20)]
        bars = shifted_session(shifted_session(bars, symbols, days[100], days[99]), symbols, days[110], days[111])
        bars = pl.concat([bars, bars.sample(10, seed=1)])
        some = pl.concat([listing("S07", days[5], None), listing("S08", days[5], days[120]), listing("S99", days[60], None)])
        cuts = [days[n] for n in (89, 90, 95, 100, 110, 111, 125)]
        rules = {
            "partial": partial_session,
            "missing": lambda frame: missing_session(frame, calendar),
            "listed": lambda frame: missing_session(frame, calendar, some),
            "repeated": lambda frame: repeated_session(frame, adjusted_features(frame)),
            "reused": ticker_reuse,
            "duplicate": duplicate_bar,
            "outside": lambda frame: ticker_reuse(frame, some),
        }
        for name, rule in rules.items():
            assert assert_no_look_ahead(rule, bars, calendar, cuts).height > 0, name

    def test_bars_that_cannot_be_are_no_reason_to_fail(self, calendar: TradingCalendar) -> None:
        listed = listing("S00", date(2020, 1, 2), None)
        for bars in hostile(4, calendar):
            ready = panel(bars, calendar)
            for findings in (
                duplicate_bar(ready),
                closed_session(ready, calendar),
                partial_session(ready),
                missing_session(ready, calendar),
                missing_session(ready, calendar, listed),
                repeated_session(ready, adjusted_features(ready)),
                ticker_reuse(ready),
                ticker_reuse(ready, listed),
            ):
                assert_sound(findings)

    @pytest.mark.parametrize("seed", range(3))
    def test_whole_panels_have_nothing_missing(self, seed: int, calendar: TradingCalendar) -> None:
        ready = panel(traded(seed, calendar), calendar)
        features = adjusted_features(ready)
        for findings in (
            duplicate_bar(ready),
            closed_session(ready, calendar),
            partial_session(ready),
            missing_session(ready, calendar),
            repeated_session(ready, features),
            ticker_reuse(ready),
        ):
            assert findings.is_empty()
