"""Bars as a dense panel, and what is unusual in each of them: robust, per-symbol scaled, with the market's part taken out.

A night's move splits in two: the gap from the last close to the open, and the move from the open to the close. From both
the cross-section's median, times the symbol's own beta, is taken out; what is left is measured against the symbol's own
past and against how far the whole cross-section scattered in that session. A day on which everything moves, or on which
everything scatters, is therefore an ordinary day here.

Every value of a session is made from that session and earlier ones alone: a panel cut after it gives the same values.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
FIELDS = ("open", "high", "low", "close", "volume")

BETA_SESSIONS = 126
SCALE_SESSIONS = 63
VOLUME_SESSIONS = 42
VOLUME_SCALE_SESSIONS = 126
LOOKBACK = BETA_SESSIONS + SCALE_SESSIONS + 16
"""Earlier sessions that a window must hold so that a session's values are the same as in the whole history."""

MIN_HISTORY = 10
"""Earlier bars from which a symbol's own scale is taken; with fewer, it is the cross-section's."""
MIN_CROSS_SECTION = 10
"""Symbols from which on a session has a market, and a scatter of its own."""

FLAT = 4e-4
"""A scale (log return) below this is the least one of a price that hardly moves, in a quiet session."""

_MAD_TO_SIGMA = 1.4826
_MIN_SCALE = 5e-4
_STRESS_WIDENS = 0.1
_MARKET_VARIANCE_PRIOR = 1e-5  # pulls beta to one while there is little history or the market hardly moved


@dataclass(frozen=True)
class PanelFeatures:
    """Matrices of sessions × symbols (rows in time order, columns in the order of `symbols`); NaN where there is no bar.

    `gap` and `move` are log returns without the market's part, `gap_scale` and `move_scale` their usual size (log return),
    `volume` the log volume above its usual level in units of its usual scatter, `history` the count of earlier bars, `present` whether there is a bar at all.
    `raw` holds the bars as they came, non-positive prices and volumes as NaN.
    """

    sessions: pl.Series
    symbols: pl.Series
    raw: dict[str, Matrix]
    gap: Matrix
    move: Matrix
    gap_scale: Matrix
    move_scale: Matrix
    volume: Matrix
    history: Matrix
    present: NDArray[np.bool_]


def panel_features(bars: pl.DataFrame) -> PanelFeatures:
    """Features of bars (`symbol`, `session`, `open`, `high`, `low`, `close`, `volume`; any order, other columns are ignored).

    Of several rows with one symbol and session the last counts. A missing, NaN or non-positive price or volume is unknown;
    the close before a hole is the last one known.
    """
    sessions, symbols, present, raw = _dense(bars)
    last_close = shifted(_filled_forward(raw["close"]), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap, gap_stress = _without_market(np.log(raw["open"] / last_close))
        move, move_stress = _without_market(np.log(raw["close"] / raw["open"]))
        log_volume = np.log(raw["volume"])
    seen = np.isfinite(raw["close"]).astype(np.float64)
    return PanelFeatures(
        sessions=sessions,
        symbols=symbols,
        raw=raw,
        gap=gap,
        move=move,
        gap_scale=_scale(gap) * gap_stress,
        move_scale=_scale(move) * move_stress,
        volume=_unusual_volume(log_volume),
        history=np.cumsum(seen, axis=0) - seen,
        present=present,
    )


def shifted(values: Matrix, rows: int) -> Matrix:
    """The values of so many sessions earlier (negative: later), NaN where the panel ends."""
    out = np.full_like(values, np.nan)
    if rows == 0:
        out[:] = values
    elif abs(rows) < len(values):
        if rows > 0:
            out[rows:] = values[:-rows]
        else:
            out[:rows] = values[-rows:]
    return out


def _dense(bars: pl.DataFrame) -> tuple[pl.Series, pl.Series, NDArray[np.bool_], dict[str, Matrix]]:
    bars = bars.select("symbol", "session", *(pl.col(name).cast(pl.Float64) for name in FIELDS))
    sessions, symbols = bars["session"].unique().sort(), bars["symbol"].unique().sort()
    places = bars.select(
        row=pl.col("session").rank("dense").cast(pl.Int64) - 1,
        column=pl.col("symbol").rank("dense").cast(pl.Int64) - 1,
    )
    at = places["row"].to_numpy(), places["column"].to_numpy()
    present = np.zeros((len(sessions), len(symbols)), bool)
    present[at] = True
    raw = {}
    for name in FIELDS:
        values = bars[name].to_numpy()
        matrix = np.full((len(sessions), len(symbols)), np.nan)
        matrix[at] = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        raw[name] = matrix
    return sessions, symbols, present, raw


def _filled_forward(values: Matrix) -> Matrix:
    last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values))[:, None], -1), axis=0)
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, filled, np.nan)


def _median(values: Matrix) -> Matrix:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a session in which nothing is known has no median, which is right
        median: Matrix = np.nanmedian(values, axis=1, keepdims=True)
    return median


def _earlier(values: Matrix, how: Literal["mean", "median"], window: int, least: int) -> Matrix:
    frame = pl.DataFrame(values).select(pl.all().fill_nan(None))
    options: dict[str, Any] = {"window_size": window, "min_samples": least}
    rolled = pl.all().rolling_mean(**options) if how == "mean" else pl.all().rolling_median(**options)
    return frame.select(rolled.shift(1)).to_numpy().astype(np.float64)


def _without_market(returns: Matrix) -> tuple[Matrix, Matrix]:
    """What the market did not do, and how much wider that must be taken for a session in which it moved unusually far."""
    known = np.isfinite(returns)
    market = np.broadcast_to(np.where(known.sum(1, keepdims=True) >= MIN_CROSS_SECTION, _median(returns), 0.0), returns.shape)
    bounded = np.clip(returns, -0.1, 0.1)  # one wild session must not make a beta
    product = _earlier(bounded * market, "mean", BETA_SESSIONS, 2 * MIN_HISTORY)
    square = _earlier(np.where(known, market**2, np.nan), "mean", BETA_SESSIONS, 2 * MIN_HISTORY)
    beta = np.clip((product + _MARKET_VARIANCE_PRIOR) / (square + _MARKET_VARIANCE_PRIOR), -1.0, 4.0)
    residual: Matrix = returns - np.where(np.isfinite(beta), beta, 1.0) * market
    # No beta holds in a session in which the market moves several times as far as usual; what it leaves is not the symbol's.
    with np.errstate(invalid="ignore"):
        unusual = np.abs(market) / np.sqrt(_median(square) + _MARKET_VARIANCE_PRIOR)
    return residual, 1.0 + _STRESS_WIDENS * np.clip(np.nan_to_num(unusual) - 1.5, 0.0, 5.0)


def _scale(residual: Matrix) -> Matrix:
    """The symbol's usual size, times how far the session's cross-section scatters compared with usual."""
    size = np.abs(residual)
    own = _earlier(size, "median", SCALE_SESSIONS, MIN_HISTORY) * _MAD_TO_SIGMA
    usual = np.maximum(np.where(np.isfinite(own), own, _median(size) * _MAD_TO_SIGMA), _MIN_SCALE)
    scatter = _median(size / usual) * _MAD_TO_SIGMA
    crowded = np.isfinite(residual).sum(1, keepdims=True) >= 2 * MIN_CROSS_SECTION
    return usual * np.where(crowded, np.clip(scatter, 0.7, 6.0), 1.0)


def _unusual_volume(log_volume: Matrix) -> Matrix:
    excess = log_volume - _earlier(log_volume, "median", VOLUME_SESSIONS, 8)
    crowded = np.isfinite(excess).sum(1, keepdims=True) >= MIN_CROSS_SECTION
    excess = excess - np.where(crowded, _median(excess), 0.0)
    scatter = _earlier(np.abs(excess), "median", VOLUME_SCALE_SESSIONS, 15) * _MAD_TO_SIGMA
    return excess / np.where(np.isfinite(scatter), np.clip(scatter, 0.15, 1.0), 0.35)
