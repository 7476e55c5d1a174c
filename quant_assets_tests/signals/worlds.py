"""Small panels whose truth is known: how much of the next return the features tell is a number we choose."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import numpy as np
import polars as pl

FEATURES = ("first", "second", "third", "fourth")


def world(seed: int, *, rank_ic: float, symbols: int = 20, sessions: int = 400) -> pl.DataFrame:
    """A training frame, one row per symbol and session; `first` less half of `second` tells the next return.

    The return is normal, its correlation with the told part within a session is `rank_ic`; a label is known half an hour
    after the next session's close. `score` is the told part itself.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((sessions, symbols, len(FEATURES)))
    told = (features[:, :, 0] - 0.5 * features[:, :, 1]) / np.sqrt(1.25)
    returns = 0.01 * (rank_ic * told + np.sqrt(1 - rank_ic**2) * rng.standard_normal((sessions, symbols)))
    days = [date(2020, 1, 1) + timedelta(days=i) for i in range(sessions)]
    known = [datetime.combine(day + timedelta(days=1), time(21, 30)) for day in days]
    return pl.DataFrame(
        {
            "symbol": [f"S{i:02}" for i in range(symbols)] * sessions,
            "session": np.repeat(np.array(days, dtype="datetime64[D]"), symbols),
            **{name: features[:, :, i].ravel() for i, name in enumerate(FEATURES)},
            "score": told.ravel(),
            "forward_return": returns.ravel(),
            "up": returns.ravel() > 0,
            "weight": np.ones(returns.size),
            "known_at": np.repeat(np.array(known, dtype="datetime64[us]"), symbols),
        }
    )
