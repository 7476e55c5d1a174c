"""Labels: what models predict, and the only thing in the platform that looks forward."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

HORIZONS = (1, 5, 20)


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
    forward_return = pl.col("adj_close_later") / pl.col("adj_close") - 1.0
    return both.select(
        "symbol",
        "session",
        "horizon",
        forward_return.alias("forward_return"),
        (forward_return > 0).alias("up"),
        pl.max_horizontal("known_at", "known_at_later", "calendar_known_at_later").alias("known_at"),
    ).sort("symbol", "session", "horizon")
