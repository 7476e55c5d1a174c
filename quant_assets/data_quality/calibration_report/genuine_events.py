"""Bars that look like faults and are none, told by what no fault does: the bars a sentinel must leave alone.

They are taken from the bars as given, so that errors among those count as events too, and so do spin-offs that no action
tells of, which move the price like news; a rate of false alarms on them is an upper bound.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.calibration_report.injection import LEAST_SYMBOLS

JUMP_SCALES, JUMP_VOLUME, KEPT = 8.0, 2.5, 0.5
"""A jump: so many usual moves, at so many times the usual volume, of which so much is still there a session later."""
SPIKE_VOLUME = 5.0
MARKET_SHARE = 0.01
"""Share of the sessions that count as moves of the whole market: those whose median return is the largest."""


def genuine_events(bars: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """The kind of each bar (`symbol`, `session`, `kind`): one row per bar and event, `ordinary` where there is none.

    `jump`: eight usual moves from close to close on at least 2.5 times the usual volume, not taken back by the next close
    (news; an error reverts). `market_move`: any bar of the 1 % of sessions with the largest median return. `half_day`: the
    exchange closed early. `volume_spike`: five times the usual volume. Usual is the median over the 250 bars before (of
    volume: 20 bars), 20 (10) at least.
    """
    close = pl.when(pl.col("close") > 0).then("close").log()
    measured = (
        bars.sort("symbol", "session")
        .with_columns(move=close.diff().over("symbol"))
        .with_columns(
            usual=pl.col("move").abs().shift(1).rolling_median(250, min_samples=20).over("symbol") * 1.4826,
            volumes=pl.col("volume") / pl.col("volume").shift(1).rolling_median(20, min_samples=10).over("symbol"),
            kept=(pl.col("move") + pl.col("move").shift(-1).over("symbol")) / pl.col("move"),
        )
        .select(
            "symbol",
            "session",
            jump=(pl.col("move").abs() >= JUMP_SCALES * pl.col("usual")) & (pl.col("volumes") >= JUMP_VOLUME) & (pl.col("kept") >= KEPT),
            market_move=pl.col("session").is_in(_market_moves(bars.select("symbol", "session", close.alias("close"))).implode()),
            half_day=pl.col("session").is_in(_half_days(calendar).implode()),
            volume_spike=pl.col("volumes") >= SPIKE_VOLUME,
        )
    )
    kinds = ("jump", "market_move", "half_day", "volume_spike")
    ordinary = (~pl.any_horizontal(pl.col(kind).fill_null(value=False) for kind in kinds)).alias("ordinary")
    named = measured.with_columns(ordinary).unpivot(on=[*kinds, "ordinary"], index=["symbol", "session"], variable_name="kind")
    return named.filter("value").drop("value")


def _market_moves(closes: pl.DataFrame) -> pl.Series:
    moves = closes.sort("symbol", "session").with_columns(move=pl.col("close").diff().over("symbol")).drop_nulls("move")
    sessions = moves.group_by("session").agg(pl.col("move").median().abs(), pl.len()).filter(pl.col("len") >= LEAST_SYMBOLS)
    return sessions.top_k(int(np.ceil(MARKET_SHARE * sessions.height)), by="move")["session"]


def _half_days(calendar: TradingCalendar) -> pl.Series:
    """Sessions that close an hour or more before the usual time of day there."""
    closes = calendar.frame(calendar.sessions[0], calendar.sessions[-1]).select(
        "session", hour=pl.col("close_at").dt.replace_time_zone("UTC").dt.convert_time_zone(calendar.timezone).dt.time().cast(pl.Duration)
    )
    return closes.filter(pl.col("hour") <= pl.col("hour").median() - pl.duration(hours=1))["session"]
