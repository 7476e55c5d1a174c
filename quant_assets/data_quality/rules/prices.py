"""Prices that contradict each other within one bar: always critical."""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.findings import CRITICAL_RATE, findings

PRICES = ("open", "high", "low", "close")


def ohlc_order(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars whose high is not the highest or whose low is not the lowest of the four prices.

    The bar is broken for sure; where it is the open that lies outside, the close may be right all the same, and the score is less than 1.
    """
    broken = (pl.col("high") < pl.max_horizontal(PRICES)) | (pl.col("low") > pl.min_horizontal(PRICES))
    detail = pl.format("open {}, high {}, low {}, close {} are out of order", *PRICES)
    off = (pl.col("close") > pl.col("high")) | (pl.col("close") < pl.col("low"))
    return findings(bars.filter(broken), "ohlc_order", detail, score=pl.when(off).then(1.0).otherwise(1 - CRITICAL_RATE))


def non_positive_price(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars with a price of zero or less, or a missing one; where the close is there, it may be right, and the score is less than 1."""
    broken = pl.any_horizontal(pl.col(name).is_null() | (pl.col(name) <= 0) for name in PRICES)
    detail = pl.format("open {}, high {}, low {}, close {}: not all are positive", *PRICES)
    off = pl.col("close").is_null() | (pl.col("close") <= 0)
    return findings(bars.filter(broken), "non_positive_price", detail, score=pl.when(off).then(1.0).otherwise(1 - CRITICAL_RATE))
