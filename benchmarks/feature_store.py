"""The feature store beside its peers: `python -m benchmarks.feature_store [--copies 20]`.

Kernels beside a TA-Lib loop, DuckDB window SQL and pandas' rolling windows symbol by symbol (the way in which qlib's
handlers compute), table to table beside merely writing the same columns, a new session, memory and growth. Prints one
JSON line per comparison: medians of interleaved repeats in seconds, and ours as a multiple of the peer's. The real panel
where it is at hand, otherwise 505 generated symbols of 1,259 sessions; `--copies` puts it under other names beside itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import polars as pl
import talib

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.alpha.history import alpha_history
from quant_assets.feature_store.alpha_market import alpha_market
from quant_assets.feature_store.catalog import ALPHA_HISTORY, ALPHA_MARKET, ALPHA_V1
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.labels import labels
from quant_assets.feature_store.market_series import market_series
from quant_assets.feature_store.store import (
    refresh_alpha_history,
    refresh_alpha_market,
    refresh_labels,
    refresh_market,
    refresh_technical,
)
from quant_assets.feature_store.training_sets import ALPHA_SQL
from quant_assets.feature_store.views import model_sql
from quant_assets.schemas import DAILY_BARS, TECHNICAL_V1
from quant_assets.warehouse import Warehouse, query
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


def pandas_rolling(series: list[Any]) -> int:
    """Eleven typical rolling columns of Alpha158 over 60 sessions, symbol by symbol with pandas; returns how many columns."""
    for frame in series:
        close, volume = frame["adj_close"], np.log(frame["adj_volume"] + 1)
        rolling = close.rolling(60, min_periods=60)
        made = [
            close.shift(60) / close, rolling.mean() / close, rolling.std() / close, rolling.max() / close, rolling.min() / close,
            rolling.quantile(0.8) / close, rolling.quantile(0.2) / close, rolling.rank(pct=True), close.rolling(60).corr(volume),
            (close / close.shift(1)).rolling(60).corr(volume.diff()), (close > close.shift(1)).astype(float).rolling(60).mean(),
        ]  # fmt: skip
    return len(made)


def interleaved(ours: Callable[[], object], peer: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Median seconds of each, repeated in turn, after one call of each that is not counted."""
    ours(), peer()
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(repeats):
        for index, call in enumerate((ours, peer)):
            start = perf_counter()
            call()
            times[index].append(perf_counter() - start)
    return median(times[0]), median(times[1])


def say(bench: str, ours: float, peer: float, **more: object) -> None:
    """Print one comparison."""
    print(json.dumps({"bench": bench, "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 3), **more}), flush=True)


def copies_of(panel: pl.DataFrame, copies: int) -> pl.DataFrame:
    """The panel some times over, each copy under other symbols."""
    return pl.concat([panel.with_columns(pl.col("symbol") + (f".{k}" if k else "")) for k in range(copies)], rechunk=True)


def kernels(panel: pl.DataFrame, copies: int) -> None:
    """What computes, from a frame to a frame."""
    adjusted = forward_adjusted(copies_of(panel, copies), NO_ACTIONS)
    columns = ("adj_high", "adj_low", "adj_close", "adj_volume")
    series = [tuple(group[name].to_numpy() for name in columns) for group in adjusted.partition_by("symbol", maintain_order=True)]
    repeats = REPEATS if copies == 1 else 3
    say(
        "technical_v1 beside a TA-Lib loop",
        *interleaved(partial(technical_v1, adjusted), partial(talib_loop, series), repeats),
        rows=adjusted.height,
    )
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("adjusted", adjusted)
        windows = partial(lambda: connection.sql(WINDOWED).pl())
        say(
            "technical_v1 beside 15 of its columns in DuckDB",
            *interleaved(partial(technical_v1, adjusted), windows, repeats),
            rows=adjusted.height,
        )


def alpha_kernels(panel: pl.DataFrame) -> None:
    """The columns of alpha_v1 beside pandas' windows, per column; cross-section and market in SQL included."""
    adjusted = forward_adjusted(panel, NO_ACTIONS)
    technical = technical_v1(adjusted).hstack(adjusted.select("price_factor", "share_factor", "known_at"))
    bars = adjusted.hstack(technical.select("price_change_1d"))
    market = market_series(technical.select("symbol", "session", "price_change_1d")).with_columns(known_at=pl.lit(datetime(2020, 1, 1)))
    beside = technical.select("symbol", "session", "price_change_1d", "known_at").join(
        market.select("session", "market_return_1d", pl.col("known_at").alias("market_known_at")),
        on="session",
        how="left",
        maintain_order="left",
    )
    scope = (
        technical.group_by("symbol")
        .agg(pl.col("session").min().alias("valid_from"))
        .with_columns(valid_to=pl.lit(None, pl.Date), since=pl.lit(None, pl.Datetime("us")))
    )

    def whole() -> pl.DataFrame:
        history = alpha_history(bars).hstack(bars.select("known_at"))
        parts = {
            "technical_v1": technical,
            "market_v1": market,
            "alpha_history_v1": history,
            "alpha_market_v1": alpha_market(beside),
            "scope": scope,
        }
        with duckdb.connect(config={"threads": 2}) as connection:
            for name, part in parts.items():
                connection.register(name, part)
            relations = {f"feature_store.{name}": name for name in parts} | {"market_data.scope": "scope"}
            return connection.sql(model_sql(ALPHA_SQL, relations)).pl()

    frames = [group.to_pandas() for group in adjusted.select("symbol", "adj_close", "adj_volume").partition_by("symbol")]
    mine, theirs = interleaved(whole, partial(pandas_rolling, frames), 3)
    say(
        "alpha_v1 beside pandas symbol by symbol, per column",
        mine / len(ALPHA_V1),
        theirs / 11,
        columns=len(ALPHA_V1),
        seconds=round(mine, 2),
    )
    mine, theirs = interleaved(partial(alpha_history, bars), partial(pandas_rolling, frames), 3)
    say("alpha_history_v1 beside pandas symbol by symbol, per column", mine / len(ALPHA_HISTORY), theirs / 11, columns=len(ALPHA_HISTORY))
    mine, theirs = interleaved(partial(alpha_market, beside), partial(pandas_rolling, frames), 3)
    say("alpha_market_v1 beside pandas symbol by symbol, per column", mine / len(ALPHA_MARKET), theirs / 11, columns=len(ALPHA_MARKET))


def growth(panel: pl.DataFrame) -> None:
    """Ten times the rows beside ten times the time."""
    one, ten = (forward_adjusted(copies_of(panel, n), NO_ACTIONS) for n in (1, 10))
    sessions = one.select(pl.col("session").unique().sort()).with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).alias("ordinal"), pl.col("session").cast(pl.Datetime("us")).alias("known_at")
    )
    for name, kernel in {"technical_v1": technical_v1, "labels": partial(labels, sessions=sessions)}.items():
        mine, theirs = interleaved(partial(kernel, ten), partial(kernel, one), 3)
        say(f"{name}: 10 times the rows beside 10 times the time", mine, 10 * theirs, rows=ten.height)


def bars_of(panel: pl.DataFrame) -> pl.DataFrame:
    """The panel as rows of `market_data.daily_bars`."""
    given = {"source": "files", "known_at_basis": "assumed", "batch_id": "b"}
    frame = panel.with_columns(
        *(pl.lit(value).alias(name) for name, value in given.items()),
        pl.lit(None, pl.Float64).alias("adj_close"),
        pl.col("volume").cast(pl.Float64),
        pl.lit(datetime(2020, 1, 1)).alias("recorded_at"),
    )
    return frame.select(DAILY_BARS.column_names)


def tables(panel: pl.DataFrame, copies: int, folder: Path) -> None:
    """Table to table, and a new session: all in DuckDB files."""
    calendar = trading_calendar("XNYS", date(2013, 1, 2))
    warehouse = Warehouse(folder / "quant.duckdb", "files")
    last = panel["session"].max()
    with warehouse.transaction() as connection:
        for copy in range(copies):
            connection.register(
                "bars", bars_of(panel.filter(pl.col("session") < last).with_columns(pl.col("symbol") + (f".{copy}" if copy else "")))
            )
            connection.execute("insert into market_data.daily_bars by name select * from bars order by symbol, session")
            connection.unregister("bars")
    rows = warehouse.read("select count(*) from market_data.daily_bars").item()
    refreshes = refreshes_of(warehouse, calendar)
    refreshes["technical_v1"]()  # compiles and warms up
    built, written = [], []
    for _ in range(3 if copies == 1 else 1):
        with warehouse.connect() as connection:
            frame = query(connection, "select * from feature_store.technical_v1 order by symbol, session")
            for name in ("technical_v1", "view_builds", "carried_states"):
                connection.execute(f"delete from feature_store.{name}")
            connection.execute("checkpoint")
        built.append(seconds(refreshes["technical_v1"]))
        written.append(seconds(partial(write, warehouse, frame)))
        del frame
    say("technical_v1 table to table beside writing its columns", median(built), median(written), rows=rows)
    for name, refresh in refreshes.items():
        if name != "technical_v1":
            print(json.dumps({"bench": f"{name} from nothing", "ours": round(seconds(refresh), 3), "rows": rows}), flush=True)
    print(json.dumps({"bench": "peak memory of the builds", "ours_gib": round(peak_gib(), 2), "rows": rows}), flush=True)
    with warehouse.transaction() as connection:
        connection.register("bars", bars_of(panel.filter(pl.col("session") == last)))
        connection.execute("insert into market_data.daily_bars by name select * from bars")
    for name, refresh in refreshes.items():
        print(json.dumps({"bench": f"{name}: a new session of 505 symbols", "ours": round(seconds(refresh), 3), "rows": rows}), flush=True)


def refreshes_of(warehouse: Warehouse, calendar: TradingCalendar) -> dict[str, Callable[[], object]]:
    """What brings each feature table up to date, in order."""
    return {
        "technical_v1": partial(refresh_technical, warehouse, "bench"),
        "labels": partial(refresh_labels, warehouse, calendar, "bench"),
        "market_v1": partial(refresh_market, warehouse, calendar, "bench"),
        "alpha_history_v1": partial(refresh_alpha_history, warehouse, "bench"),
        "alpha_market_v1": partial(refresh_alpha_market, warehouse, calendar, "bench"),
    }


def write(warehouse: Warehouse, frame: pl.DataFrame) -> None:
    """Write the columns of technical_v1 to an empty table, and nothing else."""
    with warehouse.transaction() as connection:
        connection.execute(f"create or replace table main.written as select * from {TECHNICAL_V1.full_name} limit 0")
        connection.register("frame", frame)
        connection.execute("insert into main.written select * from frame")
        connection.unregister("frame")


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = perf_counter()
    call()
    return perf_counter() - start


def peak_gib() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=1, help="how many times over the panel (20: 12.4 million rows)")
    parser.add_argument("--only", choices=["kernels", "alpha", "growth", "tables"])
    given = parser.parse_args()
    found = sp500_panel()
    panel = (random_history(1, symbols=505, n=1259, gaps=0.0)["bars"] if found is None else found).with_columns(
        pl.col("volume").fill_null(0.0)
    )
    wanted = [given.only] if given.only else ["tables", "kernels", "alpha", "growth"]
    if "tables" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            tables(panel, given.copies, Path(folder))
    if "kernels" in wanted:
        kernels(panel, given.copies)
    if "alpha" in wanted:
        alpha_kernels(panel)
    if "growth" in wanted:
        growth(panel)


if __name__ == "__main__":
    main()
