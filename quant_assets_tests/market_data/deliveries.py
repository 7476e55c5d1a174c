"""A vendor of daily archives from a few words: what it sends, and the nights that land it."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.files.archives import ArchivesSource
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import Landing, land
from quant_assets.schemas import TABLES
from quant_assets.warehouse import Warehouse, content_hash

COLUMNS = ("symbol", "date", "open", "high", "low", "close", "volume", "adj_close")
CLOCKS = ("recorded_at", "run_id", "batch_id", "request_id", "requested_at")


def pack(path: Path, members: Mapping[str, str | bytes]) -> Path:
    """Write a `.tar.gz` with these members; the same members make the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(tarred(members), mtime=0))
    return path


def tarred(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def csv_of(rows: Iterable[Mapping[str, object]], columns: Sequence[str] = COLUMNS, separator: str = ",") -> str:
    """Rows under a header that names the columns as they are."""
    lines = [separator.join(columns), *(separator.join(str(row[name]) for name in columns) for row in rows)]
    return "\n".join(lines) + "\n"


class Vendor:
    """Closes as traded, splits and dividends, and the archives that tell them: a day, the session before it re-based.

    A symbol has a bar on the sessions that `trades` gives it. Volumes and prices follow from the close, so that a test
    need only say what it is about; `changes` overrides single cells of single bars.
    """

    def __init__(self, folder: Path, calendar: TradingCalendar, digits: int = 6) -> None:
        self.folder, self.calendar, self.digits = folder, calendar, digits
        self.closes: dict[str, dict[date, float]] = {}
        self.splits: dict[tuple[str, date], float] = {}
        self.dividends: dict[tuple[str, date], float] = {}
        self.changes: dict[tuple[str, date], dict[str, object]] = {}
        self.listed: list[str] | None = None

    def trades(self, symbol: str, closes: Mapping[date, float]) -> None:
        self.closes.setdefault(symbol, {}).update(closes)

    def rows(self, day: date, symbols: Collection[str] | None = None, sessions: int = 2) -> list[dict[str, object]]:
        """What stands in the archive of a day: its bars, then those of the sessions before, adjusted as of that day."""
        told = list(self.calendar.between(min(self.calendar.sessions[0], day), day))[-sessions:]
        return [
            self.row(symbol, session, day)
            for symbol in self.closes
            if symbols is None or symbol in symbols
            for session in reversed(told)
            if session in self.closes[symbol]
        ]

    def row(self, symbol: str, session: date, day: date) -> dict[str, object]:
        close = self.closes[symbol][session]
        values = {"open": close, "high": round(close * 1.01, 4), "low": round(close * 0.99, 4), "close": close}
        adjusted = round(close / self.factor(symbol, session, day), self.digits)
        row = {"symbol": symbol, "date": session, **values, "volume": 1000 + round(close * 100), "adj_close": adjusted}
        return row | self.changes.get((symbol, session), {})

    def factor(self, symbol: str, session: date, day: date) -> float:
        """The factor of all actions after a session up to a day."""
        factor = 1.0
        history = sorted(self.closes[symbol])
        for ex in (later for later in history if session < later <= day):
            before = self.closes[symbol][history[history.index(ex) - 1]]
            ratio = self.splits.get((symbol, ex), 1.0)
            paid = self.dividends.get((symbol, ex), 0.0) * ratio
            factor *= ratio / (1 - paid / before if paid else 1.0)
        return factor

    def send(
        self, day: date, rows: Iterable[Mapping[str, object]] | None = None, name: str = "{:%Y%m%d}.tar.gz", folder: str = "", **form: Any
    ) -> Path:
        """Pack the archive of a day."""
        members = {
            f"{folder}prices.csv": csv_of(self.rows(day) if rows is None else rows, **form),
            f"{folder}reports.csv": "symbol,assets\n",
        }
        if self.listed is not None:
            members = {f"{folder}symbols.txt": "".join(f"{ticker}\tThe {ticker} Company\n" for ticker in self.listed)} | members
        return pack(self.folder / name.format(day), members)


class Nights:
    """A warehouse and the nights that land a folder of archives into it."""

    def __init__(self, folder: Path, calendar: TradingCalendar, warehouse: Warehouse, **settings: Any) -> None:
        self.folder, self.calendar, self.warehouse = folder, calendar, warehouse
        self.source = ArchivesSource(str(folder), calendar, **settings)

    def night(self, day: date) -> list[Landing]:
        """Land what was not landed of the deliveries up to a day."""
        as_of = self.source.delivered_at(day)
        holdings = StoredHoldings(self.warehouse, self.source.name)
        deliveries = self.source.deliveries(date.min, self.calendar.session_on_or_before(day), as_of, holdings)
        return [land(self.warehouse, delivery, self.calendar, as_of, "run") for delivery in deliveries]

    def read(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        return self.warehouse.read(sql, parameters or None).rows()

    def statuses(self) -> dict[str, str]:
        """The newest status of each archive."""
        return dict(self.read("select split_part(batch_id, '.', 1), status from market_data.fetch_ledger order by requested_at"))

    def details(self) -> dict[str, str]:
        """The newest detail of each archive."""
        return dict(self.read("select split_part(batch_id, '.', 1), detail from market_data.fetch_ledger order by requested_at"))

    def closes(self, symbol: str, as_of: datetime | None = None) -> dict[date, float]:
        bars = "market_data.latest_daily_bars" if as_of is None else "market_data.daily_bars_as_of($as_of)"
        asked = {"symbol": symbol} | ({} if as_of is None else {"as_of": as_of})
        return dict(self.read(f"select session, close from {bars} where symbol = $symbol order by session", **asked))

    def actions(self) -> list[tuple[str, date, str, float]]:
        return self.read("select symbol, session, kind, value from market_data.latest_corporate_actions order by all")

    def instruments(self) -> list[tuple[str, str, date, date | None]]:
        return self.read("select symbol, ticker, valid_from, valid_to from market_data.latest_instruments order by symbol")

    def hashes(self) -> dict[str, str]:
        """What the tables of this stage hold, but for ids and clocks."""
        with self.warehouse.connect() as connection:
            return {name: content_hash(connection, table, CLOCKS) for name, table in TABLES.items() if table.schema == "market_data"}


def another(warehouse: Warehouse, empty: Path, name: str) -> Warehouse:
    """A second empty warehouse beside one."""
    path = warehouse.path.with_name(f"{name}.duckdb")
    shutil.copyfile(empty, path)
    return Warehouse(path, warehouse.preferred_source, lock_timeout_seconds=10)
