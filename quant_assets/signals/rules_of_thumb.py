"""The heuristic of each month: its rules held against the outcomes that were known before the month's first close."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.feature_store.inputs import SCOPE_THEN
from quant_assets.feature_store.labels import exceeds
from quant_assets.schemas import HEURISTIC_CALIBRATIONS
from quant_assets.signals.calibration import Calibration
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

    A month's calibration is made once, from rows and outcomes of symbols in scope that were known before the close of the
    month's first session; whoever asks later is given the same.
    """
    month_of = {session: calendar.session_on_or_after(session.replace(day=1)) or session for session in sessions}
    made = _stored(warehouse, horizon, label_threshold, as_of)
    months = sorted(set(month_of.values()) - made.keys())
    if months:
        before = {month: calendar.sessions_before(month, LOOK_BACK_SESSIONS) for month in months}
        outcomes = _outcomes(warehouse, calendar, horizon, before[months[0]], months[-1], as_of).with_columns(up=exceeds(label_threshold))
        rows = []
        for month in months:
            close = calendar.close(month)
            known = outcomes.filter(pl.col("session") >= before[month], pl.col("known_at") < close, pl.col("row_known_at") < close)
            enough = known["session"].n_unique() >= LEAST_SESSIONS
            made[month] = Heuristic.calibrated(known) if enough else Heuristic()
            calibration = made[month].calibration
            told = calibration.intercept, calibration.slope, known.height * enough
            rows.append((horizon, label_threshold, month, as_of, *told, run_id, utc_now()))
        stored = pl.DataFrame(rows, schema=HEURISTIC_CALIBRATIONS.polars_schema, orient="row")
        with warehouse.transaction() as connection:
            append_versions(connection, HEURISTIC_CALIBRATIONS, stored)
    return {session: made[month] for session, month in month_of.items()}


def _stored(warehouse: Warehouse, horizon: int, label_threshold: float, as_of: datetime) -> dict[date, Heuristic]:
    """The heuristic of each month that has been calibrated by an instant; one without outcomes is as written."""
    rows = warehouse.read(
        """
        select valid_from, intercept, slope, rows from signals.heuristic_calibrations_as_of($as_of)
        where horizon = $horizon and label_threshold = $label_threshold
        """,
        {"as_of": as_of, "horizon": horizon, "label_threshold": label_threshold},
    )
    return {
        month: Heuristic(Calibration("platt", intercept, slope)) if n else Heuristic() for month, intercept, slope, n in rows.iter_rows()
    }


def _outcomes(warehouse: Warehouse, calendar: TradingCalendar, horizon: int, first: date, month: date, as_of: datetime) -> pl.DataFrame:
    """What the rules read and what came of it, of symbols in scope, known before the close of a month's first session."""
    return warehouse.read(
        f"""
        select row.session, {", ".join(f"row.{name}" for name in Heuristic.reads)}, row.known_at as row_known_at, forward_return, label.known_at
        from feature_store.technical_v1 as row semi join {SCOPE_THEN} join feature_store.labels as label using (symbol, session)
        where horizon = $horizon and session between $first and $last and label.known_at < $close order by session, symbol
        """,
        {"horizon": horizon, "first": first, "last": month, "close": calendar.close(month), "as_of": as_of},
    )
