"""The 22 technical indicators of the view `technical_v1`, for all symbols at once.

Windows and recursions are those of `windows.py`; only the five recursions (EMA and Wilder) and on-balance volume need
more than their look-back, and their states are returned, so that a new session costs a new session.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl

from quant_assets.feature_store.adjustment import in_order
from quant_assets.feature_store.catalog import TECHNICAL_V1
from quant_assets.feature_store.windows import Rows, by_blocks

ROUNDING = 1e-12
"""Moves of the adjusted price below this fraction of it are rounding of the factors, not moves."""
STATES = ("ema_12", "ema_26", "gain", "loss", "macd_signal", "obv")
"""What the recursions carry from a session to the next, in the adjusted basis."""


def technical_v1(bars: pl.DataFrame) -> pl.DataFrame:
    """The 22 indicators of each symbol in each session, from forward-adjusted bars.

    Takes what `forward_adjusted` returns, one row per symbol and session, in any order, prices without nulls. Returns
    `symbol`, `session` and the features of the catalog in its order, all Float64, sorted by symbol and session: one row
    per bar. Look-backs count the symbol's own bars, so a missing bar leaves no hole. Price columns are divided by the
    session's price factor and share columns multiplied by its share factor: they stand in the basis of their own
    session. Before warm-up, over a missing volume and over a zero denominator a value is null; nothing is NaN or
    infinite. Definitions, null rules and sources stand in the catalog.
    """
    return with_states(bars).drop(f"state_{name}" for name in STATES)


def with_states(bars: pl.DataFrame, carried: pl.DataFrame | None = None) -> pl.DataFrame:
    """The same, with the recursions' states beside each row as `state_…`, and going on from states where they are given.

    `carried` has one row per symbol that goes on (`symbol`, `session`, and each of `STATES`) as of one of the symbol's
    rows in `bars`; rows up to it are look-back, and only those after it come out as from the whole history.
    """
    return by_blocks(in_order(bars), partial(_with_states, carried=carried))


def _with_states(bars: pl.DataFrame, carried: pl.DataFrame | None) -> pl.DataFrame:
    rows = Rows.of(bars, carried)
    high, low, raw_close, close, volume, price_factor, share_factor, price_step = (
        bars[name].cast(pl.Float64).to_numpy()
        for name in ("adj_high", "adj_low", "close", "adj_close", "adj_volume", "price_factor", "share_factor", "price_step")
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        change = close - rows.lag(close)
        change[np.abs(change) <= ROUNDING * close] = 0.0
        state = {
            "ema_12": rows.recursion("ema_12", close, 0, 12, 2 / 13),
            "ema_26": rows.recursion("ema_26", close, 0, 26, 2 / 27),
            "gain": rows.recursion("gain", np.maximum(change, 0.0), 1, 14, 1 / 14),
            "loss": rows.recursion("loss", np.maximum(-change, 0.0), 1, 14, 1 / 14),
        }
        macd = state["ema_12"] - state["ema_26"]
        state["macd_signal"] = rows.recursion("macd_signal", macd, 25, 9, 2 / 10)
        # Only the first bar has no change: nothing was bought or sold on balance yet.
        state["obv"] = rows.total("obv", np.nan_to_num(volume * np.sign(np.nan_to_num(change))))
        moves = state["gain"] + state["loss"]

        sma_20 = rows.mean(close, 20)
        deviation = rows.deviation(close, 20)
        deviation[deviation <= ROUNDING * sma_20] = 0.0
        volume_sma_20 = rows.mean(volume, 20)

        values = {
            "rsi_14": np.where(moves == 0.0, 50.0, 100.0 * (state["gain"] / moves)),
            "macd": macd / price_factor,
            "macd_signal": state["macd_signal"] / price_factor,
            "macd_hist": (macd - state["macd_signal"]) / price_factor,
            "bb_upper": (sma_20 + 2.0 * deviation) / price_factor,
            "bb_middle": sma_20 / price_factor,
            "bb_lower": (sma_20 - 2.0 * deviation) / price_factor,
            "bb_width": 4.0 * deviation / sma_20,
            "bb_position": 0.5 + (close - sma_20) / (4.0 * deviation),
            "sma_5": rows.mean(close, 5) / price_factor,
            "sma_10": rows.mean(close, 10) / price_factor,
            "sma_20": sma_20 / price_factor,
            "sma_50": rows.mean(close, 50) / price_factor,
            "ema_12": state["ema_12"] / price_factor,
            "ema_26": state["ema_26"] / price_factor,
            "volume_ratio": volume / volume_sma_20,
            "volume_sma_20": volume_sma_20 * share_factor,
            "obv": np.where(np.isnan(volume), np.nan, state["obv"] * share_factor),
            # From raw prices and the step between them, so that it depends on two bars alone and not, by rounding, on all factors before.
            "price_change_1d": raw_close * price_step / rows.lag(raw_close) - 1.0,
            "price_change_5d": close / rows.lag(close, 5) - 1.0,
            "price_change_20d": close / rows.lag(close, 20) - 1.0,
            "high_low_range": (high - low) / close,
        }
    features = {feature.name: values[feature.name] for feature in TECHNICAL_V1}
    for column in features.values():
        np.copyto(column, np.nan, where=~np.isfinite(column))
    states = {f"state_{name}": state[name] for name in STATES}
    return bars.select("symbol", "session").hstack(pl.DataFrame({**features, **states}, nan_to_null=True))
