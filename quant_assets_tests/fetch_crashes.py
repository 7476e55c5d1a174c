"""`kill -9` at a moment of fetching and landing, then run again: the harness of the crash test and the drill.

The vendor is a server in the test's own process, so that its count of calls survives every kill.
"""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from quant_assets.clock import trading_calendar
from quant_assets.market_data.fetching.replies import ReplyClass
from quant_assets.schemas import TABLES
from quant_assets.warehouse import Warehouse, content_hash
from quant_assets_tests import command
from quant_assets_tests.market_data.vendor import Vendor

FIRST, LAST = date(2020, 1, 2), date(2020, 12, 31)
CALENDAR = trading_calendar("XNYS", FIRST)
SECONDS_OF_A_REPLY = 0.05
WIDTH = 4
SCRIPT = """
from datetime import date
from quant_assets.clock import trading_calendar
from quant_assets.market_data.alpha_vantage import source as alpha_vantage
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import land
from quant_assets.market_data.universe import universe
from quant_assets.settings import load_settings
from quant_assets.warehouse import Warehouse

settings, first, last = load_settings(), date(2020, 1, 2), date(2020, 12, 31)
calendar = trading_calendar("XNYS", first)
as_of = calendar.known_at(last)
alpha_vantage.BATCH = 7  # so that landing and fetching alternate often
source = alpha_vantage.AlphaVantageSource.from_settings(settings, calendar, universe(settings), as_of)
warehouse = Warehouse(settings.warehouse_path, source.name, lock_timeout_seconds=30)
print("ready", flush=True)
for delivery in source.deliveries(first, last, as_of, StoredHoldings(warehouse, source.name)):
    land(warehouse, delivery, calendar, as_of, "run")
"""


@dataclass
class Desk:
    """One HOME whose runs ask a vendor for some symbols; `in_flight` counts the calls that kills caught without a reply on disk."""

    vendor: Vendor
    home: Path
    symbols: tuple[str, ...]
    in_flight: int = 0
    kills: int = 0
    payloads: set[str] = field(default_factory=set)

    def _start(self) -> subprocess.Popen[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        settings = {
            "QUANT_SOURCE": "alpha_vantage", "QUANT_UNIVERSE": ",".join(self.symbols), "QUANT_ALPHA_VANTAGE_API_KEY": "KEY",
            "QUANT_ALPHA_VANTAGE_URL": self.vendor.url, "QUANT_ALPHA_VANTAGE_CALLS_PER_SECOND": "0", "QUANT_ALPHA_VANTAGE_CALLS_PER_DAY": "0",
            "QUANT_VENDOR_CONCURRENCY": str(WIDTH),
        }  # fmt: skip
        environment = command.environment(self.home, **settings)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env=environment, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "ready\n", f"{said}{process.communicate()[1]}"
        return process

    def run_to_end(self) -> float:
        """Fetch and land everything, never asking again for what is on disk; returns how long it took."""
        kept, calls = self._symbols_on_disk(), len(self.vendor.calls)
        process = self._start()
        began = time.monotonic()
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
        assert kept.isdisjoint(call["symbol"] for call in self.vendor.calls[calls:]), "a call whose reply was on disk was repeated"
        self._look()
        return time.monotonic() - began

    def run_two_at_a_time(self) -> None:
        """Two runs on one HOME beside each other."""
        processes = [self._start(), self._start()]
        for process in processes:
            errors = process.communicate(timeout=120)[1]
            assert process.returncode == 0, errors
        self._look()

    def kill(self, delay: float) -> None:
        """Start a run and kill it so many seconds after it has begun to work."""
        kept, calls = self._symbols_on_disk(), len(self.vendor.calls)
        process = self._start()
        time.sleep(delay)
        process.kill()
        process.communicate()
        time.sleep(2 * SECONDS_OF_A_REPLY)  # until the vendor has answered what nobody hears any more
        self.kills += 1
        assert kept.isdisjoint(call["symbol"] for call in self.vendor.calls[calls:]), "a call whose reply was on disk was repeated"
        self._look()

    def _look(self) -> None:
        """Note what is on disk now: nothing that was there before may be gone."""
        found = self._payloads()
        assert self.payloads <= set(found), "a payload was lost"
        self.payloads = set(found)
        unheard = [request for request, result in self._requests().items() if result is None]
        received = {path.name.split(".")[0] for path in (self.home / "payloads" / "received").glob("*.gz")}
        self.in_flight += len(set(unheard) - received)

    def _payloads(self) -> dict[str, str]:
        """Symbol of each complete payload on disk, by its content."""
        bodies = [gzip.decompress(path.read_bytes()) for path in (self.home / "payloads").rglob("*.gz")]
        return {body.decode(): json.loads(body)["Meta Data"]["2. Symbol"] for body in bodies}

    def _symbols_on_disk(self) -> set[str]:
        return set(self._payloads().values())

    def _requests(self) -> dict[str, str | None]:
        """The class of each call that stands in the request ledger."""
        if not (self.home / "requests.sqlite").exists():
            return {}
        with closing(sqlite3.connect(self.home / "requests.sqlite")) as connection:
            try:
                return dict(connection.execute("select request_id, reply_class from requests"))
            except sqlite3.OperationalError:
                return {}  # killed before the table was made

    def tables(self) -> dict[str, str]:
        """A hash of each table but the ledger of what happened."""
        with Warehouse(self.home / "quant.duckdb", "alpha_vantage").connect() as connection:
            return {name: content_hash(connection, table) for name, table in TABLES.items() if name not in command.WHAT_HAPPENED}

    def check_recovered(self, undisturbed: dict[str, str]) -> None:
        """Run to the end: no call too many, no receipt missing, and the tables are those of an undisturbed run."""
        self.run_to_end()
        calls = [call["symbol"] for call in self.vendor.calls]
        assert set(calls) == set(self.symbols)
        assert len(calls) <= len(self.symbols) + self.in_flight, (
            f"{len(calls)} calls, {self.in_flight} were in flight at {self.kills} kills"
        )
        assert sorted(self._payloads().values()) == sorted(self.symbols)
        receipts = command.read(self.home, "alpha_vantage", "select request_id, reply_class from market_data.fetch_ledger")
        assert {row["request_id"]: row["reply_class"] for row in receipts} == self._requests()
        assert self.in_flight <= WIDTH * self.kills
        lost = sum(row["reply_class"] == ReplyClass.UNAVAILABLE for row in receipts)
        assert lost <= self.in_flight
        found = self.tables()
        assert not {name for name, content in undisturbed.items() if found[name] != content}


def delays(draw: random.Random, kills: int, seconds: float) -> list[float]:
    """Moments of a run that takes so long, for kills one after the other on one HOME: each run has less left to do."""
    return [draw.uniform(0.0, seconds / (number + 1)) for number in range(kills)]
