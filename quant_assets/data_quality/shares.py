"""A share of some trials, and how far it can be trusted."""

from __future__ import annotations

import polars as pl

Z_95 = 1.959963984540054


def wilson(hits: pl.Expr, trials: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The share of hits among trials with the lower and upper end of its 95 % interval; null without a trial.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    n = pl.when(trials > 0).then(trials).cast(pl.Float64)
    share = hits / n
    scale = 1 + Z_95**2 / n
    middle = (share + Z_95**2 / (2 * n)) / scale
    half = Z_95 * (share * (1 - share) / n + Z_95**2 / (4 * n**2)).sqrt() / scale
    return share.alias("share"), (middle - half).clip(0, share).alias("low"), (middle + half).clip(share, 1).alias("high")
