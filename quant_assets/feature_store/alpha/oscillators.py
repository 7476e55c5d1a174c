"""Oscillators of the close within its recent range, and the parts of one session's candle."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, moves, within


def oscillators(bars: Bars) -> Columns:
    """Oscillators of the close within its recent range, of typical prices and of volume, as the catalog defines each."""
    rows, typical, volume = bars.rows, bars.typical_price, bars.volume
    fast_k = 100.0 * bars.place_in_range(14)
    fast_d = rows.mean(fast_k, 3)
    columns = {
        "stochastic_k_14": fast_k,
        "stochastic_d_14_3": fast_d,
        "stochastic_slow_d_14_3_3": rows.mean(fast_d, 3),
        "williams_r_14": fast_k - 100.0,
        "williams_r_28": 100.0 * bars.place_in_range(28) - 100.0,
    }
    for n, mean in zip((14, 20), rows.means(typical, 14, 20), strict=True):
        deviation = moves(rows.absolute_deviation(typical, mean, n), mean)
        columns[f"cci_{n}"] = within((typical - mean) / (0.015 * deviation), -n / 0.03, n / 0.03)

    step = moves(typical - rows.lag(typical), typical)
    flow = typical * volume
    gains, losses = np.where(step > 0.0, flow, 0.0 * flow), np.where(step < 0.0, flow, 0.0 * flow)
    gains[np.isnan(step)] = np.nan
    gain, loss = rows.sums(gains, 14)[0], rows.sums(losses, 14)[0]
    columns["mfi_14"] = 100.0 * (gain / (gain + loss))

    for name, values in (("aroon_up_25", bars.adj_high), ("aroon_down_25", -bars.adj_low)):
        columns[name] = 4.0 * (25.0 - rows.rows_since_max(values, 26)[0])

    pressure = np.minimum(bars.adj_close - np.minimum(bars.adj_low, bars.previous_close), bars.true_range)
    short, middle, long = (
        bought / reach for bought, reach in zip(rows.sums(pressure, 7, 14, 28), rows.sums(bars.true_range, 7, 14, 28), strict=True)
    )
    columns["ultimate_oscillator_7_14_28"] = 100.0 * ((4.0 * short + 2.0 * middle + long) / 7.0)

    below, above = bars.close - bars.low, bars.high - bars.close
    span = bars.high - bars.low
    location = np.where(span == 0.0, 0.0, (below - above) / span)
    columns["chaikin_money_flow_20"] = rows.sums(location * volume, 20)[0] / bars.volume_sums[20]
    return columns


def candles(bars: Bars) -> Columns:
    """One session's candle, from its raw prices alone."""
    span = bars.high - bars.low
    top, bottom = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    return {
        "balance_of_power": (bars.close - bars.open) / span,
        "candle_body": (top - bottom) / bars.close,
        "candle_upper_shadow": (bars.high - top) / bars.close,
        "candle_lower_shadow": (bottom - bars.low) / bars.close,
        "close_location": (bars.close - bars.low) / span,
    }
