"""The source against a vendor on loopback: every fault ends in the ledger with its class and a remedy, and nothing false lands."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.alpha_vantage.dialect import address_of
from quant_assets.market_data.alpha_vantage.source import AlphaVantageSource
from quant_assets.market_data.fetching.replies import KeyRefused, ReplyClass
from quant_assets.settings import Settings
from quant_assets.warehouse import Warehouse
from quant_assets_tests import command
from quant_assets_tests.market_data.vendor import NOTICES, Reply, Vendor, as_csv, as_json, night, notice, rows_of, serving, settings_for

FIRST, LAST = date(2020, 1, 2), date(2020, 12, 31)
EARLIER = date(2020, 12, 30)
KEY = "PLANTED/KEY+4711"


@pytest.fixture
def vendor(calendar: TradingCalendar) -> Iterator[Vendor]:
    with serving(calendar.between(FIRST, LAST)) as vendor:
        yield vendor


@pytest.fixture
def desk(vendor: Vendor, tmp_path: Path) -> Settings:
    """One call at a time, so that the order in which calls arrive is that in which they were made."""
    return settings_for(vendor, tmp_path, vendor_concurrency=1)


def ledger(warehouse: Warehouse) -> list[dict[str, Any]]:
    return warehouse.read("select * from market_data.fetch_ledger order by requested_at, request_id").to_dicts()


def bars(warehouse: Warehouse, symbol: str = "%") -> pl.DataFrame:
    return warehouse.read(
        "select symbol, session, open, high, low, close, volume, adj_close, basis from market_data.daily_bars where symbol like $s order by all",
        {"s": symbol},
    )


def true_bars(symbol: str, sessions: list[date]) -> list[tuple[object, ...]]:
    return [(symbol, day, o, h, lo, c, float(v), adj, "raw") for day, o, h, lo, c, adj, v, *_ in rows_of(symbol, sessions)]


def faults(calendar: TradingCalendar) -> dict[str, tuple[list[Reply], list[str], int]]:
    """Symbol → the vendor's replies (the last one for ever), the classes that the ledger must show, and the bars that may land."""
    sessions = list(calendar.between(FIRST, LAST))
    rows = {symbol: list(reversed(rows_of(symbol, sessions))) for symbol in ("CUT", "CUTCSV", "FOOT", "TWICE", "EXCEL", "SHEET")}
    mangled = [(f"{day:%m/%d/%Y}", *values) for day, *values in rows["SHEET"]]
    some = [(43832 + n if n < 5 else day, *values) for n, (day, *values) in enumerate(rows["EXCEL"])]
    always, n = "data", len(sessions)
    return {
        "HTTP429": ([Reply("Too Many Requests", 429)], ["burst_limit"] * 3, 0),
        "HTTP500": ([Reply("oops", 500)], ["unavailable"] * 3, 0),
        "HALF": ([Reply(as_json("HALF", rows["CUT"]), manner="cut")], ["malformed"] * 2, 0),
        "CUT": ([Reply(as_json("CUT", rows["CUT"])[:5000])], ["malformed"] * 2, 0),
        "CUTCSV": ([Reply(as_csv(rows["CUTCSV"])[:5000])], ["malformed"] * 2, 0),
        "HTML": ([Reply("<!DOCTYPE html><title>Sign in</title>", content_type="text/html")], ["malformed"] * 2, 0),
        "BURST": ([notice("burst_limit")], ["burst_limit"] * 3, 0),
        "BURSTONCE": ([notice("burst_limit"), Reply(as_json("BURSTONCE", rows_of("BURSTONCE", sessions)))], ["burst_limit", always], n),
        "WRONG": ([notice("invalid_request", "Error Message")], ["invalid_request"], 0),
        "EMPTY": ([Reply("{}")], ["unknown_symbol"], 0),
        "STRANGE": ([Reply('{"Information": "Come back in spring."}')], ["malformed"] * 2, 0),
        "OTHER": ([Reply(as_json("GOOD", rows_of("GOOD", sessions)))], ["malformed"] * 2, 0),
        "ASCENDING": ([Reply(as_json("ASCENDING", rows_of("ASCENDING", sessions)))], [always], n),
        "FOOT": ([Reply(as_csv(rows["FOOT"]) + "Data is delayed by 15 minutes\r\n")], [always], n),
        "TWICE": ([Reply(as_csv([*rows["TWICE"], rows["TWICE"][7]]))], [always], n),
        "EXCEL": ([Reply(as_json("EXCEL", some))], [always], n - 5),
        "SHEET": ([Reply(as_csv(mangled))], ["malformed"] * 2, 0),
        "GOOD": ([], [always], n),
    }


class TestRegression:
    def test_every_fault_ends_in_the_ledger_with_its_class_and_a_remedy(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        expected = faults(calendar)
        vendor.script = {symbol: list(replies) for symbol, (replies, _, _) in expected.items() if replies}
        settings = desk.model_copy(update={"vendor_attempts": 3, "vendor_concurrency": 8})
        (owed,) = night(settings, calendar, tuple(expected), warehouse, LAST)
        found: dict[str, list[str]] = {symbol: [] for symbol in expected}
        for row in ledger(warehouse):
            found[row["symbol"]].append(row["reply_class"])
            reply_class = ReplyClass(row["reply_class"])
            assert reply_class.remedy in row["detail"], row
            assert row["status"] == reply_class.value or reply_class is ReplyClass.DATA
        assert found == {symbol: classes for symbol, (_, classes, _) in expected.items()}
        assert len(ledger(warehouse)) == len(vendor.calls), "a receipt per call"
        assert len({row["request_id"] for row in ledger(warehouse)}) == len(vendor.calls)
        sessions = list(calendar.between(FIRST, LAST))
        for symbol, (_, _, count) in expected.items():
            kept = sessions[:-5] if symbol == "EXCEL" else sessions if count else []
            assert bars(warehouse, symbol).rows() == true_bars(symbol, sessions)[: len(kept)], symbol
        rejected = warehouse.read("select file, line, value, reason from market_data.rejected_rows order by line").to_dicts()
        assert len(rejected) == 5 + 1 + 1
        assert {len(row["file"]) for row in rejected} == {64}
        assert {row["symbol"]: row["status"] for row in ledger(warehouse) if row["reply_class"] == "data"} == {
            **dict.fromkeys(("BURSTONCE", "ASCENDING", "GOOD"), "landed"), **dict.fromkeys(("FOOT", "TWICE", "EXCEL"), "partial"),
        }  # fmt: skip
        failed = [symbol for symbol, (_, classes, _) in expected.items() if classes[-1] in {"burst_limit", "unavailable", "malformed"}]
        assert (owed.symbols, owed.sessions) == (len(failed), len(failed) * len(sessions))
        assert "2 symbols: burst_limit." in owed.reason

    def test_a_vendor_that_says_nothing(self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse) -> None:
        vendor.script = {"SILENT": [Reply("", manner="silent")]}
        settings = desk.model_copy(update={"vendor_timeout_seconds": 0.2, "vendor_attempts": 3})
        (owed,) = night(settings, calendar, ("SILENT",), warehouse, LAST)
        assert [(row["status"], row["reply_class"]) for row in ledger(warehouse)] == [("unavailable", "unavailable")] * 3
        assert "No whole reply in 0.2 seconds. The vendor did not answer" in ledger(warehouse)[-1]["detail"]
        assert (owed.symbols, bars(warehouse).height, len(vendor.calls)) == (1, 0, 3)

    def test_asked_again_only_where_it_helps(self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse) -> None:
        vendor.script = {"WRONG": [notice("invalid_request", "Error Message")], "EMPTY": [Reply("{}")], "DOWN": [Reply("", 503)]}
        universe = ("GOOD", "WRONG", "EMPTY", "DOWN")
        settings = desk.model_copy(update={"vendor_attempts": 1})
        night(settings, calendar, universe, warehouse, LAST)
        vendor.calls.clear()
        night(settings, calendar, universe, warehouse, LAST)
        assert [symbol for symbol, _, _ in vendor.asked()] == ["DOWN"]
        vendor.calls.clear()
        night(settings, calendar, universe, warehouse, LAST, now=calendar.known_at(LAST) + timedelta(days=8))
        assert [symbol for symbol, _, _ in vendor.asked()] == ["WRONG", "EMPTY", "DOWN"]

    def test_one_session_later_a_short_reply_will_do(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        vendor.sessions = calendar.between(FIRST, EARLIER)
        night(desk, calendar, ("AAA", "BBB"), warehouse, EARLIER)
        vendor.sessions = calendar.between(FIRST, LAST)
        night(desk, calendar, ("AAA", "BBB", "CCC"), warehouse, LAST)
        ours = [(symbol, size) for symbol, _, size in vendor.asked()]
        assert ours == [("AAA", "full"), ("BBB", "full"), ("CCC", "full"), ("AAA", "compact"), ("BBB", "compact")]
        assert bars(warehouse).height == 3 * 253
        assert {(row["symbol"], row["status"], row["rows"]) for row in ledger(warehouse)} >= {
            ("AAA", "landed", 252),
            ("AAA", "landed", 100),
        }

    def test_without_the_plans_the_last_hundred_sessions_and_what_stays_missing(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        vendor.refused = {"TIME_SERIES_DAILY_ADJUSTED": notice("entitlement"), "TIME_SERIES_DAILY full": notice("no_full")}
        night(desk, calendar, ("AAA", "BBB", "CCC"), warehouse, LAST)
        assert vendor.asked() == [
            ("AAA", "DAILY_ADJUSTED", "full"), ("AAA", "DAILY", "full"),
            ("AAA", "DAILY", "compact"), ("BBB", "DAILY", "compact"), ("CCC", "DAILY", "compact"),
        ]  # fmt: skip
        assert bars(warehouse).height == 300
        told = "History from 2020-01-02 to 2020-08-10 (153 sessions) stays missing: the key's plan does not include outputsize=full"
        assert [told in row["detail"] for row in ledger(warehouse)].count(True) == 3
        assert [row["status"] for row in ledger(warehouse)][:2] == ["entitlement", "entitlement"]

    def test_dividends_and_splits_become_actions(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        rows = rows_of("AAA", calendar.between(FIRST, LAST))
        rows[10] = (*rows[10][:7], "0.8200", "1.0")
        rows[20] = (*rows[20][:7], "0.0000", "4.0")
        vendor.script = {"AAA": [Reply(as_json("AAA", rows))]}
        night(desk, calendar, ("AAA",), warehouse, LAST)
        actions = warehouse.read("select session, kind, value, source from market_data.corporate_actions order by session").rows()
        assert [action[:3] for action in actions] == [(rows[10][0], "dividend", 0.82), (rows[20][0], "split", 4.0)]

    def test_the_quota_is_spent_and_the_next_day_goes_on_there(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        universe = tuple(f"S{n}" for n in range(8))
        settings = desk.model_copy(update={"alpha_vantage_calls_per_day": 5})
        morning = datetime(2021, 1, 4, 12)
        (owed,) = night(settings, calendar, universe, warehouse, LAST, morning)
        assert (owed.symbols, owed.sessions) == (3, 3 * 253)
        assert "All 5 calls of 2021-01-04 are spent" in owed.reason
        (owed,) = night(settings, calendar, universe, warehouse, LAST, morning + timedelta(hours=6))
        assert owed.symbols == 3
        assert night(settings, calendar, universe, warehouse, LAST, morning + timedelta(days=1)) == []
        assert [symbol for symbol, _, _ in vendor.asked()] == list(universe)

    def test_the_vendors_quota_stops_the_day(self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse) -> None:
        vendor.script = {"S1": [notice("daily_quota")]}
        morning = datetime(2021, 1, 4, 12)
        (owed,) = night(desk, calendar, ("S0", "S1", "S2"), warehouse, LAST, morning)
        assert (owed.symbols, len(vendor.calls)) == (2, 2)
        assert [row["status"] for row in ledger(warehouse)] == ["landed", "daily_quota"]
        night(desk, calendar, ("S0", "S1", "S2"), warehouse, LAST, morning)
        assert len(vendor.calls) == 2
        vendor.script = {}
        assert night(desk, calendar, ("S0", "S1", "S2"), warehouse, LAST, morning + timedelta(days=1)) == []

    def test_a_refused_key_fails_the_run_and_loses_nothing(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        vendor.script = {"S1": [notice("auth", "Error Message")]}
        with pytest.raises(KeyRefused, match="QUANT_ALPHA_VANTAGE_API_KEY") as caught:
            night(desk, calendar, ("S0", "S1", "S2"), warehouse, LAST)
        assert "PLANTEDKEY" not in str(caught.value)
        assert len(vendor.calls) == 2
        assert bars(warehouse)["symbol"].unique().to_list() == ["S0"]

    def test_what_was_received_and_not_landed_is_landed_without_a_call(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        night(desk, calendar, ("AAA", "BBB"), warehouse, LAST)
        vendor.calls.clear()
        anew = Warehouse(tmp_path / "anew" / "quant.duckdb", "alpha_vantage")
        assert night(desk, calendar, ("AAA", "BBB"), anew, LAST) == []
        assert vendor.calls == []
        assert bars(anew).equals(bars(warehouse))
        assert [row["request_id"] for row in ledger(anew)] == [row["request_id"] for row in ledger(warehouse)]

    def test_a_run_as_of_an_earlier_day_pays_for_the_later_ones(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        night(desk, calendar, ("AAA",), warehouse, date(2020, 3, 2), now=calendar.known_at(LAST))
        assert bars(warehouse)["session"].max() == date(2020, 3, 2)
        night(desk, calendar, ("AAA",), warehouse, LAST)
        assert bars(warehouse).rows() == true_bars("AAA", list(calendar.between(FIRST, LAST)))
        assert len(vendor.calls) == 1

    def test_the_row_of_a_session_that_goes_on_is_no_bar_today_nor_tomorrow(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        running = [*rows_of("AAA", calendar.between(FIRST, EARLIER)), (LAST, 1.0, 2.0, 0.5, 1.5, 1.5, 7, 0.0, 1.0)]
        vendor.script = {"AAA": [Reply(as_json("AAA", running)), Reply(as_json("AAA", rows_of("AAA", calendar.between(FIRST, LAST))))]}
        night(desk, calendar, ("AAA",), warehouse, EARLIER, now=calendar.close(LAST) - timedelta(hours=1))
        assert bars(warehouse)["session"].max() == EARLIER
        night(desk, calendar, ("AAA",), warehouse, LAST)
        assert bars(warehouse).rows() == true_bars("AAA", list(calendar.between(FIRST, LAST)))
        assert len(vendor.calls) == 2

    def test_a_damaged_payload_is_asked_for_again(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        night(desk, calendar, ("AAA",), warehouse, LAST)
        (payload,) = (tmp_path / "payloads").glob("??/*.gz")
        payload.write_bytes(b"damaged")
        anew = Warehouse(tmp_path / "anew" / "quant.duckdb", "alpha_vantage")
        night(desk, calendar, ("AAA",), anew, LAST)
        assert len(vendor.calls) == 2
        assert [row["status"] for row in ledger(anew)] == ["malformed", "landed"]
        assert bars(anew).height == 253

    def test_csv_that_two_symbols_got_is_believed_of_neither_until_json_says_whose_it_is(
        self, vendor: Vendor, desk: Settings, calendar: TradingCalendar, warehouse: Warehouse
    ) -> None:
        settings = desk.model_copy(update={"alpha_vantage_format": "csv"})
        other = Reply(as_csv(list(reversed(rows_of("AAA", calendar.between(FIRST, LAST))))))
        vendor.script = {"BBB": [other, Reply(as_json("AAA", rows_of("AAA", calendar.between(FIRST, LAST))))]}
        night(settings, calendar, ("BBB", "AAA"), warehouse, LAST)
        assert bars(warehouse).rows() == true_bars("AAA", list(calendar.between(FIRST, LAST)))
        assert [row["status"] for row in ledger(warehouse) if row["symbol"] == "BBB"] == ["malformed", "malformed"]
        assert [call["datatype"] for call in vendor.calls] == ["csv", "csv", "json", "json"]

    @pytest.mark.parametrize(
        ("changed", "universe", "remedy"),
        [
            ({"alpha_vantage_api_key": ""}, ("AAA",), "QUANT_ALPHA_VANTAGE_API_KEY: claim"),
            ({}, (), "QUANT_UNIVERSE"),
            ({"alpha_vantage_url": "ftp://vendor"}, ("AAA",), "QUANT_ALPHA_VANTAGE_URL"),
            ({"alpha_vantage_url": "nonsense"}, ("AAA",), "QUANT_ALPHA_VANTAGE_URL"),
        ],
    )
    def test_settings_that_cannot_be_used(
        self, vendor: Vendor, calendar: TradingCalendar, tmp_path: Path, changed: dict[str, str], universe: tuple[str, ...], remedy: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=remedy):
            AlphaVantageSource.from_settings(settings_for(vendor, tmp_path / "home", **changed), calendar, universe, datetime(2021, 1, 4))
        assert not (tmp_path / "home").exists()

    def test_an_address_with_and_without_a_path(self) -> None:
        for url in ("https://host/base", "https://host/base/", "https://host/base/query?x=1"):
            assert str(address_of(url)) == "https://host/base/query"

    def test_the_last_session_is_known_without_a_call(self, vendor: Vendor, desk: Settings, calendar: TradingCalendar) -> None:
        source = AlphaVantageSource.from_settings(desk, calendar, ("AAA",), calendar.known_at(LAST) - timedelta(minutes=1))
        assert source.last_session() == EARLIER
        assert vendor.calls == []
        assert "PLANTEDKEY" not in repr(source)


class TestSecrecy:
    def test_the_key_is_nowhere(
        self,
        vendor: Vendor,
        calendar: TradingCalendar,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """A vendor that echoes the key in every way it can, and a search through all that was kept, logged, printed and raised."""
        home = tmp_path / "home"
        settings = settings_for(vendor, home, alpha_vantage_api_key=KEY, vendor_timeout_seconds=2.0, vendor_attempts=1)
        echoes = {
            "JSON": json.dumps({"Information": f"We have detected your API key as {KEY} and our rate limit is 1 request per second."}),
            "HTML": f'<html><a href="/query?symbol=X&apikey={quote(KEY, safe="")}">again</a> {quote_plus(KEY).lower()} {KEY}</html>',
            "HTTP500": f"cannot serve /query?apikey={quote(KEY)}",
            "NOTE": json.dumps({"Note": f"unheard of: {KEY}"}).replace("/", "\\/"),
        }
        vendor.script = {
            **{symbol: [Reply(body, 500 if symbol == "HTTP500" else 200)] for symbol, body in echoes.items()},
            "SILENT": [Reply("", manner="silent")],
            "HALF": [Reply(echoes["HTML"], manner="cut")],
            "ZLAST": [Reply(json.dumps({"Error Message": f"{NOTICES['auth']} {KEY}"}))],
        }
        warehouse = Warehouse(home / "quant.duckdb", "alpha_vantage", home / "quant.read.duckdb")
        with caplog.at_level(logging.DEBUG), pytest.raises(KeyRefused) as caught:
            night(settings, calendar, ("GOOD", *vendor.script), warehouse, LAST)
        warehouse.refresh_read_copy()
        assert {call["apikey"] for call in vendor.calls} == {KEY}, "the vendor did get it"
        said = "".join(capfd.readouterr()) + caplog.text + repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__)
        kept = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
        kept |= {path.with_suffix(".plain"): gzip.decompress(body) for path, body in kept.items() if path.suffix == ".gz"}
        assert sum(b"[KEY]" in body for body in kept.values()) >= 4
        assert "HTTP Request: GET http://127.0.0.1/…" in caplog.text
        for form in {KEY, quote(KEY), quote(KEY, safe=""), quote_plus(KEY), KEY.replace("/", "\\/")}:
            assert form.lower() not in said.lower()
            assert [path for path, body in kept.items() if form.encode().lower() in body.lower()] == []

    def test_a_failing_command_does_not_say_it(self, vendor: Vendor, tmp_path: Path) -> None:
        vendor.script = {"AAA": [notice("auth", "Error Message")]}
        home = tmp_path / "home"
        settings = {"SOURCE": "alpha_vantage", "UNIVERSE": "AAA", "ALPHA_VANTAGE_API_KEY": KEY, "ALPHA_VANTAGE_URL": vendor.url}
        finished = command.run(home, "run", "--select", "group:market_data", **{f"QUANT_{name}": value for name, value in settings.items()})
        assert finished.returncode == 1, finished.stdout + finished.stderr
        assert "QUANT_ALPHA_VANTAGE_API_KEY" in finished.stdout + finished.stderr
        kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
        for form in (KEY, quote(KEY), quote(KEY, safe=""), quote_plus(KEY)):
            assert form not in finished.stdout + finished.stderr
            assert not any(form.encode() in body for body in kept)
