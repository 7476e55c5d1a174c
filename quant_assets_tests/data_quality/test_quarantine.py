"""Findings into the table, and what they do to the clean bars."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.quarantine import quarantine
from quant_assets.data_quality.suspicion.scores import SIGHT
from quant_assets.market_data.landing import land
from quant_assets.warehouse import Warehouse
from quant_assets_tests.conftest import SOURCE, Row, bar, clean, delivery, review
from quant_assets_tests.data_quality.market import market, with_wrong_closes

D1, D2, D3, D4 = (date(2020, 3, day) for day in (2, 3, 4, 5))
BAD: dict[str, float] = {"high": 1.0}


class Night:
    """Land bars and judge them, as of a session's evening or an instant."""

    def __init__(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        self.warehouse, self.calendar = warehouse, calendar

    def __call__(self, as_of: date | datetime, *bars: Row) -> pl.DataFrame:
        instant = as_of if isinstance(as_of, datetime) else self.calendar.known_at(as_of)
        land(self.warehouse, delivery(bars, batch_id=str(len(bars))), self.calendar, instant, "run")
        return quarantine(self.warehouse, SOURCE, self.calendar, "run")


@pytest.fixture
def night(open_warehouse: Warehouse, calendar: TradingCalendar) -> Night:
    return Night(open_warehouse, calendar)


class TestRegression:
    def test_a_bad_bar_is_not_clean_and_the_version_before_it_does_not_come_back(self, night: Night) -> None:
        assert night(D1, bar("AAA", D1, 10), bar("BBB", D1, 20)).is_empty()
        findings = night(D2, bar("AAA", D1, 11, **BAD))
        assert findings.select("symbol", "session", "rule", "severity").rows() == [("AAA", D1, "ohlc_order", "critical")]
        known = night.calendar.known_at
        assert clean(night.warehouse) == {("BBB", D1): 20}
        assert clean(night.warehouse, known(D2)) == {("BBB", D1): 20}
        assert clean(night.warehouse, known(D2) - timedelta(microseconds=1)) == {("AAA", D1): 10, ("BBB", D1): 20}
        assert clean(night.warehouse, known(D1)) == {("AAA", D1): 10, ("BBB", D1): 20}

    def test_a_corrected_version_is_judged_anew(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10, **BAD))
        assert clean(night.warehouse) == {}
        assert night(D2, bar("AAA", D1, 10)).is_empty()
        assert clean(night.warehouse) == {("AAA", D1): 10}
        assert clean(night.warehouse, night.calendar.known_at(D1)) == {}
        assert night(D3, bar("AAA", D1, -10, high=-20.0)).height == 2  # two rules
        assert clean(night.warehouse) == {}
        assert clean(night.warehouse, night.calendar.known_at(D2)) == {("AAA", D1): 10}

    def test_a_version_that_was_replaced_before_it_was_judged_is_judged_all_the_same(self, night: Night) -> None:
        known = night.calendar.known_at
        for session, row in ((D1, bar("AAA", D1, 10, **BAD)), (D2, bar("AAA", D1, 10)), (D3, bar("AAA", D1, -10, high=-9.0, low=-11.0))):
            land(night.warehouse, delivery([row], batch_id=str(session)), night.calendar, known(session), "a range of nights in one run")
        findings = quarantine(night.warehouse, SOURCE, night.calendar, "run")
        assert findings.sort("bar_known_at").select("rule", "bar_known_at", "known_at").rows() == [
            ("ohlc_order", known(D1), known(D1)),
            ("non_positive_price", known(D3), known(D3)),
        ]
        assert [bool(clean(night.warehouse, known(session))) for session in (D1, D2, D3)] == [False, True, False]

    def test_a_release_shows_the_bar_from_then_on_and_a_confirmation_hides_it_again(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10, **BAD), bar("BBB", D1, 20, **BAD))
        released = night.calendar.known_at(D1) + timedelta(hours=1)
        confirmed = released + timedelta(hours=1)
        review(night.warehouse, "AAA", D1, "release", released)
        assert clean(night.warehouse) == {("AAA", D1): 10}
        review(night.warehouse, "AAA", D1, "confirm", confirmed)
        assert clean(night.warehouse) == {}
        seen = [clean(night.warehouse, instant) for instant in (released - timedelta(seconds=1), released, confirmed)]
        assert seen == [{}, {("AAA", D1): 10}, {}]

    def test_every_finding_on_a_bar_has_to_be_released(self, night: Night) -> None:
        night(D1, bar("AAA", D1, -10, high=-20.0))
        with night.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into data_quality.reviews by name
                select symbol, session, source, rule, known_at + interval 1 hour as decided_at, bar_known_at, 'release' as decision,
                    'analyst' as decided_by, 'seen' as reason, now()::timestamp as recorded_at
                from data_quality.anomalies where rule = 'ohlc_order'
                """
            )
        assert clean(night.warehouse) == {}
        review(night.warehouse, "AAA", D1, "release", night.calendar.known_at(D2))
        assert clean(night.warehouse) == {("AAA", D1): -10}

    def test_a_release_holds_for_its_version_only(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10, **BAD))
        review(night.warehouse, "AAA", D1, "release", night.calendar.known_at(D1) + timedelta(hours=1))
        night(D2, bar("AAA", D1, 11, **BAD))
        assert clean(night.warehouse) == {}

    def test_findings_that_are_not_critical_hide_nothing(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10, **BAD))
        with night.warehouse.transaction() as connection:
            connection.execute("update data_quality.anomalies set severity = 'warning'")
        assert clean(night.warehouse) == {("AAA", D1): 10}

    def test_only_the_preferred_source_is_shown(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10))
        other = Warehouse(night.warehouse.path, "synthetic")
        assert clean(other) == {}
        assert clean(other, night.calendar.known_at(D1)) == {}
        assert quarantine(other, "synthetic", night.calendar, "run").is_empty()

    def test_a_second_change_of_the_evening_is_judged_in_that_evening(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10))
        assert night(D1, bar("AAA", D1, 11, **BAD)).height == 1  # known a microsecond after the run's own instant
        assert clean(night.warehouse) == {}
        assert clean(night.warehouse, night.calendar.known_at(D1)) == {("AAA", D1): 10}

    def test_a_repeated_series_hides_all_its_bars_from_the_instant_at_which_it_was_long_enough(self, night: Night) -> None:
        days = night.calendar.between(D1, date(2020, 3, 6))
        for n, day in enumerate(days):
            findings = night(day, bar("AAA", day, 10 + n), bar("BBB", day, 10 + n), bar("CCC", day, 30 + n))
        assert findings.height == 10
        assert clean(night.warehouse) == {("CCC", day): 30 + n for n, day in enumerate(days)}
        assert len(clean(night.warehouse, night.calendar.known_at(days[3]))) == 12


class TestProperties:
    def test_judging_again_stores_nothing(self, night: Night) -> None:
        assert night(D1, bar("AAA", D1, 10, **BAD), bar("BBB", D1, -5, low=-6.0)).height == 2
        stored = night.warehouse.read("select * from data_quality.anomalies order by all")
        assert quarantine(night.warehouse, SOURCE, night.calendar, "run").is_empty()
        assert night.warehouse.read("select * from data_quality.anomalies order by all").equals(stored)

    def test_judging_all_nights_at_once_finds_what_each_found(self, night: Night) -> None:
        night(D1, bar("AAA", D1, 10, **BAD))
        night(D2, bar("AAA", D1, 10), bar("BBB", D2, 7, **BAD))
        stored = night.warehouse.read("select * exclude recorded_at from data_quality.anomalies order by all")
        with night.warehouse.transaction() as connection:
            connection.execute("delete from data_quality.anomalies")
            connection.execute("delete from data_quality.judged_batches")
        quarantine(night.warehouse, SOURCE, night.calendar, "run")
        assert night.warehouse.read("select * exclude recorded_at from data_quality.anomalies order by all").equals(stored)

    def test_a_range_of_nights_finds_what_its_nights_found(self, tmp_path: Path) -> None:
        bars = with_wrong_closes(market(1, symbols=14, n=55), 1, n=30).drop("error")
        calendar = trading_calendar("XNYS", date(2021, 1, 4))
        days = list(calendar.sessions[:55])
        bars = bars.with_columns(session=pl.col("session").replace_strict(bars["session"].unique().sort().to_list(), days))
        by_night, at_once = (Warehouse(tmp_path / name, SOURCE) for name in ("by_night.duckdb", "at_once.duckdb"))
        for n in range(42, len(days)):
            # Of three nights in a row, one goes without a bar, the next one brings it late, the third one corrects another.
            missing = (pl.col("session") == days[n - n % 3]) & (pl.col("symbol") == f"S{n // 3 % 14:02d}")
            since = days[0 if n == 42 else n - (n % 3 == 1)]
            delivered = bars.filter(pl.col("session").is_between(since, days[n]), ~missing | (n % 3 == 1))
            if n % 3 == 2:
                corrected = bars.filter(pl.col("session") == days[n - 2], pl.col("symbol") == f"S{n // 3 % 14 - 1:02d}")
                delivered = pl.concat([delivered, corrected.with_columns(close=(pl.col("low") + pl.col("high")) / 2)])
            for warehouse in (by_night, at_once):
                land(warehouse, delivery(delivered.to_dicts(), batch_id=str(n)), calendar, calendar.known_at(days[n]), "run")
            quarantine(by_night, SOURCE, calendar, "run")
        quarantine(at_once, SOURCE, calendar, "run")
        stored = [
            warehouse.read("select * exclude (recorded_at) from data_quality.anomalies order by all") for warehouse in (by_night, at_once)
        ]
        assert_frame_equal(*stored, rel_tol=1e-9)
        assert set(stored[0]["detector"]) >= {*SIGHT}
        assert stored[0].filter(pl.col("known_at") > pl.col("bar_known_at")).height > 10
        assert quarantine(at_once, SOURCE, calendar, "run").is_empty()
