"""The 22 technical indicators of the view `technical_v1`, for all symbols at once.

Windows are numpy passes over the flat, sorted columns; the five recursions (EMA and Wilder) are Polars' `ewm_mean` per
symbol, started at the seed. A window's value is built by doubling from the values inside the window alone: a running
sum, which keeps the rounding error of a spike long after it left, is used nowhere. So history that was cut, or that
another symbol adds, changes no bit of a row. On 619,029 bars of 505 symbols a numpy pass takes half a millisecond and
`ewm_mean` 5 ms a column by `group_by` (7 ms by `.over`, 29 ms by slicing per symbol). Flat columns instead of a padded
symbols × sessions matrix: memory does not grow with the longest series.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_assets.feature_store import adjustment
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.contract import source_hash

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-12
"""Moves of the adjusted price below this fraction of it are rounding of the factors, not moves."""


@cache
def definition_hash() -> str:
    """Hash over the code that computes the view (this module and the adjustment); comments and docstrings do not count."""
    return source_hash(__file__, adjustment.__file__)


def technical_v1(bars: pl.DataFrame) -> pl.DataFrame:
    """The 22 indicators of each symbol in each session, from forward-adjusted bars.

    Takes what `forward_adjusted` returns, one row per symbol and session, in any order, prices without nulls. Returns
    `symbol`, `session` and the features of the catalog in its order, all Float64, sorted by symbol and session: one row
    per bar. Look-backs count the symbol's own bars, so a missing bar leaves no hole. Price columns are divided by the
    session's price factor and share columns multiplied by its share factor: they stand in the basis of their own
    session. Before warm-up, over a missing volume and over a zero denominator a value is null; nothing is NaN or
    infinite. Definitions, null rules and sources stand in the catalog.
    """
    bars = bars.sort("symbol", "session")
    high, low, close, volume, price_factor, share_factor = (
        bars[name].cast(pl.Float64).to_numpy()
        for name in ("adj_high", "adj_low", "adj_close", "adj_volume", "price_factor", "share_factor")
    )
    symbol = bars["symbol"]
    starts = np.flatnonzero((symbol != symbol.shift(1)).fill_null(value=True).to_numpy())
    position = np.arange(bars.height) - np.repeat(starts, np.diff(starts, append=bars.height))

    def warm(values: Floats, lookback: int) -> Floats:
        """Blank the rows whose window reaches over the symbol's first bar."""
        return np.where(position >= lookback, values, np.nan)

    def sma(values: Floats, n: int, first: int = 0) -> Floats:
        return warm(_window_sum(values, n) / n, first + n - 1)

    def recursions(**inputs: tuple[Floats, int, int, float]) -> dict[str, Floats]:
        """Run e += alpha · (value − e) per symbol for each (values, index of the first value, n, alpha), seeded with the mean of the first n."""
        seeded = {
            name: np.where(position == first + n - 1, sma(values, n, first), warm(values, first + n - 1))
            for name, (values, first, n, _) in inputs.items()
        }
        frame = pl.DataFrame({"symbol": symbol, **seeded}, nan_to_null=True)
        smoothed = [pl.col(name).ewm_mean(alpha=alpha, adjust=False) for name, (*_, alpha) in inputs.items()]
        columns = frame.group_by("symbol", maintain_order=True).agg(smoothed).explode(list(inputs))
        return {name: columns[name].to_numpy() for name in inputs}

    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        previous = _lag(close, 1)
        change = close - previous
        change[np.abs(change) <= ROUNDING * close] = 0.0
        change = warm(change, 1)
        state = recursions(
            ema_12=(close, 0, 12, 2 / 13),
            ema_26=(close, 0, 26, 2 / 27),
            gain=(np.maximum(change, 0.0), 1, 14, 1 / 14),
            loss=(np.maximum(-change, 0.0), 1, 14, 1 / 14),
        )
        macd = state["ema_12"] - state["ema_26"]
        macd_signal = recursions(signal=(macd, 25, 9, 2 / 10))["signal"]
        moves = state["gain"] + state["loss"]

        sma_20 = sma(close, 20)
        deviation = warm(_window_deviation(close, 20), 19)
        deviation[deviation <= ROUNDING * sma_20] = 0.0
        volume_sma_20 = sma(volume, 20)
        # Only the first bar has no change: nothing was bought or sold on balance yet.
        flow = np.nan_to_num(volume * np.sign(np.nan_to_num(change)))
        obv = pl.DataFrame({"symbol": symbol, "flow": flow}).select(pl.col("flow").cum_sum().over("symbol"))["flow"].to_numpy()

        values = {
            "rsi_14": np.where(moves == 0.0, 50.0, 100.0 * (state["gain"] / moves)),
            "macd": macd / price_factor,
            "macd_signal": macd_signal / price_factor,
            "macd_hist": (macd - macd_signal) / price_factor,
            "bb_upper": (sma_20 + 2.0 * deviation) / price_factor,
            "bb_middle": sma_20 / price_factor,
            "bb_lower": (sma_20 - 2.0 * deviation) / price_factor,
            "bb_width": 4.0 * deviation / sma_20,
            "bb_position": 0.5 + (close - sma_20) / (4.0 * deviation),
            "sma_5": sma(close, 5) / price_factor,
            "sma_10": sma(close, 10) / price_factor,
            "sma_20": sma_20 / price_factor,
            "sma_50": sma(close, 50) / price_factor,
            "ema_12": state["ema_12"] / price_factor,
            "ema_26": state["ema_26"] / price_factor,
            "volume_ratio": volume / volume_sma_20,
            "volume_sma_20": volume_sma_20 * share_factor,
            "obv": np.where(np.isnan(volume), np.nan, obv * share_factor),
            "price_change_1d": warm(close / previous - 1.0, 1),
            "price_change_5d": warm(close / _lag(close, 5) - 1.0, 5),
            "price_change_20d": warm(close / _lag(close, 20) - 1.0, 20),
            "high_low_range": (high - low) / close,
        }
    for column in values.values():
        np.copyto(column, np.nan, where=~np.isfinite(column))
    features = {feature.name: values[feature.name] for feature in TECHNICAL_V1}
    return bars.select("symbol", "session").hstack(pl.DataFrame(features, nan_to_null=True))


def _lag(values: Floats, n: int) -> Floats:
    """The value n rows before, NaN in the first n rows."""
    lagged = np.empty_like(values)
    lagged[:n] = np.nan
    lagged[n:] = values[:-n]
    return lagged


def _window_sum(values: Floats, n: int) -> Floats:
    """Sum of the last n rows by doubling: log2(n) passes, and pairwise rounding."""
    block, width, total, taken = values, 1, values, 0
    while True:
        if n & width:
            total = total + _lag(block, taken) if taken else block
            taken += width
        if taken == n:
            return total
        block, width = block + _lag(block, width), 2 * width


def _window_deviation(values: Floats, n: int) -> Floats:
    """Population standard deviation of the last n rows by doubling: 0 exactly where they are equal.

    Blocks carry their mean and their squared deviations from it, and are merged without cancellation (Chan, Golub and
    LeVeque, Algorithms for computing the sample variance, 1983).
    """
    mean, squares, width = values, np.zeros_like(values), 1
    total_mean, total_squares, taken = values, squares, 0
    while True:
        if n & width:
            if taken:
                gap = _lag(mean, taken) - total_mean
                total_squares = total_squares + _lag(squares, taken) + gap**2 * (taken * width / (taken + width))
                total_mean = total_mean + gap * (width / (taken + width))
            else:
                total_mean, total_squares = mean, squares
            taken += width
        if taken == n:
            return np.sqrt(total_squares / n)
        earlier = _lag(mean, width)
        squares = squares + _lag(squares, width) + (earlier - mean) ** 2 * (width / 2)
        mean, width = (earlier + mean) / 2, 2 * width
