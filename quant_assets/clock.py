"""Sessions, closes, and the one rule for when a row becomes known.

A session's bar is known at that session's close plus the vendor's delay. Sessions are plain dates of the
exchange's calendar; instants are naive datetimes in UTC, as DuckDB's TIMESTAMP holds them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from quant_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from quant_assets.settings import Settings


def utc_now() -> datetime:
    """The wall clock as a naive UTC instant."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class TradingCalendar:
    """The sessions of one exchange with their closes (naive UTC), and the vendor's delay after them."""

    name: str
    timezone: str
    sessions: tuple[date, ...]
    closes: tuple[datetime, ...]
    delay: timedelta
    special_sessions: tuple[date, ...] = ()

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on that date."""
        index = bisect_left(self.sessions, day)
        return index < len(self.sessions) and self.sessions[index] == day

    def close(self, session: date) -> datetime:
        """The instant of a session's close; raises `ConfigurationError` for a date that is not a session."""
        index = bisect_left(self.sessions, session)
        if index == len(self.sessions) or self.sessions[index] != session:
            raise ConfigurationError(
                f"{session} is not a session of {self.name}; the one before it is {self.session_on_or_before(session)}."
            )
        return self.closes[index]

    def known_at(self, session: date) -> datetime:
        """The instant from which a session's bar is known: its close plus the vendor's delay."""
        return self.close(session) + self.delay

    def session_on_or_before(self, day: date) -> date:
        """The last session not after a date; raises `ConfigurationError` before the calendar's first."""
        index = bisect_right(self.sessions, day)
        if index == 0:
            raise ConfigurationError(f"{self.name} has no session on or before {day}; the first known is {self.sessions[0]}.")
        return self.sessions[index - 1]

    def last_known_session(self, instant: datetime) -> date:
        """The last session whose bar is known at an instant."""
        index = bisect_right(self.closes, instant - self.delay)
        if index == 0:
            raise ConfigurationError(f"No session of {self.name} was known at {instant}; the first one closes at {self.closes[0]} UTC.")
        return self.sessions[index - 1]

    def previous(self, session: date) -> date:
        """The session before a date."""
        return self.session_on_or_before(session - timedelta(days=1))

    def sessions_before(self, day: date, n: int) -> date:
        """The date n sessions before a day, or the calendar's first session where it does not reach back so far."""
        return self.sessions[max(bisect_left(self.sessions, day) - n, 0)]

    def session_on_or_after(self, day: date) -> date | None:
        """The first session not before a date; None where the calendar ends."""
        return self.session_after(day - timedelta(days=1))

    def session_after(self, day: date) -> date | None:
        """The first session after a date; None where the calendar ends."""
        index = bisect_right(self.sessions, day)
        return self.sessions[index] if index < len(self.sessions) else None

    def between(self, first: date, last: date) -> Sequence[date]:
        """All sessions from first to last, both included."""
        return self.sessions[bisect_left(self.sessions, first) : bisect_right(self.sessions, last)]

    def as_of(self, text: str) -> datetime:
        """Read `--as-of`: a date means that session's close plus delay (of the last session before it on a closed day), an ISO instant is taken as UTC unless it carries an offset."""
        try:
            return self.known_at(self.session_on_or_before(date.fromisoformat(text.strip())))
        except ValueError:
            pass  # no date: an instant, or nothing
        try:
            instant = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigurationError(f"--as-of {text!r} is neither a date (2018-02-07) nor an instant (2018-02-07T21:30:00).") from None
        return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant

    def frame(self, first: date, last: date) -> pl.DataFrame:
        """One row per session: `session`, `ordinal` (position in the calendar), `close_at`, `known_at`."""
        low, high = bisect_left(self.sessions, first), bisect_right(self.sessions, last)
        return pl.DataFrame(
            {
                "session": self.sessions[low:high],
                "ordinal": range(low, high),
                "close_at": self.closes[low:high],
                "known_at": [close + self.delay for close in self.closes[low:high]],
            },
            schema={"session": pl.Date, "ordinal": pl.Int32, "close_at": pl.Datetime("us"), "known_at": pl.Datetime("us")},
        )

    def closed_dates(self, first: date, last: date) -> list[date]:
        """Every date from first to last that is not a session."""
        open_dates = set(self.between(first, last))
        return [day for n in range((last - first).days + 1) if (day := first + timedelta(days=n)) not in open_dates]


def calendar_of(settings: Settings) -> TradingCalendar:
    """The trading calendar that the settings name, from the first session of interest on."""
    return trading_calendar(settings.calendar, settings.first_session_floor, settings.vendor_delay_minutes, settings.special_session_dates)


@lru_cache(maxsize=8)
def trading_calendar(name: str, first: date, delay_minutes: int = 30, special_sessions: tuple[date, ...] = ()) -> TradingCalendar:
    """Load an exchange's calendar from a first date to a year ahead, with the special sessions it held on closed days.

    A special session is taken to close at the time of day, in UTC, at which the session before it did.
    Raises `ConfigurationError` for an unknown name and for a first date that the calendar does not reach.

    Source of sessions and closes: the `exchange_calendars` package.
    """
    import exchange_calendars

    try:
        calendar = exchange_calendars.get_calendar(name, start=first)
    except exchange_calendars.errors.InvalidCalendarName:
        raise ConfigurationError(
            f"QUANT_CALENDAR={name!r} is not a known exchange calendar; use a name such as XNYS, XLON, XTKS or XKRX."
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"QUANT_CALENDAR={name} cannot be used from {first} on (QUANT_START): {error}") from None
    closes = dict(
        zip(
            calendar.sessions.date,
            (close.to_pydatetime().replace(tzinfo=None) for close in calendar.closes.dt.tz_convert("UTC")),
            strict=True,
        )
    )
    regular = tuple(closes)
    for day in special_sessions:
        if regular[0] < day < regular[-1] and day not in closes:
            closes[day] = datetime.combine(day, closes[regular[bisect_left(regular, day) - 1]].time())
    return TradingCalendar(
        name, str(calendar.tz), tuple(sorted(closes)), tuple(sorted(closes.values())), timedelta(minutes=delay_minutes), special_sessions
    )
