"""Histories to try the look-ahead harness on: generated ones with every trouble of real bars, and the real panels."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ACTIONS = {"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64, "known_at": pl.Datetime("us")}
NO_ACTIONS = pl.DataFrame(schema=ACTIONS)


def sessions_from(first: date, n: int) -> list[date]:
    """The first n weekdays from a date on."""
    days = (first + timedelta(days=offset) for offset in range(2 * n + 7))
    return [day for day in days if day.weekday() < 5][:n]


def calendar_frame(first: date, n: int) -> pl.DataFrame:
    """A calendar of weekdays in the form of `TradingCalendar.frame`, each session known at 21:30."""
    session = pl.Series("session", sessions_from(first, n), dtype=pl.Date)
    return pl.DataFrame({"session": session, "ordinal": pl.Series(range(1000, 1000 + n), dtype=pl.Int32)}).with_columns(evening())


def evening() -> pl.Expr:
    """The instant from which a session's bar is known: 21:30 of its date."""
    return (pl.col("session").cast(pl.Datetime("us")) + pl.duration(hours=21, minutes=30)).alias("known_at")


def random_history(seed: int, symbols: int = 4, n: int = 120, *, gaps: float = 0.04, splits: float = 0.02) -> dict[str, pl.DataFrame]:
    """Raw bars with the corporate actions that moved them (`bars`, `actions`): gaps, missing and zero volumes, flat closes.

    On an ex-session the raw close falls by the split and the dividend; some meet on one session, some on a gap.
    `gaps` and `splits` are shares of sessions: without a bar, with a split.
    """
    random = np.random.default_rng(seed)
    days = sessions_from(date(2020, 1, 1), n)
    bars, actions = [], []
    for number in range(symbols):
        symbol = f"S{number}"
        split = np.where(random.random(n) < splits, random.choice([2.0, 3.0, 1.5, 0.1], n), 1.0)
        dividend_yield = np.where((random.random(n) < 0.03) | ((split != 1) & (random.random(n) < 0.5)), 0.02, 0.0)
        moves = np.where(random.random(n) < 0.1, 0.0, random.normal(0, 0.02, n))
        close = 100 * np.cumprod((1 + moves) * (1 - dividend_yield) / split)
        previous = np.concatenate([[100.0], close[:-1]])
        opened = close * (1 + random.normal(0, 0.005, n))
        volume = np.where(random.random(n) < 0.02, 0.0, np.round(random.lognormal(13, 1, n)) * np.cumprod(split))
        frame = pl.DataFrame({"symbol": [symbol] * n, "session": days, "open": opened}).with_columns(
            pl.Series("high", np.maximum(opened, close) * (1 + random.random(n) / 50)),
            pl.Series("low", np.minimum(opened, close) * (1 - random.random(n) / 50)),
            pl.Series("close", close),
            pl.Series("volume", np.where(random.random(n) < 0.01, np.nan, volume), nan_to_null=True),
            pl.lit("raw").alias("basis"),
            evening(),
        )
        bars.append(frame.filter(pl.Series(random.random(n) >= gaps)))
        for kind, values, applies in (("split", split, split != 1), ("dividend", dividend_yield * previous / split, dividend_yield > 0)):
            rows = pl.DataFrame({"session": days, "value": values}).filter(pl.Series(applies))
            actions.append(rows.select(pl.lit(symbol).alias("symbol"), "session", pl.lit(kind).alias("kind"), "value", evening()))
    return {"bars": pl.concat(bars), "actions": pl.concat([NO_ACTIONS, *actions])}


def sp500_panel() -> pl.DataFrame | None:
    """The real panel of 505 US symbols as restated bars, without its 23 faulty rows; None where the data is not at hand."""
    path = DATA / "sp500_2013_2018" / "all_stocks_5yr.csv"
    if not path.exists():
        return None
    read = pl.read_csv(path, schema_overrides={"date": pl.Date, "volume": pl.Float64, "Name": pl.String})
    ordered = (pl.col("low") <= pl.min_horizontal("open", "close")) & (pl.col("high") >= pl.max_horizontal("open", "close"))
    return _restated(read.rename({"Name": "symbol", "date": "session"}).drop_nulls().filter(ordered))


def stocknet_panel() -> pl.DataFrame | None:
    """Real bars of 88 US symbols as restated bars, without the rows that hold none; None where the data is not at hand."""
    files = sorted((DATA / "stocknet_88").glob("*.csv"))
    if not files:
        return None
    schema = {"session": pl.Date, **dict.fromkeys(("open", "high", "low", "close", "vendor_adjusted", "volume"), pl.Float64)}
    frames = [
        pl.read_csv(file, schema=schema, has_header=False, skip_rows=1, null_values="null").with_columns(symbol=pl.lit(file.stem))
        for file in files
    ]
    return _restated(pl.concat(frames).drop_nulls())


def _restated(bars: pl.DataFrame) -> pl.DataFrame:
    columns = ("symbol", "session", "open", "high", "low", "close", "volume")
    return bars.select(*columns, pl.lit("restated").alias("basis"), evening()).sort("symbol", "session")
