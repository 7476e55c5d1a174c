"""Volatility of log returns per session, and of the ranges of sessions."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, within

WINDOWS = (5, 10, 20, 60)


def volatility(bars: Bars) -> Columns:
    """How much the symbol moves, from closes and from ranges, one column per window."""
    rows, deviation = bars.rows, bars.return_volatility
    columns = {f"return_volatility_{n}": values for n, values in deviation.items()}
    losses = np.minimum(bars.log_return, 0.0)
    for n, mean in zip((20, 60, 120), rows.means(losses * losses, 20, 60, 120), strict=True):
        columns[f"downside_volatility_{n}"] = np.sqrt(mean)
    for short, long in ((5, 20), (20, 60), (20, 252)):
        # A part of the window cannot vary more about its mean than the window does about its own.
        columns[f"volatility_ratio_{short}_{long}"] = within(deviation[short] / deviation[long], 0.0, np.sqrt((long - 1) / (short - 1)))
    ((mean, squares),) = rows.squares(deviation[20], 60)
    columns["volatility_of_volatility_20_60"] = within(np.sqrt(squares / 59) / mean, 0.0, np.sqrt(60))
    return columns


def range_volatility(bars: Bars) -> Columns:
    """Parkinson, Garman–Klass, Rogers–Satchell and Yang–Zhang, per session, from raw prices of one session each."""
    rows = bars.rows
    up, down, through = (np.log(price / bars.open) for price in (bars.high, bars.low, bars.close))
    span = up - down
    terms = {
        "parkinson": span * span / (4.0 * np.log(2.0)),
        "garman_klass": np.maximum(0.5 * span * span - (2.0 * np.log(2.0) - 1.0) * through * through, 0.0),
        "rogers_satchell": np.maximum(up * (up - through) + down * (down - through), 0.0),
    }
    variances = {name: dict(zip(WINDOWS, rows.means(term, *WINDOWS), strict=True)) for name, term in terms.items()}
    by_night, by_day = (rows.squares(part, *WINDOWS) for part in (np.log1p(bars.overnight), through))
    variances["yang_zhang"] = {}
    for n, (_, night), (_, day) in zip(WINDOWS, by_night, by_day, strict=True):
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        variances["yang_zhang"][n] = night / (n - 1) + k * day / (n - 1) + (1 - k) * variances["rogers_satchell"][n]
    return {f"{name}_volatility_{n}": np.sqrt(by_window[n]) for name, by_window in variances.items() for n in WINDOWS}
