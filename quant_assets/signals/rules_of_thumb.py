"""The heuristic of each month: its rules held against the outcomes that were known before the month's first close."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.feature_store.labels import exceeds
from quant_assets.schemas import HEURISTIC_CALIBRATIONS
from quant_assets.signals.heuristic import Heuristic
from quant_assets.warehouse import Warehouse, append_versions

LOOK_BACK_SESSIONS = 504
LEAST_SESSIONS = 60
"""Fewer sessions of outcomes tell the market's luck, not a base rate: the rules are then taken as written."""


def heuristics(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    horizon: int,
    label_threshold: float,
    as_of: datetime,
    sessions: Sequence[date],
    run_id: str,
) -> dict[date, Heuristic]:
    """The heuristic that scores each of some sessions, calibrated on the two years of outcomes before its month; stored.

    A month's calibration is the same whichever of its sessions are asked for, and sees no outcome that became known at or
    after the close of its first session.
    """
    month_of = {session: calendar.session_on_or_after(session.replace(day=1)) or session for session in sessions}
    months = sorted(set(month_of.values()))
    if not months:
        return {}
    before = {month: calendar.sessions_before(month, LOOK_BACK_SESSIONS) for month in months}
    outcomes = warehouse.read(
        f"""
        select row.session, {", ".join(f"row.{name}" for name in Heuristic.reads)}, forward_return, label.known_at
        from feature_store.technical_v1 as row join feature_store.labels as label using (symbol, session)
        where horizon = $horizon and session between $first and $last and label.known_at < $close order by session, symbol
        """,
        {"horizon": horizon, "first": before[months[0]], "last": months[-1], "close": calendar.close(months[-1])},
    ).with_columns(up=exceeds(label_threshold))
    made, rows = dict[date, Heuristic](), []
    for month in months:
        known = outcomes.filter(pl.col("session") >= before[month], pl.col("known_at") < calendar.close(month))
        enough = known["session"].n_unique() >= LEAST_SESSIONS
        made[month] = Heuristic.calibrated(known) if enough else Heuristic()
        calibration = made[month].calibration
        rows.append(
            (horizon, label_threshold, month, as_of, calibration.intercept, calibration.slope, known.height * enough, run_id, utc_now())
        )
    stored = pl.DataFrame(rows, schema=HEURISTIC_CALIBRATIONS.polars_schema, orient="row")
    with warehouse.transaction() as connection:
        append_versions(connection, HEURISTIC_CALIBRATIONS, stored)
    return {session: made[month] for session, month in month_of.items()}
