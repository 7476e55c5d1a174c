"""The look-ahead harness: one check for every derived table, and histories to try it on.

A stored row with `known_at = k` must come out the same when it is recomputed from what was known as of `k`. For a
table that can be rebuilt, cutting its history at a date and comparing up to that date is that same check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ACTIONS = {"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64, "known_at": pl.Datetime("us")}
NO_ACTIONS = pl.DataFrame(schema=ACTIONS)


def offending_rows(
    compute: Callable[..., pl.DataFrame],
    history: Mapping[str, pl.DataFrame],
    cuts: Iterable[date | datetime],
    *,
    key: Sequence[str] = ("symbol", "session"),
    clock: str = "session",
    tolerance: float = 0.0,
) -> pl.DataFrame:
    """Values of `compute(**history)` that change when everything after a cut is unknown; an empty frame is the proof.

    Every frame of `history` and the result carry the column `clock` (`session` or `known_at`); the cuts are of its type.
    Returns one row per offending value: `cut`, the key, `column`, `stored` and `recomputed` (as text; both null and
    `column = "row"` where the row itself appears or disappears; where it was known later in another version, that is none).
    Floats may differ by `tolerance` relative to the larger.
    """
    full = compute(**history)
    found = []
    for cut in cuts:
        redone = compute(**{name: frame.filter(pl.col(clock) <= cut) for name, frame in history.items()})
        stored = full.filter(pl.col(clock) <= cut)
        # A row that is stored with a later `known_at` is an older version of it, and none of a cut by session.
        superseded = full.filter(pl.col(clock) > cut)
        recomputed = redone.filter(pl.col(clock) <= cut).join(superseded, on=list(key), how="anti")
        found.append(_differences(stored, recomputed, key, tolerance).select(pl.lit(cut).alias("cut"), pl.all()))
    return pl.concat(found)


def _differences(stored: pl.DataFrame, recomputed: pl.DataFrame, key: Sequence[str], tolerance: float) -> pl.DataFrame:
    keys = list(key)
    assert stored.schema == recomputed.schema, f"columns changed with the cut: {stored.schema} and {recomputed.schema}"
    for name, frame in (("stored", stored), ("recomputed", recomputed)):
        assert not frame.select(pl.struct(keys).is_duplicated().any()).item(), f"{name} rows are not unique by {keys}"
    both = stored.with_columns(pl.lit(1).alias("here")).join(
        recomputed.with_columns(pl.lit(1).alias("here")), on=keys, how="full", coalesce=True, suffix="_recomputed"
    )
    lonely = pl.col("here").is_null() | pl.col("here_recomputed").is_null()
    nothing = pl.lit(None, pl.String)
    parts = [both.filter(lonely).select(*keys, pl.lit("row").alias("column"), nothing.alias("stored"), nothing.alias("recomputed"))]
    for name, dtype in stored.schema.items():
        if name in keys:
            continue
        a, b = pl.col(name), pl.col(f"{name}_recomputed")
        same = a.eq_missing(b)
        if dtype.is_float():
            gap = (a - b).abs()
            same |= (gap.is_finite() & (gap <= tolerance * pl.max_horizontal(a.abs(), b.abs()))).fill_null(value=False)
        texts = a.cast(pl.String).alias("stored"), b.cast(pl.String).alias("recomputed")
        parts.append(both.filter(~lonely & ~same).select(*keys, pl.lit(name).alias("column"), *texts))
    return pl.concat(parts)


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


def random_history(seed: int, symbols: int = 4, n: int = 120, gaps: float = 0.04) -> dict[str, pl.DataFrame]:
    """Raw bars with the corporate actions that moved them (`bars`, `actions`): gaps, missing and zero volumes, flat closes.

    On an ex-session the raw close falls by the split and the dividend; some meet on one session, some on a gap.
    """
    random = np.random.default_rng(seed)
    days = sessions_from(date(2020, 1, 1), n)
    bars, actions = [], []
    for number in range(symbols):
        symbol = f"S{number}"
        split = np.where(random.random(n) < 0.02, random.choice([2.0, 3.0, 1.5, 0.1], n), 1.0)
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
