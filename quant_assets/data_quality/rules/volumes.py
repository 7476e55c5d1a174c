"""What the volume says of a bar: prices that stand still while shares trade, move while none do, and unusual volumes.

How long a price may stand still depends on the symbol: one at 1 with a tick of 0.01 repeats its close often, an illiquid one
its whole bar. A run is therefore measured against how often the symbol's own price stood still before.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.data_quality.findings import BELOW_CRITICAL, CRITICAL_RATE, INFO_RATE, findings
from quant_assets.data_quality.rules.coverage import one_per_session
from quant_assets.data_quality.rules.moves import HISTORY, RULES_THAT_SHARE, TICK, tail_score
from quant_assets.data_quality.rules.prices import PRICES
from quant_assets.data_quality.suspicion.panel_features import PanelFeatures

STALE_SIGHT = 10
"""Sessions after a repeated bar in which its run may still become long enough."""
PAST, APART = 120, 20
"""Bars from which a symbol's own rate of repeats is taken, and how far they end before the bar: no run is its own excuse."""
PRIOR_TRIALS = 60
"""Bars that the prior rate of repeats counts for: one close of them, half a whole bar."""
TRADES = 60
"""Recent bars that tell whether a symbol usually trades."""
SPIKE = (6.6, 9.6, 13.0, 16.0)  # in the scatter of log volume, what the shares `RATES` of clean bars exceed


def stale_close(bars: pl.DataFrame) -> pl.DataFrame:
    """Traded bars that repeat the symbol's close, or its whole open, high, low and close, for too many sessions in a row.

    The chance of so long a run is the symbol's own rate of repeats to the power of its length. A close alone may stand still
    for a cause (a bid for the company), so only a run of whole bars is critical. A bar is found by the run as it stood in
    its own session, and, where that is not yet critical, once more when the run becomes so within ten sessions
    (`rules_later_sessions`). The bar that a run repeats is none of it, nor is one without volume.
    """
    regular = one_per_session(bars)
    same = {name: pl.col(name).eq(pl.col(name).shift(1)).fill_null(value=False) for name in (*PRICES, "symbol")}
    finite = pl.all_horizontal(pl.col(name).is_finite() for name in (*PRICES, "volume"))
    traded = (finite & (pl.col("volume") > 0)).fill_null(value=False)
    flags = regular.select(
        new=~same["symbol"],
        traded=traded,
        closes=traded & same["symbol"] & same["close"],
        whole=traded & pl.all_horizontal(same.values()) & (pl.col("high") > pl.col("low")),
    )
    new, traded_before, closes, whole = (flags[name].to_numpy() for name in ("new", "traded", "closes", "whole"))
    rows, place = np.flatnonzero(closes), np.arange(len(closes))
    first, began, began_whole = (np.maximum.accumulate(np.where(starts, place, 0))[rows] for starts in (new, ~closes, ~whole))
    run, run_whole = rows - began, rows - began_whole
    # A close of few ticks repeats by itself: for a usual move of 2 % a day, as often as this.
    ticks = np.clip(0.4 * TICK / 0.02 / np.maximum(regular["close"].to_numpy()[rows], TICK), 0.0, 0.9)
    trials = _past(traded_before, rows, first) + PRIOR_TRIALS
    often = np.maximum((_past(closes, rows, first) + 1) / trials, ticks)
    wholly = np.maximum((_past(whole, rows, first) + 0.5) / trials, ticks**2)
    by_close = np.minimum(1 - RULES_THAT_SHARE * often ** np.minimum(run, APART), BELOW_CRITICAL)
    by_whole = np.where(run_whole > 0, 1 - RULES_THAT_SHARE * wholly ** np.minimum(run_whole, APART), 0.0)
    columns = {"began": began, "began_whole": began_whole, "run": run, "run_whole": run_whole, "score": np.maximum(by_close, by_whole)}
    scored = (
        regular[rows]
        .with_columns(pl.Series(name, values) for name, values in columns.items())
        .with_columns(original_known_at=regular["known_at"][began])
        .with_columns(so_far=pl.max_horizontal(pl.col("known_at").cum_max().over("began"), "original_known_at"))
    )
    detail = pl.format("the same close {} for {} sessions in a row after the first, {} of them whole bars", "close", "run", "run_whole")
    own = findings(scored.filter(pl.col("score") >= 1 - INFO_RATE), "stale_close", detail, score=pl.col("score"), known_at="so_far")

    critical = pl.col("score") >= 1 - CRITICAL_RATE
    told = ("score", "run", "so_far")
    reached = scored.filter(critical).select("began_whole", "run_whole", *told, until="run_whole")
    late = (
        scored.filter(~critical & (pl.col("run_whole") > 0))
        .drop(told)
        .join_asof(reached, on="run_whole", by="began_whole", strategy="forward", tolerance=STALE_SIGHT, check_sortedness=False)
        .filter(pl.col("score").is_not_null())
        .with_columns(run_whole="until")
    )
    later = findings(late, "stale_close", detail, score=pl.col("score"), known_at="so_far", detector="rules_later_sessions")
    return pl.concat([own, later])


def zero_volume_move(bars: pl.DataFrame) -> pl.DataFrame:
    """Closes that moved while no share traded, of symbols that usually trade; the score falls with the share of idle bars.

    It is just critical at most: the volume is wrong for sure, the close perhaps.
    """
    stood_idle = bars.filter(pl.col("volume") == 0).select("symbol").unique()
    idle = (pl.col("volume") == 0).cast(pl.Float64).rolling_mean(TRADES, min_samples=TRADES // 3).shift(1).over("symbol")
    last = pl.col("adj_close").shift(1).over("symbol")
    moved = (
        one_per_session(bars)
        .join(stood_idle, on="symbol", how="semi", maintain_order="left")
        .with_columns(idle=idle, move=pl.col("adj_close") / last - 1, last_known_at=pl.col("known_at").shift(1).over("symbol"))
    )
    beyond_rounding = pl.col("move").abs() > pl.max_horizontal(1e-3, 1.01 * TICK / pl.col("close").abs())
    found = moved.filter((pl.col("volume") == 0) & beyond_rounding & pl.col("move").is_finite() & (pl.col("idle") <= 1 / 20))
    detail = pl.format("moved {} % on volume 0; {} % of its recent bars had none", _percent("move"), _percent("idle"))
    known = pl.max_horizontal("known_at", "last_known_at")
    return findings(found, "zero_volume_move", detail, score=1 - pl.max_horizontal("idle", pl.lit(CRITICAL_RATE)), known_at=known)


def volume_spike(bars: pl.DataFrame, features: PanelFeatures) -> pl.DataFrame:
    """Volumes far above the symbol's usual one and the market's that session; never critical."""
    rows, columns = np.nonzero((features.volume >= SPIKE[0]) & (features.history >= HISTORY))
    unusual = features.volume[rows, columns]
    spikes = pl.DataFrame(
        {
            "symbol": features.symbols.gather(columns),
            "session": features.sessions.gather(rows),
            "unusual": unusual,
            "score": np.minimum(tail_score(unusual, SPIKE), BELOW_CRITICAL),
        }
    )
    found = bars.join(spikes, on=["symbol", "session"], how="inner", maintain_order="left")
    detail = pl.format("volume {}, {} sigmas of its logarithm above the usual one", pl.col("volume"), pl.col("unusual").round(1))
    return findings(found.unique(["symbol", "session"], keep="last", maintain_order=True), "volume_spike", detail, score=pl.col("score"))


def _past(flag: NDArray[np.bool_], rows: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often the flag was set in the `PAST` rows that end `APART` before each row, none of them before the symbol's first."""
    before: NDArray[np.int64] = np.concatenate([[0], np.cumsum(flag)])
    counted: NDArray[np.int64] = before[np.maximum(rows - APART + 1, first)] - before[np.maximum(rows - APART - PAST + 1, first)]
    return counted


def _percent(name: str) -> pl.Expr:
    return (100 * pl.col(name)).round(2)
