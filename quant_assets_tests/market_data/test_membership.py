"""A file of memberships into the universe by date, and what was known of it when."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.delivery import MEMBERS
from quant_assets.market_data.membership import land_members
from quant_assets.warehouse import Warehouse
from quant_assets_tests.conftest import SOURCE

JANUARY, MARCH, JUNE, SEPTEMBER = date(2020, 1, 6), date(2020, 3, 2), date(2020, 6, 1), date(2020, 9, 1)
Stretch = tuple[str, date, date | None]


class Desk:
    """A file that changes, and the runs that land it."""

    def __init__(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        self.warehouse, self.calendar = warehouse, calendar

    def land(self, as_of: date, *members: Stretch) -> int:
        frame = pl.DataFrame(members, schema=MEMBERS, orient="row")
        return land_members(self.warehouse, frame, SOURCE, self.calendar, self.calendar.known_at(as_of))

    def versions(self) -> list[tuple[str, date, date | None, datetime]]:
        return self.warehouse.read("select symbol, valid_from, valid_to, known_at from market_data.universe order by all").rows()

    def scope(self, day: date, as_of: date | None = None) -> list[str]:
        macro = "universe_on($day)" if as_of is None else "universe_on_as_of($day, $t)"
        instant = {} if as_of is None else {"t": self.calendar.known_at(as_of)}
        return self.warehouse.read(f"select symbol from market_data.{macro} order by symbol", {"day": day, **instant})["symbol"].to_list()


@pytest.fixture
def desk(open_warehouse: Warehouse, calendar: TradingCalendar) -> Desk:
    return Desk(open_warehouse, calendar)


class TestRegression:
    def test_history_is_known_when_it_happened(self, desk: Desk, calendar: TradingCalendar) -> None:
        assert desk.land(JUNE, ("OLD", JANUARY, MARCH), ("NEW", MARCH, None)) == 3
        known = {day: calendar.known_at(day) for day in (JANUARY, MARCH)}
        assert desk.versions() == [
            ("NEW", MARCH, None, known[MARCH]),
            ("OLD", JANUARY, MARCH, known[MARCH]),
            ("OLD", JANUARY, None, known[JANUARY]),
        ]
        assert desk.scope(JANUARY) == ["OLD"]
        assert desk.scope(MARCH) == ["NEW", "OLD"]
        assert desk.scope(JUNE) == ["NEW"]
        assert desk.scope(JANUARY + timedelta(days=1), as_of=JANUARY) == ["OLD"]

    def test_the_same_file_again_writes_nothing(self, desk: Desk) -> None:
        desk.land(JUNE, ("OLD", JANUARY, MARCH), ("NEW", MARCH, None))
        assert desk.land(JUNE, ("OLD", JANUARY, MARCH), ("NEW", MARCH, None)) == 0
        assert desk.land(SEPTEMBER, ("OLD", JANUARY, MARCH), ("NEW", MARCH, None)) == 0

    def test_an_end_told_later_is_known_later(self, desk: Desk, calendar: TradingCalendar) -> None:
        desk.land(MARCH, ("AAA", JANUARY, None))
        assert desk.land(SEPTEMBER, ("AAA", JANUARY, JUNE)) == 1
        assert desk.versions()[0] == ("AAA", JANUARY, JUNE, calendar.known_at(SEPTEMBER))
        assert desk.scope(SEPTEMBER, as_of=JUNE) == ["AAA"]
        assert desk.scope(SEPTEMBER) == []

    def test_a_stretch_left_out_of_the_file_ends_with_the_last_session(self, desk: Desk) -> None:
        desk.land(MARCH, ("AAA", JANUARY, None), ("BBB", JANUARY, None))
        assert desk.land(JUNE, ("BBB", JANUARY, None)) == 1
        assert desk.scope(JUNE) == ["AAA", "BBB"]
        assert desk.scope(SEPTEMBER) == ["BBB"]
        assert desk.land(SEPTEMBER, ("BBB", JANUARY, None)) == 0
        assert desk.land(SEPTEMBER, ("BBB", JANUARY, None), ("AAA", SEPTEMBER, None)) == 1
        assert desk.scope(JUNE) == ["AAA", "BBB"]

    def test_a_stretch_added_later_is_known_later(self, desk: Desk) -> None:
        desk.land(MARCH, ("AAA", JANUARY, None))
        desk.land(JUNE, ("AAA", JANUARY, None), ("BBB", JANUARY, MARCH))
        assert desk.scope(JANUARY) == ["AAA", "BBB"]
        assert desk.scope(JANUARY, as_of=MARCH) == ["AAA"]

    def test_a_beginning_told_otherwise_takes_the_old_one_back(self, desk: Desk) -> None:
        desk.land(JUNE, ("AAA", JANUARY, None), ("BBB", JANUARY, MARCH))
        assert desk.land(SEPTEMBER, ("AAA", MARCH, None)) == 2
        assert [desk.scope(day) for day in (JANUARY, MARCH, SEPTEMBER)] == [["BBB"], ["AAA", "BBB"], ["AAA"]]
        assert desk.scope(JANUARY, as_of=JUNE) == ["AAA", "BBB"]
        assert desk.land(SEPTEMBER, ("AAA", MARCH, None)) == 0

    def test_each_holder_of_a_ticker_is_in_scope_while_it_holds_it(self, desk: Desk) -> None:
        with desk.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into market_data.instruments by name
                select unnest(['SSE', 'SSE.2']) as symbol, 'SSE' as ticker, unnest([date '2020-01-06', date '2020-06-01']) as valid_from,
                    $1 as source, timestamp '2020-06-01' as known_at, now()::timestamp as recorded_at
                """,
                [SOURCE],
            )
        desk.land(SEPTEMBER, ("SSE", JANUARY, None), ("AAA", JANUARY, None))
        assert [desk.scope(day) for day in (MARCH, JUNE)] == [["AAA", "SSE"], ["AAA", "SSE.2"]]
        assert desk.land(SEPTEMBER, ("SSE", JANUARY, None), ("AAA", JANUARY, None)) == 0

    def test_somebody_who_comes_back_has_two_stretches(self, desk: Desk) -> None:
        desk.land(SEPTEMBER, ("AAA", JANUARY, MARCH), ("AAA", JUNE, None))
        assert [bool(desk.scope(day)) for day in (JANUARY, date(2020, 4, 1), JUNE)] == [True, False, True]

    def test_a_membership_that_begins_in_the_future_is_known_now(self, desk: Desk, calendar: TradingCalendar) -> None:
        desk.land(MARCH, ("AAA", SEPTEMBER, None), ("BBB", JANUARY, None))
        assert desk.versions()[0] == ("AAA", SEPTEMBER, None, calendar.known_at(MARCH))
        assert desk.scope(JUNE) == ["BBB"]

    def test_a_membership_older_than_the_calendar(self, desk: Desk, calendar: TradingCalendar) -> None:
        desk.land(MARCH, ("AAA", date(1990, 1, 1), None))
        assert desk.versions()[0][3] == calendar.known_at(calendar.sessions[0])
