"""Labels: what models predict, and the only thing in the platform that looks forward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

HORIZONS = (1, 5, 20)


def exceeds(threshold: float, returned: str = "forward_return") -> pl.Expr:
    """Whether a return lies above a threshold (a fraction, 0.02 for more than 2 %; 0: it is positive); null where the return is."""
    return pl.col(returned) > threshold


def labels(adjusted: pl.DataFrame, sessions: pl.DataFrame, horizons: Sequence[int] = HORIZONS) -> pl.DataFrame:
    """Return of each symbol from a session's adjusted close to the one `horizon` calendar sessions later.

    Takes adjusted bars (`symbol`, `session`, `adj_close`, `known_at`, in any order; `known_at` says from when all that
    the row rests on was known) and the calendar (`session`, `ordinal`, `known_at`, as `TradingCalendar.frame` gives it).
    Returns `symbol`, `session`, `horizon` (Int32, sessions), `forward_return` (fraction), `up` (whether it is
    positive), `known_at`, sorted by key and never null: there is a row only where both bars exist. Sessions are counted
    in the calendar, so a symbol's missing bar moves no label; a bar on a date outside it has none. `known_at` is the
    latest of both rows' and of session + horizon in the calendar. Raises `ValueError` for a horizon below 1.
    """
    if not horizons or min(horizons) < 1:
        raise ValueError(f"horizons {list(horizons)} must be one or more counts of sessions, each at least 1")
    calendar = sessions.select("session", "ordinal", pl.col("known_at").alias("calendar_known_at"))
    now = adjusted.select("symbol", "session", "adj_close", "known_at").join(calendar, on="session", how="inner")
    steps = pl.DataFrame({"horizon": list(horizons)}, schema={"horizon": pl.Int32})
    later = now.select("symbol", "ordinal", "adj_close", "known_at", "calendar_known_at")
    both = (
        now.join(steps, how="cross")
        .with_columns((pl.col("ordinal") + pl.col("horizon")).alias("outcome"))
        .join(later, left_on=["symbol", "outcome"], right_on=["symbol", "ordinal"], how="inner", suffix="_later")
    )
    returned = both.with_columns(forward_return=pl.col("adj_close_later") / pl.col("adj_close") - 1.0)
    return returned.select(
        "symbol",
        "session",
        "horizon",
        "forward_return",
        exceeds(0.0).alias("up"),
        pl.max_horizontal("known_at", "known_at_later", "calendar_known_at_later").alias("known_at"),
    ).sort("symbol", "session", "horizon")


def uniqueness_weights(rows: pl.DataFrame, sessions: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """Add `weight`, each label's average uniqueness: over the sessions that it spans, the mean of 1 / how many labels span it.

    Takes one row per symbol and session (other columns are kept, in the rows' order) and the calendar (`session`,
    `ordinal`); rows on dates outside it are dropped. Labels of one symbol share the returns that they both span: with all sessions there, a
    horizon of h gives about 1/h each, and 1 for h = 1 (0 to 1, never null).

    Source: M. López de Prado, Advances in Financial Machine Learning (2018), chapter 4.
    """
    placed = rows.join(sessions.select("session", "ordinal"), on="session", how="inner", maintain_order="left")
    if placed.is_empty():
        return placed.drop("ordinal").with_columns(weight=pl.lit(None, pl.Float64))
    symbol = placed["symbol"].rank("dense").to_numpy() - 1
    ordinal = placed["ordinal"].to_numpy() - placed["ordinal"].min()  # type: ignore[operator]
    width = int(ordinal.max()) + horizon + 2
    place = symbol.astype(np.int64) * width + ordinal
    spans = np.zeros((int(symbol.max()) + 1) * width)
    np.add.at(spans, place + 1, 1.0)
    np.add.at(spans, place + horizon + 1, -1.0)
    spanning = np.cumsum(spans)
    shares = np.divide(1.0, spanning, out=np.zeros_like(spanning), where=spanning > 0)
    weight = sum(shares[place + step] for step in range(1, horizon + 1)) / horizon
    return placed.drop("ordinal").with_columns(weight=pl.Series(weight, dtype=pl.Float64))
