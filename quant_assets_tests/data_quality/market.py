"""Generated bars of a liquid market, and faults put into bars whose right values are kept."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from quant_assets_tests.lookahead import sessions_from


def market(seed: int, symbols: int = 40, n: int = 160) -> pl.DataFrame:
    """Bars of shares that follow one market, with gaps, moves within the session and volumes that rise with both."""
    random = np.random.default_rng(seed)
    days = sessions_from(date(2021, 1, 4), n)
    market_gap, market_move = random.normal(0, 0.004, n), random.normal(0, 0.006, n)
    frames = []
    for number in range(symbols):
        beta = random.uniform(0.6, 1.4)
        gap = beta * market_gap + 0.003 * random.standard_t(4, n)
        move = beta * market_move + 0.008 * random.standard_t(4, n)
        close = random.uniform(20, 200) * np.exp(np.cumsum(gap + move))
        opened = close / np.exp(move)
        spread = np.abs(random.normal(0, 0.004, (2, n)))
        volume = np.exp(14 + random.normal(0, 0.3, n) + 25 * np.abs(gap) + 25 * np.abs(move))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [f"S{number:02d}"] * n,
                    "session": days,
                    "open": opened,
                    "high": np.maximum(opened, close) * (1 + spread[0]),
                    "low": np.minimum(opened, close) * (1 - spread[1]),
                    "close": close,
                    "volume": np.round(volume),
                }
            )
        )
    return pl.concat(frames)


def with_wrong_closes(bars: pl.DataFrame, seed: int, n: int, low: float = 0.005, high: float = 0.12) -> pl.DataFrame:
    """The bars with n closes off by a factor between low and high in either direction (column `error`), everything else right.

    High and low are stretched around the wrong close: no order of prices gives it away.
    """
    random = np.random.default_rng(seed)
    known = np.flatnonzero(bars.select(pl.all_horizontal(pl.col("open", "close").is_not_null())).to_series().to_numpy())
    chosen = random.choice(known, n, replace=False)
    factor = np.ones(bars.height)
    factor[chosen] = np.exp(np.exp(random.uniform(np.log(low), np.log(high), n)) * random.choice([-1.0, 1.0], n))
    return bars.with_columns(close=pl.col("close") * pl.Series(factor), error=pl.Series(np.abs(factor - 1))).with_columns(
        high=pl.max_horizontal("high", "close"), low=pl.min_horizontal("low", "close")
    )
