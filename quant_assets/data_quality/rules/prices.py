"""Prices that contradict each other within one bar: always critical."""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.findings import findings

PRICES = ("open", "high", "low", "close")


def ohlc_order(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars whose high is not the highest or whose low is not the lowest of the four prices."""
    broken = (pl.col("high") < pl.max_horizontal(PRICES)) | (pl.col("low") > pl.min_horizontal(PRICES))
    detail = pl.format("open {}, high {}, low {}, close {} are out of order", *PRICES)
    return findings(bars.filter(broken), "ohlc_order", detail)


def non_positive_price(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars with a price of zero or less, or a missing one."""
    broken = pl.any_horizontal(pl.col(name).is_null() | (pl.col(name) <= 0) for name in PRICES)
    detail = pl.format("open {}, high {}, low {}, close {}: not all are positive", *PRICES)
    return findings(bars.filter(broken), "non_positive_price", detail)
