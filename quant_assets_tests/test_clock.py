"""Sessions, closes, and when a row becomes known."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.clock import TradingCalendar, trading_calendar, utc_now
from quant_assets.errors import ConfigurationError

INSTANT = timedelta(microseconds=1)
XNYS = trading_calendar("XNYS", date(2020, 1, 2))
SESSIONS = st.sampled_from(XNYS.sessions[1:])


class TestRegression:
    @pytest.mark.parametrize(
        ("session", "close"),
        [
            (date(2020, 3, 6), datetime(2020, 3, 6, 21)),  # winter time: 16:00 in New York
            (date(2020, 3, 9), datetime(2020, 3, 9, 20)),  # summer time began the day before
            (date(2020, 11, 27), datetime(2020, 11, 27, 18)),  # half-day after Thanksgiving: 13:00
        ],
    )
    def test_a_bar_is_known_at_its_close_plus_the_delay(self, calendar: TradingCalendar, session: date, close: datetime) -> None:
        assert calendar.close(session) == close
        assert calendar.known_at(session) == close + timedelta(minutes=30)

    def test_delay_moves_the_instant_at_which_a_session_is_known(self) -> None:
        late = trading_calendar("XNYS", date(2020, 1, 2), 120)
        assert late.known_at(date(2020, 3, 6)) == datetime(2020, 3, 6, 23)
        assert late.last_known_session(datetime(2020, 3, 6, 22, 59)) == date(2020, 3, 5)

    def test_asia_closes_on_its_own_date_in_utc(self) -> None:
        tokyo = trading_calendar("XTKS", date(2020, 1, 2))
        assert (tokyo.timezone, tokyo.close(date(2020, 1, 6))) == ("Asia/Tokyo", datetime(2020, 1, 6, 6))

    @pytest.mark.parametrize(
        ("text", "instant"),
        [
            ("2020-07-02", datetime(2020, 7, 2, 20, 30)),
            ("20200702", datetime(2020, 7, 2, 20, 30)),  # a date too, not midnight
            (" 2020-07-04 ", datetime(2020, 7, 2, 20, 30)),  # Saturday after a holiday
            ("2020-07-02T20:29", datetime(2020, 7, 2, 20, 29)),
            ("2020-07-02T16:30:00-04:00", datetime(2020, 7, 2, 20, 30)),
            ("2020-07-02T20:30:00Z", datetime(2020, 7, 2, 20, 30)),
        ],
    )
    def test_as_of_reads_dates_and_instants(self, calendar: TradingCalendar, text: str, instant: datetime) -> None:
        assert calendar.as_of(text) == instant

    @pytest.mark.parametrize("text", ["", "yesterday", "2020-13-01", "02.07.2020"])
    def test_as_of_refuses_anything_else_and_shows_both_forms(self, calendar: TradingCalendar, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"neither a date \(2018-02-07\) nor an instant"):
            calendar.as_of(text)

    def test_errors_name_the_nearest_session(self, calendar: TradingCalendar) -> None:
        with pytest.raises(ConfigurationError, match="2020-07-03 is not a session of XNYS; the one before it is 2020-07-02"):
            calendar.close(date(2020, 7, 3))
        with pytest.raises(ConfigurationError, match="the first known is 2020-01-02"):
            calendar.session_on_or_before(date(2020, 1, 1))
        with pytest.raises(ConfigurationError, match="the first one closes at 2020-01-02 21:00:00 UTC"):
            calendar.last_known_session(datetime(2020, 1, 2, 21, 29))

    def test_unknown_calendar_names_the_setting_and_examples(self) -> None:
        with pytest.raises(ConfigurationError, match=r"QUANT_CALENDAR='NYSEE'.*XNYS, XLON"):
            trading_calendar("NYSEE", date(2020, 1, 2))

    def test_first_date_before_the_calendar_names_the_earliest(self) -> None:
        with pytest.raises(ConfigurationError, match=r"QUANT_START\): The earliest date .* XTKS .* 1997-01-01"):
            trading_calendar("XTKS", date(1990, 1, 1))

    def test_frame_has_one_row_per_session_with_its_clock(self, calendar: TradingCalendar) -> None:
        frame = calendar.frame(date(2020, 1, 1), date(2020, 1, 6))
        assert frame["session"].to_list() == [date(2020, 1, 2), date(2020, 1, 3), date(2020, 1, 6)]
        assert frame["ordinal"].to_list() == [0, 1, 2]
        assert frame["known_at"].to_list() == [datetime(2020, 1, day, 21, 30) for day in (2, 3, 6)]
        assert calendar.frame(date.max, date.max).is_empty()

    def test_closed_dates_are_weekends_and_holidays(self, calendar: TradingCalendar) -> None:
        assert calendar.closed_dates(date(2020, 7, 2), date(2020, 7, 6)) == [date(2020, 7, 3), date(2020, 7, 4), date(2020, 7, 5)]

    def test_a_special_session_closes_as_the_one_before_it_and_is_a_session_like_any(self) -> None:
        special = trading_calendar("XNYS", date(2020, 1, 2), 30, (date(2020, 7, 4), date(2020, 7, 6), date(1999, 1, 2)))
        assert special.between(date(2020, 7, 2), date(2020, 7, 6)) == (date(2020, 7, 2), date(2020, 7, 4), date(2020, 7, 6))
        assert special.known_at(date(2020, 7, 4)) == datetime(2020, 7, 4, 20, 30)
        assert len(special.sessions) == len(trading_calendar("XNYS", date(2020, 1, 2)).sessions) + 1

    def test_sessions_reach_past_today(self, calendar: TradingCalendar) -> None:
        assert calendar.sessions[-1] > utc_now().date() + timedelta(days=300)


class TestProperties:
    @given(SESSIONS)
    def test_a_session_is_the_last_known_one_from_its_own_instant_on(self, session: date) -> None:
        known_at = XNYS.known_at(session)
        assert XNYS.last_known_session(known_at) == session
        assert XNYS.last_known_session(known_at - INSTANT) == XNYS.previous(session)
        assert XNYS.as_of(session.isoformat()) == known_at
        assert XNYS.as_of(known_at.isoformat()) == known_at

    @given(st.dates(XNYS.sessions[0], XNYS.sessions[-1]), st.integers(0, 60))
    def test_every_date_is_a_session_or_closed(self, first: date, days: int) -> None:
        last = first + timedelta(days=days)
        open_dates, closed = XNYS.between(first, last), XNYS.closed_dates(first, last)
        assert sorted([*open_dates, *closed]) == [first + timedelta(days=n) for n in range(days + 1)]
        assert all(XNYS.is_session(day) for day in open_dates)
        assert not any(XNYS.is_session(day) for day in closed)
        assert XNYS.frame(first, last)["session"].to_list() == list(open_dates)

    def test_later_sessions_are_known_later(self) -> None:
        instants = [XNYS.known_at(session) for session in XNYS.sessions]
        assert instants == sorted(set(instants))
