"""The source `yahoo`: what symbols lack is asked of Yahoo's daily charts, the stalest first, and stored as traded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from importlib.util import find_spec
from threading import Lock
from uuid import uuid4

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.delivery import RECEIPTS, Delivery, Holdings, Owed
from quant_assets.market_data.fetching.payloads import PayloadStore
from quant_assets.market_data.fetching.replies import ReplyClass
from quant_assets.market_data.yahoo.chart import yahoo_symbol
from quant_assets.market_data.yahoo.client import HEALS, Reply, YahooClient
from quant_assets.market_data.yahoo.reading import Ask, Reading, read_reply, request_mark
from quant_assets.settings import Settings

CHUNK = 50
"""Symbols of one delivery: what a kill loses at most, and asks again."""

OVERLAP = 20
"""Held sessions that are asked again with the new ones, so that a restatement is seen."""

PATIENCE = 5
"""Symbols in a row for which Yahoo did not answer, after which the others are not tried in this run."""


@dataclass
class YahooSource:
    """Daily bars, splits and dividends of a universe from Yahoo, through yfinance's connection; `now` is naive UTC.

    A symbol is asked when it lacks a session: from its last ones held, or from the first kept date when it holds nothing
    or was never asked that far back. Always up to the present, since splits after a session are needed to tell at which
    price it traded. Symbols are spelled as in the universe; `yahoo_chart.yahoo_symbol` tells how Yahoo does.

    Prices, volumes and dividends are as traded (`basis` raw), in the major unit of the listing currency; `adj_close` is
    Yahoo's, in the same unit. Whatever Yahoo or the library refuses is a receipt with its class and the remedy. After a
    limit, or when Yahoo stays silent, the run asks no more: what it lacks is owed, and the next one begins with it.
    """

    universe: Sequence[str]
    calendar: TradingCalendar
    now: datetime
    connect: Callable[[], YahooClient]
    payloads: PayloadStore
    concurrency: int = 4
    chunk: int = CHUNK
    name: str = field(default="yahoo", init=False)
    live: bool = field(default=True, init=False)

    @classmethod
    def from_settings(cls, settings: Settings, calendar: TradingCalendar, universe: Sequence[str], now: datetime) -> YahooSource:
        """The source that the settings describe; raises `ConfigurationError` without a universe or without the library."""
        if not universe:
            raise ConfigurationError(
                "QUANT_SOURCE=yahoo needs QUANT_UNIVERSE: symbols by comma, or a file with one a line. Yahoo has no list to take all from."
            )
        if find_spec("yfinance") is None:
            raise ConfigurationError("QUANT_SOURCE=yahoo needs the library yfinance, an extra: pip install 'quant-assets[yahoo]'.")
        spelled: dict[str, str] = {}
        for symbol in universe:
            if (other := spelled.setdefault(yahoo_symbol(symbol).upper(), symbol)) != symbol:
                raise ConfigurationError(
                    f"QUANT_UNIVERSE names {other} and {symbol}, which are both {yahoo_symbol(symbol)} at Yahoo: keep one."
                )

        def connect() -> YahooClient:
            return YahooClient(settings.home / "yfinance", settings.vendor_timeout_seconds, settings.vendor_attempts)

        return cls(universe, calendar, now, connect, PayloadStore(settings.payloads_path), settings.vendor_concurrency)

    def last_session(self) -> date:
        """The last session whose bar is known now; asks nobody."""
        return self.calendar.last_known_session(self.now)

    def deliveries(self, first: date, last: date, as_of: datetime, holdings: Holdings) -> Iterator[Delivery]:
        """One delivery per `chunk` of the symbols that lack sessions from first to last; none when nothing is lacking."""
        asks = self._asks(first, last, holdings)
        if not asks:
            return
        line = _Line(self.connect(), self.payloads, self.now)
        for at in range(0, len(asks), self.chunk):
            asked = asks[at : at + self.chunk]
            with ThreadPoolExecutor(self.concurrency) as pool:
                replies = list(pool.map(line.ask, asked))
            readings = [read_reply(ask, reply, self.calendar) for ask, reply in zip(asked, replies, strict=True) if reply]
            healing = {reading.receipt["symbol"]: reading.reply_class for reading in readings if reading.reply_class in HEALS}
            unasked = [ask for ask, reply in zip(asked, replies, strict=True) if reply is None]
            unasked += asks[at + self.chunk :] if line.closed else []
            yield self._delivery(readings, _owed([ask for ask in asked if ask.symbol in healing], unasked, line.closed))
            if line.closed:
                return

    def _asks(self, first: date, last: date, holdings: Holdings) -> list[Ask]:
        """What to ask, the stalest symbol first, and those of which nothing is held before them."""
        held = {
            symbol: (start, end) for symbol, start, end in holdings.symbols().select("symbol", "first_session", "last_session").iter_rows()
        }
        sessions = self.calendar.between(first, last)
        if not sessions:
            return []
        reached = _reached(self.universe, holdings.landed())
        asks = []
        for symbol in self.universe:
            if symbol not in held:
                asks.append(Ask(symbol, first, last, len(sessions)))
                continue
            start, end = held[symbol]
            unreached = start > sessions[0] and reached.get(symbol, date.max) > first
            lacking = sum(session > end or (unreached and session < start) for session in sessions)
            if lacking:
                overlap = self.calendar.between(sessions[0], end)[-OVERLAP:]
                asks.append(Ask(symbol, first if unreached or not overlap else overlap[0], last, lacking, start, end))
        return sorted(asks, key=lambda ask: (ask.held_to or date.min, ask.symbol))

    def _delivery(self, readings: Sequence[Reading], owed: Owed | None) -> Delivery:
        bars, actions, rejected = (pl.concat([getattr(reading, name) for reading in readings]) for name in ("bars", "actions", "rejected"))
        content = sha256()
        for frame in (bars, actions, rejected):
            content.update(frame.write_csv().encode())
        return Delivery(
            source=self.name,
            basis="raw",
            batch_id=f"yahoo-{content.hexdigest()[:16]}",
            bars=bars.sort("symbol", "session"),
            actions=actions.sort("symbol", "session", "kind"),
            rejected=rejected,
            receipts=pl.DataFrame([reading.receipt for reading in readings], schema=RECEIPTS),  # type: ignore[arg-type]
            owed=owed,
        )


class _Line:
    """The line to Yahoo, shared by threads: closed for the rest of a run once Yahoo limits calls or stays silent."""

    def __init__(self, client: YahooClient, payloads: PayloadStore, now: datetime) -> None:
        self._client, self._payloads, self._until = client, payloads, now + timedelta(days=1)
        self._silent, self._lock = 0, Lock()
        self.closed = ""

    def ask(self, ask: Ask) -> Reply | None:
        """The reply, kept as received; None when the line was closed before."""
        if self.closed:
            return None
        reply = self._client.chart(yahoo_symbol(ask.symbol), ask.first, self._until)
        if reply.body:
            received = self._payloads.receive(uuid4().hex, reply.status_code, reply.body)
            self._payloads.file_away(received, sha256(reply.body).hexdigest())
        with self._lock:
            self._silent = self._silent + 1 if reply.reply_class is ReplyClass.UNAVAILABLE else 0
            if reply.reply_class is ReplyClass.BURST_LIMIT:
                self.closed = f"Yahoo limits our calls ({reply.words})"
            elif self._silent >= PATIENCE:
                self.closed = f"Yahoo did not answer for {self._silent} symbols in a row ({reply.words})"
        return reply


def _reached(universe: Sequence[str], landed: frozenset[str]) -> dict[str, date]:
    """How far back each symbol was asked already, and answered: the ids of the requests tell."""
    marks = {request_mark(symbol): symbol for symbol in universe}
    reached: dict[str, date] = {}
    for request_id in landed:
        mark, _, rest = request_id.partition("@")
        if symbol := marks.get(f"{mark}@"):
            asked = date.fromisoformat(rest[:10])
            reached[symbol] = min(asked, reached.get(symbol, asked))
    return reached


def _owed(failed: Sequence[Ask], unasked: Sequence[Ask], closed: str) -> Owed | None:
    asks = [*failed, *unasked]
    if not asks:
        return None
    reason = f"{closed or 'Yahoo did not answer or refused us for now'}; the next run begins with these."
    return Owed(len(asks), sum(ask.lacking for ask in asks), reason)
