"""The ledger of calls: limits that hold over processes and kills, and what is remembered of refusals."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.market_data.fetching import request_ledger
from quant_assets.market_data.fetching.calls import Call, Limits, Result, Spent, Taken, Wait
from quant_assets.market_data.fetching.replies import ReplyClass, Verdict
from quant_assets.market_data.fetching.request_ledger import JITTER_SECONDS, RequestLedger

NOW = datetime(2020, 7, 6, 15)
CALL = Call("AAA", "TIME_SERIES_DAILY", "compact", "json", date(2020, 1, 2), date(2020, 7, 2))
OTHER_PROCESS = """
import sys
from datetime import date, datetime
from pathlib import Path
from quant_assets.market_data.fetching.calls import Call, Limits
from quant_assets.market_data.fetching.request_ledger import RequestLedger

ledger = RequestLedger(Path(sys.argv[1]), "alpha_vantage", "KEY", Limits(per_day=int(sys.argv[3])))
day = date(2020, 7, 2)
calls = (Call(f"{sys.argv[2]}{n}", "TIME_SERIES_DAILY", "compact", "json", day, day) for n in range(40))
print(sum(isinstance(ledger.reserve(call, datetime(2020, 7, 6, 15)), str) for call in calls))
"""


def ledger(path: Path, limits: Limits | None = None, key: str = "KEY") -> RequestLedger:
    return RequestLedger(path / "requests.sqlite", "alpha_vantage", key, limits or Limits())


def reserved(ledger: RequestLedger, call: Call = CALL, now: datetime = NOW) -> str:
    request_id = ledger.reserve(call, now)
    assert isinstance(request_id, str)
    return request_id


def done(ledger: RequestLedger, reply_class: ReplyClass, said: str = "", call: Call = CALL, now: datetime = NOW, **result: object) -> str:
    request_id = reserved(ledger, call, now)
    ledger.complete(request_id, replace(Result(Verdict(reply_class, said)), **result), now)  # type: ignore[arg-type]
    return request_id


class TestRegression:
    def test_a_call_stands_there_before_it_is_sent(self, tmp_path: Path) -> None:
        request_id = reserved(ledger(tmp_path))
        other = ledger(tmp_path)
        assert other.usage(NOW) == (1, "")
        assert other.payload_of(request_id) is None
        other.complete(request_id, Result(Verdict(ReplyClass.DATA), 200, "f00d", 3, date(2020, 1, 2), date(2020, 7, 2), True), NOW)
        (kept,) = other.unlanded(frozenset())
        assert (kept.request_id, kept.call, kept.requested_at) == (request_id, CALL, NOW)
        assert kept.result == Result(Verdict(ReplyClass.DATA), 200, "f00d", 3, date(2020, 1, 2), date(2020, 7, 2), True)

    def test_looking_makes_no_file(self, tmp_path: Path) -> None:
        assert ledger(tmp_path).usage(NOW) == (0, "")
        assert list(tmp_path.iterdir()) == []

    def test_the_day_is_new_yorks(self, tmp_path: Path) -> None:
        one = ledger(tmp_path, Limits(per_day=1))
        evening, night = datetime(2020, 7, 7, 3, 59), datetime(2020, 7, 7, 4, 0)  # 23:59 and 0:00 in New York
        reserved(one, now=evening)
        spent = one.reserve(replace(CALL, symbol="BBB"), evening)
        assert spent == Spent("All 1 calls of 2020-07-06 are spent (1 were sent).")
        reserved(one, replace(CALL, symbol="BBB"), night)

    def test_the_vendors_word_about_the_day_counts_more_than_ours(self, tmp_path: Path) -> None:
        one = ledger(tmp_path)
        done(one, ReplyClass.DAILY_QUOTA)
        assert one.reserve(CALL, NOW + timedelta(hours=8)) == Spent(
            "The vendor said that the calls of 2020-07-06 are spent, after 1 of ours."
        )
        reserved(one, now=NOW + timedelta(hours=14))
        assert isinstance(ledger(tmp_path, key="ANOTHER").reserve(replace(CALL, symbol="BBB"), NOW), str)

    def test_windows_slide(self, tmp_path: Path) -> None:
        one = ledger(tmp_path, Limits(per_second=2, per_minute=3))
        for n in range(2):
            reserved(one, replace(CALL, symbol=f"A{n}"), NOW + timedelta(seconds=0.1 * n))
        wait = one.reserve(CALL, NOW + timedelta(seconds=0.5))
        assert isinstance(wait, Wait)
        assert wait.seconds == pytest.approx(0.5 + JITTER_SECONDS)
        reserved(one, now=NOW + timedelta(seconds=1 + JITTER_SECONDS))
        wait = one.reserve(replace(CALL, symbol="BBB"), NOW + timedelta(seconds=30))
        assert isinstance(wait, Wait)
        assert wait.seconds == pytest.approx(30 + JITTER_SECONDS)

    def test_what_never_left_the_machine_is_not_counted(self, tmp_path: Path) -> None:
        one = ledger(tmp_path, Limits(per_day=1, per_minute=1))
        done(one, ReplyClass.UNAVAILABLE, sent=False)
        reserved(one)

    def test_two_processes_share_the_limits(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "requests.sqlite")]
        processes = [subprocess.Popen([*command, name, "50"], stdout=subprocess.PIPE, text=True) for name in ("A", "B")]
        sent = [int(process.communicate()[0].split("\n")[0]) for process in processes]
        assert sum(sent) == 50
        assert ledger(tmp_path).usage(NOW) == (50, "")

    def test_processes_that_make_the_file_at_once(self) -> None:
        """SQLite answers `locked` without waiting where two connections switch one new file to write-ahead logging."""

        class Contended(sqlite3.Connection):
            asked = 0

            def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
                self.asked += 1
                if self.asked < 3:
                    busy = sqlite3.OperationalError("database is locked")
                    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
                    raise busy
                return super().execute(sql)

        connection = sqlite3.connect(":memory:", factory=Contended)
        request_ledger._write_ahead(connection)
        assert connection.asked == 3
        connection.close()

    def test_a_dead_process_leaves_its_calls_behind_and_they_count(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "requests.sqlite"), "A", "3"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("3")
        one = ledger(tmp_path, Limits(per_day=4))
        assert [call.symbol for _, call, _ in one.lost()] == ["A0", "A1", "A2"]
        reserved(one)
        assert isinstance(one.reserve(replace(CALL, symbol="BBB"), NOW), Spent)

    def test_what_a_living_process_asks_is_not_asked_twice(self, tmp_path: Path) -> None:
        request_id = reserved(ledger(tmp_path))
        other = ledger(tmp_path)
        assert other.reserve(CALL, NOW) == Taken()
        other.complete(request_id, Result(Verdict(ReplyClass.DATA)), NOW)
        assert other.reserve(CALL, NOW) == Taken()
        reserved(other, replace(CALL, target=date(2020, 7, 6)))

    def test_a_refusal_is_remembered_for_30_days_and_for_the_key_alone(self, tmp_path: Path) -> None:
        one = ledger(tmp_path)
        done(one, ReplyClass.ENTITLEMENT, "This is a premium endpoint.", replace(CALL, function="TIME_SERIES_DAILY_ADJUSTED"))
        done(one, ReplyClass.ENTITLEMENT, "The outputsize=full parameter value", replace(CALL, symbol="BBB", outputsize="full"))
        done(one, ReplyClass.DATA)
        assert one.refused(NOW + timedelta(days=29)) == {"TIME_SERIES_DAILY_ADJUSTED", "TIME_SERIES_DAILY full"}
        assert one.granted(NOW) == {"TIME_SERIES_DAILY compact"}
        assert one.refused(NOW + timedelta(days=31)) == frozenset()
        assert ledger(tmp_path, key="ANOTHER").refused(NOW) == frozenset()

    def test_an_unknown_symbol_is_muted_for_7_days(self, tmp_path: Path) -> None:
        one = ledger(tmp_path)
        done(one, ReplyClass.UNKNOWN_SYMBOL)
        done(one, ReplyClass.INVALID_REQUEST, call=replace(CALL, symbol="BBB"))
        done(one, ReplyClass.MALFORMED, call=replace(CALL, symbol="CCC"))
        assert one.muted(NOW + timedelta(days=6)) == {"AAA", "BBB"}
        assert one.muted(NOW + timedelta(days=8)) == frozenset()

    def test_histories(self, tmp_path: Path) -> None:
        one = ledger(tmp_path)
        full = done(
            one,
            ReplyClass.DATA,
            whole=True,
            first_row=date(2001, 1, 2),
            last_row=date(2020, 7, 2),
            call=replace(CALL, outputsize="full"),
        )
        later = replace(CALL, target=date(2020, 7, 6))
        newest = done(one, ReplyClass.DATA, call=later, now=NOW + timedelta(days=1), first_row=date(2020, 2, 1), last_row=date(2020, 7, 6))
        done(one, ReplyClass.MALFORMED, call=replace(CALL, symbol="BBB"))
        histories = one.histories()
        assert (histories["AAA"].answered, histories["AAA"].tried, histories["AAA"].whole_since) == (later.target, None, CALL.since)
        assert (histories["AAA"].newest, histories["AAA"].newest_target, histories["AAA"].newest_row) == (
            newest,
            later.target,
            date(2020, 7, 6),
        )
        assert (histories["AAA"].longest, histories["AAA"].longest_row) == (full, date(2001, 1, 2))
        assert (histories["BBB"].answered, histories["BBB"].tried, histories["BBB"].last_was_malformed) == (None, CALL.target, True)

    def test_the_key_is_not_in_the_file(self, tmp_path: Path) -> None:
        one = ledger(tmp_path, key="PLANTEDKEY")
        done(one, ReplyClass.DATA)
        one.close()
        assert not [path for path in tmp_path.iterdir() if b"PLANTEDKEY" in path.read_bytes()]


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(
        gaps=st.lists(st.floats(0, 30), min_size=1, max_size=60),
        per_second=st.integers(0, 3),
        per_minute=st.integers(0, 5),
        per_day=st.integers(0, 30),
    )
    def test_no_window_ever_holds_more_calls_than_its_limit(
        self, tmp_path_factory: pytest.TempPathFactory, gaps: list[float], per_second: int, per_minute: int, per_day: int
    ) -> None:
        one = ledger(tmp_path_factory.mktemp("ledger"), Limits(per_second, per_minute, per_day))
        now, sent = NOW, list[datetime]()
        for n, gap in enumerate(gaps):
            now += timedelta(seconds=gap)
            permit = one.reserve(replace(CALL, symbol=str(n)), now)
            if isinstance(permit, Wait):
                now += timedelta(seconds=permit.seconds + 1e-6)
                permit = one.reserve(replace(CALL, symbol=str(n)), now)
                assert not isinstance(permit, Wait)
            sent += [now] if isinstance(permit, str) else []
        for start in sent:
            for seconds, limit in ((1, per_second), (60, per_minute)):
                assert not limit or sum(start <= one <= start + timedelta(seconds=seconds) for one in sent) <= limit
        assert not per_day or len(sent) <= per_day
