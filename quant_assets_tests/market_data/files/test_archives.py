"""Dated deliveries: in order, each known at its date, the same however often and in whichever steps they land."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.files import archives as module
from quant_assets.market_data.files.archives import Archive, ArchivesSource, dated, find_archives
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import land
from quant_assets.warehouse import Warehouse
from quant_assets_tests.market_data.deliveries import COLUMNS, Nights, Vendor, another, csv_of, pack, tarred

DATA = Path(__file__).parents[4] / "shared" / "data" / "pystock_2015"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real deliveries are not beside this checkout")
CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
S = tuple(CALENDAR.between(date(2020, 3, 26), date(2020, 4, 24)))
GOOD_FRIDAY = date(2020, 4, 10)
TICK = timedelta(microseconds=1)


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    """Five symbols, two of them with names that look like values, and a closed day (Good Friday) within their sessions."""
    vendor = Vendor(tmp_path / "in", CALENDAR)
    for n, symbol in enumerate(("AAA", "TRUE", "NaN", "005930", "INF"), 1):
        vendor.trades(symbol, {session: round(10.0 * n + 0.1 * n * at, 2) for at, session in enumerate(S)})
    vendor.dividends["AAA", S[3]] = 0.25
    return vendor


@pytest.fixture
def nights(vendor: Vendor, open_warehouse: Warehouse) -> Nights:
    return Nights(vendor.folder, CALENDAR, open_warehouse)


class TestRegression:
    def test_an_archive_is_known_at_its_date_all_of_it(self, vendor: Vendor, nights: Nights) -> None:
        for day in S[1:4]:
            vendor.send(day)
        assert [landing.new for landing in nights.night(S[3])] == [10, 5, 5]
        known = {day: CALENDAR.known_at(day) for day in S[:4]}
        rows = nights.read(
            "select session, known_at, known_at_basis, basis from market_data.daily_bars where symbol = 'TRUE' order by session"
        )
        assert rows == [(S[0], known[S[1]], "observed", "raw"), *((day, known[day], "observed", "raw") for day in S[1:4])]
        assert nights.closes("NaN", known[S[2]]) == {S[0]: 30.0, S[1]: 30.3, S[2]: 30.6}
        assert nights.closes("NaN", known[S[2]] - TICK) == {S[0]: 30.0, S[1]: 30.3}
        assert nights.closes("NaN", known[S[1]] - TICK) == {}
        assert nights.actions() == [("AAA", S[3], "dividend", 0.25)]
        assert nights.statuses() == {f"{day:%Y%m%d}": "landed" for day in S[1:4]}
        assert nights.details()[f"{S[1]:%Y%m%d}"] == f"{S[1]:%Y%m%d}.tar.gz: rows 10, bars 10, rejected 0"

    def test_what_is_dated_on_a_closed_day_is_known_when_that_day_ends(self, vendor: Vendor, nights: Nights) -> None:
        thursday = CALENDAR.previous(GOOD_FRIDAY)
        vendor.send(thursday, rows=vendor.rows(thursday, symbols=["AAA", "TRUE"]))
        vendor.send(GOOD_FRIDAY, rows=vendor.rows(thursday))
        nights.night(GOOD_FRIDAY)
        known = dict(nights.read("select symbol, known_at from market_data.daily_bars where session = $session", session=thursday))
        assert known["TRUE"] == CALENDAR.known_at(thursday)
        assert known["INF"] == datetime(2020, 4, 11)
        assert nights.statuses()["20200410"] == "stale"
        assert "2020-04-10 is no session of XNYS, and it repeats 2020-04-09" in nights.details()["20200410"]

    def test_bars_that_come_late_are_known_late(self, vendor: Vendor, nights: Nights) -> None:
        vendor.send(S[1])
        vendor.send(S[2], rows=vendor.rows(S[2], symbols=["AAA", "TRUE", "NaN", "INF"]))
        vendor.send(S[3])
        assert [landing.late for landing in nights.night(S[3])][1:] == [0, 1]
        rows = nights.read("select session, known_at from market_data.daily_bars where symbol = '005930' order by session")
        assert rows[2] == (S[2], CALENDAR.known_at(S[3]))
        assert S[2] not in nights.closes("005930", CALENDAR.known_at(S[3]) - TICK)

    def test_a_rebased_adjusted_close_makes_no_version_and_a_changed_close_or_volume_does(self, vendor: Vendor, nights: Nights) -> None:
        vendor.send(S[2])
        nights.night(S[2])
        vendor.changes["TRUE", S[2]] = {"close": 20.41, "adj_close": 20.41}
        vendor.changes["NaN", S[2]] = {"volume": 7}
        vendor.send(S[3])  # AAA pays on this session: its adjusted close of the one before is another one
        landing = nights.night(S[3])[0]
        assert (landing.new, landing.restated, landing.actions) == (5, 2, 1)
        versions = nights.read(
            "select symbol, close, volume, known_at from market_data.daily_bars where session = $at order by all", at=S[2]
        )
        before, after = CALENDAR.known_at(S[2]), CALENDAR.known_at(S[3])
        assert [row for row in versions if row[0] in {"AAA", "NaN", "TRUE"}] == [
            ("AAA", 10.2, 2020, before),
            ("NaN", 30.6, 7, after),
            ("NaN", 30.6, 4060, before),
            ("TRUE", 20.4, 3040, before),
            ("TRUE", 20.41, 3040, after),
        ]

    def test_an_archive_is_not_read_again_unless_it_changed(self, vendor: Vendor, nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []
        original = Archive.read
        monkeypatch.setattr(Archive, "read", lambda self: read.append(self.name) or original(self))
        for day in S[1:4]:
            vendor.send(day)
        nights.night(S[3])
        assert len(read) == 3
        os.utime(vendor.send(S[3]))  # the same bytes, written anew
        assert nights.night(S[3]) == []
        vendor.send(S[4])
        nights.night(S[4])
        assert read[3:] == [f"{S[4]:%Y%m%d}.tar.gz"]

    def test_a_corrected_archive_of_the_newest_date_restates(self, vendor: Vendor, nights: Nights) -> None:
        for day in S[1:4]:
            vendor.send(day)
        nights.night(S[3])
        vendor.changes["TRUE", S[3]] = {"close": 20.5}
        vendor.send(S[3])
        landing = nights.night(S[3])[0]
        assert (landing.new, landing.restated) == (0, 1)
        assert nights.closes("TRUE")[S[3]] == 20.5
        assert nights.closes("TRUE", CALENDAR.known_at(S[3]))[S[3]] == 20.6
        assert nights.closes("TRUE", CALENDAR.known_at(S[3]) + TICK)[S[3]] == 20.5

    def test_a_correction_that_keeps_its_old_file_time_is_noticed(self, vendor: Vendor, nights: Nights, tmp_path: Path) -> None:
        vendor.send(S[1])
        nights.night(S[1])
        vendor.changes["TRUE", S[1]] = {"close": 21.0}
        aside = shutil.move(vendor.send(S[1]), tmp_path / "aside")
        os.utime(aside, (0, 0))
        shutil.move(aside, vendor.folder / f"{S[1]:%Y%m%d}.tar.gz")
        nights.night(S[1])
        assert nights.closes("TRUE")[S[1]] == 21.0

    def test_an_archive_that_turns_up_after_later_ones_brings_only_what_is_missing(self, vendor: Vendor, nights: Nights) -> None:
        for day in (S[1], S[4]):
            vendor.send(day)
        nights.night(S[4])
        vendor.changes["TRUE", S[3]] = {"close": 99.0}  # what the late archive says of a session that a later one has told
        vendor.send(S[3])
        landing = nights.night(S[4])[0]
        assert (landing.new, landing.restated) == (5, 0)
        assert nights.closes("TRUE") == {S[at]: 20.0 + 0.2 * at for at in range(5)}
        known = nights.read("select distinct known_at from market_data.daily_bars where session = $at", at=S[2])
        assert known == [(CALENDAR.known_at(S[4]) + TICK,)]

    @pytest.mark.parametrize(
        ("make", "status", "says"),
        [
            (lambda path, rows: path.write_bytes(b""), "empty", "it holds no rows"),
            (lambda path, rows: pack(path, {"prices.csv": ""}), "empty", "it holds no rows"),
            (lambda path, rows: pack(path, {"prices.csv": csv_of([])}), "empty", "it holds no rows"),
            (lambda path, rows: path.write_bytes(b"<html>busy</html>"), "failed", "Not a gzipped file"),
            (lambda path, rows: path.write_bytes(pack(path, {"prices.csv": csv_of(rows)}).read_bytes()[:-40]), "failed", "ended before"),
            (lambda path, rows: path.write_bytes(gzip.compress(tarred({"prices.csv": csv_of(rows)})[:700])), "failed", "unexpected end of data"),
            (lambda path, rows: path.write_bytes(gzip.compress(b"no tar")), "failed", "no tar archive that can be read"),
            (lambda path, rows: pack(path, {}), "failed", "holds no prices.csv"),
            (lambda path, rows: pack(path, {"symbols.txt": "AAA\n"}), "failed", "holds no prices.csv"),
            (lambda path, rows: pack(path, {"prices.csv": "<html>Too many requests</html>"}), "failed", "found the columns <html>"),
            (lambda path, rows: pack(path, {"prices.csv": csv_of(rows, COLUMNS[1:])}), "failed", "none of its rows is a bar, the first since the symbol is missing"),
            (lambda path, rows: pack(path, {"prices.csv": csv_of([]) * 2}), "failed", "No date has a known form, such as 'date'"),
            (lambda path, rows: pack(path, {"prices.csv": csv_of(r | {"date": "soon"} for r in rows)}), "failed", "No date has a known form"),
            (lambda path, rows: path.mkdir(), "failed", "Is a directory"),
            (lambda path, rows: path.symlink_to(path.with_name("nowhere")), "failed", "No such file"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_read_is_a_delivery_without_bars_and_the_rest_of_the_range_goes_on(
        self, vendor: Vendor, nights: Nights, make: Callable[[Path, list[dict[str, object]]], object], status: str, says: str
    ) -> None:
        for day in (S[1], S[3]):
            vendor.send(day)
        make(vendor.folder / f"{S[2]:%Y%m%d}.tar.gz", vendor.rows(S[2]))
        assert [landing.new for landing in nights.night(S[3])] == [10, 0, 10]
        name = f"{S[2]:%Y%m%d}"
        assert (nights.statuses()[name], nights.statuses()[f"{S[3]:%Y%m%d}"]) == (status, "landed")
        assert says in nights.details()[name]
        assert nights.read("select listed.symbol from market_data.universe as listed") == []
        assert list(nights.closes("TRUE")) == list(S[:4])  # healed by the next good one
        assert nights.night(S[3]) == []  # and not asked again for ever

    def test_a_whole_archive_in_the_place_of_a_broken_one_lands(self, vendor: Vendor, nights: Nights) -> None:
        path = vendor.send(S[1])
        whole = path.read_bytes()
        path.write_bytes(whole[:-40])
        nights.night(S[1])
        path.write_bytes(whole)
        assert nights.night(S[1])[0].new == 10
        assert nights.read("select status from market_data.fetch_ledger order by requested_at") == [("failed",), ("landed",)]

    @pytest.mark.parametrize(("times", "word"), [(2, "doubled"), (3, "tripled")])
    def test_rows_that_stand_there_several_times_land_once(self, vendor: Vendor, nights: Nights, times: int, word: str) -> None:
        vendor.send(S[1], rows=vendor.rows(S[1]) * times)
        landing = nights.night(S[1])[0]
        assert (landing.new, landing.rejected) == (10, 10 * (times - 1))
        assert nights.statuses() == {f"{S[1]:%Y%m%d}": word}
        assert f"every row stands there {times} times" in nights.details()[f"{S[1]:%Y%m%d}"]

    def test_a_partial_a_stale_and_a_one_sided_delivery_say_so_with_their_numbers(self, vendor: Vendor, nights: Nights) -> None:
        vendor.send(S[1])
        vendor.send(S[2], rows=[*vendor.rows(S[2], symbols=["AAA", "TRUE", "NaN"]), *vendor.rows(S[1], symbols=["005930", "INF"])])
        vendor.send(S[3], rows=vendor.rows(S[2]))
        vendor.send(S[4], rows=vendor.rows(S[4], sessions=1))
        vendor.listed = [*vendor.closes, "GONE"]
        vendor.send(S[5])
        nights.night(S[5])
        names = [f"{day:%Y%m%d}" for day in S[1:6]]
        assert [nights.statuses()[name] for name in names] == ["landed", "partial", "stale", "partial", "partial"]
        says = [nights.details()[name] for name in names]
        assert f"3 of 5 symbols have a bar of {S[2]}" in says[1]
        assert f"0 of 5 symbols have a bar of {S[3]}, most end on {S[2]}" in says[2]
        assert f"0 of 5 symbols have a bar of the session before, so that no action of {S[4]} can be seen" in says[3]
        assert "5 of 6 listed symbols have a bar" in says[4]
        assert list(nights.closes("INF")) == [*S[:3], *S[4:6]]  # what no delivery told is a hole, and nothing else is

    def test_a_header_among_the_rows_and_rows_of_the_future_are_rejected_with_their_lines(self, vendor: Vendor, nights: Nights) -> None:
        rows = vendor.rows(S[1])
        text = csv_of([*rows, dict(zip(COLUMNS, COLUMNS, strict=True)), *vendor.rows(S[3], symbols=["AAA"])])
        pack(vendor.folder / f"{S[1]:%Y%m%d}.tar.gz", {"prices.csv": text})
        landing = nights.night(S[1])[0]
        assert (landing.new, landing.rejected) == (10, 3)
        rejected = nights.read("select line, column_name, value from market_data.rejected_rows order by line")
        assert rejected == [(12, "date", "date"), (13, "date", str(S[3])), (14, "date", str(S[2]))]
        reasons = nights.read("select reason from market_data.rejected_rows where line > 12")
        assert {reason for (reason,) in reasons} == {f"date '{day}' lies after the delivery of {S[1]}" for day in S[2:4]}

    def test_a_universe_keeps_others_out_of_bars_list_and_judgement(self, vendor: Vendor, open_warehouse: Warehouse) -> None:
        vendor.listed = list(vendor.closes)
        vendor.send(S[1])
        nights = Nights(vendor.folder, CALENDAR, open_warehouse, universe=("TRUE", "INF"))
        nights.night(S[1])
        assert nights.statuses() == {f"{S[1]:%Y%m%d}": "landed"}
        assert nights.details()[f"{S[1]:%Y%m%d}"].endswith("bars 4, rejected 0, out of scope 6")
        assert nights.read("select symbol from market_data.universe order by symbol") == [("INF",), ("TRUE",)]

    def test_archives_of_before_the_start_are_passed_over(self, vendor: Vendor, open_warehouse: Warehouse) -> None:
        vendor.send(date(2019, 12, 31), rows=vendor.rows(S[1]))  # before the first session of the calendar
        for day in S[1:4]:
            vendor.send(day)
        nights = Nights(vendor.folder, CALENDAR, open_warehouse, start=S[2])
        nights.night(S[3])
        assert list(nights.statuses()) == [f"{day:%Y%m%d}" for day in S[2:4]]
        assert list(nights.closes("AAA")) == list(S[2:4])

    def test_the_first_session_of_the_calendar_has_none_before_it(self, vendor: Vendor, open_warehouse: Warehouse) -> None:
        vendor.listed = list(vendor.closes)
        for day in S[1:3]:
            vendor.send(day)
        nights = Nights(vendor.folder, trading_calendar("XNYS", S[1]), open_warehouse, start=S[1])
        assert [landing.new for landing in nights.night(S[2])] == [5, 5]
        assert set(nights.statuses().values()) == {"landed"}
        assert nights.details()[f"{S[1]:%Y%m%d}"].endswith("rows 10, bars 5, rejected 0, out of scope 5")
        assert nights.read("select distinct valid_from from market_data.universe") == [(S[1],)]

    def test_a_name_of_the_future_is_not_the_last_session(self, vendor: Vendor, nights: Nights) -> None:
        vendor.send(S[1])
        pack(vendor.folder / "20990303.tar.gz", {"prices.csv": ""})
        assert nights.source.last_session() == S[1]
        shutil.rmtree(vendor.folder)
        with pytest.raises(ConfigurationError, match="holds no archive named by a past date"):
            nights.source.last_session()

    def test_only_dated_archives_are_found_in_the_order_of_their_dates(self, tmp_path: Path) -> None:
        for name in ("20200402.tar.gz", "2020-04-01.tar.gz", "20200230.tar.gz", "notes.txt", "x20200403.tar.gz", "20200403.zip"):
            (tmp_path / name).write_bytes(b"")
        assert [path.name for path in find_archives(str(tmp_path))] == ["2020-04-01.tar.gz", "20200402.tar.gz"]
        assert find_archives(str(tmp_path / "20200402.tar.gz")) == [tmp_path / "20200402.tar.gz"]
        assert find_archives(str(tmp_path / "nowhere")) == []
        assert dated(tmp_path / "2020-04-01.tar.gz") == date(2020, 4, 1)

    def test_other_vendors_archives(self, vendor: Vendor, nights: Nights) -> None:
        """Names, separators, orders and forms of dates, folders inside, one session or three, no adjusted close, no list."""
        names = {
            "symbol": "Ticker",
            "date": "Trade Date",
            "close": "CLOSE",
            "volume": "Vol.",
            "adj_close": "Adj Close",
            "high": "High Price",
        }

        def told(day: date, form: str = "%Y-%m-%d", sessions: int = 2) -> list[dict[str, object]]:
            rows = vendor.rows(day, sessions=sessions)
            return [{names.get(key, key): f"{cell:{form}}" if key == "date" else cell for key, cell in row.items()} for row in rows]  # type: ignore[str-bytes-safe]

        columns = ["CLOSE", "Trade Date", "low", "open", "High Price", "Vol.", "Ticker"]
        vendor.send(S[1], told(S[1]), columns=[*columns, "Adj Close"], separator=";", name="{:%Y-%m-%d}.tar.gz", folder="./daily/")
        vendor.send(S[2], told(S[2]), columns=[*columns, "Adj Close"], separator="\t", folder=f"{S[2]:%Y%m%d}/")
        vendor.send(S[3], told(S[3], "%d.%m.%Y", sessions=3), columns=[*columns, "Adj Close"])
        vendor.send(S[4], told(S[4], "%m/%d/%Y"), columns=columns)
        vendor.send(S[5], told(S[5], "%d/%m/%Y", sessions=1), columns=columns)
        for day in S[1:6]:
            assert [landing.new for landing in nights.night(day)] == [10 if day == S[1] else 5]
        assert nights.closes("005930") == {session: vendor.closes["005930"][session] for session in S[:6]}
        assert nights.actions() == [("AAA", S[3], "dividend", 0.25)]
        assert set(nights.statuses().values()) == {"landed"}

    def test_marks_quotes_line_ends_and_namesakes_within_an_archive(self, vendor: Vendor, nights: Nights) -> None:
        rows = [{key: f'"{cell}"' for key, cell in row.items()} for row in vendor.rows(S[1])]
        members: dict[str, str | bytes] = {
            "in/._prices.csv": b"\0\1",
            "in/prices.csv": "\ufeff" + csv_of(rows).replace("\n", "\r\n"),
            "in/old/prices.csv": csv_of([]),
            "in/symbols.txt": "\ufeffAAA\tSociété\r\nTRUE\r\n\r\n NaN \tNote\n005930\t\nINF\t".encode() + b"\xe9\n",
        }
        pack(vendor.folder / f"{S[1]:%Y%m%d}.tar.gz", members)
        assert nights.night(S[1])[0].new == 10
        assert nights.statuses() == {f"{S[1]:%Y%m%d}": "landed"}
        assert nights.read("select symbol from market_data.universe order by symbol") == [(symbol,) for symbol in sorted(vendor.closes)]

    def test_actions_that_the_vendor_tells_are_taken_and_only_the_others_inferred(self, vendor: Vendor, nights: Nights) -> None:
        told = {"Dividends": 0.0, "Stock Splits": 0}
        vendor.splits["TRUE", S[2]] = 0.5
        for day in S[1:3]:
            rows = [row | told | ({"Dividends": 0.07} if (row["symbol"], row["date"]) == ("INF", S[2]) else {}) for row in vendor.rows(day)]
            vendor.send(day, rows, columns=[*COLUMNS, "Dividends"])
        nights.night(S[2])
        assert nights.actions() == [("INF", S[2], "dividend", 0.07)]  # the closes did not follow TRUE's split: it is not believed
        assert "no split of TRUE: a factor of 0.5, but the close went from 20.2 to 20.4" in nights.details()[f"{S[2]:%Y%m%d}"]

    def test_other_calendars(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        tokyo = trading_calendar("XTKS", date(2020, 1, 6))
        vendor = Vendor(tmp_path / "tokyo", tokyo)
        sessions = list(tokyo.between(date(2020, 4, 27), date(2020, 5, 8)))
        for n, symbol in enumerate(("7203", "6758", "9984"), 1):
            vendor.trades(symbol, {session: 1000.0 * n + at for at, session in enumerate(sessions)})
        greenery_day = date(2020, 5, 4)
        vendor.send(sessions[1])
        vendor.send(greenery_day, rows=vendor.rows(sessions[1]))
        vendor.send(sessions[-1])
        nights = Nights(vendor.folder, tokyo, open_warehouse)
        nights.night(sessions[-1])
        assert nights.read("select min(known_at) from market_data.daily_bars") == [(datetime(2020, 4, 28, 6, 30),)]
        assert list(nights.statuses().values()) == ["landed", "stale", "landed"]

    def test_what_other_sources_know_later_does_not_make_a_delivery_late(self, vendor: Vendor, nights: Nights) -> None:
        with nights.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into data_quality.anomalies
                select 'SYN', date '2024-01-02', 'synthetic', 'spike', 'rules', t, 1, 'critical', 'a finding', null, t, t
                from (select timestamp '2024-01-02 21:30:00' as t)
                """
            )
        for day in S[1:3]:
            vendor.send(day)
        nights.night(S[2])
        known = nights.read("select distinct known_at from market_data.daily_bars order by 1")
        assert known == [(CALENDAR.known_at(S[1]),), (CALENDAR.known_at(S[2]),)]

    def test_a_night_whose_archive_is_empty_is_a_night_all_the_same(
        self, vendor: Vendor, nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from quant_assets.resources import DeskResource, Night

        vendor.send(S[1])
        vendor.send(S[2], rows=[])
        nights.night(S[2])
        settings = {"HOME": tmp_path, "SOURCE": "files", "FILES_PATH": vendor.folder, "START": "2020-01-02"}
        for name, value in settings.items():
            monkeypatch.setenv(f"QUANT_{name}", str(value))
        seen: list[Night] = []

        @dg.asset(partitions_def=dg.DailyPartitionsDefinition(start_date=str(S[0])))
        def observer(context) -> None:  # type: ignore[no-untyped-def]  # whose type a local function cannot name as text
            seen.append(DeskResource().night(context, nights.warehouse))

        assert dg.materialize([observer], partition_key=str(S[2])).success
        assert (seen[0].as_of, seen[0].sessions) == (CALENDAR.known_at(S[2]), [S[2]])
        assert not dg.materialize([observer], partition_key=str(S[3]), raise_on_error=False).success  # no archive tells of it

    @real_data
    def test_the_first_real_deliveries(self, open_warehouse: Warehouse) -> None:
        calendar = trading_calendar("XNYS", date(2015, 1, 2))
        nights = Nights(DATA, calendar, open_warehouse)
        landings = nights.night(date(2015, 4, 13))
        assert len(landings) == 15
        assert (
            landings[0].in_words
            == "20150323.tar.gz-a4a1ae4cb63fbb30: 12,054 bars of 6,028 symbols: 12,054 new, 0 restated, 6,026 late, 17 actions"
        )
        assert [name for name, status in nights.statuses().items() if status != "landed"] == ["20150406"]
        assert nights.statuses()["20150406"] == "tripled"
        assert landings[9].rejected == 24_203
        assert [len(nights.closes(ticker)) for ticker in ("TRUE", "INF", "ON")] == [16, 16, 6]
        conflicts = nights.read("select value, reason from market_data.rejected_rows where reason like 'conflicts%'")
        assert len(conflicts) == 24
        known = nights.read("select count(*) from market_data.daily_bars where known_at > $at", at=calendar.known_at(date(2015, 4, 10)))
        assert known == [(landings[-1].new + landings[-1].restated,)]

    @real_data
    @pytest.mark.parametrize(
        ("days", "status", "says"),
        [
            (("20150609", "20150610", "20150611"), "empty", "it holds no rows"),
            (("20150702", "20150703"), "stale", "2015-07-03 is no session of XNYS, and it repeats 2015-07-02"),
            (("20150702", "20150706"), "partial", "0 of 6,089 symbols have a bar of the session before"),
            (("20151116", "20151117", "20151118"), "stale", "8 of 6,104 symbols have a bar of 2015-11-17, most end on 2015-11-16"),
            (("20151209", "20151210", "20151211"), "partial", "5,943 of 6,105 symbols have a bar of 2015-12-10"),
        ],
    )  # fmt: skip
    def test_the_odd_real_deliveries(
        self, open_warehouse: Warehouse, tmp_path: Path, days: tuple[str, ...], status: str, says: str
    ) -> None:
        (tmp_path / "in").mkdir()
        for day in days:
            (tmp_path / "in" / f"{day}.tar.gz").symlink_to(DATA / f"{day}.tar.gz")
        calendar = trading_calendar("XNYS", date(2015, 1, 2))
        nights = Nights(tmp_path / "in", calendar, open_warehouse)
        last = dated(Path(f"{days[-1]}.tar.gz"))
        assert last
        nights.night(last)
        assert nights.statuses()[days[1]] == status
        assert says in nights.details()[days[1]]
        if len(days) == 3:
            healed = dated(Path(f"{days[1]}.tar.gz"))
            bars = nights.read("select count(distinct symbol) from market_data.daily_bars where session = $at", at=healed)[0][0]
            assert bars > 5_900


KINDS = ["good", "good", "good", "absent", "empty", "partial", "stale", "tripled", "one session", "garbage"]


def sent(vendor: Vendor, day: date, kind: str) -> None:
    """Send a day's archive in one of the ways in which deliveries go wrong."""
    rows = vendor.rows(day)
    if kind == "garbage":
        (vendor.folder / f"{day:%Y%m%d}.tar.gz").write_bytes(b"garbage")
    elif kind != "absent":
        some = {"empty": [], "partial": rows[: len(rows) // 2], "stale": vendor.rows(CALENDAR.previous(day)), "tripled": rows * 3}
        vendor.send(day, vendor.rows(day, sessions=1) if kind == "one session" else some.get(kind, rows))


class TestProperties:
    @settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    @given(
        kinds=st.lists(st.sampled_from(KINDS), min_size=4, max_size=9),
        order=st.lists(st.integers(0, 9), min_size=1, max_size=6),
        draw=st.randoms(use_true_random=False),
    )
    def test_a_range_day_by_day_and_any_repetition_leave_the_same_tables(
        self, empty_database: Path, kinds: list[str], order: list[int], draw: object
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            vendor = Vendor(Path(folder) / "in", CALENDAR)
            vendor.folder.mkdir()
            for n, symbol in enumerate(("AAA", "BBB", "CCC", "DDD"), 1):
                missing = {S[at] for at in range(len(S)) if draw.random() < 0.15}  # type: ignore[attr-defined]
                jump = draw.randrange(len(S))  # type: ignore[attr-defined]
                path = {session: round((7.0 * n + 0.3 * at) * (4 if at > jump and n == 1 else 1), 2) for at, session in enumerate(S)}
                vendor.trades(symbol, {session: close for session, close in path.items() if session not in missing})
            vendor.splits["BBB", S[3]] = 1.5
            vendor.dividends["CCC", S[2]] = 0.4
            vendor.listed = list(vendor.closes)
            for at, kind in enumerate(kinds, 1):
                vendor.changes = {("DDD", S[at - 1]): {"close": 28.0 + at}} if at % 3 == 0 else {}
                sent(vendor, S[at], kind)
            last = S[len(kinds)]
            first = Warehouse(Path(folder) / "range.duckdb", "files")
            worlds = {name: Nights(vendor.folder, CALENDAR, another(first, empty_database, name)) for name in ("range", "daily", "any")}
            worlds["range"].night(last)
            for day in S[1 : len(kinds) + 1]:
                worlds["daily"].night(day)
            for at in [*order, len(kinds)]:
                worlds["any"].night(S[min(at, len(kinds))])
            expected = worlds["range"].hashes()
            assert worlds["daily"].hashes() == expected
            assert worlds["any"].hashes() == expected
            worlds["any"].night(last)
            worlds["any"].night(S[1])
            assert worlds["any"].hashes() == expected

    @pytest.mark.parametrize("killed_after", [0, 1, 3])
    def test_a_kill_between_or_within_deliveries_changes_nothing_in_the_end(
        self, vendor: Vendor, nights: Nights, empty_database: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
    ) -> None:
        for day in S[1:6]:
            vendor.send(day)
        deliveries = nights.source.deliveries(date.min, S[5], CALENDAR.known_at(S[5]), StoredHoldings(nights.warehouse, nights.source.name))
        for _ in range(killed_after):
            land(nights.warehouse, next(deliveries), CALENDAR, CALENDAR.known_at(S[5]), "killed")
        with monkeypatch.context() as patched:
            patched.setattr("quant_assets.market_data.landing._requests", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                land(nights.warehouse, next(deliveries), CALENDAR, CALENDAR.known_at(S[5]), "killed")
        assert len(nights.night(S[5])) == 5 - killed_after
        undisturbed = Nights(vendor.folder, CALENDAR, another(nights.warehouse, empty_database, "undisturbed"))
        undisturbed.night(S[5])
        assert nights.hashes() == undisturbed.hashes()

    def test_how_many_are_parsed_together_makes_no_difference(
        self, vendor: Vendor, nights: Nights, empty_database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for day in S[1:12]:  # dates whose order of day and month each archive tells only by its own date
            vendor.send(day, [row | {"date": f"{row['date']:%d/%m/%Y}"} for row in vendor.rows(day)])
        nights.night(S[11])
        monkeypatch.setattr(module, "AT_A_TIME", 1)
        alone = Nights(vendor.folder, CALENDAR, another(nights.warehouse, empty_database, "alone"))
        alone.night(S[11])
        assert alone.hashes() == nights.hashes()
        assert alone.closes("AAA") == {session: vendor.closes["AAA"][session] for session in S[:12]}

    def test_what_was_known_then_stays_whatever_comes_later(self, vendor: Vendor, nights: Nights) -> None:
        seen: dict[datetime, list[tuple[object, ...]]] = {}
        for at, day in enumerate(S[1:9], 1):
            vendor.changes = {(symbol, S[at - 1]): {"close": 5.0 + at + n} for n, symbol in enumerate(("AAA", "INF")) if at % 2 == 0}
            sent(vendor, day, KINDS[2 + at % 8])
            nights.night(day)
            instant = CALENDAR.known_at(day)
            as_of = "select * from market_data.daily_bars_as_of($at) order by symbol, session"
            seen[instant] = nights.read(as_of, at=instant)
            assert all(nights.read(as_of, at=then) == rows for then, rows in seen.items())

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_no_damage_to_an_archive_stops_the_range(self, data: st.DataObject) -> None:
        rows = [{"symbol": s, "date": d, **dict.fromkeys(COLUMNS[2:], 10 + n)} for n, s in enumerate("ABCDE") for d in S[:2]]
        plain = bytearray(tarred({"symbols.txt": "A\nB\n", "prices.csv": csv_of(rows)}))
        packed = data.draw(st.booleans())
        whole = bytearray(gzip.compress(bytes(plain), mtime=0)) if packed else plain
        for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
            whole[at] = data.draw(st.integers(0, 255))
        whole = whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{S[1]:%Y%m%d}.tar.gz").write_bytes(bytes(whole) if packed else gzip.compress(bytes(whole)))
            pack(Path(folder) / f"{S[2]:%Y%m%d}.tar.gz", {"prices.csv": csv_of([row | {"date": S[2]} for row in rows[::2]])})
            source = ArchivesSource(folder, CALENDAR)
            damaged, sound = source.deliveries(date.min, S[2], CALENDAR.known_at(S[2]), Nothing())
            assert sound.bars.height == 5
            assert damaged.receipts["status"][0] in {"landed", "partial", "stale", "failed", "empty", "doubled", "tripled"}
            assert damaged.bars["symbol"].null_count() == 0
            assert damaged.bars.filter(pl.col("session") > S[1]).is_empty()


class Nothing:
    """A warehouse that holds nothing yet."""

    def symbols(self) -> pl.DataFrame:
        return pl.DataFrame(schema={"symbol": pl.String, "first_session": pl.Date, "last_session": pl.Date})

    def landed(self) -> frozenset[str]:
        return frozenset()

    def batches(self) -> dict[str, datetime]:
        return {}
