"""The shape of a symbol's returns: skewness, kurtosis, extremes, serial dependence, direction."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, moves, within
from quant_assets.feature_store.windows import ROUNDING


def distribution(bars: Bars) -> Columns:
    """Shape of the symbol's returns: skewness, kurtosis, quantiles and the share of rises, one column per window."""
    rows, change, log_return = bars.rows, bars.change, bars.log_return
    columns: Columns = {}
    for n in (20, 60, 120, 252):
        _, squares, cubes, fourths = bars.return_moments[n]
        variance, bound = squares / n, (n - 2) / np.sqrt(n - 1)
        columns[f"return_skewness_{n}"] = within(cubes / n / (variance * np.sqrt(variance)), -bound, bound)
        columns[f"return_kurtosis_{n}"] = within(fourths / n / (variance * variance) - 3.0, -2.0, bound * bound - 2.0)
    for n, (*_, xx, yy, xy) in zip((20, 60, 120), rows.products(log_return, rows.lag(log_return), 20, 60, 120), strict=True):
        known = (xx > n * ROUNDING**2) & (yy > n * ROUNDING**2)
        columns[f"return_autocorrelation_{n}"] = np.where(known, within(xy / np.sqrt(xx * yy), -1.0, 1.0), np.nan)
    for name, extremes in (("return_max", rows.maxima), ("return_min", rows.minima)):
        for n, extreme in zip((20, 60), extremes(change, 20, 60), strict=True):
            columns[f"{name}_{n}"] = extreme
    up = np.where(np.isnan(change), np.nan, change > 0.0)
    for n, share in zip((10, 20, 60), rows.means(up, 10, 20, 60), strict=True):
        columns[f"up_share_{n}"] = share
    step = moves(bars.adj_close - bars.previous_close, bars.adj_close)
    nets, paths = rows.sums(step, 10, 20, 60), rows.sums(np.abs(step), 10, 20, 60)
    for n, net, path in zip((10, 20, 60), nets, paths, strict=True):
        columns[f"efficiency_ratio_{n}"] = np.abs(net) / path
    for (q, n), total in zip(((5, 60), (10, 252)), rows.sums(log_return, 5, 10), strict=True):
        mean, squares, *_ = bars.return_moments[n]
        ((mean_of_sums, squares_of_sums),) = rows.squares(total, n - q + 1)
        about = squares_of_sums + (n - q + 1) * (mean_of_sums - q * mean) ** 2
        columns[f"variance_ratio_{q}_{n}"] = about / (q * (n - q + 1) * (1 - q / n)) / (squares / (n - 1))
    return columns
