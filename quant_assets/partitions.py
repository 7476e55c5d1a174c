"""The daily session partitions that all stages share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from quant_assets.clock import TradingCalendar, calendar_of, utc_now
from quant_assets.settings import Settings, load_settings


def daily_sessions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """One partition per session of the calendar.

    Every date that is no session is excluded. `end_offset=1` makes tonight's session a partition on its own
    evening rather than a day later; a run refuses one whose close has not come yet.
    """
    calendar = calendar_of(settings)
    first = settings.first_session_floor
    closed = calendar.closed_dates(first, calendar.sessions[-1])
    # Days of the week that never trade as one rule: Dagster copies the list into every run, once per asset.
    weekend = sorted({day.isoweekday() for day in closed} - {day.isoweekday() for day in calendar.between(first, calendar.sessions[-1])})
    holidays = [datetime(day.year, day.month, day.day) for day in closed if day.isoweekday() not in weekend]
    return dg.DailyPartitionsDefinition(
        start_date=first.isoformat(),
        timezone=calendar.timezone,
        end_offset=1,
        exclusions=[*([f"0 0 * * {','.join(str(day % 7) for day in weekend)}"] if weekend else []), *holidays],
    )


def nightly_cron(calendar: TradingCalendar) -> str:
    """When the nightly schedule ticks, in the calendar's time zone: after the latest regular close plus the vendor's delay.

    An exchange that closes late enough for this to fall on the next day gets the next morning's first minutes.
    """
    from zoneinfo import ZoneInfo

    recent = [close for close in calendar.closes if close <= utc_now()][-260:] or list(calendar.closes[:260])
    local = [close.replace(tzinfo=UTC).astimezone(ZoneInfo(calendar.timezone)) for close in recent]
    latest = max(local, key=lambda close: (close.hour, close.minute))
    tick = latest + calendar.delay + timedelta(minutes=15)
    return f"{tick.minute} {tick.hour} * * *"


SESSIONS = daily_sessions(load_settings())
