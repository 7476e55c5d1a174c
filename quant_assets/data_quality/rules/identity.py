"""Bars that stand under the wrong symbol."""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.findings import findings
from quant_assets.data_quality.rules.prices import PRICES

IDENTICAL_SESSIONS = 5
"""Sessions in a row in which two symbols must agree in all five values before it cannot be chance."""


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
    late = pl.when(pl.col("found_at") > pl.col("known_at")).then(pl.lit("rules_later_sessions")).otherwise(pl.lit("rules"))
    return findings(found, "identical_series", detail, known_at="found_at", detector=late)
