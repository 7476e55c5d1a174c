"""The write-ahead ledger of calls to vendors: a call stands here before it is sent, with its result once that is on disk.

What is spent, refused, answered and still in flight follows from these rows alone, so that a process killed at any moment
leaves the truth behind. Several processes may use the file at a time; each call is reserved in one transaction.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from quant_assets.market_data.fetching.calls import Call, History, Limits, Request, Result, Spent, Taken, Wait
from quant_assets.market_data.fetching.replies import ReplyClass, Verdict
from quant_assets.processes import is_alive, process_identity

WAIT_FOR_LOCK_SECONDS = 60.0
JITTER_SECONDS = 0.1
"""Windows are this much longer than they are called, since calls do not travel equally fast (40 ms apart on a busy machine)."""

REFUSAL_LASTS = timedelta(days=30)
MUTE_LASTS = timedelta(days=7)

_SCHEMA = """
create table if not exists requests (
    request_id text primary key, vendor text not null, key_fingerprint text not null, day text not null,
    symbol text not null, function text not null, outputsize text not null, datatype text not null,
    since text not null, target text not null, attempt integer not null, owner text not null, requested_at integer not null,
    completed_at integer, reply_class text, status_code integer, refused text, payload_sha256 text, sent integer not null default 1,
    rows integer not null default 0, first_row text, last_row text, whole integer not null default 0, said text not null default ''
);
create index if not exists requests_by_time on requests (vendor, key_fingerprint, requested_at);
create index if not exists requests_by_day on requests (vendor, key_fingerprint, day, reply_class);
create index if not exists requests_in_flight on requests (vendor) where completed_at is null;
create index if not exists requests_by_symbol on requests (vendor, symbol, requested_at);
create index if not exists requests_by_payload on requests (payload_sha256);
"""


_HISTORY = {field.name for field in fields(History)}
_DAYS = {
    "since",
    "target",
    "first_row",
    "last_row",
    "answered",
    "tried",
    "whole_since",
    "newest_row",
    "newest_target",
    "longest_row",
    "longest_since",
}
_FLAGS = {"whole", "sent", "last_was_malformed"}


class RequestLedger:
    """One vendor's calls under one key, in a sqlite file that is made when first used.

    The key itself is never written: a fingerprint tells keys apart. Instants are naive UTC, given by the caller.
    """

    def __init__(self, path: Path, vendor: str, key: str, limits: Limits) -> None:
        self._path = path
        self._vendor = vendor
        self.fingerprint = sha256(f"{vendor}:{key}".encode()).hexdigest()[:12]
        self.limits = limits
        self._timezone = ZoneInfo(limits.timezone)
        self._owner = process_identity(os.getpid())
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def day(self, now: datetime) -> date:
        """The vendor's day at an instant."""
        return now.replace(tzinfo=UTC).astimezone(self._timezone).date()

    def reserve(self, call: Call, now: datetime) -> str | Wait | Spent | Taken:
        """Write a call down, if the limits let it go now; returns its id, or why it may not go."""
        with self._transaction() as connection:
            if spent := self._spent(connection, now):
                return Spent(spent)
            if self._is_taken(connection, call):
                return Taken()
            if seconds := max(self._seconds_to_wait(connection, now, *window) for window in self._windows()):
                return Wait(seconds)
            request_id = uuid.uuid4().hex
            connection.execute(
                """
                insert into requests (request_id, vendor, key_fingerprint, day, symbol, function, outputsize, datatype, since, target,
                                      attempt, owner, requested_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    *(request_id, self._vendor, self.fingerprint, self.day(now).isoformat(), call.symbol, call.function, call.outputsize),
                    *(call.datatype, call.since.isoformat(), call.target.isoformat(), call.attempt, self._owner, _micros(now)),
                ),
            )
            return request_id

    def complete(self, request_id: str, result: Result, now: datetime) -> None:
        """Note what came of a call, after its payload is on disk; doing it again (to correct the verdict) replaces what was noted."""
        verdict = result.verdict
        with self._transaction() as connection:
            connection.execute(
                """
                update requests set completed_at = ?, reply_class = ?, status_code = ?, payload_sha256 = ?, rows = ?, first_row = ?,
                    last_row = ?, whole = ?, sent = ?, said = ?,
                    refused = case when ? = 'entitlement' then function || case when ? then ' ' || outputsize else '' end end
                where request_id = ?
                """,
                (
                    *(_micros(now), verdict.reply_class, result.status_code, result.payload_sha256, result.rows),
                    *(result.first_row and result.first_row.isoformat(), result.last_row and result.last_row.isoformat()),
                    *(result.whole, result.sent, verdict.said, verdict.reply_class, verdict.concerns_outputsize, request_id),
                ),
            )

    def lost(self) -> list[tuple[str, Call, datetime]]:
        """The calls in flight whose process is gone: id, call, and when it was reserved."""
        rows = self._read("select * from requests where vendor = ? and completed_at is null", self._vendor)
        return [(row["request_id"], _call(row), _instant(row["requested_at"])) for row in rows if not is_alive(row["owner"])]

    def payload_of(self, request_id: str) -> str | None:
        """The content hash of a completed call's reply."""
        rows = self._read("select payload_sha256 from requests where request_id = ? and completed_at is not null", request_id)
        return rows[0][0] if rows else None

    def unlanded(self, landed: Collection[str]) -> list[Request]:
        """The completed calls, oldest first, that stand nowhere among the ids of what landed: neither they nor, for data, their payload."""
        sql = "select request_id, reply_class, payload_sha256 from requests where vendor = ? and completed_at is not null order by requested_at"
        waiting = [
            request_id
            for request_id, reply_class, payload in self._open().execute(sql, (self._vendor,))
            if request_id not in landed and not (reply_class == ReplyClass.DATA and payload in landed)
        ]
        return [self.request(request_id) for request_id in waiting]

    def request(self, request_id: str) -> Request:
        """One completed call."""
        return _request(self._read("select * from requests where request_id = ?", request_id)[0])

    def histories(self) -> dict[str, History]:
        """What the calls came to, per symbol that was ever asked for."""
        # Beside a single max(), SQLite takes the other columns from the row that has it.
        parts = (
            "select symbol, max(target) as answered from requests where vendor = ? and reply_class = 'data' group by symbol",
            """select symbol, max(target) as tried from requests
               where vendor = ? and reply_class in ('malformed', 'unavailable', 'unknown_symbol', 'invalid_request') group by symbol""",
            "select symbol, min(since) as whole_since from requests where vendor = ? and reply_class = 'data' and whole group by symbol",
            """select symbol, reply_class = 'malformed' as last_was_malformed, max(requested_at) from requests
               where vendor = ? and reply_class in ('data', 'malformed') group by symbol""",
            """select symbol, request_id as newest, target as newest_target, max(last_row) as newest_row from requests
               where vendor = ? and reply_class = 'data' group by symbol""",
            """select symbol, request_id as longest, first_row as longest_row, since as longest_since, max(requested_at) from requests
               where vendor = ? and reply_class = 'data' and whole group by symbol""",
        )
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        for sql in parts:
            for row in self._read(sql, self._vendor):
                found[row["symbol"]].update({name: row[name] for name in _HISTORY & set(row.keys())})
        return {symbol: History(**{name: _read_as(name, value) for name, value in told.items()}) for symbol, told in found.items()}

    def usage(self, now: datetime) -> tuple[int, str]:
        """How many calls were sent on the vendor's day, and why no more may go (empty while some may); makes no file."""
        if not self._path.exists():
            return 0, ""
        connection = self._open()
        try:
            return self._calls(connection, now), self._spent(connection, now)
        finally:
            self.close()

    def refused(self, now: datetime, surely: bool = False) -> frozenset[str]:
        """The functions, and functions with an outputsize, that the key is not entitled to, as it said in the last 30 days.

        What the key was given data for is refused only once two symbols were refused it since: one reply may be wrong
        about its symbol. With `surely`, this holds also for what was never given.
        """
        since = _micros(now - REFUSAL_LASTS)
        rows = self._read(
            """
            with told as (select * from requests where vendor = ? and key_fingerprint = ? and requested_at > ?),
            given as (
                select function, function || ' ' || outputsize as sized, max(requested_at) as last from told
                where reply_class = 'data' group by function, outputsize
            ),
            refusals as (
                select refused, symbol, requested_at, coalesce((select max(last) from given where refused in (function, sized)), 0) as last
                from told where refused is not null
            )
            select refused from refusals where requested_at > last
            group by refused having count(distinct symbol) > 1 or (max(last) = 0 and not ?)
            """,
            *(self._vendor, self.fingerprint, since, surely),
        )
        return frozenset(row["refused"] for row in rows)

    def granted(self, now: datetime) -> frozenset[str]:
        """The functions with an outputsize that the key was given data for in the last 30 days."""
        rows = self._of_key("reply_class = 'data'", now - REFUSAL_LASTS, "distinct function || ' ' || outputsize as granted")
        return frozenset(row["granted"] for row in rows)

    def muted(self, now: datetime) -> frozenset[str]:
        """The symbols that the vendor did not know in the last 7 days."""
        rows = self._read(
            """
            select symbol from requests where vendor = ? and requested_at > ? and reply_class in ('unknown_symbol', 'invalid_request')
            except select symbol from requests where vendor = ? and requested_at > ? and reply_class = 'data'
            """,
            *(self._vendor, _micros(now - MUTE_LASTS)) * 2,
        )
        return frozenset(row["symbol"] for row in rows)

    def twins(self, symbol: str, payload_sha256: str) -> list[str]:
        """Other symbols that were answered with the same content."""
        rows = self._read(
            "select distinct symbol from requests where vendor = ? and payload_sha256 = ? and symbol <> ? and datatype = 'csv' order by 1",
            *(self._vendor, payload_sha256, symbol),
        )
        return [row["symbol"] for row in rows]

    def _spent(self, connection: sqlite3.Connection, now: datetime) -> str:
        day = self.day(now)
        if self.limits.per_day and (calls := self._calls(connection, now)) >= self.limits.per_day:
            return f"All {self.limits.per_day} calls of {day} are spent ({calls} were sent)."
        told = "select 1 from requests where vendor = ? and key_fingerprint = ? and day = ? and reply_class = 'daily_quota' limit 1"
        if connection.execute(told, (self._vendor, self.fingerprint, day.isoformat())).fetchone():
            return f"The vendor said that the calls of {day} are spent, after {self._calls(connection, now)} of ours."
        return ""

    def _calls(self, connection: sqlite3.Connection, now: datetime) -> int:
        count = "select count(*) from requests where vendor = ? and key_fingerprint = ? and day = ? and sent"
        calls: int = connection.execute(count, (self._vendor, self.fingerprint, self.day(now).isoformat())).fetchone()[0]
        return calls

    def _is_taken(self, connection: sqlite3.Connection, call: Call) -> bool:
        rows = connection.execute(
            "select owner, reply_class from requests where vendor = ? and symbol = ? and target = ? and (completed_at is null or reply_class = 'data')",
            (self._vendor, call.symbol, call.target.isoformat()),
        )
        return any(reply_class == ReplyClass.DATA or is_alive(owner) for owner, reply_class in rows)

    def _windows(self) -> Iterator[tuple[int, float]]:
        yield self.limits.per_second, 1.0 + JITTER_SECONDS
        yield self.limits.per_minute, 60.0 + JITTER_SECONDS

    def _seconds_to_wait(self, connection: sqlite3.Connection, now: datetime, limit: int, window: float) -> float:
        """Until fewer calls than the limit lie in the window that ends now."""
        if not limit:
            return 0.0
        last = "select requested_at from requests where vendor = ? and key_fingerprint = ? and sent order by requested_at desc limit 1 offset ?"
        row = connection.execute(last, (self._vendor, self.fingerprint, limit - 1)).fetchone()
        return 0.0 if row is None else max(0.0, row[0] / 1e6 + window - _micros(now) / 1e6)

    def _of_key(self, condition: str, since: datetime, columns: str) -> list[sqlite3.Row]:
        return self._read(
            f"select {columns} from requests where vendor = ? and key_fingerprint = ? and requested_at > ? and {condition}",
            *(self._vendor, self.fingerprint, _micros(since)),
        )

    def _read(self, sql: str, *parameters: object) -> list[sqlite3.Row]:
        return self._open().execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._open()
        connection.execute("begin immediate")
        try:
            yield connection
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, timeout=WAIT_FOR_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            _write_ahead(self._connection)
            self._connection.execute("pragma synchronous = full")
            self._connection.executescript(_SCHEMA)
        return self._connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch a file to write-ahead logging; where another process is doing the same, SQLite says `locked` at once, whatever the time-out."""
    deadline = time.monotonic() + WAIT_FOR_LOCK_SECONDS
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(microseconds=micros)


def _call(row: sqlite3.Row) -> Call:
    return Call(**{field.name: _read_as(field.name, row[field.name]) for field in fields(Call)})


def _request(row: sqlite3.Row) -> Request:
    told = {field.name: _read_as(field.name, row[field.name]) for field in fields(Result) if field.name != "verdict"}
    result = Result(verdict=Verdict(ReplyClass(row["reply_class"]), row["said"]), **told)
    return Request(row["request_id"], _call(row), _instant(row["requested_at"]), result)


def _read_as(name: str, value: Any) -> Any:
    if name in _DAYS:
        return date.fromisoformat(value) if value else None
    return bool(value) if name in _FLAGS else value
