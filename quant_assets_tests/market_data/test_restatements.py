"""What was changed after the fact: each version beside the one before it, told in the night in which it was seen."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.landing import land
from quant_assets.market_data.restatements import RESTATEMENTS, Restated, restated_in
from quant_assets.schemas import DAILY_BARS
from quant_assets.warehouse import Warehouse
from quant_assets_tests import nights
from quant_assets_tests.conftest import SOURCE, bar, delivery
from quant_assets_tests.nights import BEFORE, EVENING

DAYS = [date(2020, 1, day) for day in (2, 3, 6, 7)]
FRIDAY, MONDAY, TUESDAY = DAYS[1:]


def told(warehouse: Warehouse, calendar: TradingCalendar, first: date, last: date | None = None) -> Restated:
    with warehouse.connect() as connection:
        return restated_in(connection, SOURCE, calendar, first, last or first)


def view(warehouse: Warehouse) -> pl.DataFrame:
    return warehouse.read("select * from market_data.restatements order by known_at, symbol, session")


@pytest.fixture
def stocked(open_warehouse: Warehouse, calendar: TradingCalendar) -> Warehouse:
    """Three symbols over four sessions; on Monday evening AAA's Friday was corrected, on Tuesday evening more came."""
    prices = {"AAA": 100.0, "BBB": 200.0, "CCC": 300.0}
    days = {symbol: {day: bar(symbol, day, price) for day in DAYS} for symbol, price in prices.items()}

    def night(tonight: date) -> None:
        rows = [row for own in days.values() for day, row in own.items() if day <= tonight]
        land(open_warehouse, delivery(rows, batch_id=f"of {tonight}"), calendar, calendar.known_at(tonight), "run")

    night(FRIDAY)
    days["AAA"][FRIDAY] = bar("AAA", FRIDAY, close=110.0, open=100.0, high=111.0, low=99.0)
    night(MONDAY)
    days["AAA"][FRIDAY] = bar("AAA", FRIDAY, close=110.0, open=100.0, high=111.0, low=99.0, volume=1500.0)
    days["BBB"][DAYS[0]] = bar("BBB", DAYS[0], close=200.01, open=200.0, high=201.0, low=199.0)
    days["BBB"][MONDAY] = bar("BBB", MONDAY, 200.0, high=241.2)
    night(TUESDAY)
    return open_warehouse


class TestRegression:
    def test_each_restated_version_stands_beside_the_one_before(self, stocked: Warehouse, calendar: TradingCalendar) -> None:
        monday, tuesday = calendar.known_at(MONDAY), calendar.known_at(TUESDAY)
        rows = view(stocked)
        assert rows.schema == RESTATEMENTS.polars_schema
        assert rows.drop("close_change", "price_change").rows() == [
            ("AAA", FRIDAY, SOURCE, monday, calendar.known_at(FRIDAY), 100.0, 110.0, "high, close", f"of {MONDAY}"),
            ("AAA", FRIDAY, SOURCE, tuesday, monday, 110.0, 110.0, "volume", f"of {TUESDAY}"),
            ("BBB", DAYS[0], SOURCE, tuesday, calendar.known_at(DAYS[0]), 200.0, 200.01, "close", f"of {TUESDAY}"),
            ("BBB", MONDAY, SOURCE, tuesday, monday, 200.0, 200.0, "high", f"of {TUESDAY}"),
        ]
        assert rows["close_change"].to_list() == pytest.approx([0.1, 0.0, 5e-5, 0.0])
        assert rows["price_change"].to_list() == pytest.approx([0.1, 0.0, 5e-5, 0.2])

    def test_a_night_tells_of_its_own(self, stocked: Warehouse, calendar: TradingCalendar) -> None:
        monday, tuesday = told(stocked, calendar, MONDAY), told(stocked, calendar, TUESDAY)
        assert told(stocked, calendar, FRIDAY).numbers == {"restated": 0, "restated_symbols": 0, "restated_in_all": 4}
        assert told(stocked, calendar, FRIDAY).by_symbol.is_empty()
        assert monday.numbers == {
            "restated": 1, "restated_symbols": 1, "restated_in_all": 4,
            "median_price_change": pytest.approx(0.1), "largest_price_change": pytest.approx(0.1), "share_rounding_only": 0.0,
        }  # fmt: skip
        assert tuesday.numbers == {
            "restated": 3, "restated_symbols": 2, "restated_in_all": 4,
            "median_price_change": pytest.approx(5e-5), "largest_price_change": pytest.approx(0.2),
            "share_rounding_only": pytest.approx(1 / 3),  # BBB's close; a change of volume alone is none of prices
        }  # fmt: skip
        assert tuesday.by_symbol.rows() == [
            ("BBB", 2, pytest.approx(0.2), DAYS[0], MONDAY, "close, high"),
            ("AAA", 1, 0.0, FRIDAY, FRIDAY, "volume"),
        ]
        both = told(stocked, calendar, FRIDAY, TUESDAY)
        assert both.rows_per_night.rows() == [(MONDAY, 1), (TUESDAY, 3)]
        assert both.rows["night"].to_list() == [MONDAY, TUESDAY, TUESDAY, TUESDAY]

    def test_what_is_seen_over_the_weekend_belongs_to_fridays_night(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        land(open_warehouse, delivery([bar("AAA", FRIDAY)]), calendar, calendar.known_at(FRIDAY), "run")
        land(open_warehouse, delivery([bar("AAA", FRIDAY, 50.0)], batch_id="b"), calendar, datetime(2020, 1, 5, 12), "run")
        assert told(open_warehouse, calendar, FRIDAY).numbers["restated"] == 1
        assert told(open_warehouse, calendar, MONDAY).numbers["restated"] == 0

    def test_a_close_of_zero_has_no_relative_change(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        land(open_warehouse, delivery([bar("AAA", FRIDAY, 0.0, high=0.0, low=0.0)]), calendar, calendar.known_at(FRIDAY), "run")
        land(open_warehouse, delivery([bar("AAA", FRIDAY)], batch_id="b"), calendar, calendar.known_at(MONDAY), "run")
        assert view(open_warehouse).select("close_change", "price_change").row(0) == (None, None)
        assert told(open_warehouse, calendar, MONDAY).numbers == {
            "restated": 1, "restated_symbols": 1, "restated_in_all": 1, "share_rounding_only": 0.0,
        }  # fmt: skip

    def test_an_empty_warehouse(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        assert told(warehouse, calendar, FRIDAY).numbers == {"restated": 0, "restated_symbols": 0, "restated_in_all": 0}
        assert told(warehouse, calendar, calendar.sessions[-1]).rows_per_night.is_empty()

    def test_the_asset_tells_how_many_whose_and_how_large(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        home, first = nights.finished(tmp_path_factory.getbasetemp())
        (told_first,) = first.asset_materializations_for_node("restatements")
        assert {name: told_first.metadata[name].value for name in ("dagster/row_count", "restated", "most_restated")} == {
            "dagster/row_count": 0, "restated": 0, "most_restated": "none",
        }  # fmt: skip
        with nights.desk(nights.copied(home, tmp_path / "home")) as desk:
            desk.change(
                """
                insert into market_data.daily_bars by name
                select * replace (close * 1.01 as close, known_at + interval 1 hour as known_at, 'later' as batch_id)
                from market_data.daily_bars where symbol = 'SYN001' and session between ? and ?
                """,
                BEFORE,
                EVENING,
            )
            result = desk.run(assets=["market_data/restatements"])
            assert result.success
            (event,) = result.asset_materializations_for_node("restatements")
            numbers = {name: entry.value for name, entry in event.metadata.items()}
            assert numbers["dagster/row_count"] == numbers["restated_in_all"] == 2
            assert (numbers["restated"], numbers["restated_symbols"]) == (1, 1)  # the other was seen the evening before
            assert numbers["largest_price_change"] == pytest.approx(0.01)
            assert "SYN001" in str(numbers["most_restated"])


class TestProperties:
    @given(closes=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("AB"), st.sampled_from([10.0, 11.0, 12.0])), max_size=12))
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_every_version_but_the_first_is_told_once(
        self, open_warehouse: Warehouse, calendar: TradingCalendar, closes: list[tuple[int, str, float]]
    ) -> None:
        with open_warehouse.transaction() as connection:
            connection.execute(f"delete from {DAILY_BARS.full_name}")
        for number, (day, symbol, close) in enumerate(closes):
            as_of = calendar.known_at(TUESDAY) + timedelta(hours=20 * number)
            land(open_warehouse, delivery([bar(symbol, DAYS[day], close)], batch_id=str(number)), calendar, as_of, "run")
        stored = open_warehouse.read("select * from market_data.daily_bars order by symbol, session, known_at").rows(named=True)
        expected = [
            (new["symbol"], new["session"], new["known_at"], old["known_at"], old["close"], new["close"])
            for old, new in pairwise(stored)
            if (old["symbol"], old["session"]) == (new["symbol"], new["session"])
        ]
        found = view(open_warehouse).select("symbol", "session", "known_at", "previous_known_at", "old_close", "new_close")
        assert sorted(found.rows()) == sorted(expected)
        whole = told(open_warehouse, calendar, DAYS[0], calendar.sessions[40])
        assert whole.rows.drop("night").sort(pl.all()).equals(view(open_warehouse).sort(pl.all()))
