"""The live source `alpha_vantage`: what is on disk first, then calls for what is missing, the stalest first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from hashlib import sha256

import httpx
import polars as pl
from tenacity.wait import wait_base

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.alpha_vantage.dialect import AlphaVantageCalls, address_of
from quant_assets.market_data.alpha_vantage.planning import plan, spans_of, to_read_again
from quant_assets.market_data.alpha_vantage.receipts import Horizon, receipts_of
from quant_assets.market_data.alpha_vantage.series import Series
from quant_assets.market_data.delivery import ACTIONS, BARS, REJECTED, Delivery, Holdings, Owed
from quant_assets.market_data.fetching.asks import Ask, AskQueue
from quant_assets.market_data.fetching.calls import LOST, Limits, Request, Result
from quant_assets.market_data.fetching.dispatcher import Answer, Fetcher
from quant_assets.market_data.fetching.payloads import PayloadDamaged, PayloadStore
from quant_assets.market_data.fetching.replies import KeyRefused, Redaction, ReplyClass, Verdict
from quant_assets.market_data.fetching.request_ledger import RequestLedger
from quant_assets.settings import Settings

NAME = "alpha_vantage"
BATCH = 100
"""So many replies are landed at a time: what is in memory is bounded, and little waits for the end."""


@dataclass
class AlphaVantageSource:
    """Daily bars of the universe's symbols from Alpha Vantage, as traded, with dividends and splits where the key's plan has them.

    Nothing is called before `deliveries` is worked through. It yields first what earlier runs received and did not land,
    then a delivery per `BATCH` replies; the last one says what is owed and carries the fault when the key was refused.
    The universe must not be empty, since the vendor has no list of what it can deliver in one call.
    """

    calendar: TradingCalendar
    universe: Sequence[str]
    now: datetime
    calls: AlphaVantageCalls
    ledger: RequestLedger
    payloads: PayloadStore
    datatype: str = "json"
    width: int = 4
    timeout_seconds: float = 30.0
    attempts: int = 4
    clock: Callable[[], datetime] = utc_now
    backoff: wait_base | None = None
    transport: httpx.AsyncBaseTransport | None = None
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    name: str = field(default=NAME, init=False)
    live: bool = field(default=True, init=False)

    @classmethod
    def from_settings(cls, settings: Settings, calendar: TradingCalendar, universe: Sequence[str], now: datetime) -> AlphaVantageSource:
        """The source as the settings have it; raises `ConfigurationError` without a key, a universe or a usable address."""
        key = settings.alpha_vantage_api_key.get_secret_value().strip()
        if not key:
            raise ConfigurationError(
                "QUANT_SOURCE=alpha_vantage needs QUANT_ALPHA_VANTAGE_API_KEY: claim a free key at https://www.alphavantage.co/support/#api-key."
            )
        if not universe:
            raise ConfigurationError(
                "QUANT_SOURCE=alpha_vantage needs QUANT_UNIVERSE: the symbols to fetch, by comma (AAPL,MSFT) or one a line in a file."
            )
        limits = Limits(
            settings.alpha_vantage_calls_per_second, settings.alpha_vantage_calls_per_minute, settings.alpha_vantage_calls_per_day
        )
        return cls(
            calendar,
            universe,
            now,
            AlphaVantageCalls(key, address_of(settings.alpha_vantage_url), calendar, Redaction(key)),
            RequestLedger(settings.requests_path, NAME, key, limits),
            PayloadStore(settings.payloads_path),
            settings.alpha_vantage_format,
            settings.vendor_concurrency,
            settings.vendor_timeout_seconds,
            settings.vendor_attempts,
        )

    def last_session(self) -> date:
        """The last session that is known now."""
        return self.calendar.last_known_session(self.now)

    def calls_left(self) -> str:
        """How many calls are left on the vendor's day, in words; makes no file."""
        limit, day = self.ledger.limits.per_day, self.ledger.day(self.clock())
        calls, spent = self.ledger.usage(self.clock())
        if not limit:
            return f"{calls:,} calls sent today ({day}), no limit a day is set{f': {spent}' if spent else ''}"
        return f"{0 if spent else limit - calls:,} of {limit:,} calls left today ({day} in New York)"

    def deliveries(self, first: date, last: date, as_of: datetime, holdings: Holdings) -> Iterator[Delivery]:
        """What was received and not landed, then what is asked for now (see the class)."""
        try:
            self._recover()
            yield from self._earlier(first, last, holdings)
            yield from self._fetched(first, last, holdings)
        finally:
            self.ledger.close()

    def _recover(self) -> None:
        """Note what became of the calls that a killed process left in flight: a reply on disk is judged, the others are lost."""
        lost = {request_id: (call, requested_at) for request_id, call, requested_at in self.ledger.lost()}
        for received in self.payloads.received():
            if asked := lost.pop(received.request_id, None):
                body = self.payloads.body_of(received)
                payload = sha256(body).hexdigest()
                result, _ = self.calls.examine(*asked, received.status_code, "", body)
                self.ledger.complete(
                    received.request_id, replace(result, status_code=received.status_code, payload_sha256=payload), self.clock()
                )
            if noted := self.ledger.payload_of(received.request_id):
                self.payloads.file_away(received, noted)
        for request_id in lost:
            self.ledger.complete(request_id, Result(LOST), self.clock())
            self.payloads.forget(request_id)

    def _earlier(self, first: date, last: date, holdings: Holdings) -> Iterator[Delivery]:
        waiting = [request.request_id for request in self.ledger.unlanded(holdings.landed())]
        further = to_read_again(first, last, spans_of(holdings.symbols()), self.ledger.histories())
        ids = list(dict.fromkeys([*waiting, *further]))
        for at in range(0, len(ids), BATCH):
            answers = [self._replayed(self.ledger.request(request_id)) for request_id in ids[at : at + BATCH]]
            yield self._delivery(answers, self._horizon(first, last, holdings), None)

    def _replayed(self, request: Request) -> Answer[Series]:
        """An answer parsed anew from its payload; a damaged one is as if nothing had been received, and is asked for again."""
        if request.result.verdict.reply_class is not ReplyClass.DATA:
            return Answer(request, None)
        try:
            body = self.payloads.read(str(request.result.payload_sha256))
            result, series = self.calls.examine(request.call, request.requested_at, 200, "", body)
        except PayloadDamaged as error:
            result, series = Result(Verdict(ReplyClass.MALFORMED, str(error))), None
        answer = Answer(replace(request, result=replace(result, status_code=200, payload_sha256=request.result.payload_sha256)), series)
        if series is None:
            self.ledger.complete(request.request_id, answer.request.result, self.clock())
        return answer

    def _fetched(self, first: date, last: date, holdings: Holdings) -> Iterator[Delivery]:
        horizon = self._horizon(first, last, holdings)
        muted = self.ledger.muted(self.clock())
        present = max(last, self.last_session())
        asks = plan(self.universe, self.calendar, first, last, present, horizon.held, horizon.histories, muted, self.datatype)
        if not asks:
            return
        queue = AskQueue.of(asks)
        fetcher = Fetcher(
            self.ledger, self.payloads, self.calls, self.width, self.timeout_seconds, self.attempts, self.clock, transport=self.transport
        )
        fetcher.backoff = self.backoff or fetcher.backoff
        while True:
            answers = self._run(fetcher, queue)
            delivery = self._delivery(answers, horizon, queue)
            if fetcher.ended or not queue:
                owed = self._owed(fetcher, queue)
                if answers or owed:
                    yield replace(delivery, owed=owed, fault=self._fault(fetcher))
                return
            yield delivery

    def _run(self, fetcher: Fetcher[Series], queue: AskQueue) -> list[Answer[Series]]:
        def run() -> list[Answer[Series]]:
            with asyncio.Runner(loop_factory=self.loop_factory) as runner:
                return runner.run(fetcher.fetch(queue, BATCH))

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return run()
        with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of its own, beside which none may run
            return pool.submit(run).result()

    def _delivery(self, answers: Sequence[Answer[Series]], horizon: Horizon, queue: AskQueue | None) -> Delivery:
        answers = [self._unless_twin(answer, queue) for answer in answers]
        series = [(answer, answer.series) for answer in answers if answer.series is not None]
        first, last = horizon.first, horizon.last
        content = sorted((answer.request.request_id, answer.request.result.payload_sha256 or "") for answer in answers)
        return Delivery(
            source=self.name,
            basis="raw",
            batch_id=f"{self.name}-{sha256(repr(content).encode()).hexdigest()[:16]}",
            bars=_unique([one.bars(first, last) for _, one in series], BARS, ["symbol", "session"]),
            actions=_unique([one.actions(first, last) for _, one in series], ACTIONS, ["symbol", "session", "kind"]),
            rejected=_unique(
                [one.rejected_in(first, last, str(answer.request.result.payload_sha256)) for answer, one in series],
                REJECTED,
                ["file", "line"],
            ),
            receipts=receipts_of(answers, horizon, self.calendar),
        )

    def _unless_twin(self, answer: Answer[Series], queue: AskQueue | None) -> Answer[Series]:
        """Refuse a reply that another symbol got too and that does not say whose it is, and have it asked for again as JSON, which does."""
        result, call = answer.request.result, answer.request.call
        if answer.series is None or call.datatype != "csv" or not (twins := self.ledger.twins(call.symbol, str(result.payload_sha256))):
            return answer
        said = f"The same content was received for {', '.join(twins[:5])}; CSV does not say which symbol it is of."
        result = replace(result, verdict=Verdict(ReplyClass.MALFORMED, said), first_row=None, last_row=None, whole=False)
        self.ledger.complete(answer.request.request_id, result, self.clock())
        if queue is not None:
            lacking = len(self.calendar.between(call.since, call.target))
            again = Ask(call.symbol, call.since, call.target, lacking, call.outputsize == "full", "json", call.attempt + 1)
            queue.put_off(again, self.clock())
        return Answer(replace(answer.request, result=result), None)

    def _horizon(self, first: date, last: date, holdings: Holdings) -> Horizon:
        return Horizon(first, last, spans_of(holdings.symbols()), self.ledger.histories())

    def _owed(self, fetcher: Fetcher[Series], queue: AskQueue) -> Owed | None:
        left = [*queue, *(ask for ask, _ in fetcher.given_up)]
        if not left:
            return None
        counts = Counter(reply_class.value if reply_class else "not in the key's plan" for _, reply_class in fetcher.given_up)
        reasons = [fetcher.ended, *(f"{count} symbols: {reason}." for reason, count in sorted(counts.items()))]
        return Owed(len(left), sum(ask.lacking for ask in left), " ".join(filter(None, reasons)) + " The next run goes on there.")

    def _fault(self, fetcher: Fetcher[Series]) -> KeyRefused | None:
        return None if fetcher.refusal is None else KeyRefused(f"Alpha Vantage refuses the key. {fetcher.refusal.detail}")


def _unique(frames: Sequence[pl.DataFrame], schema: Mapping[str, pl.DataType | type[pl.DataType]], key: Collection[str]) -> pl.DataFrame:
    """One frame of several replies; where a symbol was answered twice, the later reply stands."""
    whole = pl.concat([pl.DataFrame(schema=schema), *frames])
    return whole.unique(list(key), keep="last", maintain_order=True).sort(list(key))
