"""Who is in scope: lists, membership files with their faults, and the macros that answer for a session as of an instant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError
from quant_assets.feature_store.training_sets import training_set
from quant_assets.market_data.delivery import MEMBERS
from quant_assets.market_data.landing import land
from quant_assets.market_data.universe import members_frame, universe
from quant_assets.schemas import UNIVERSE
from quant_assets.settings import load_settings
from quant_assets.warehouse import Warehouse, append_versions
from quant_assets_tests import nights
from quant_assets_tests.conftest import SOURCE, bar, delivery

FILE = "symbol,valid_from,valid_to\n"
SINCE, UNTIL, AGAIN = date(2020, 1, 2), date(2020, 1, 10), date(2020, 1, 21)
EVENING = datetime(2020, 1, 31, 21, 30)

Stretch = tuple[str, date, date | None]


def members_of(folder: Path, text: str) -> pl.DataFrame | None:
    path = folder / "members.csv"
    path.write_text(text)
    return members_frame(load_settings(universe=str(path)))


def store_members(warehouse: Warehouse, members: Sequence[Stretch], known_at: datetime = EVENING, source: str = SOURCE) -> None:
    """What a delivery's members become in the table."""
    frame = pl.DataFrame(members, schema=MEMBERS, orient="row").with_columns(
        source=pl.lit(source),
        known_at=pl.lit(known_at, pl.Datetime("us")),
        batch_id=pl.lit("batch"),
        recorded_at=pl.lit(known_at, pl.Datetime("us")),
    )
    with warehouse.transaction() as connection:
        append_versions(connection, UNIVERSE, frame.select(UNIVERSE.column_names))


def on(warehouse: Warehouse, session: date, as_of: datetime | None = None) -> list[str]:
    """The symbols in scope on a session, now or as known at an instant."""
    if as_of is None:
        return warehouse.read("select symbol from market_data.universe_on($day) order by symbol", {"day": session})["symbol"].to_list()
    sql = "select symbol from market_data.universe_on_as_of($day, $t) order by symbol"
    return warehouse.read(sql, {"day": session, "t": as_of})["symbol"].to_list()


class TestLists:
    @pytest.mark.parametrize(
        ("text", "symbols"),
        [
            ("", ()),
            ("  ", ()),
            ("AAPL, MSFT,AAPL,,TRUE", ("AAPL", "MSFT", "TRUE")),
            ("BRK.B", ("BRK.B",)),
            ("BTC/USD", ("BTC/USD",)),
            ("BRK.B,BF.B", ("BRK.B", "BF.B")),
            ("symbol,valid_from", ("symbol", "valid_from")),  # a list, not a file
        ],
    )
    def test_a_list_of_symbols(self, text: str, symbols: tuple[str, ...]) -> None:
        assert universe(load_settings(universe=text)) == symbols
        assert members_frame(load_settings(universe=text)) is None

    def test_a_file_of_symbols_one_a_line_or_by_comma(self, tmp_path: Path) -> None:
        (tmp_path / "symbols.txt").write_text("AAPL\n\nMSFT, ON\r\nINF\n")
        given = load_settings(universe=str(tmp_path / "symbols.txt"))
        assert universe(given) == ("AAPL", "MSFT", "ON", "INF")
        assert members_frame(given) is None

    @pytest.mark.parametrize("path", ["missing.txt", "missing", "binary.txt", "."])
    def test_a_file_that_cannot_be_read_is_an_error_and_no_symbol(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
        for read in (universe, members_frame):
            with pytest.raises(ConfigurationError, match=r"QUANT_UNIVERSE=.* cannot be read: .*; give a file or a comma list"):
                read(load_settings(universe=f"{tmp_path}/{path}"))


class TestMembershipFiles:
    def test_stretches_of_several_symbols(self, tmp_path: Path) -> None:
        text = (
            "\ufeff" + FILE + 'YHOO,2010-01-04,2017-06-16\nAAPL,1980-12-12,\n\n"A,B",2000-01-03,2001-01-02\r\nAAPL,1970-01-02,1970-12-31\n'
        )
        frame = members_of(tmp_path, text)
        assert frame is not None
        assert frame.schema == MEMBERS
        assert frame.rows() == [
            ("A,B", date(2000, 1, 3), date(2001, 1, 2)),
            ("AAPL", date(1970, 1, 2), date(1970, 12, 31)),
            ("AAPL", date(1980, 12, 12), None),
            ("YHOO", date(2010, 1, 4), date(2017, 6, 16)),
        ]
        assert universe(load_settings(universe=str(tmp_path / "members.csv"))) == ("YHOO", "AAPL", "A,B")

    @pytest.mark.parametrize("header", ["symbol,valid_from,valid_to", "Symbol, From, To", "symbol,start,end", "SYMBOL,from,end"])
    def test_headings(self, tmp_path: Path, header: str) -> None:
        frame = members_of(tmp_path, f"{header}\nAAA,2020-01-02,2020-01-02\n")
        assert frame is not None
        assert frame.rows() == [("AAA", date(2020, 1, 2), date(2020, 1, 2))]

    def test_columns_in_another_order_among_others(self, tmp_path: Path) -> None:
        frame = members_of(tmp_path, "to,name,symbol,from\n,Alcoa,AA,2020-01-02\n")
        assert frame is not None
        assert frame.rows() == [("AA", date(2020, 1, 2), None)]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (FILE + "AAA,2020-01-02,\nBBB,02.01.2020,\n", r"line 3: valid_from '02.01.2020' of BBB is no date like 2015-03-27"),
            (FILE + "AAA,20200102,\n", r"line 2: valid_from '20200102' of AAA is no date"),
            (FILE + "AAA,,\n", r"line 2: valid_from '' of AAA is no date .*first session in scope"),
            (FILE + "AAA,2020-01-02,now\n", r"line 2: valid_to 'now' of AAA is no date .*leave it empty while"),
            (FILE + "AAA,2020-01-02,2020-01-01\n", r"line 2: AAA ends on 2020-01-01, before it begins on 2020-01-02; exchange"),
            (FILE + "AAA,2020-01-02,2020-03-02\nBBB,2019-01-02,\nAAA,2020-03-02,\n", r"line 4: AAA from 2020-03-02 to now overlaps "
             r"AAA from 2020-01-02 to 2020-03-02 of line 2; let each stretch end before"),
            (FILE + "AAA,2021-01-04,\nAAA,2020-01-02,\n", r"line 2: AAA from 2021-01-04 to now overlaps .* of line 3"),
            (FILE + "AAA,2020-01-02,\nBBB,2020-01-02,\nAAA,2020-01-02,\n", r"line 4 repeats line 2: AAA from 2020-01-02 to now; remove"),
            (FILE + ",2020-01-02,\n", r"line 2: no symbol in ',2020-01-02,'; name it"),
            (FILE + "AAA,2020-01-02\n", r"line 2: 2 cells where the header has 3: 'AAA,2020-01-02'; give every column"),
            (FILE, r"has a header and no line: nobody would be in scope"),
            ("symbol,since\nAAA,2020-01-02\n", r"the header 'symbol,since' has no column valid_from or from or start; write symbol,"),
            ("symbol,valid_from,start,end\n", r"has several columns valid_from or from or start"),
        ],
    )  # fmt: skip
    def test_faults_name_file_line_value_and_remedy(self, tmp_path: Path, text: str, says: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"QUANT_UNIVERSE={tmp_path}/members.csv,? ?.*{says}"):
            members_of(tmp_path, text)


class TestMacros:
    @pytest.fixture
    def stocked(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> Warehouse:
        """Bars of three symbols in January 2020, CCC from its second week on."""
        rows = [bar(symbol, day) for symbol, first in (("AAA", 1), ("BBB", 1), ("CCC", 6))
                for day in calendar.between(date(2020, 1, first), date(2020, 1, 31))]  # fmt: skip
        land(open_warehouse, delivery(rows), calendar, EVENING, "run")
        return open_warehouse

    def test_without_a_universe_every_symbol_with_a_bar_so_far_counts(self, stocked: Warehouse) -> None:
        assert on(stocked, date(2020, 1, 2)) == ["AAA", "BBB"]
        assert on(stocked, date(2020, 1, 6)) == ["AAA", "BBB", "CCC"]
        assert on(stocked, date(2020, 1, 31), datetime(2020, 1, 3)) == ["AAA", "BBB"]
        assert on(stocked, date(2020, 1, 1)) == []

    def test_members_of_another_source_are_none_of_ours(self, stocked: Warehouse) -> None:
        store_members(stocked, [("AAA", SINCE, None)], source="yahoo")
        assert on(stocked, UNTIL) == ["AAA", "BBB", "CCC"]

    def test_both_ends_belong_to_a_stretch_and_a_symbol_may_come_back(self, stocked: Warehouse) -> None:
        store_members(stocked, [("AAA", SINCE, UNTIL), ("AAA", AGAIN, None), ("NOBAR", SINCE, None)])
        inside = [day for day in (SINCE, UNTIL, UNTIL + timedelta(days=1), AGAIN - timedelta(days=1), AGAIN) if "AAA" in on(stocked, day)]
        assert inside == [SINCE, UNTIL, AGAIN]
        assert on(stocked, UNTIL) == ["AAA", "NOBAR"]

    def test_as_of_an_instant_an_end_known_later_is_not_known(self, stocked: Warehouse) -> None:
        early, late = datetime(2020, 1, 2, 21, 30), datetime(2020, 1, 13, 21, 30)
        store_members(stocked, [("AAA", SINCE, None), ("BBB", SINCE, None)], early)
        store_members(stocked, [("AAA", SINCE, UNTIL), ("BBB", SINCE, None)], late)
        assert on(stocked, AGAIN, late - timedelta(microseconds=1)) == ["AAA", "BBB"]
        assert on(stocked, AGAIN, late) == on(stocked, AGAIN) == ["BBB"]
        assert on(stocked, date(2020, 1, 6), early - timedelta(microseconds=1)) == []  # no bar and no member was known

    def test_a_stretch_taken_back_holds_nobody(self, stocked: Warehouse) -> None:
        store_members(stocked, [("AAA", SINCE, None), ("BBB", SINCE, None)])
        store_members(stocked, [("AAA", SINCE, SINCE - timedelta(days=1))], EVENING + timedelta(days=1))
        assert on(stocked, SINCE) == ["BBB"]


class TestNight:
    def test_a_night_with_a_membership_file_signals_for_who_is_in_scope(self, tmp_path: Path) -> None:
        """SYN002 left a week before; SYN005 joins on the evening itself; of the others nobody is listed."""
        left = nights.EVENING - timedelta(days=7)
        (tmp_path / "members.csv").write_text(
            f"symbol,valid_from,valid_to\nSYN001,2020-01-02,\nSYN002,2020-01-02,{left}\nSYN005,{nights.EVENING},\n"
        )
        with nights.desk(tmp_path / "home", QUANT_UNIVERSE=str(tmp_path / "members.csv")) as desk:
            assert desk.run().success
            assert desk.read("select distinct symbol from signals.daily_signals order by symbol")["symbol"].to_list() == [
                "SYN001",
                "SYN005",
            ]
            assert "SYN002" in desk.read("select distinct symbol from feature_store.technical_v1")["symbol"].to_list()
            sessions = date(2025, 1, 2), nights.EVENING
            known = training_set(
                desk.warehouse, nights.CALENDAR, "technical_v1", None, sessions, 1, nights.CALENDAR.known_at(nights.EVENING)
            )
            lasts = dict(known.frame.group_by("symbol").agg(pl.col("session").max()).sort("symbol").iter_rows())
            assert lasts == {"SYN001": nights.BEFORE, "SYN002": left}  # SYN005's outcome is not known yet


DAYS = st.dates(date(2019, 1, 1), date(2019, 3, 31))


@st.composite
def stretches(draw: st.DrawFn) -> list[Stretch]:
    """Stretches that do not touch, of awkward symbols; the last of a symbol may be open."""
    found: list[Stretch] = []
    for symbol in draw(st.lists(st.sampled_from(["AAA", "BRK.B", "O'NEIL", 'Ä "x", y', "TRUE"]), min_size=1, unique=True)):
        days = sorted(draw(st.lists(DAYS, min_size=2, max_size=8, unique=True)))
        pairs = list(zip(days[::2], days[1::2], strict=False))
        found += [(symbol, first, last) for first, last in pairs]
        if draw(st.booleans()):
            found.append((symbol, days[-1] + timedelta(days=1), None))
    return draw(st.permutations(found))


class TestProperties:
    @given(members=stretches())
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_what_is_written_is_read(self, tmp_path: Path, members: list[Stretch]) -> None:
        path = tmp_path / "members.csv"
        pl.DataFrame(members, schema=MEMBERS, orient="row").write_csv(path)
        frame = members_frame(load_settings(universe=str(path)))
        assert frame is not None
        assert set(frame.rows()) == set(members)
        assert frame.height == len(members)

    @given(members=stretches(), day=DAYS)
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_in_scope_is_who_has_a_stretch_around_the_session(self, open_warehouse: Warehouse, members: list[Stretch], day: date) -> None:
        with open_warehouse.transaction() as connection:
            connection.execute("delete from market_data.universe")
        store_members(open_warehouse, members)
        expected = sorted({symbol for symbol, first, last in members if first <= day <= (last or date.max)})
        assert on(open_warehouse, day) == on(open_warehouse, day, EVENING) == expected
