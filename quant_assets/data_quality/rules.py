"""Rules that no bar may break: each takes bars and returns the offending ones, with the reason in words.

Input of every rule: the newest version of each bar (`symbol, session, known_at, open, high, low, close, volume`).
Output: the columns of `data_quality.anomalies` but `recorded_at`. A finding is known when the last bar it looks at is.
"""

from __future__ import annotations

import polars as pl

from quant_assets.schemas import ANOMALIES

PRICES = ("open", "high", "low", "close")
IDENTICAL_SESSIONS = 5
"""Sessions in a row in which two symbols must agree in all five values before it cannot be chance."""


def ohlc_order(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars whose high is not the highest or whose low is not the lowest of the four prices; always critical."""
    broken = (pl.col("high") < pl.max_horizontal(PRICES)) | (pl.col("low") > pl.min_horizontal(PRICES))
    detail = pl.format("open {}, high {}, low {}, close {} are out of order", *PRICES)
    return _findings(bars.filter(broken), "ohlc_order", detail)


def non_positive_price(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars with a price of zero or less, or a missing one; always critical."""
    broken = pl.any_horizontal(pl.col(name).is_null() | (pl.col(name) <= 0) for name in PRICES)
    detail = pl.format("open {}, high {}, low {}, close {}: not all are positive", *PRICES)
    return _findings(bars.filter(broken), "non_positive_price", detail)


def identical_series(bars: pl.DataFrame, sessions_in_a_row: int = IDENTICAL_SESSIONS) -> pl.DataFrame:
    """Bars of two or more symbols that agree in open, high, low, close and volume over several sessions in a row.

    All of them are critical, for which symbol the series belongs to cannot be told from the bars. A bar is found once so
    many sessions around it are known: the first ones of a run late. Bars without volume, or that did not trade, do not count.
    """
    order = pl.col("session").rank("dense").cast(pl.Int64)
    traded = bars.with_columns(order=order).filter(pl.col("volume") > 0)
    keys = ["session", *PRICES, "volume"]
    shared = traded.filter(pl.len().over(keys) > 1)
    run = ["symbol", "twin", "run"]
    pairs = (
        shared.join(shared.select(*keys, twin="symbol", twin_known_at="known_at"), on=keys)
        .filter(pl.col("symbol") != pl.col("twin"))
        .sort("symbol", "twin", "session")
        .with_columns(run=(pl.col("order").diff() != 1).fill_null(True).cum_sum().over("symbol", "twin"))
        .filter(pl.len().over(run) >= sessions_in_a_row)
        .with_columns(both_known=pl.max_horizontal("known_at", "twin_known_at"), nth=pl.int_range(pl.len()).over(run))
    )
    stretch = range(sessions_in_a_row)
    ending_here = pl.max_horizontal(pl.col("both_known").shift(n).over(run) for n in stretch)
    found = (
        pairs.with_columns(stretch_known=pl.when(pl.col("nth") >= sessions_in_a_row - 1).then(ending_here))
        .with_columns(found_at=pl.min_horizontal(pl.col("stretch_known").shift(-n).over(run) for n in stretch))
        .sort("symbol", "session", "found_at", "twin")
        .unique(["symbol", "session"], keep="first", maintain_order=True)
    )
    detail = pl.format("the same open, high, low, close and volume as {} for {} sessions or more", "twin", pl.lit(sessions_in_a_row))
    return _findings(found, "identical_series", detail, known_at=pl.col("found_at"))


def judge_versions(versions: pl.DataFrame) -> pl.DataFrame:
    """What can be said of a version of a bar alone; there may be several of one bar."""
    return pl.concat([rule(versions) for rule in (ohlc_order, non_positive_price)])


def judge(bars: pl.DataFrame) -> pl.DataFrame:
    """Every finding of every rule about these bars."""
    return pl.concat([judge_versions(bars), identical_series(bars)])


def _findings(offenders: pl.DataFrame, rule: str, detail: pl.Expr, known_at: pl.Expr | None = None) -> pl.DataFrame:
    columns = [name for name in ANOMALIES.column_names if name != "recorded_at"]
    return offenders.with_columns(
        rule=pl.lit(rule),
        detector=pl.lit("rules"),
        bar_known_at=pl.col("known_at"),
        score=pl.lit(1.0),
        severity=pl.lit("critical"),
        detail=detail,
        known_at=pl.col("known_at") if known_at is None else known_at,
    ).select(columns)
