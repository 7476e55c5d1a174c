"""Calls to a vendor over HTTP: within the limits, several at a time, tried again where that can help.

A call is reserved in the request ledger, sent, its reply put on disk, judged, and noted: in this order, so that a kill
costs at most the calls in flight. What waits for another attempt stands aside and holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Generic, Protocol, TypeVar

import httpx
from tenacity import RetryCallState, Retrying, wait_exponential, wait_random
from tenacity.wait import wait_base

from quant_assets.clock import utc_now
from quant_assets.market_data.fetching.asks import Ask, AskQueue
from quant_assets.market_data.fetching.calls import LOST, Call, Request, Result, Spent, Taken, Wait
from quant_assets.market_data.fetching.payloads import PayloadStore
from quant_assets.market_data.fetching.replies import ReplyClass, Verdict
from quant_assets.market_data.fetching.request_ledger import RequestLedger
from quant_assets.secret_addresses import hide_addresses

BROKEN_OFF = 0
"""Stands for the HTTP status of a reply that broke off: what there is of it must not be taken for a whole one."""

GIVEN_UP_IN_A_ROW = 25
"""So many symbols given up one after the other say that it is not the symbols."""

NO_CONNECTION = "No connection could be made."
MALFORMED_ATTEMPTS = 2
LONGEST_PAUSE_SECONDS = 120.0
LARGEST_REPLY_BYTES = 64 * 1024**2

hide_addresses()  # vendors take their key in the address


Parsed_co = TypeVar("Parsed_co", covariant=True)
"""What a vendor's reply is parsed into."""


@dataclass(frozen=True)
class Answer(Generic[Parsed_co]):
    """A completed call, with the parsed reply where it was data."""

    request: Request
    series: Parsed_co | None

    @property
    def reply_class(self) -> ReplyClass:
        return self.request.result.verdict.reply_class


class Dialect(Protocol[Parsed_co]):
    """What is particular to a vendor."""

    def call(self, ask: Ask, refused: frozenset[str]) -> Call | None:
        """The call to make, given what the key is not entitled to; None where nothing is left."""
        ...

    def request(self, call: Call) -> httpx.Request:
        """The call as HTTP; it may hold the key."""
        ...

    def redact(self, body: bytes) -> bytes:
        """A body without the key."""
        ...

    def examine(
        self, call: Call, requested_at: datetime, status_code: int, content_type: str, body: bytes
    ) -> tuple[Result, Parsed_co | None]:
        """Judge a reply, and parse it where it is data."""
        ...


@dataclass
class Fetcher(Generic[Parsed_co]):
    """Works through a queue of asks under one key; `fetch` may be called again until it has ended or the queue is empty.

    `ended` says why no further call is made in this run, `refusal` is the verdict when the key itself was refused, and
    `given_up` are the asks that failed for this run, with what was said last (None: the key is entitled to nothing).
    """

    ledger: RequestLedger
    payloads: PayloadStore
    dialect: Dialect[Parsed_co]
    width: int = 4
    timeout_seconds: float = 30.0
    attempts: int = 4
    clock: Callable[[], datetime] = utc_now
    backoff: wait_base = field(default_factory=lambda: wait_exponential(multiplier=1, max=60) + wait_random(0, 1))
    transport: httpx.AsyncBaseTransport | None = None
    ended: str = ""
    refusal: Verdict | None = None
    given_up: list[tuple[Ask, ReplyClass | None]] = field(default_factory=list)
    _granted: set[str] = field(default_factory=set)
    _refused: frozenset[str] = frozenset()
    _surely_refused: frozenset[str] = frozenset()
    _probing: bool = False
    _fruitless: int = 0

    def __post_init__(self) -> None:
        self._granted |= self.ledger.granted(self.clock())
        self._read_refusals()

    async def fetch(self, queue: AskQueue, most: int) -> list[Answer[Parsed_co]]:
        """Make calls until about so many are answered, the queue is empty, or no call may go; none is in flight afterwards."""
        answers: list[Answer[Parsed_co]] = []
        in_flight: dict[asyncio.Task[tuple[Answer[Parsed_co], float]], Ask] = {}
        limits = httpx.Limits(max_connections=self.width, max_keepalive_connections=self.width)
        async with httpx.AsyncClient(
            transport=self.transport, timeout=self.timeout_seconds, limits=limits, follow_redirects=False
        ) as client:
            try:
                while True:
                    delay = self._start(client, queue, in_flight, most - len(answers))
                    if in_flight:
                        done, _ = await asyncio.wait(in_flight, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                    elif delay is None:
                        return answers
                    else:
                        await asyncio.sleep(delay)
                        continue
                    for task in done:
                        answer, retry_after = task.result()
                        answers.append(answer)
                        self._judge(in_flight.pop(task), answer, retry_after, queue)
            finally:
                for task in in_flight:
                    task.cancel()
                await asyncio.gather(*in_flight, return_exceptions=True)

    def _start(
        self, client: httpx.AsyncClient, queue: AskQueue, in_flight: dict[asyncio.Task[tuple[Answer[Parsed_co], float]], Ask], most: int
    ) -> float | None:
        """Start what may go now; returns the seconds after which more may, None where that depends on replies alone."""
        while not self.ended and not self._probing and len(in_flight) < min(self.width, most):
            now = self.clock()
            ask = queue.next(now)
            if ask is None:
                return queue.seconds_to_next(now)
            # Where nothing is left, what a single symbol was refused is asked once more: its reply may have been wrong.
            call = self.dialect.call(ask, self._refused | ask.refused) or self.dialect.call(ask, self._surely_refused | ask.refused)
            if call is None:
                self.given_up.append((ask, None))
                continue
            unproven = f"{call.function} {call.outputsize}" not in self._granted
            if unproven and in_flight:
                # Whether the key is entitled to something new is asked by one call alone, so that a refusal is paid once.
                queue.put_back(ask)
                return None
            permit = self.ledger.reserve(call, now)
            if isinstance(permit, Taken):
                continue
            if isinstance(permit, Wait):
                queue.put_back(ask)
                return permit.seconds
            if isinstance(permit, Spent):
                queue.put_back(ask)
                self.ended = permit.reason
                return None
            self._probing = unproven
            in_flight[asyncio.create_task(self._send(client, permit, call, now))] = ask
        return None

    async def _send(self, client: httpx.AsyncClient, request_id: str, call: Call, now: datetime) -> tuple[Answer[Parsed_co], float]:
        """One call from sending to noting; returns the answer, and the seconds that the vendor asks to wait."""
        try:
            status_code, content_type, body, retry_after, problem = await self._exchange(client, call)
        except BaseException:
            self.ledger.complete(request_id, Result(LOST), self.clock())
            raise
        series = None
        if status_code is None or body is None:
            result = Result(Verdict(ReplyClass.UNAVAILABLE, problem), sent=problem != NO_CONNECTION)
            self.ledger.complete(request_id, result, self.clock())
        else:
            body = self.dialect.redact(body)
            received = self.payloads.receive(request_id, status_code, body)
            result, series = self.dialect.examine(call, now, status_code, content_type, body)
            result = replace(result, status_code=status_code, payload_sha256=sha256(body).hexdigest())
            if problem:
                result, series = replace(result, verdict=Verdict(ReplyClass.MALFORMED, problem)), None
            self.ledger.complete(request_id, result, self.clock())
            self.payloads.file_away(received, str(result.payload_sha256))
        return Answer(Request(request_id, call, now, result), series), retry_after

    async def _exchange(self, client: httpx.AsyncClient, call: Call) -> tuple[int | None, str, bytes | None, float, str]:
        """Status, content type, body, seconds to wait, and what went wrong; texts of exceptions are not kept, for they may hold addresses."""
        status_code, content_type, body, retry_after = None, "", bytearray(), 0.0
        try:
            async with asyncio.timeout(self.timeout_seconds):
                response = await client.send(self.dialect.request(call), stream=True)
                try:
                    status_code, content_type = response.status_code, response.headers.get("Content-Type", "")
                    pause = response.headers.get("Retry-After", "")
                    retry_after = min(float(pause), LONGEST_PAUSE_SECONDS) if pause.isdecimal() else 0.0
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > LARGEST_REPLY_BYTES:
                            return (
                                BROKEN_OFF,
                                content_type,
                                bytes(body[:1000]),
                                0.0,
                                f"The reply is longer than {LARGEST_REPLY_BYTES:,} bytes.",
                            )
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException):
            return None, "", None, 0.0, f"No whole reply in {self.timeout_seconds:g} seconds."
        except httpx.ConnectError:
            return None, "", None, 0.0, NO_CONNECTION
        except (httpx.HTTPError, OSError) as error:
            if status_code is None or status_code >= 500:
                return None, "", None, 0.0, f"The connection was lost before a reply ({type(error).__name__})."
            return BROKEN_OFF, content_type, bytes(body), 0.0, f"The reply broke off after {len(body):,} bytes ({type(error).__name__})."
        return status_code, content_type, bytes(body), retry_after, ""

    def _judge(self, ask: Ask, answer: Answer[Parsed_co], retry_after: float, queue: AskQueue) -> None:
        """Decide what follows from an answer: another attempt, another function, the end, or nothing."""
        verdict, call = answer.request.result.verdict, answer.request.call
        self._probing = False
        was_granted = f"{call.function} {call.outputsize}" in self._granted
        if verdict.reply_class in {ReplyClass.DATA, ReplyClass.UNKNOWN_SYMBOL, ReplyClass.INVALID_REQUEST}:
            self._granted.add(f"{call.function} {call.outputsize}")
            self._fruitless = 0
        if verdict.reply_class is ReplyClass.ENTITLEMENT:
            self._read_refusals()
            queue.put_back(replace(ask, refused=ask.refused | {call.refused_by(verdict)}))
        elif verdict.reply_class in {ReplyClass.AUTH, ReplyClass.DAILY_QUOTA} or (verdict.function_is_unknown and not was_granted):
            queue.put_back(ask)
            self.ended = self.ended or verdict.detail
            self.refusal = verdict if verdict.reply_class is ReplyClass.AUTH else self.refusal
        elif verdict.reply_class.can_heal:
            malformed = verdict.reply_class is ReplyClass.MALFORMED
            again = replace(ask, attempt=ask.attempt + 1, datatype="json" if malformed else ask.datatype)
            if ask.attempt < (min(self.attempts, MALFORMED_ATTEMPTS) if malformed else self.attempts):
                queue.put_off(again, self.clock() + timedelta(seconds=max(retry_after, self._pause(ask.attempt))))
                return
            self.given_up.append((ask, verdict.reply_class))
            self._fruitless += 1
            if self._fruitless >= GIVEN_UP_IN_A_ROW:
                self.ended = f"{self._fruitless} symbols in a row were given up, the last one so: {verdict.detail}"

    def _read_refusals(self) -> None:
        self._refused = self.ledger.refused(self.clock())
        self._surely_refused = self.ledger.refused(self.clock(), surely=True)

    def _pause(self, attempt: int) -> float:
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = attempt
        return self.backoff(state)
