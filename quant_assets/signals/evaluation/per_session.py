"""A session's rank IC and log loss as Polars expressions: for what is paired session by session."""

from __future__ import annotations

import polars as pl

EDGE = 1e-15


def rank_ic(column: str) -> pl.Expr:
    """Spearman's correlation of a score with `forward_return`, in a group; NaN or null where either ranks nothing."""
    return pl.corr(pl.col(column).rank(), pl.col("forward_return").rank())


def log_loss(column: str) -> pl.Expr:
    """-ln of the probability of what came (`up`), per row, in nats; a probability is kept 1e-15 from 0 and 1."""
    clipped = pl.col(column).clip(EDGE, 1 - EDGE)
    return -pl.when("up").then(clipped.log()).otherwise((1.0 - clipped).log())
