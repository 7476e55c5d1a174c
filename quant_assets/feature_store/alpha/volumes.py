"""Volume: its level, its company with the price, and what trading costs."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, moves, within
from quant_assets.feature_store.windows import ROUNDING, Floats


def volumes(bars: Bars) -> Columns:
    """How much is traded, against its own past and together with price and return."""
    rows, volume, change = bars.rows, bars.volume, bars.change
    columns: Columns = {}
    log_volume = np.log(np.where(volume > 0.0, volume, np.nan))
    pairs = {
        "close_volume_correlation": (bars.adj_close, log_volume, True),
        "return_volume_correlation": (bars.log_return, log_volume - rows.lag(log_volume), False),
    }
    for name, (x, y, is_level) in pairs.items():
        for n, (mean, _, xx, yy, xy) in zip((10, 20, 60), rows.products(x, y, 10, 20, 60), strict=True):
            known = (xx > n * (ROUNDING * (mean if is_level else 1.0)) ** 2) & (yy > n * ROUNDING**2)
            columns[f"{name}_{n}"] = np.where(known, within(xy / (np.sqrt(xx) * np.sqrt(yy)), -1.0, 1.0), np.nan)

    for n in (5, 60):
        columns[f"volume_ratio_{n}"] = n * (volume / bars.volume_sums[n])
    for n, (mean, squares) in zip((20, 60), rows.squares(volume, 20, 60), strict=True):
        deviation, bound = moves(np.sqrt(squares / (n - 1)), mean), (n - 1) / np.sqrt(n)
        columns[f"volume_zscore_{n}"] = within((volume - mean) / deviation, -bound, bound)
        columns[f"volume_variation_{n}"] = within(deviation / mean, 0.0, np.sqrt(n))
    bought = np.where(change > 0.0, volume, 0.0 * volume)
    bought[np.isnan(change)] = np.nan
    for n, up in zip((20, 60), rows.sums(bought, 20, 60), strict=True):
        columns[f"up_volume_share_{n}"] = up / bars.volume_sums[n]
    for n, traded in zip((5, 20), rows.sums(bars.typical_price * volume, 5, 20), strict=True):
        columns[f"vwap_distance_{n}"] = bars.adj_close * bars.volume_sums[n] / traded - 1.0

    for n, mean in zip((20, 60), rows.means(np.abs(change) / bars.traded_value, 20, 60), strict=True):
        columns[f"amihud_illiquidity_{n}"] = mean
    columns["traded_value_sma_20"] = rows.mean(bars.traded_value, 20)
    columns["corwin_schultz_spread_20"] = rows.mean(_spread_of_two_sessions(bars), 20)
    return columns


def _spread_of_two_sessions(bars: Bars) -> Floats:
    """Corwin and Schultz's spread from the ranges of this session and the one before; 0 where it comes out negative."""
    rows, high, low = bars.rows, np.log(bars.adj_high), np.log(bars.adj_low)
    close = np.log(bars.previous_close)
    span = high - low
    beta = span * span
    beta += rows.lag(beta)
    # A night that left the previous close outside of this session's range is taken out of it.
    night = np.maximum(low - close, 0.0) + np.minimum(high - close, 0.0)
    both = np.maximum(high - night, rows.lag(high)) - np.minimum(low - night, rows.lag(low))
    denominator = 3.0 - 2.0 * np.sqrt(2.0)
    alpha = (np.sqrt(2.0 * beta) - np.sqrt(beta)) / denominator - np.sqrt(both * both / denominator)
    return 2.0 * np.tanh(0.5 * np.maximum(moves(alpha), 0.0))
