"""Fetching in simulated time: limits, order, attempts and endings, on a loop whose clock jumps to what happens next."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from quant_assets.clock import trading_calendar
from quant_assets.market_data.alpha_vantage.dialect import AlphaVantageCalls, address_of
from quant_assets.market_data.fetching import request_ledger
from quant_assets.market_data.fetching.asks import Ask, AskQueue
from quant_assets.market_data.fetching.calls import Limits, Result
from quant_assets.market_data.fetching.dispatcher import GIVEN_UP_IN_A_ROW, Answer, Fetcher
from quant_assets.market_data.fetching.payloads import PayloadStore
from quant_assets.market_data.fetching.replies import Redaction, ReplyClass, Verdict
from quant_assets.market_data.fetching.request_ledger import RequestLedger
from quant_assets_tests.market_data.vendor import NOTICES, as_csv, rows_of

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
SESSIONS = CALENDAR.between(date(2020, 1, 2), date(2020, 1, 8))
MORNING = datetime(2020, 1, 9, 6)
Reaction = Callable[[str, int], httpx.Response]
"""What the vendor answers to a symbol's call, by how often it was asked before."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Whenever nothing is ready, its clock is set to the next thing that is due: hours pass in no time."""

    def __init__(self) -> None:
        self._simulated = 0.0
        super().__init__()

    def time(self) -> float:
        return self._simulated

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._simulated = max(self._simulated, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def good(symbol: str, before: int) -> httpx.Response:
    return httpx.Response(200, text=as_csv(rows_of(symbol, SESSIONS)))


def told(name: str) -> httpx.Response:
    return httpx.Response(200, json={"Information": NOTICES[name]})


@dataclass
class Simulation:
    """A vendor whose replies take a while, a fetcher that asks it, and when each call arrived, in seconds."""

    home: Path
    limits: Limits
    react: Reaction = good
    width: int = 4
    attempts: int = 4
    seconds: Callable[[], float] = lambda: 0.4
    calls: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loop = SimulatedLoop()
        self.asked = Counter[str]()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        self.calls.append((self.loop.time(), query["symbol"], f"{query['function'].removeprefix('TIME_SERIES_')} {query['outputsize']}"))
        await asyncio.sleep(self.seconds())
        self.asked[query["symbol"]] += 1
        return self.react(query["symbol"], self.asked[query["symbol"]] - 1)

    def now(self) -> datetime:
        return MORNING + timedelta(seconds=self.loop.time())

    def fetch(self, symbols: Sequence[str], most: int = 10**9, wants_full: bool = False) -> tuple[Fetcher, list[Answer]]:
        fetcher = Fetcher(
            RequestLedger(self.home / "requests.sqlite", "alpha_vantage", "KEY", self.limits),
            PayloadStore(self.home / "payloads"),
            AlphaVantageCalls("KEY", address_of("http://vendor"), CALENDAR, Redaction("KEY")),
            self.width,
            attempts=self.attempts,
            clock=self.now,
            transport=httpx.MockTransport(self.answer),
        )
        queue = AskQueue.of(Ask(symbol, SESSIONS[0], SESSIONS[-1], 5, wants_full, "csv") for symbol in symbols)
        answers: list[Answer] = []
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            while queue and not fetcher.ended:
                answers += runner.run(fetcher.fetch(queue, most))
        self.left = [ask.symbol for ask in queue]
        return fetcher, answers

    def densest(self, seconds: float) -> int:
        """The most calls that arrived within so many seconds."""
        times = [at for at, _, _ in self.calls]
        most = start = 0
        for end, at in enumerate(times):
            while times[start] < at - seconds:
                start += 1
            most = max(most, end - start + 1)
        return most

    def classes(self, answers: Sequence[Answer]) -> list[tuple[str, str]]:
        return [(answer.request.call.symbol, answer.reply_class.value) for answer in answers]


class TestRegression:
    def test_ten_thousand_symbols_with_a_75_a_minute_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Real parsing and 40,000 real waits for the disk would be all that this test measures.
        monkeypatch.setattr(AlphaVantageCalls, "examine", lambda *_: (Result(Verdict(ReplyClass.DATA)), None))
        monkeypatch.setattr(PayloadStore, "receive", lambda *_: None)
        monkeypatch.setattr(PayloadStore, "file_away", lambda *_: None)
        monkeypatch.setattr(request_ledger, "_SCHEMA", request_ledger._SCHEMA + "pragma synchronous = off;")
        lengths = random.Random(7)
        simulation = Simulation(tmp_path, Limits(per_second=5, per_minute=75), width=8, seconds=lambda: lengths.uniform(0.1, 3.0))
        symbols = [f"S{n:05d}" for n in range(10_000)]
        fetcher, answers = simulation.fetch(symbols, most=100)
        assert [symbol for _, symbol, _ in simulation.calls] == symbols  # each once, the stalest first
        assert len(answers) == 10_000
        assert {answer.reply_class.value for answer in answers} == {"data"}
        assert simulation.densest(60) == 75
        assert simulation.densest(1) <= 5
        minutes = simulation.calls[-1][0] / 60
        print(f"10,000 symbols in {minutes:.1f} simulated minutes")
        assert 10_000 / 75 - 1 < minutes < 10_000 / 75 * 1.02
        assert not fetcher.ended

    def test_the_free_tier_asks_25_and_ends_well(self, tmp_path: Path) -> None:
        simulation = Simulation(tmp_path, Limits(per_second=1, per_day=25))
        fetcher, answers = simulation.fetch([f"S{n:02d}" for n in range(40)])
        assert len(answers) == len(simulation.calls) == 25
        assert simulation.densest(1) == 1
        assert simulation.left == [f"S{n}" for n in range(25, 40)]
        assert fetcher.ended == "All 25 calls of 2020-01-09 are spent (25 were sent)."

    def test_a_retry_stands_aside_and_holds_up_nobody(self, tmp_path: Path) -> None:
        def react(symbol: str, before: int) -> httpx.Response:
            return httpx.Response(503) if symbol == "A" and before < 2 else good(symbol, before)

        simulation = Simulation(tmp_path, Limits(per_second=4), react, width=1)
        _, answers = simulation.fetch(list("ABCDE"))
        assert simulation.classes(answers)[:2] == [("A", "unavailable"), ("B", "data")]
        assert simulation.classes(answers)[-1] == ("A", "data")
        first, second, third = (at for at, symbol, _ in simulation.calls if symbol == "A")
        assert 1.4 <= second - first <= 3.4  # 1 s and up to 1 s of jitter, after 0.4 s of waiting for the reply
        assert 2.4 <= third - second <= 4.4
        others = [at for at, symbol, _ in simulation.calls if symbol != "A"]
        assert others[-1] - others[0] < 3.0

    @pytest.mark.parametrize(
        ("reply", "attempts"),
        [
            (lambda: httpx.Response(429), 4),
            (lambda: told("burst_limit"), 4),
            (lambda: httpx.Response(500), 4),
            (lambda: httpx.Response(200, text="<html>"), 2),
            (lambda: httpx.Response(200, json={}), 1),
            (lambda: told("invalid_request"), 1),
        ],
    )
    def test_what_can_heal_is_tried_again(self, tmp_path: Path, reply: Callable[[], httpx.Response], attempts: int) -> None:
        simulation = Simulation(tmp_path, Limits(), lambda symbol, before: reply())
        fetcher, answers = simulation.fetch(["A"])
        assert len(answers) == attempts
        assert [answer.request.call.attempt for answer in answers] == list(range(1, attempts + 1))
        assert [ask.symbol for ask, _ in fetcher.given_up] == (["A"] if attempts > 1 else [])

    def test_a_vendor_that_says_how_long_to_wait_is_obeyed(self, tmp_path: Path) -> None:
        def react(symbol: str, before: int) -> httpx.Response:
            return good(symbol, before) if before else httpx.Response(429, headers={"Retry-After": "17"})

        simulation = Simulation(tmp_path, Limits(), react)
        simulation.fetch(["A"])
        assert simulation.calls[1][0] == pytest.approx(17.4, abs=0.01)

    @pytest.mark.parametrize("name", ["auth", "daily_quota"])
    def test_a_refused_key_and_a_spent_day_stop_everything(self, tmp_path: Path, name: str) -> None:
        simulation = Simulation(tmp_path, Limits(), lambda symbol, before: told(name))
        fetcher, answers = simulation.fetch(list("ABCDEFGH"))
        assert len(simulation.calls) == len(answers) == 1
        assert simulation.left == list("ABCDEFGH")
        assert (fetcher.refusal is not None) == (name == "auth")

    def test_a_refused_function_is_paid_once_however_many_go_at_a_time(self, tmp_path: Path) -> None:
        simulation = Simulation(tmp_path, Limits())
        simulation.react = lambda symbol, before: (
            told("entitlement")
            if simulation.calls[-1][2].startswith("DAILY_ADJUSTED")
            else told("no_full")
            if simulation.calls[-1][2].endswith("full")
            else good(symbol, before)
        )
        simulation.fetch(list("ABCDEFGH"), wants_full=True)
        asked = [what for _, _, what in simulation.calls]
        assert asked == ["DAILY_ADJUSTED full", "DAILY full", *["DAILY compact"] * 8]
        again = Simulation(tmp_path, Limits())
        again.fetch(["X"], wants_full=True)
        assert [what for _, _, what in again.calls] == ["DAILY compact"]

    def test_a_key_that_is_entitled_to_nothing(self, tmp_path: Path) -> None:
        simulation = Simulation(tmp_path, Limits(), lambda symbol, before: told("entitlement"))
        fetcher, _ = simulation.fetch(list("ABC"))
        assert [what for _, _, what in simulation.calls] == ["DAILY_ADJUSTED compact", "DAILY compact"] * 2, "a second symbol makes sure"
        assert [(ask.symbol, why) for ask, why in fetcher.given_up] == [("A", None), ("B", None), ("C", None)]

    @pytest.mark.parametrize("name", ["entitlement", "no_full"])
    @pytest.mark.parametrize("symbols", ["XABCD", "ABXCD", "ABCDX"])
    def test_one_symbol_that_is_refused_everything_keeps_none_from_the_others(self, tmp_path: Path, symbols: str, name: str) -> None:
        def react(symbol: str, before: int) -> httpx.Response:
            if symbol == "X" or simulation.calls[-1][2].startswith("DAILY_ADJUSTED"):
                return told(name if symbol == "X" else "entitlement")
            return good(symbol, before)

        for night in range(2):
            simulation = Simulation(tmp_path / "same", Limits(), react, width=1)
            simulation.loop.call_later(night * 24 * 3600, lambda: None)
            simulation.loop._run_once()
            fetcher, answers = simulation.fetch([f"{symbol}{night}" if symbol != "X" else symbol for symbol in symbols])
            assert {s[0] for s, kind in simulation.classes(answers) if kind == "data"} == set("ABCD"), night
            assert [(ask.symbol, why) for ask, why in fetcher.given_up] == [("X", None)]
            assert len([what for _, _, what in simulation.calls if what.startswith("DAILY_ADJUSTED")]) <= (3, 2)[night]

    def test_a_plan_that_ends_is_believed_at_the_second_symbol(self, tmp_path: Path) -> None:
        def react(symbol: str, before: int) -> httpx.Response:
            refuses = symbol != "OLD" and "ADJUSTED" in simulation.calls[-1][2]
            return told("entitlement") if refuses else good(symbol, before)

        simulation = Simulation(tmp_path, Limits(), react, width=1)
        simulation.fetch(["OLD", *"ABCD"])
        adjusted, plain = "DAILY_ADJUSTED compact", "DAILY compact"
        assert [what for _, _, what in simulation.calls] == [adjusted, adjusted, plain, adjusted, plain, plain, plain]

    def test_a_function_that_gave_data_does_exist(self, tmp_path: Path) -> None:
        unknown = httpx.Response(200, json={"Error Message": "This API function (XYZ) does not exist."})
        simulation = Simulation(tmp_path, Limits(), lambda symbol, before: unknown if symbol == "X" else good(symbol, before), width=1)
        _, answers = simulation.fetch(list("AXB"))
        assert simulation.classes(answers) == [("A", "data"), ("X", "invalid_request"), ("B", "data")]

    def test_a_vendor_that_is_gone_is_not_asked_for_everything(self, tmp_path: Path) -> None:
        simulation = Simulation(tmp_path, Limits(), lambda symbol, before: httpx.Response(503), attempts=2)
        fetcher, _ = simulation.fetch([f"S{n:03d}" for n in range(500)])
        assert f"{GIVEN_UP_IN_A_ROW} symbols in a row were given up" in fetcher.ended
        assert len(simulation.calls) < 3 * GIVEN_UP_IN_A_ROW

    def test_a_time_out_is_told_and_tried_again(self, tmp_path: Path) -> None:
        lengths = iter([1000.0, 0.1])
        simulation = Simulation(tmp_path, Limits(), seconds=lambda: next(lengths))
        _, answers = simulation.fetch(["A"])
        assert simulation.classes(answers) == [("A", "unavailable"), ("A", "data")]
        assert answers[0].request.result.verdict.said == "No whole reply in 30 seconds."

    def test_calls_in_flight_when_a_run_is_broken_off_are_noted_as_lost(self, tmp_path: Path) -> None:
        def react(symbol: str, before: int) -> httpx.Response:
            if symbol == "C":
                raise KeyError("a bug")
            return good(symbol, before)

        simulation = Simulation(tmp_path, Limits(), react)
        with pytest.raises(KeyError):
            simulation.fetch(list("ABCDEF"))
        noted = RequestLedger(tmp_path / "requests.sqlite", "alpha_vantage", "KEY", Limits())
        assert noted.lost() == []
        lost = [request for request in noted.unlanded(frozenset()) if request.result.verdict.reply_class.value == "unavailable"]
        assert {request.call.symbol for request in lost} >= {"C"}
        assert all("In flight when its process ended" in request.result.verdict.said for request in lost)
