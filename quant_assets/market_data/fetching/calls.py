"""The words of the request ledger: what is asked, what came of it, and why a call may not go now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from quant_assets.market_data.fetching.replies import ReplyClass, Verdict

LOST = Verdict(ReplyClass.UNAVAILABLE, "In flight when its process ended: no reply was kept, and the call counts as sent.")


@dataclass(frozen=True)
class Limits:
    """How many calls a key allows per second, minute and day; 0 is no limit. The day is that of the vendor's time zone."""

    per_second: int = 0
    per_minute: int = 0
    per_day: int = 0
    timezone: str = "America/New_York"


@dataclass(frozen=True)
class Call:
    """What is asked: a function for a symbol, so that the sessions from `since` to `target` become known."""

    symbol: str
    function: str
    outputsize: str
    datatype: str
    since: date
    target: date
    attempt: int = 1

    def refused_by(self, verdict: Verdict) -> str:
        """What a verdict of `entitlement` refuses: the function, or the function with this outputsize."""
        return f"{self.function} {self.outputsize}" if verdict.concerns_outputsize else self.function


@dataclass(frozen=True)
class Wait:
    """The limits let no call go for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Spent:
    """No call may go any more today, and why."""

    reason: str


@dataclass(frozen=True)
class Taken:
    """Another process asks the same, or has the answer."""


@dataclass(frozen=True)
class Result:
    """What came of a call: `rows`, `first_row` and `last_row` tell what a reply of data held, `whole` that it was all of the history.

    A call that was not `sent`, since no connection could be made, does not count against the limits.
    """

    verdict: Verdict
    status_code: int | None = None
    payload_sha256: str | None = None
    rows: int = 0
    first_row: date | None = None
    last_row: date | None = None
    whole: bool = False
    sent: bool = True


@dataclass(frozen=True)
class Request:
    """One completed call."""

    request_id: str
    call: Call
    requested_at: datetime
    result: Result


@dataclass(frozen=True)
class History:
    """What the calls for one symbol came to, under any key.

    `answered` is the last session that data was asked for and received, `tried` the last one asked for without; `whole_since`
    the date from which all of the history was received. `newest` is the reply with the newest row, asked for up to
    `newest_target`; `longest` the newest reply with all of the history, asked for from `longest_since`.
    """

    answered: date | None = None
    tried: date | None = None
    whole_since: date | None = None
    last_was_malformed: bool = False
    newest: str | None = None
    newest_row: date | None = None
    newest_target: date | None = None
    longest: str | None = None
    longest_row: date | None = None
    longest_since: date | None = None
