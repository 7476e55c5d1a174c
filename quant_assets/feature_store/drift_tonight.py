"""Tonight's drift: the view's model features, their trailing window against the training window of the champion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.drift import DRIFT as COLUMNS
from quant_assets.feature_store.drift import WINDOW, pooled, shifts
from quant_assets.feature_store.training_sets import features_as_of
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import DRIFT, INSTANT
from quant_assets.signals.champions import champion_for
from quant_assets.warehouse import Warehouse, append_versions


@dataclass(frozen=True)
class DriftRun:
    """What one night found: `drift` and the `series` that it was told from, as `drift.py` returns them; why there is nothing."""

    drift: pl.DataFrame
    series: pl.DataFrame
    note: str = ""


def judge_drift(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    view: str,
    horizon: int,
    as_of: datetime,
    tonight: date,
    floor: date,
    label_threshold: float = 0.0,
) -> DriftRun:
    """Judge and store the drift of a view's model features as of an instant; the same again writes nothing.

    The reference are the sessions that the champion of the horizon was trained on, without those of the window, so that
    a model trained tonight has one too; without a champion, all sessions before the window.
    """
    sessions = _sessions(warehouse, as_of, floor, tonight)
    trained_until = _trained_until(warehouse, view, horizon, label_threshold, as_of)
    before = [day for day in sessions[:-WINDOW] if trained_until is None or calendar.known_at(day) <= trained_until]
    if not before or sessions[-1] != tonight:
        nothing = f"{len(sessions)} sessions up to {tonight} leave no reference before a window of {WINDOW}"
        return DriftRun(pl.DataFrame(schema=COLUMNS), pl.DataFrame(), nothing)
    reference = before[0], before[-1]
    panel = features_as_of(warehouse, calendar, view, as_of, before[0], tonight).select("symbol", "session", *model_columns(view))
    if tonight not in panel["session"]:
        return DriftRun(pl.DataFrame(schema=COLUMNS), pl.DataFrame(), f"no symbol in scope has features on {tonight}")
    series = pooled(panel, reference)
    found = shifts(series, reference, [tonight])
    rows = found.with_columns(
        view=pl.lit(view),
        known_at=pl.lit(as_of, INSTANT),
        recorded_at=pl.lit(utc_now(), INSTANT),
        window_sessions=pl.col("window_sessions").fill_null(0),
    )
    with warehouse.transaction() as connection:
        append_versions(connection, DRIFT, rows.select(DRIFT.column_names))
    return DriftRun(found, series)


def _sessions(warehouse: Warehouse, as_of: datetime, floor: date, tonight: date) -> list[date]:
    return warehouse.read(
        "select distinct session from data_quality.clean_bars_as_of($as_of) where session between $floor and $tonight order by session",
        {"as_of": as_of, "floor": floor, "tonight": tonight},
    )["session"].to_list()


def _trained_until(warehouse: Warehouse, view: str, horizon: int, label_threshold: float, as_of: datetime) -> datetime | None:
    """How far the champion's training reached; None where there is none."""
    champion = champion_for(warehouse, horizon, as_of, as_of, view, definition_hash(view), label_threshold)
    return champion.trained_until if champion else None
