"""The universe by date from the lists that deliveries bring; tickers of lists under our names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.market_data.listing import BACK_DAYS, land_listing
from quant_assets.warehouse import Warehouse
from quant_assets_tests.market_data.deliveries import Nights, Vendor, another

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
S = tuple(CALENDAR.between(date(2020, 3, 2), date(2020, 6, 30)))
MANY = [f"M{n:02}" for n in range(20)]
Stretch = tuple[str, date, date | None]


class Lists:
    """Lists that come by session, and what they make of the universe."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse

    def comes(self, at: int, symbols: Sequence[str]) -> int:
        """Land the list of a session; returns how many versions were written."""
        known = CALENDAR.known_at(S[at])
        with self.warehouse.transaction() as connection:
            listed = pl.Series("any name", list(symbols), dtype=pl.String)
            return land_listing(connection, listed, "files", S[at], CALENDAR.previous(S[at]), known, f"list {at}", known).height

    def stretches(self, *symbols: str, as_of: int | None = None) -> list[Stretch]:
        table = "market_data.latest_universe" if as_of is None else "market_data.universe_as_of($at)"
        asked = {"symbols": list(symbols)} | ({} if as_of is None else {"at": CALENDAR.known_at(S[as_of])})
        sql = f"select symbol, valid_from, valid_to from {table} where list_contains($symbols, symbol) order by all"
        return self.warehouse.read(sql, asked).rows()


@pytest.fixture
def lists(open_warehouse: Warehouse) -> Lists:
    return Lists(open_warehouse)


class TestRegression:
    def test_who_comes_and_who_goes(self, lists: Lists) -> None:
        assert lists.comes(0, [*MANY, "OLD"]) == 21
        assert lists.comes(1, [*MANY, "OLD"]) == 0
        assert lists.comes(2, [*MANY, "NEW"]) == 2
        assert lists.stretches("OLD", "NEW", "M00") == [("M00", S[0], None), ("NEW", S[2], None), ("OLD", S[0], S[1])]

    def test_what_was_known_of_it_at_the_time(self, lists: Lists) -> None:
        lists.comes(0, [*MANY, "OLD"])
        lists.comes(2, [*MANY, "NEW"])
        assert lists.stretches("OLD", "NEW", as_of=1) == [("OLD", S[0], None)]
        assert lists.stretches("OLD", "NEW", as_of=2) == [("NEW", S[2], None), ("OLD", S[0], S[1])]

    def test_who_is_back_soon_goes_on_and_who_is_back_late_begins_anew(self, lists: Lists) -> None:
        lists.comes(0, [*MANY, "SOON", "LATE"])
        lists.comes(1, MANY)
        soon = max(at for at in range(len(S)) if (S[at] - S[0]).days <= BACK_DAYS)
        lists.comes(soon, [*MANY, "SOON"])
        lists.comes(soon + 1, [*MANY, "SOON", "LATE"])
        assert lists.stretches("SOON", "LATE") == [("LATE", S[0], S[0]), ("LATE", S[soon + 1], None), ("SOON", S[0], None)]
        lists.comes(soon + 2, MANY)
        assert lists.stretches("LATE") == [("LATE", S[0], S[0]), ("LATE", S[soon + 1], S[soon + 1])]

    @pytest.mark.parametrize(("there", "leave"), [(18, True), (17, False), (1, False), (0, False)])
    def test_a_list_that_is_cut_off_takes_nobody_out(self, lists: Lists, there: int, leave: bool) -> None:
        lists.comes(0, MANY)
        lists.comes(1, [*MANY[:there], "NEW"] if there else [])
        left = [symbol for symbol, _, valid_to in lists.stretches(*MANY) if valid_to]
        assert left == (MANY[there:] if leave else [])
        assert bool(lists.stretches("NEW")) is bool(there)  # but who is new on it is new

    def test_a_list_that_is_cut_off_stays_so_when_it_comes_again(self, lists: Lists) -> None:
        lists.comes(0, MANY[:3])
        lists.comes(1, MANY[3:])
        assert lists.comes(1, MANY[3:]) == 0
        assert lists.stretches(*MANY) == [(symbol, S[0] if symbol in MANY[:3] else S[1], None) for symbol in MANY]

    def test_an_instrument_ends_with_its_listing_and_goes_on_with_it(self, lists: Lists) -> None:
        def ends(symbol: str) -> list[date | None]:
            sql = "select valid_to from market_data.instruments where symbol = $symbol order by known_at"
            return lists.warehouse.read(sql, {"symbol": symbol})["valid_to"].to_list()

        with lists.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into market_data.instruments by name
                select unnest(['OLD', 'OLD.2', 'GONE']) as symbol, unnest(['OLD', 'OLD', 'GONE']) as ticker, 'files' as source,
                    unnest([$1, $2, $1]) as valid_from, unnest([$1, null, null]) as valid_to, $3 as known_at, $3 as recorded_at
                """,
                [S[0], S[1], CALENDAR.known_at(S[0])],
            )
        lists.comes(1, [*MANY, "OLD", "OLD.2", "GONE"])
        lists.comes(2, [*MANY, "OLD.2"])
        assert (ends("OLD"), ends("OLD.2"), ends("GONE")) == ([S[0]], [None], [None, S[1]])
        lists.comes(3, [*MANY, "OLD", "GONE"])
        assert (ends("OLD"), ends("OLD.2"), ends("GONE")) == ([S[0]], [None, S[2]], [None, S[1], None])

    def test_who_stands_on_a_list_twice_is_there_once(self, lists: Lists) -> None:
        assert lists.comes(0, [*MANY, "M00", "M00"]) == 20

    def test_who_came_and_went_on_one_session_was_there_on_it(self, lists: Lists) -> None:
        lists.comes(0, MANY)
        lists.comes(1, [*MANY, "FLY"])
        lists.comes(1, MANY)  # a corrected list of the same session
        assert lists.stretches("FLY") == [("FLY", S[1], S[1])]

    def test_a_list_of_an_archive_without_bars_is_not_taken(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        vendor = Vendor(tmp_path, CALENDAR)
        for n, symbol in enumerate(MANY):
            vendor.trades(symbol, {session: 10.0 + n + at / 10 for at, session in enumerate(S[:6])})
        vendor.listed = [*MANY, "QUIET"]
        for at in (1, 3):
            vendor.send(S[at])
        vendor.listed = MANY[:-1]
        vendor.send(S[2], rows=[])
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        nights.night(S[3])
        universe = nights.read("select symbol, valid_from, valid_to from market_data.latest_universe order by symbol")
        assert universe == [(symbol, S[1], None) for symbol in [*MANY, "QUIET"]]
        assert nights.closes("QUIET") == {}  # listed is not traded
        assert nights.read("select count(*) from market_data.universe") == [(21,)]

    def test_a_late_archives_list_changes_nothing(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        vendor = Vendor(tmp_path, CALENDAR)
        for n, symbol in enumerate(MANY):
            vendor.trades(symbol, {session: 10.0 + n + at / 10 for at, session in enumerate(S[:6])})
        vendor.listed = MANY
        for at in (1, 3):
            vendor.send(S[at])
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        nights.night(S[3])
        vendor.listed = [*MANY[1:], "BYGONE"]
        vendor.send(S[2])
        nights.night(S[3])
        assert nights.read("select distinct valid_from, valid_to from market_data.latest_universe") == [(S[1], None)]

    def test_a_list_tells_tickers_and_the_universe_our_symbols(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        vendor = Vendor(tmp_path, CALENDAR)
        for n, symbol in enumerate(MANY):
            vendor.trades(symbol, {session: 10.0 + n + at / 10 for at, session in enumerate(S[:20])})
        vendor.trades("SSE", {S[at]: 2.0 + at / 100 for at in range(4)} | {S[at]: 40.0 + at / 10 for at in range(8, 20)})
        for at in range(1, 12):
            vendor.listed = [*MANY, "SSE"] if at < 4 or at >= 8 else MANY
            vendor.send(S[at])
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        nights.night(S[11])
        universe = nights.read(
            "select symbol, valid_from, valid_to from market_data.latest_universe where symbol like 'SSE%' order by symbol"
        )
        assert universe == [("SSE", S[1], S[3]), ("SSE.2", S[8], None)]


class TestProperties:
    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(nights=st.lists(st.sets(st.sampled_from(MANY), min_size=0, max_size=20), min_size=1, max_size=7))
    def test_stretches_never_overlap_and_the_open_ones_are_those_listed(
        self, warehouse: Warehouse, empty_database: Path, nights: list[set[str]]
    ) -> None:
        fresh = another(warehouse, empty_database, "lists")
        lists = Lists(fresh)
        scope: set[str] = set()
        for at, symbols in enumerate(nights):
            lists.comes(at * 5, sorted(symbols))
            whole = len(symbols & scope) >= 0.9 * len(scope)
            scope = symbols if whole else scope | symbols
            stretches = lists.stretches(*MANY)
            assert {symbol for symbol, _, valid_to in stretches if valid_to is None} == scope
            for symbol in MANY:
                own = [stretch for stretch in stretches if stretch[0] == symbol]
                ends = [valid_to for _, _, valid_to in own]
                assert all(valid_to is not None for valid_to in ends[:-1])
                assert all(end < begin for end, (_, begin, _) in zip(ends, own[1:], strict=False) if end)
            assert lists.comes(at * 5, sorted(symbols)) == 0  # once more changes nothing
