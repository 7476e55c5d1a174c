"""The partitions that all stages share are exactly the calendar's sessions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from quant_assets.clock import calendar_of, trading_calendar
from quant_assets.partitions import daily_sessions, nightly_cron
from quant_assets.settings import Settings, load_settings

NEW_YORK = ZoneInfo("America/New_York")


def settings(calendar: str = "XNYS", start: date = date(2012, 1, 1)) -> Settings:
    return load_settings(source="files", calendar=calendar, start=start)


@pytest.fixture(scope="module")
def new_york() -> dg.DailyPartitionsDefinition:
    return daily_sessions(settings())


def keys(partitions: dg.DailyPartitionsDefinition, now: datetime) -> list[str]:
    return list(partitions.get_partition_keys(current_time=now))


class TestRegression:
    def test_closed_days_are_no_partitions_and_half_days_are(self, new_york: dg.DailyPartitionsDefinition) -> None:
        year = keys(new_york, datetime(2012, 12, 31, 18, tzinfo=NEW_YORK))
        assert (year[0], year[-1], len(year)) == ("2012-01-03", "2012-12-31", 250)
        closed = ["2012-01-02", "2012-09-03", "2012-10-29", "2012-10-30", "2012-11-03", "2012-11-22"]  # Sandy: 29 and 30 October
        assert set(closed) & set(year) == set()
        assert {"2012-07-03", "2012-11-23", "2012-12-24"} <= set(year)

    @pytest.mark.parametrize(
        ("now", "last"),
        [
            (datetime(2012, 11, 2, 18), "2012-11-02"),  # tonight's session, on its own evening
            (datetime(2012, 11, 2, 0, 5), "2012-11-02"),  # and since its date began: a run before its close is refused
            (datetime(2012, 11, 1, 23, 55), "2012-11-01"),
            (datetime(2012, 11, 3, 12), "2012-11-05"),  # on a closed day the next session is listed already
            (datetime(2012, 10, 29, 18), "2012-10-31"),
        ],
    )
    def test_the_last_partition(self, new_york: dg.DailyPartitionsDefinition, now: datetime, last: str) -> None:
        assert keys(new_york, now.replace(tzinfo=NEW_YORK))[-1] == last

    @pytest.mark.parametrize(
        ("session", "offset"),
        [("2012-03-09", -5), ("2012-03-12", -4), ("2012-11-02", -4), ("2012-11-05", -5)],
    )
    def test_a_partition_begins_at_midnight_of_the_exchange_winter_and_summer(
        self, new_york: dg.DailyPartitionsDefinition, session: str, offset: int
    ) -> None:
        start = new_york.time_window_for_partition_key(session).start
        assert (start.isoformat(), start.utcoffset()) == (f"{session}T00:00:00-0{-offset}:00", timedelta(hours=offset))

    @pytest.mark.parametrize("around", [date(2013, 3, 10), date(2013, 11, 3)])
    def test_no_session_is_lost_or_doubled_where_the_clock_changes(self, new_york: dg.DailyPartitionsDefinition, around: date) -> None:
        week = [str(around + timedelta(days=n)) for n in (*range(-6, -1), *range(1, 6))]
        now = datetime(around.year, around.month, around.day, 18, tzinfo=NEW_YORK) + timedelta(days=5)
        assert keys(new_york, now)[-10:] == week

    @pytest.mark.parametrize(("calendar", "cron"), [("XNYS", "45 16 * * *"), ("XTKS", "15 16 * * *"), ("XLON", "15 17 * * *")])
    def test_the_schedule_ticks_after_the_close_and_the_vendor(self, calendar: str, cron: str) -> None:
        assert nightly_cron(calendar_of(settings(calendar, date(2025, 1, 2)))) == cron

    def test_the_partitions_of_the_default_settings_load(self) -> None:
        assert keys(daily_sessions(load_settings(source="synthetic", start=None)), datetime(2021, 11, 23, 18, tzinfo=NEW_YORK)) == [
            "2021-11-22",
            "2021-11-23",
        ]


class TestProperties:
    @pytest.mark.parametrize(
        ("calendar", "first", "last"),
        [
            ("XNYS", date(2012, 1, 1), date(2013, 2, 1)),
            ("XTKS", date(2019, 3, 1), date(2020, 1, 31)),  # ten closed days in May 2019, for the emperor
            ("XTAE", date(2023, 1, 1), date(2023, 12, 31)),  # Sunday to Thursday
        ],
    )
    def test_partitions_are_the_sessions(self, calendar: str, first: date, last: date) -> None:
        sessions = trading_calendar(calendar, first)
        evening = sessions.close(sessions.session_on_or_before(last)).replace(tzinfo=UTC)
        found = keys(daily_sessions(settings(calendar, first)), evening)
        assert found == [str(session) for session in sessions.between(first, last)]
