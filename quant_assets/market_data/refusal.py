"""Deliveries that are refused as a whole: many symbols that carry one series."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from quant_assets.market_data.delivery import Delivery

MANY = 10
"""So many symbols with one series are never chance; nor is half of a delivery of at least three."""
_VALUES = ("open", "high", "low", "close", "volume")


def shared_series(bars: pl.DataFrame) -> str:
    """Say which symbols carry one and the same series of traded bars, when they are many; empty where they are not.

    Series are compared over all sessions of the delivery, open, high, low, close and volume; one that did not trade on
    at least one session tells nothing. Where no volume is told at all, all are taken to have traded.
    """
    traded = bars.filter((pl.col("volume") > 0) | (pl.col("volume").count() == 0))
    if traded.is_empty():
        return ""
    series = traded.group_by("symbol").agg(pl.struct("session", *_VALUES).hash(seed=1).sum().alias("series"), pl.len().alias("sessions"))
    largest = series.group_by("series", "sessions").agg(pl.col("symbol").sort(), pl.len()).sort("len", descending=True).row(0, named=True)
    count, symbols = largest["len"], series.height
    if count < MANY and not (count >= 3 and 2 * count >= symbols):
        return ""
    return (
        f"{count:,} of {symbols:,} symbols carry one and the same series over {largest['sessions']} sessions ({', '.join(largest['symbol'][:5])}, …): "
        "the delivery is refused as a whole, since whose it is cannot be known; fetch it again"
    )


def refused(delivery: Delivery, why: str) -> Delivery:
    """The delivery without its bars and actions; each receipt says why."""
    receipts = delivery.receipts.with_columns(status=pl.lit("refused"), detail=pl.format("refused: {}; {}", pl.lit(why), "detail"))
    return replace(delivery, bars=delivery.bars.clear(), actions=delivery.actions.clear(), receipts=receipts, listed=None)
