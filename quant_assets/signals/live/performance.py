"""How the champion does since people rely on it: its live rank IC, whether that has decayed, and why to train again, if so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl
from polars import selectors as cs

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.views import definition_hash
from quant_assets.settings import Settings
from quant_assets.signals.champions import champion_for
from quant_assets.signals.live.decay import champion_decay, drift_of_night, mean_interval, retraining_reason
from quant_assets.signals.live.scorecard import by_month, performance, scorecard_as_of
from quant_assets.warehouse import Warehouse

MONTHS = 24


@dataclass(frozen=True)
class LivePerformance:
    """What the scorecard says tonight.

    `rows` counts its rows by mode, `months` is `by_month` of the last two years, rounded for people. `rank_ic` is the champion's
    own over its live sessions, with its 95 % interval where there are enough of them; null where there are none. `reason`
    is empty where nothing asks for a training, or the settings want the heuristic.
    """

    rows: dict[str, int]
    months: pl.DataFrame
    live_sessions: int
    rank_ic: dict[str, float]
    decay: str
    reason: str


def live_performance(
    warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, as_of: datetime, tonight: date
) -> LivePerformance:
    """Read the scorecard as of an instant and judge the champion of a session by it."""
    view, horizon = settings.feature_view, settings.horizon
    rows = scorecard_as_of(warehouse, horizon, as_of)
    champion = champion_for(warehouse, horizon, calendar.close(tonight), as_of, view, definition_hash(view), settings.label_threshold)
    decay = champion_decay(warehouse, champion.model_version, horizon, as_of, rows) if champion else None
    sessions = performance(rows)
    its_own = sessions.filter(mode="live", scorer="model", model_version=champion.model_version if champion else "")
    ics = its_own["rank_ic"].drop_nulls().to_numpy()
    numbers = {"live_rank_ic": float(ics.mean())} if len(ics) else {}
    if interval := mean_interval(ics, horizon):
        numbers |= {"live_rank_ic_low": interval[0], "live_rank_ic_high": interval[1]}
    return LivePerformance(
        rows={mode: rows.filter(mode=mode).height for mode in ("live", "replayed")},
        months=by_month(sessions).head(MONTHS).with_columns(cs.float().round(4)),
        live_sessions=len(ics),
        rank_ic=numbers,
        decay=decay.text if decay else "no champion to judge",
        reason="" if settings.scorer == "heuristic" else retraining_reason(drift_of_night(warehouse, view, tonight, as_of), decay),
    )
