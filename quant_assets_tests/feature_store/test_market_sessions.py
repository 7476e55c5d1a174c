"""Which sessions of the market a change reaches, and what their rows count, by hand."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.inputs import FOREVER, Changes
from quant_assets.feature_store.market_sessions import changed_sessions, market_rows
from quant_assets.feature_store.store import refresh_market, refresh_technical
from quant_assets.schemas import CORPORATE_ACTIONS, DAILY_BARS, UNIVERSE
from quant_assets.warehouse import Warehouse, query
from quant_assets_tests.conftest import FIRST, SOURCE
from quant_assets_tests.feature_store.market import Market

CLOSES = {"A": [100, 110, 99, 99, 108.9], "B": [50, 50, None, 60, 66], "C": [None, 10, 20, 10, 10]}
"""Five sessions; B has no bar on the third, C none on the first."""


@pytest.fixture
def market(open_warehouse: Warehouse, calendar: TradingCalendar) -> Market:
    """A market whose bars are those above."""
    market = Market(open_warehouse, calendar, seed=0, symbols=0, history=5)
    bars = [
        {
            "symbol": symbol, "session": session, "source": SOURCE, "known_at": calendar.known_at(session), "open": close, "high": close,
            "low": close, "close": close, "volume": 100.0, "basis": "raw", "known_at_basis": "observed", "batch_id": "b",
        }
        for symbol, closes in CLOSES.items()
        for session, close in zip(market.sessions, closes, strict=False)
        if close
    ]  # fmt: skip
    market._append(DAILY_BARS, bars)
    market.close = dict.fromkeys(CLOSES, 100.0)
    return market


def rows(market: Market, sessions: list[date] | None = None, as_of: datetime = FOREVER) -> pl.DataFrame:
    refresh_technical(market.warehouse, "run")
    with market.warehouse.connect() as connection:
        return market_rows(connection, market.calendar, SOURCE, sessions or list(market.sessions[:5]), as_of=as_of)


def reached(market: Market, *sessions: date, scopes: list[tuple[date, date]] | None = None, rebuild: bool = False) -> list[date]:
    refresh_technical(market.warehouse, "run")
    stretches = pl.DataFrame(scopes or [], schema={"first": pl.Date, "last": pl.Date}, orient="row")
    changes = Changes(rebuild, pl.DataFrame(schema={"symbol": pl.String, "from_session": pl.Date}), list(sessions), stretches, {})
    with market.warehouse.connect() as connection:
        return changed_sessions(connection, market.calendar, changes)


def appended(market: Market, session: date, **finding: object) -> None:
    market._later()
    market._append(CORPORATE_ACTIONS, [market._action("A", session, "dividend", 1e-9, market.now) | finding])


class TestRegression:
    def test_returns_of_symbols_with_a_bar_on_the_session_before_too(self, market: Market) -> None:
        found = rows(market)
        assert found["session"].to_list() == list(market.sessions[1:5])  # there is no return on the first
        assert found["symbols"].to_list() == [2, 2, 2, 3]
        # A 10 %, B 0; A -10 %, C 100 %; A 0, C -50 % (B's return is of two sessions); A 10 %, B 10 %, C 0.
        assert found["market_return_1d"].to_list() == pytest.approx([0.05, 0.45, -0.25, 0.2 / 3])
        assert found["market_breadth_1d"].to_list() == pytest.approx([0.5, 0.5, 0, 2 / 3])
        assert found["known_at"].to_list() == [market.calendar.known_at(day) for day in market.sessions[1:5]]

    def test_who_is_out_of_scope_does_not_count(self, market: Market) -> None:
        day = market.sessions
        market.set_scope({"A": (FIRST, day[1]), "B": (FIRST, None), "C": (day[3], None)})
        found = rows(market)
        assert found["session"].to_list() == [day[1], day[3], day[4]]  # of the third only A and C have a return
        assert found["symbols"].to_list() == [2, 1, 2]
        assert found["market_return_1d"].to_list() == pytest.approx([0.05, -0.5, 0.05])
        assert found["known_at"].unique().to_list() == [market.now]  # when it became known who counts
        earlier = rows(market, as_of=market.now - timedelta(seconds=1))
        assert earlier["symbols"].to_list() == [2, 2, 2, 3]

    def test_a_changed_stretch_is_known_where_it_changed(self, market: Market) -> None:
        day = market.sessions
        market.set_scope(dict.fromkeys("ABC", (FIRST, None)))
        first = market.now
        market.set_scope({"C": (FIRST, day[2])})
        assert rows(market)["known_at"].to_list() == [first, first, market.now, market.now]

    @pytest.mark.parametrize(
        ("place", "moved"), [(0, [1]), (1, [1, 2]), (4, [4])], ids=["first session of the calendar", "second", "newest"]
    )
    def test_a_restatement_is_known_in_its_own_session_and_the_next(self, market: Market, place: int, moved: list[int]) -> None:
        market._later()
        bar = market.warehouse.read(
            "select * from market_data.daily_bars where symbol = 'A' and session = $s", {"s": market.sessions[place]}
        )
        market._append(DAILY_BARS, [bar.row(0, named=True) | {"close": 98.0, "known_at": market.now}])
        found = rows(market)
        assert found.filter(known_at=market.now)["session"].to_list() == [market.sessions[at] for at in moved]

    def test_an_action_on_a_closed_day_counts_for_the_next_session(self, market: Market) -> None:
        """2020-01-04 is a Saturday."""
        appended(market, date(2020, 1, 4))
        found = rows(market)
        assert found.filter(known_at=market.now)["session"].to_list() == [date(2020, 1, 6), date(2020, 1, 7)]
        assert reached(market, date(2020, 1, 4)) == [date(2020, 1, 6), date(2020, 1, 7)]

    def test_what_a_change_reaches(self, market: Market) -> None:
        day = list(market.sessions)
        assert reached(market) == []
        assert reached(market, day[1]) == [day[1], day[2]]
        assert reached(market, day[1], day[2]) == [day[1], day[2], day[3]]
        assert reached(market, day[4]) == [day[4]]  # the next has no rows yet
        assert reached(market, day[50]) == []
        assert reached(market, scopes=[(day[2], date(9999, 12, 31))]) == day[2:5]
        assert reached(market, scopes=[(date(1, 1, 1), day[1])]) == day[:2]
        assert reached(market, day[4], scopes=[(day[0], day[0])]) == [day[0], day[4]]
        assert reached(market, rebuild=True) == day[:5]

    def test_nothing_stored_reaches_nothing(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        empty = Market(open_warehouse, calendar, seed=0, symbols=0, history=1)
        assert reached(empty, FIRST, rebuild=True) == []
        assert refresh_market(open_warehouse, calendar, "run").written == 0

    def test_no_sessions_give_no_rows(self, market: Market) -> None:
        refresh_technical(market.warehouse, "run")
        with market.warehouse.connect() as connection:
            assert market_rows(connection, market.calendar, SOURCE, []).is_empty()
            assert query(connection, "from duckdb_views() where view_name = 'sessions' and not internal").is_empty()


class TestProperties:
    def test_a_row_is_the_same_whichever_others_are_asked_for(self, market: Market) -> None:
        market.close = {f"S{number}": 50.0 for number in range(3)}
        market.next_session(25)
        market.change_scope()
        refresh_technical(market.warehouse, "run")
        days = list(market.sessions[:30])
        whole = rows(market, days).sort("session")
        parts = [rows(market, days[start::4]) for start in range(4)]
        assert pl.concat(parts).sort("session").equals(whole)

    def test_the_universe_of_another_source_does_not_count(self, market: Market) -> None:
        before = rows(market)
        shared = {"valid_from": FIRST, "valid_to": None, "known_at": market.now, "batch_id": "b", "source": "another"}
        market._append(UNIVERSE, [{"symbol": "A", **shared}])
        assert rows(market).equals(before)
