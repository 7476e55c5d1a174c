"""A vendor on loopback that counts its calls and answers as told, and the texts that the real one answers with."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tenacity import wait_none

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.alpha_vantage.source import AlphaVantageSource
from quant_assets.market_data.delivery import Owed
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import land
from quant_assets.settings import Settings, load_settings
from quant_assets.warehouse import Warehouse

NAMES = ("open", "high", "low", "close", "adjusted close", "volume", "dividend amount", "split coefficient")
THANKS = "Thank you for using Alpha Vantage! "
PLANS = "You may subscribe to any of the premium plans at https://www.alphavantage.co/premium/ to "
NOTICES = {
    "burst_limit": THANKS
    + "Please consider spreading out your free API requests more sparingly (1 request per second). "
    + PLANS
    + "lift the free key rate limit (25 requests per day), raise the per-second burst limit, and instantly unlock all premium endpoints",
    "daily_quota": THANKS
    + "Our standard API rate limit is 25 requests per day. Please subscribe to any of the premium plans at "
    + "https://www.alphavantage.co/premium/ to instantly remove all daily rate limits.",
    "entitlement": THANKS + "This is a premium endpoint. " + PLANS + "instantly unlock all premium endpoints",
    "no_full": THANKS
    + "The outputsize=full parameter value is a premium feature for the TIME_SERIES_DAILY endpoint. "
    + PLANS
    + "instantly unlock all premium features",
    "auth": "the parameter apikey is invalid or missing. Please claim your free API key on (https://www.alphavantage.co/support/#api-key). "
    + "It should take less than 20 seconds.",
    "invalid_request": "Invalid API call. Please retry or visit the documentation (https://www.alphavantage.co/documentation/) for TIME_SERIES_DAILY.",
}

Row = tuple[object, ...]


@dataclass(frozen=True)
class Reply:
    """What the vendor answers: `manner` is well, silent (nothing for as long as the test lasts) or cut (half of the body, then the end)."""

    body: str
    status: int = 200
    content_type: str = "application/json"
    manner: str = "well"


def notice(name: str, key: str = "Information") -> Reply:
    """One of the sentences above, as JSON."""
    return Reply(json.dumps({key: NOTICES[name]}))


def rows_of(symbol: str, sessions: Sequence[date]) -> list[Row]:
    """A series of its own for each symbol, oldest first: date, prices, adjusted close, volume, dividend and split."""
    base = 50.0 + sum(map(ord, symbol)) % 40
    return [
        (day, base + n / 8, base + n / 8 + 1, base + n / 8 - 1, base + n / 8 + 0.5, base / 2 + n / 8, 1000 + n, 0.0, 1.0)
        for n, day in enumerate(sessions)
    ]


def as_json(symbol: str, rows: Sequence[Row], names: Sequence[str] = NAMES) -> str:
    """Rows as the vendor's JSON, in the order given."""
    meta = {"1. Information": "Daily Prices (open, high, low, close) and Volumes", "2. Symbol": symbol, "5. Time Zone": "US/Eastern"}
    entries = (
        f"{json.dumps(str(day))}: {json.dumps({f'{n}. {name}': str(value) for n, (name, value) in enumerate(zip(names, values, strict=True), 1)})}"
        for day, *values in rows
    )
    return f'{{"Meta Data": {json.dumps(meta)}, "Time Series (Daily)": {{{", ".join(entries)}}}}}'


def as_csv(rows: Sequence[Row], names: Sequence[str] = NAMES) -> str:
    """Rows as the vendor's CSV, in the order given."""
    lines = [",".join(["timestamp", *(name.replace(" ", "_") for name in names)]), *(",".join(map(str, row)) for row in rows)]
    return "".join(f"{line}\r\n" for line in lines)


@dataclass
class Vendor:
    """The state of the server: `script` gives a symbol's next replies, then `refused` functions and the good series follow."""

    sessions: Sequence[date]
    script: dict[str, list[Reply]] = field(default_factory=dict)
    refused: dict[str, Reply] = field(default_factory=dict)
    calls: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    url: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def reply(self, query: dict[str, str]) -> Reply:
        if scripted := self.script.get(query["symbol"]):
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        for name in (query["function"], f"{query['function']} {query['outputsize']}"):
            if name in self.refused:
                return self.refused[name]
        sessions = self.sessions if query["outputsize"] == "full" else self.sessions[-100:]
        rows = list(reversed(rows_of(query["symbol"], self.sessions)))[: len(sessions)]
        if query["datatype"] == "csv":
            return Reply(as_csv(rows), content_type="application/x-download")
        return Reply(as_json(query["symbol"], rows))

    def asked(self) -> list[tuple[str, str, str]]:
        """Symbol, function and outputsize of each call, in order."""
        return [(call["symbol"], call["function"].removeprefix("TIME_SERIES_"), call["outputsize"]) for call in self.calls]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, vendor: Vendor) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.vendor = vendor

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # who was killed does not wait for an answer
            super().handle_error(request, client_address)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        vendor, query = self.server.vendor, dict(parse_qsl(urlsplit(self.path).query))
        vendor.calls.append(query)
        reply = vendor.reply(query)
        if vendor.seconds:
            time.sleep(vendor.seconds)
        if reply.manner == "silent":
            vendor.done.wait(20)
            self.close_connection = True
            return
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if reply.manner == "well" else body[: len(body) // 2])
        self.close_connection = reply.manner != "well"

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(sessions: Sequence[date]) -> Iterator[Vendor]:
    """The vendor at its address for as long as the block lasts."""
    vendor = Vendor(sessions)
    with _Server(vendor) as server:
        vendor.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield vendor
        finally:
            vendor.done.set()
            server.shutdown()
            thread.join()


def settings_for(vendor: Vendor, home: Path, **changed: object) -> Settings:
    """Settings of a desk that asks this vendor, without limits."""
    limits = {f"alpha_vantage_calls_per_{name}": 0 for name in ("second", "minute", "day")}
    own = {"source": "alpha_vantage", "alpha_vantage_api_key": "PLANTEDKEY", "alpha_vantage_url": vendor.url, "vendor_timeout_seconds": 10}
    return load_settings(**{"home": home, **own, **limits, **changed})


def night(
    settings: Settings,
    calendar: TradingCalendar,
    universe: Sequence[str],
    warehouse: Warehouse,
    last: date,
    now: datetime | None = None,
) -> list[Owed]:
    """Fetch and land what is missing up to a session, that evening or later (`now`); returns what is owed, raises the fault.

    There are no pauses between attempts.
    """
    as_of = calendar.known_at(last)
    start, began = now or as_of, time.monotonic()
    source = AlphaVantageSource.from_settings(settings, calendar, universe, start)
    source.backoff = wait_none()
    source.clock = lambda: start + timedelta(seconds=time.monotonic() - began)
    owed = []
    for delivery in source.deliveries(calendar.sessions[0], last, as_of, StoredHoldings(warehouse, source.name)):
        land(warehouse, delivery, calendar, as_of, "run")
        owed += [delivery.owed] if delivery.owed else []
        if delivery.fault:
            raise delivery.fault
    return owed
