"""Yahoo through the real yfinance, against a server on loopback that divides by splits as Yahoo does."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.delivery import Delivery
from quant_assets.market_data.fetching.payloads import PayloadStore
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import land
from quant_assets.market_data.sources import make_source
from quant_assets.market_data.yahoo import source as module
from quant_assets.market_data.yahoo.chart import MalformedReply, read_chart, undo_splits, yahoo_symbol
from quant_assets.market_data.yahoo.client import YahooClient, classify
from quant_assets.market_data.yahoo.source import YahooSource
from quant_assets.settings import load_settings
from quant_assets.warehouse import Warehouse

DATA = Path(__file__).parents[4] / "shared" / "data"
D1, D2, D3, D4, D5 = (date(2020, 3, day) for day in (2, 3, 4, 5, 6))
D6, D7, D8 = (date(2020, 3, day) for day in (9, 10, 11))
PRICES = ("open", "high", "low", "close")


def single(value: float) -> float:
    """As a 32-bit float, which is what Yahoo's prices are."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


@dataclass
class Listing:
    """What a symbol was traded at, from which Yahoo's chart follows; `meta` and `edit` change the chart as delivered."""

    closes: dict[date, float | None]
    splits: dict[date, float] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    volume: float = 7_000_000.0
    zone: str = "America/New_York"
    meta: dict[str, Any] = field(default_factory=dict)
    edit: Callable[[dict[str, Any]], object] = lambda chart: None

    def stamp(self, day: date, opens: time = time(9, 30)) -> int:
        return int(datetime.combine(day, opens, ZoneInfo(self.zone)).timestamp())

    def chart(self, symbol: str, start: int = 0, end: int = 2**40) -> dict[str, Any]:
        """Everything from one time stamp to another, divided by the splits since, rounded as Yahoo rounds."""
        days = [day for day in sorted(self.closes) if start <= self.stamp(day) < end]
        since = {day: prod(ratio for ex, ratio in self.splits.items() if ex > day) for day in {*days, *self.dividends}}
        quote: dict[str, list[float | None]] = {name: [] for name in (*PRICES, "volume")}
        for day in days:
            close = self.closes[day]
            for name, shift in zip(PRICES, (0, 1, -1, 0), strict=True):
                quote[name].append(None if close is None else single((close + shift) / since[day]))
            quote["volume"].append(None if close is None else round(self.volume * since[day]))
        dividends = {day: {"amount": round(paid / since[day], 6), "date": self.stamp(day)} for day, paid in self.dividends.items()}
        splits = {day: {"date": self.stamp(day), "numerator": ratio, "denominator": 1} for day, ratio in self.splits.items()}
        events = {
            kind: {str(event["date"]): event for event in found.values() if start <= event["date"] < end}
            for kind, found in (("dividends", dividends), ("splits", splits))
        }
        chart = {
            "meta": {"currency": "USD", "symbol": symbol, "exchangeTimezoneName": self.zone, "instrumentType": "EQUITY", **self.meta},
            "timestamp": [self.stamp(day) for day in days],
            "events": {kind: found for kind, found in events.items() if found},
            "indicators": {"quote": [quote], "adjclose": [{"adjclose": [close and close * 0.5 for close in quote["close"]]}]},
        }
        self.edit(chart)
        return chart


def body(chart: dict[str, Any]) -> bytes:
    return json.dumps({"chart": {"result": [chart], "error": None}}).encode()


NOT_FOUND = json.dumps({"chart": {"result": None, "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"}}})


class Yahoo(ThreadingHTTPServer):
    """Yahoo's hosts, each under its name as the first part of the path; `faults` are statuses and bodies that a symbol gets instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.listings: dict[str, Listing] = {}
        self.faults: dict[str, list[tuple[int, str]]] = {}
        self.asked: list[tuple[str, date]] = []
        self.elsewhere: list[str] = []

    @property
    def symbols(self) -> list[str]:
        return [symbol for symbol, _ in self.asked]


class Answer(BaseHTTPRequestHandler):
    server: Yahoo

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        host, _, path = parts.path.lstrip("/").partition("/")
        if not path.startswith("v8/finance/chart/"):
            self.server.elsewhere.append(host)
            self.reply(200, "crumb" if path.endswith("getcrumb") else "<form></form>")
            return
        symbol, query = unquote(path.rpartition("/")[2]), parse_qs(parts.query)
        start, end = int(query["period1"][0]), int(query["period2"][0])
        self.server.asked.append((symbol, datetime.fromtimestamp(start, UTC).date()))
        if fault := self.server.faults.get(symbol):
            self.reply(*(fault.pop(0) if len(fault) > 1 else fault[0]))
        elif listing := self.server.listings.get(symbol):
            self.reply(200, body(listing.chart(symbol, start, end)).decode())
        else:
            self.reply(404, NOT_FOUND)

    def reply(self, status: int, text: str) -> None:
        """A status below 0 is a body cut in half."""
        content = text.encode()
        self.send_response(abs(status))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if status < 0 else content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Yahoo]:
    with Yahoo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def yahoo(server: Yahoo) -> Yahoo:
    server.listings, server.faults, server.asked, server.elsewhere = {}, {}, [], []
    return server


class Desk:
    """A warehouse, and nights that land what Yahoo has then; all that yfinance asks goes to the server on loopback."""

    def __init__(self, yahoo: Yahoo, warehouse: Warehouse, calendar: TradingCalendar, folder: Path) -> None:
        self.yahoo, self.warehouse, self.calendar, self.payloads = yahoo, warehouse, calendar, PayloadStore(folder / "payloads")
        self.folder, self.sleeps, self.first, self.options = folder, list[float](), D1, dict[str, Any]()

    def connect(self) -> YahooClient:
        from curl_cffi import requests
        from yfinance.data import SingletonMeta, YfData

        address = f"http://127.0.0.1:{self.yahoo.server_address[1]}"

        class Loopback(requests.Session):  # type: ignore[misc]
            def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
                return super().request(method, f"{address}/{url.partition('://')[2]}", *args, **options)

        SingletonMeta._instances.pop(YfData, None)  # the library keeps one connection per process, with its cookie
        return YahooClient(self.folder / "yfinance", 5.0, 3, session=Loopback(), sleep=self.sleeps.append)

    def source(self, night: date, *universe: str) -> YahooSource:
        return YahooSource(universe, self.calendar, self.calendar.known_at(night), self.connect, self.payloads, **self.options)

    def deliveries(self, night: date, *universe: str) -> Iterator[Delivery]:
        as_of = self.calendar.known_at(night)
        for delivery in self.source(night, *universe).deliveries(self.first, night, as_of, StoredHoldings(self.warehouse, "yahoo")):
            land(self.warehouse, delivery, self.calendar, as_of, "run")
            yield delivery

    def night(self, night: date, *universe: str) -> Delivery:
        (delivery,) = self.deliveries(night, *universe)
        return delivery

    def bars(self, columns: str = "symbol, session, close") -> list[tuple[Any, ...]]:
        return self.warehouse.read(f"select {columns} from market_data.daily_bars order by symbol, session, known_at").rows()

    def actions(self) -> list[tuple[Any, ...]]:
        return self.warehouse.read(
            "select symbol, session, kind, value from market_data.corporate_actions order by symbol, session, kind, known_at"
        ).rows()


@pytest.fixture
def desk(yahoo: Yahoo, open_warehouse: Warehouse, calendar: TradingCalendar, tmp_path: Path) -> Desk:
    return Desk(yahoo, open_warehouse, calendar, tmp_path)


def receipts(delivery: Delivery, *columns: str) -> list[tuple[Any, ...]]:
    return delivery.receipts.sort("symbol").select("symbol", *columns).rows()


class TestRegression:
    def test_a_seven_for_one_split_is_undone(self, desk: Desk) -> None:
        apple = Listing({D1: 644.82, D2: 647.35, D3: 645.57, D4: 93.7, D5: 94.25}, {D4: 7.0}, {D2: 3.29, D5: 0.47})
        desk.yahoo.listings["AAPL"] = apple
        assert apple.chart("AAPL")["indicators"]["quote"][0]["close"][2] == pytest.approx(92.224286, abs=5e-6)  # 645.57 / 7
        delivery = desk.night(D5, "AAPL")
        assert desk.bars("session, open, high, low, close, volume, basis") == [
            (D1, 644.82, 645.82, 643.82, 644.82, 7_000_000.0, "raw"),
            (D2, 647.35, 648.35, 646.35, 647.35, 7_000_000.0, "raw"),
            (D3, 645.57, 646.57, 644.57, 645.57, 7_000_000.0, "raw"),
            (D4, 93.7, 94.7, 92.7, 93.7, 7_000_000.0, "raw"),
            (D5, 94.25, 95.25, 93.25, 94.25, 7_000_000.0, "raw"),
        ]
        assert desk.actions() == [("AAPL", D2, "dividend", 3.29), ("AAPL", D4, "split", 7.0), ("AAPL", D5, "dividend", 0.47)]
        assert delivery.bars["adj_close"].to_list()[0] == pytest.approx(644.82 / 7 / 2)
        ((_, status, reply_class, rows, detail),) = receipts(delivery, "status", "reply_class", "rows", "detail")
        assert (status, reply_class, rows) == ("landed", "data", 5)
        assert detail == "AAPL from 2020-03-02 to 2020-03-06: rows 5, bars 5, of these not held before 5; undone splits: 7 on 2020-03-05."
        assert delivery.owed is None

    def test_the_payload_is_kept_as_received_and_parses_again(self, desk: Desk) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0})
        delivery = desk.night(D1, "AAPL")
        chart = read_chart(desk.payloads.read(delivery.receipts["payload_sha256"].item()), "AAPL")
        assert chart.rows["close"].to_list() == [10.0]

    def test_a_later_split_changes_no_stored_version(self, desk: Desk) -> None:
        for symbol, ratio, last in (("FORWARD", 7.0, 2999.99), ("ODD", 1.5, 88.01), ("MERGED", 0.1, 0.99)):
            prices: dict[date, float | None] = {D1: round(last * 1.03, 2), D2: round(last * 0.98, 2), D3: last}
            desk.yahoo.listings[symbol] = Listing(dict(prices), dividends={D2: 0.4625}, volume=1_234_567.0)
            desk.yahoo.listings[f"{symbol}2"] = Listing(prices | {D4: last / ratio}, {D4: ratio}, {D2: 0.4625}, 1_234_567.0)
        universe = ("FORWARD", "ODD", "MERGED")
        desk.night(D3, *universe)
        before, actions = desk.bars("* exclude (recorded_at)"), desk.actions()
        for symbol in universe:
            desk.yahoo.listings[symbol] = desk.yahoo.listings.pop(f"{symbol}2")
        delivery = desk.night(D4, *universe)
        assert set(desk.bars("* exclude (recorded_at)")) >= set(before)
        assert [(symbol, session) for symbol, session, _ in desk.bars() if session > D3] == [(symbol, D4) for symbol in sorted(universe)]
        assert len(desk.bars()) == len(before) + 3
        assert set(desk.actions()) - set(actions) == {
            ("FORWARD", D4, "split", 7.0),
            ("ODD", D4, "split", 1.5),
            ("MERGED", D4, "split", 0.1),
        }
        assert len(desk.actions()) == len(actions) + 3
        assert delivery.bars.filter(pl.col("session") < D4)["symbol"].unique().sort().to_list() == ["FORWARD", "ODD"]

    def test_a_run_with_nothing_new_asks_and_writes_nothing(self, desk: Desk) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0, D2: 11.0, D3: 12.0})
        desk.night(D2, "AAPL")
        before = desk.bars("*")
        assert list(desk.deliveries(D2, "AAPL")) == []
        assert desk.yahoo.symbols == ["AAPL"]
        assert desk.bars("*") == before

    def test_what_is_lacking_is_asked_with_an_overlap_and_a_restatement_is_seen(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "OVERLAP", 2)
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0, D2: 11.0, D3: 12.0})
        desk.night(D3, "AAPL")
        desk.yahoo.listings["AAPL"].closes |= {D1: 1.0, D2: 11.5, D4: 13.0}
        delivery = desk.night(D4, "AAPL")
        assert desk.yahoo.asked == [("AAPL", D1 - timedelta(days=1)), ("AAPL", D2 - timedelta(days=1))]
        assert desk.bars() == [("AAPL", D1, 10.0), ("AAPL", D2, 11.0), ("AAPL", D2, 11.5), ("AAPL", D3, 12.0), ("AAPL", D4, 13.0)]
        assert "bars 3, of these not held before 1" in delivery.receipts["detail"].item()

    def test_the_stalest_come_first_and_a_longer_history_is_asked_once(self, desk: Desk) -> None:
        desk.options = {"concurrency": 1}
        desk.yahoo.listings = {name: Listing({D2: 10.0, D3: 10.0}) for name in ("AAA", "BBB", "CCC")}
        desk.first = D2
        desk.night(D2, "BBB")
        desk.night(D3, "AAA")
        desk.yahoo.asked.clear()
        desk.night(D3, "AAA", "BBB", "CCC")
        assert desk.yahoo.symbols == ["CCC", "BBB"]
        desk.first = D1
        desk.night(D3, "AAA")
        assert receipts(desk.night(D3, "AAA", "BBB"), "status") == [("BBB", "unchanged")]
        assert list(desk.deliveries(D3, "AAA", "BBB")) == []

    def test_sessions_without_a_price_are_rejected(self, desk: Desk) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0, D2: None, D3: 12.0})
        delivery = desk.night(D3, "AAPL")
        assert [session for _, session, _ in desk.bars()] == [D1, D3]
        assert delivery.rejected.rows() == [("chart/AAPL", 2, "close", None, "Yahoo has no close of this session")]
        assert receipts(delivery, "status") == [("AAPL", "partial")]
        desk.yahoo.listings["AAPL"].closes |= {D2: 11.0, D4: 13.0}
        assert desk.night(D4, "AAPL").rejected.is_empty()
        assert [session for _, session, _ in desk.bars()] == [D1, D2, D3, D4]

    def test_no_session_of_the_calendar_and_out_of_scope(self, desk: Desk) -> None:
        saturday = date(2020, 3, 7)
        desk.first = D2
        desk.yahoo.listings["AAPL"] = Listing({D1: 9.0, D5: 10.0, saturday: 11.0, D6: 12.0, D7: 13.0}, dividends={saturday: 0.5, D7: 0.7})
        delivery = desk.night(D6, "AAPL")
        assert [session for _, session, _ in desk.bars()] == [D5, D6]
        assert desk.actions() == []
        assert delivery.rejected.select("line", "value", "reason").rows() == [
            (3, "2020-03-07", "is no session of XNYS"),
            (6, "dividend of 0.5 on 2020-03-07", "its date is no session of XNYS"),
        ]
        assert "rows 5, bars 2, of these not held before 2, rejected 1, outside the asked span 2" in delivery.receipts["detail"].item()

    def test_a_run_as_of_the_past_sees_nothing_of_what_came_later_but_undoes_it(self, desk: Desk) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 700.0, D2: 707.0, D3: 101.0}, {D3: 7.0}, {D3: 1.0})
        source = desk.source(D3, "AAPL")
        (delivery,) = source.deliveries(D1, D2, desk.calendar.known_at(D2), StoredHoldings(desk.warehouse, "yahoo"))
        assert delivery.bars["close"].to_list() == [700.0, 707.0]
        assert delivery.actions.is_empty()
        assert source.last_session() == D3

    def test_the_date_is_the_exchanges(self, desk: Desk) -> None:
        desk.yahoo.listings["BHP.AX"] = Listing({D2: 30.0}, zone="Australia/Sydney")  # opens on the evening before in UTC
        midnight = Listing({}, zone="Europe/London")
        midnight.edit = lambda chart: chart.update(
            body_at(midnight.stamp(D2, time(23, 0)), 1.11)
        )  # an hour early after a change to summer time
        desk.yahoo.listings["EURUSD=X"] = midnight
        desk.night(D3, "BHP.AX", "EURUSD=X")
        assert desk.bars() == [("BHP.AX", D2, 30.0), ("EURUSD=X", D3, 1.11)]

    @pytest.mark.parametrize(("symbol", "unit", "currency"), [("VOD.L", "GBp", "GBP"), ("KEN.TA", "ILA", "ILS"), ("SSW.JO", "ZAc", "ZAR")])
    def test_minor_units_become_major_ones(self, desk: Desk, symbol: str, unit: str, currency: str) -> None:
        desk.yahoo.listings[symbol] = Listing({D1: 9632.0, D2: 9640.0}, dividends={D2: 412.5}, meta={"currency": unit})
        delivery = desk.night(D2, symbol)
        assert desk.bars("session, open, high, low, close, round(adj_close, 9), volume")[0] == (D1, 96.32, 96.33, 96.31, 96.32, 48.16, 7e6)
        assert desk.actions() == [(symbol, D2, "dividend", 4.125)]
        assert f"prices and dividends come in {unit} and are stored in {currency}, 1/100 of it" in delivery.receipts["detail"].item()

    def test_a_dividend_in_another_currency_is_rejected_unless_it_is_the_same_money(self, desk: Desk) -> None:
        def pay(chart: dict[str, Any]) -> None:
            for event, currency in zip(chart["events"]["dividends"].values(), ("GBP", "USD", ""), strict=True):
                event["currency"] = currency

        desk.yahoo.listings["AV.L"] = Listing(
            {D1: 400.0, D2: 400.0, D3: 400.0}, dividends={D1: 0.1, D2: 0.2, D3: 30.0}, meta={"currency": "GBp"}, edit=pay
        )
        delivery = desk.night(D3, "AV.L")
        assert desk.actions() == [("AV.L", D1, "dividend", 0.1), ("AV.L", D3, "dividend", 0.3)]
        ((value, reason),) = delivery.rejected.select("value", "reason").rows()
        assert value == "dividend of 0.2 USD on 2020-03-03"
        assert "another currency" in reason

    def test_a_split_of_a_session_without_a_bar_counts_for_the_sessions_before(self, desk: Desk) -> None:
        desk.yahoo.listings["HALT"] = Listing({D1: 100.0, D2: 100.0, D4: 50.0}, {D3: 2.0})
        desk.night(D4, "HALT")
        assert desk.bars() == [("HALT", D1, 100.0), ("HALT", D2, 100.0), ("HALT", D4, 50.0)]
        assert desk.actions() == [("HALT", D3, "split", 2.0)]

    def test_a_split_that_yahoo_has_not_carried_through_lets_nothing_false_in(self, desk: Desk) -> None:
        def forget(chart: dict[str, Any]) -> None:
            quote = chart["indicators"]["quote"][0]
            for name in PRICES:
                quote[name] = [value * 7 if n < 2 else value for n, value in enumerate(quote[name])]

        listing = Listing({D1: 700.0, D2: 707.0, D3: 101.0}, {D3: 7.0}, {D2: 3.0}, edit=forget)
        desk.yahoo.listings["AAPL"] = listing
        delivery = desk.night(D3, "AAPL")
        assert desk.bars() == [("AAPL", D3, 101.0)]
        assert (
            delivery.rejected["reason"].to_list()
            == [
                "what it was on its day cannot be known: Yahoo lists a split of 7 on 2020-03-04, but its prices still go from 707 to 101 there"
            ]
            * 3
        )
        listing.edit = lambda chart: None
        desk.night(D3, "AAPL")  # asks again, for the history is lacking
        assert list(desk.deliveries(D3, "AAPL")) == []
        assert desk.bars() == [("AAPL", D1, 700.0), ("AAPL", D2, 707.0), ("AAPL", D3, 101.0)]

    def test_share_classes_are_asked_as_yahoo_spells_them_and_kept_as_ours(self, desk: Desk) -> None:
        desk.yahoo.listings = {"BRK-B": Listing({D1: 210.0}), "^GSPC": Listing({D1: 3000.0})}
        desk.night(D1, "BRK.B", "^GSPC")
        assert sorted(desk.yahoo.symbols) == ["BRK-B", "^GSPC"]
        assert desk.bars() == [("BRK.B", D1, 210.0), ("^GSPC", D1, 3000.0)]
        assert list(desk.deliveries(D1, "BRK.B", "^GSPC")) == []

    @pytest.mark.parametrize(
        ("ours", "yahoos"),
        [("BRK.B", "BRK-B"), ("BF.A", "BF-A"), ("LGF.A", "LGF-A"), ("VOD.L", "VOD.L"), ("7203.T", "7203.T"), ("SAP.F", "SAP.F"), ("NXE.V", "NXE.V")]
        + [(same, same) for same in ("AAPL", "^GSPC", "EURUSD=X", "ES=F", "BTC-USD", "KEN.TA", "SSW.JO", "0700.HK", "BRK-B", "SSE.2", "A.B.C", "X.")],
    )  # fmt: skip
    def test_how_yahoo_spells(self, ours: str, yahoos: str) -> None:
        assert yahoo_symbol(ours) == yahoos

    def test_an_unknown_symbol_is_a_receipt_with_yahoos_words(self, desk: Desk) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0})
        delivery = desk.night(D1, "AAPL", "GONE")
        (_, landed, _), (_, status, detail) = receipts(delivery, "status", "detail")
        assert (landed, status, delivery.owed) == ("landed", "failed", None)
        assert detail.startswith("GONE from 2020-03-02 to 2020-03-02: 404: No data found, symbol may be delisted. check how")
        assert desk.yahoo.symbols.count("GONE") == 2  # the library tries once more with another cookie

    def test_a_limit_ends_the_run_and_the_next_one_goes_on(self, desk: Desk) -> None:
        desk.options = {"concurrency": 1, "chunk": 2}
        universe = ("AAA", "BBB", "CCC", "DDD", "EEE")
        desk.yahoo.listings = {name: Listing({D1: 10.0, D2: 11.0}) for name in universe}
        desk.yahoo.faults["CCC"] = [(429, "Too Many Requests")]
        first, second = desk.deliveries(D2, *universe)
        assert first.owed is None
        assert receipts(second, "status", "reply_class") == [("CCC", "failed", "burst_limit")]
        assert second.owed is not None
        assert (second.owed.symbols, second.owed.sessions) == (3, 6)
        assert "limits our calls" in second.owed.reason
        assert set(desk.yahoo.symbols) == {"AAA", "BBB", "CCC"}
        desk.yahoo.faults.clear()
        desk.yahoo.asked.clear()
        *_, last = desk.deliveries(D2, *universe)
        assert desk.yahoo.symbols == ["CCC", "DDD", "EEE"]
        assert last.owed is None
        assert len(desk.bars()) == 10

    def test_what_can_heal_is_tried_again(self, desk: Desk) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0})
        desk.yahoo.faults["AAPL"] = [(500, "oops")] * 4 + [(200, body(desk.yahoo.listings["AAPL"].chart("AAPL")).decode())]
        assert receipts(desk.night(D1, "AAPL"), "status") == [("AAPL", "landed")]
        assert 0.5 <= desk.sleeps[0] <= 1.0 <= desk.sleeps[1] <= 1.5

    def test_silence_ends_the_run(self, desk: Desk) -> None:
        desk.options = {"concurrency": 1}
        universe = [f"S{n}" for n in range(9)]
        desk.yahoo.faults = {symbol: [(503, "down")] for symbol in universe}
        delivery = desk.night(D1, *universe)
        assert len(set(desk.yahoo.symbols)) == module.PATIENCE
        assert delivery.owed is not None
        assert (delivery.owed.symbols, delivery.owed.sessions) == (9, 9)
        assert "did not answer for 5 symbols in a row" in delivery.owed.reason

    @pytest.mark.parametrize(
        ("status", "text", "reply_class", "owed"),
        [
            (200, "<html>Will be right back...</html>", "unavailable", True),
            (200, "<html>consent</html>", "malformed", False),
            (200, "{}", "malformed", False),
            (200, "", "malformed", False),
            (200, '{"chart": {"result": [], "error": null}}', "malformed", False),
            (200, '{"chart": {"result": [{"meta": {"symbol": "AAPL"}}], "error": null}}', "malformed", False),
            (-200, NOT_FOUND, "unavailable", True),
            (500, "oops", "unavailable", True),
            (401, '{"finance": {"error": {"code": "Unauthorized", "description": "Invalid Crumb"}}}', "auth", True),
            (400, '{"chart": {"result": null, "error": {"code": "Bad Request", "description": "Data doesn\'t exist"}}}', "invalid_request", False),
            (200, NOT_FOUND, "unknown_symbol", False),
        ],
    )  # fmt: skip
    def test_each_refusal_ends_in_the_ledger(self, desk: Desk, status: int, text: str, reply_class: str, owed: bool) -> None:
        desk.yahoo.faults["AAPL"] = [(status, text)]
        delivery = desk.night(D1, "AAPL")
        assert receipts(delivery, "status", "reply_class") == [("AAPL", "failed", reply_class)]
        assert (delivery.owed is not None) is owed
        assert desk.warehouse.read("select status, reply_class from market_data.fetch_ledger").rows() == [("failed", reply_class)]
        assert desk.bars() == []

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (lambda chart: chart["meta"].update(symbol="MSFT"), "the reply is about MSFT, asked was AAPL"),
            (lambda chart: chart["timestamp"].pop(), "1 time stamps"),
            (lambda chart: chart["meta"].update(exchangeTimezoneName="No/Where"), "no daily chart"),
            (lambda chart: chart["indicators"]["quote"][0].update(close=["x", "y"]), "no daily chart"),
            (lambda chart: chart["events"].update(splits={"1": {"date": 1, "numerator": 1, "denominator": 0}}), "no daily chart"),
        ],
    )
    def test_a_reply_that_cannot_be_right_lands_nothing(self, desk: Desk, edit: Callable[[dict[str, Any]], object], words: str) -> None:
        desk.yahoo.listings["AAPL"] = Listing({D1: 10.0, D2: 11.0}, edit=edit)
        delivery = desk.night(D2, "AAPL")
        assert receipts(delivery, "status", "reply_class") == [("AAPL", "failed", "malformed")]
        assert words in delivery.receipts["detail"].item()
        assert desk.bars() == []

    def test_descending_and_repeated_rows(self, desk: Desk) -> None:
        listing = Listing({D1: 10.0, D2: 11.0, D3: 12.0, D4: 13.0})

        def disturb(chart: dict[str, Any]) -> None:
            columns = [chart["timestamp"], *chart["indicators"]["quote"][0].values(), chart["indicators"]["adjclose"][0]["adjclose"]]
            for column in columns:
                column[:] = [*column[:2], column[1], *column[2:], column[3]]  # D2 twice alike, D4 twice
                column.reverse()
            chart["timestamp"][0] += 60  # D4's later row, with another close
            chart["indicators"]["quote"][0]["close"][0] = 13.5

        listing.edit = disturb
        desk.yahoo.listings["AAPL"] = listing
        delivery = desk.night(D4, "AAPL")
        assert desk.bars() == [("AAPL", D1, 10.0), ("AAPL", D2, 11.0), ("AAPL", D3, 12.0), ("AAPL", D4, 13.5)]
        assert delivery.rejected["reason"].to_list() == [
            "a later row repeats this session",
            "a later row gives this session as it was settled",
        ]

    def test_without_a_universe_or_with_one_symbol_twice(self, calendar: TradingCalendar) -> None:
        now = calendar.known_at(D1)
        with pytest.raises(ConfigurationError, match="needs QUANT_UNIVERSE"):
            YahooSource.from_settings(load_settings(source="yahoo"), calendar, (), now)
        with pytest.raises(ConfigurationError, match=r"BRK\.B and BRK-B, which are both BRK-B at Yahoo"):
            YahooSource.from_settings(load_settings(source="yahoo"), calendar, ("BRK.B", "BRK-B"), now)
        source = make_source(load_settings(source="yahoo", universe="AAPL,BRK.B"), calendar, now)
        assert isinstance(source, YahooSource)
        assert (source.name, source.live, source.universe, source.last_session()) == ("yahoo", True, ("AAPL", "BRK.B"), D1)

    def test_without_the_library(self, calendar: TradingCalendar, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        with pytest.raises(ConfigurationError, match=r"pip install 'quant-assets\[yahoo\]'"):
            YahooSource.from_settings(load_settings(source="yahoo"), calendar, ("AAPL",), calendar.known_at(D1))

    def test_the_library_is_loaded_when_asked_only(self) -> None:
        code = "import sys, quant_assets.market_data.yahoo.source; print(sorted({'yfinance', 'curl_cffi', 'pandas'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"

    @pytest.mark.skipif(not (DATA / "stocknet_88").is_dir(), reason="the real Yahoo series of ../shared/data are not here")
    def test_apples_real_series_comes_out_as_traded_in_2014(self, desk: Desk) -> None:
        rows = pl.read_csv(DATA / "stocknet_88" / "AAPL.csv", try_parse_dates=True).filter(pl.col("Date").dt.year().is_in([2012, 2014]))
        real = Listing({}, {date(2014, 6, 9): 7.0}, {})
        real.edit = lambda chart: chart.update(
            timestamp=[real.stamp(day) for day in rows["Date"]],
            indicators={
                "quote": [{name: rows[name.title()].to_list() for name in (*PRICES, "volume")}],
                "adjclose": [{"adjclose": rows["Adj Close"].to_list()}],
            },
            events={"splits": {"1": {"date": real.stamp(date(2014, 6, 9)), "numerator": 7, "denominator": 1}}},
        )
        desk.yahoo.listings["AAPL"] = real
        desk.calendar, desk.first = trading_calendar("XNYS", date(2012, 1, 3)), date(2012, 1, 3)
        delivery = desk.night(date(2014, 12, 31), "AAPL")
        closes = dict(delivery.bars.select("session", "close").rows())
        known = {date(2012, 9, 4): 674.97, date(2012, 9, 19): 702.10, date(2014, 6, 6): 645.57, date(2014, 6, 9): 93.7}
        assert {session: closes[session] for session in known} == known
        assert (delivery.bars.height, delivery.rejected.height) == (rows.height, 0)


def body_at(stamp: int, price: float) -> dict[str, Any]:
    """A chart's series of one row at a time stamp, without volume and adjusted close."""
    quote = {name: [price] for name in PRICES} | {"volume": [None]}
    return {"timestamp": [stamp], "indicators": {"quote": [quote]}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["chart", "result", "meta", "symbol", "events"]), inner),
)


class TestProperties:
    @settings(max_examples=100, deadline=None)
    @given(
        cents=st.lists(st.integers(1, 2_000_000), min_size=2, max_size=8),
        volume=st.integers(0, 10**9),
        splits=st.dictionaries(st.integers(1, 7), st.sampled_from([2.0, 3.0, 1.5, 7.0, 20.0, 1.25, 4.0]), max_size=3),
    )
    def test_undoing_splits_gives_back_what_was_traded(self, cents: Sequence[int], volume: int, splits: dict[int, float]) -> None:
        days = [D1 + timedelta(days=n) for n in range(len(cents))]
        closes: dict[date, float | None] = {day: cent / 100 for day, cent in zip(days, cents, strict=True)}
        listing = Listing(closes, {days[at]: ratio for at, ratio in splits.items() if at < len(days)}, volume=float(volume))
        rows = undo_splits(read_chart(body(listing.chart("AAPL")), "AAPL")).rows
        assert rows["close"].to_list() == [cent / 100 for cent in cents]
        assert rows["volume"].to_list() == [float(volume)] * len(days)

    @settings(max_examples=200, deadline=None)
    @given(content=JSON.map(json.dumps) | JSON.map(body) | st.text() | st.binary())  # type: ignore[arg-type]
    def test_any_body_is_classified_and_read_or_refused(self, content: str | bytes) -> None:
        received = content if isinstance(content, bytes) else content.encode("utf-8", errors="replace")
        reply_class, _ = classify(200, received)
        if reply_class == "data":
            with pytest.raises(MalformedReply):
                read_chart(received, "AAPL")

    @given(symbol=st.text(st.sampled_from("ABFLTV019.-^="), max_size=8))
    def test_spelling_is_settled_after_once(self, symbol: str) -> None:
        assert yahoo_symbol(yahoo_symbol(symbol)) == yahoo_symbol(symbol)
