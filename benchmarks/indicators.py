"""The 22 indicators beside a TA-Lib loop and DuckDB window SQL: `python -m benchmarks.indicators`.

Prints one JSON line per comparison: medians in seconds of five interleaved repeats, and ours as a multiple of the
peer's. The real panel where it is at hand, otherwise 505 generated symbols of 1,259 sessions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import polars as pl
import talib

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.labels import labels
from quant_assets_tests.lookahead import NO_ACTIONS, random_history, sp500_panel

REPEATS = 5
WINDOWED = f"""
    select symbol, session,
        {", ".join(f"avg(adj_close) over last_{n} / price_factor as sma_{n}" for n in (5, 10, 20, 50))},
        sma_20 as bb_middle, stddev_pop(adj_close) over last_20 / price_factor as deviation,
        sma_20 + 2 * deviation as bb_upper, sma_20 - 2 * deviation as bb_lower,
        4 * deviation / sma_20 as bb_width, (close - bb_lower) / nullif(4 * deviation, 0) as bb_position,
        avg(adj_volume) over last_20 * share_factor as volume_sma_20, volume / nullif(volume_sma_20, 0) as volume_ratio,
        {", ".join(f"adj_close / lag(adj_close, {n}) over symbols - 1 as price_change_{n}d" for n in (1, 5, 20))},
        (high - low) / close as high_low_range
    from adjusted
    window symbols as (partition by symbol order by session),
        {", ".join(f"last_{n} as (partition by symbol order by session rows {n - 1} preceding)" for n in (5, 10, 20, 50))}
"""
"""15 of the 22 columns: those that are windows, not recursions."""


def talib_loop(series: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same 22 columns, symbol by symbol, from arrays that are already split."""
    results = []
    for high, low, close, volume in series:
        upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
        width, mean_volume = upper - lower, talib.SMA(volume, 20)
        with np.errstate(invalid="ignore", divide="ignore"):
            results.append((
                talib.RSI(close, 14), *talib.MACD(close, 12, 26, 9), upper, middle, lower, width / middle, (close - lower) / width,
                *(talib.SMA(close, n) for n in (5, 10, 20, 50)), talib.EMA(close, 12), talib.EMA(close, 26),
                volume / mean_volume, mean_volume, talib.OBV(close, volume),
                *(talib.ROCP(close, n) for n in (1, 5, 20)), (high - low) / close,
            ))  # fmt: skip
    return results


def duckdb_windows(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """The windowed columns in SQL, as a Polars frame."""
    return connection.sql(WINDOWED).pl()


def medians(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each, repeated in turn, after one call of each that is not counted."""
    ours(), peer()
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(REPEATS):
        for index, call in enumerate((ours, peer)):
            start = perf_counter()
            call()
            times[index].append(perf_counter() - start)
    return median(times[0]), median(times[1])


def main() -> None:
    """Measure and print."""
    panel = sp500_panel()
    bars = random_history(1, symbols=505, n=1259, gaps=0.0)["bars"] if panel is None else panel
    adjusted = forward_adjusted(bars.with_columns(pl.col("volume").fill_null(0.0)), NO_ACTIONS)
    columns = ("adj_high", "adj_low", "adj_close", "adj_volume")
    series = [tuple(group[name].to_numpy() for name in columns) for group in adjusted.partition_by("symbol", maintain_order=True)]
    sessions = adjusted.select(pl.col("session").unique().sort()).with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).alias("ordinal"), pl.col("session").cast(pl.Datetime("us")).alias("known_at")
    )
    ours = partial(technical_v1, adjusted)
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("adjusted", adjusted)
        comparisons = {
            "technical_v1 beside a TA-Lib loop": (ours, partial(talib_loop, series)),
            "technical_v1 beside 15 of its columns in DuckDB": (ours, partial(duckdb_windows, connection)),
            "forward_adjusted beside technical_v1": (partial(forward_adjusted, bars, NO_ACTIONS), ours),
            "labels beside technical_v1": (partial(labels, adjusted, sessions), ours),
        }
        for name, (call, peer) in comparisons.items():
            mine, theirs = medians(call, peer)
            line = {"bench": name, "rows": bars.height, "ours": round(mine, 4), "peer": round(theirs, 4), "ratio": round(mine / theirs, 2)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
