"""Small panels of out-of-sample predictions, with every column that a predictor may stand in."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

FIRST = date(2020, 11, 1)


def panel(seed: int = 3, symbols: int = 12, sessions: int = 90, *, horizon: int = 1, skill: float = 0.2) -> pl.DataFrame:
    """Predictions that know some of the forward returns; those of `horizon` sessions overlap as real ones do.

    `skill` weighs the return against the noise in the model's log-odds; the oracle sees the return with a noise of its size. Three folds,
    two years, three sectors (one symbol in none), two regimes; the heuristic lacks a few rows, the previous sign the first sessions.
    """
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((sessions + horizon - 1, symbols))
    returns = np.stack([steps[start : start + horizon].sum(axis=0) for start in range(sessions)]).ravel() / 100
    n = symbols * sessions
    number, symbol = np.divmod(np.arange(n), symbols)

    def chance(knowing: float) -> np.ndarray:
        return 1 / (1 + np.exp(-0.3 * (knowing * returns / returns.std() + rng.standard_normal(n))))

    fold = (number * 3 // sessions).astype(np.int32)
    frame = pl.DataFrame(
        {
            "symbol": [f"S{i:02}" for i in symbol],
            "session": [FIRST + timedelta(days=int(i)) for i in number],
            "fold": fold,
            "probability": chance(skill).round(2),  # with ties
            "uncalibrated_probability": chance(skill),
            "heuristic_probability": np.where(rng.random(n) < 0.03, np.nan, chance(skill / 4)),
            "control_probability": chance(0.0),
            "oracle_score": returns + returns.std() * rng.standard_normal(n),
            "train_up_share": np.array([0.48, 0.52, 0.55])[fold],
            "previous_up": [bool(up) if after else None for up, after in zip(rng.random(n) < 0.5, number >= horizon, strict=True)],
            "forward_return": returns,
            "up": returns > 0,
            "sector": [("energy", "banks", "food")[i % 3] if i else None for i in symbol],
            "regime": np.where(number // 20 % 2 == 0, "bull", "bear"),
        }
    )
    return frame.sample(fraction=1, shuffle=True, seed=seed)
