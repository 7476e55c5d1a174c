"""The close against its averages, and the straight line through its logarithm."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, within
from quant_assets.feature_store.windows import ROUNDING


def trends(bars: Bars) -> Columns:
    """The close against its moving averages, and a line of least squares through its logarithm."""
    ns = (5, 10, 20, 50, 100, 200)
    sma = dict(zip(ns, bars.rows.means(bars.adj_close, *ns), strict=True))
    columns = {f"close_to_sma_{n}": bars.adj_close / sma[n] - 1.0 for n in ns}
    columns |= {f"sma_ratio_{short}_{long}": sma[short] / sma[long] for short, long in ((5, 20), (50, 200))}
    log_price = np.log(bars.adj_close)
    for n, (mean, squares, products) in zip((20, 60, 120), bars.rows.trends(log_price, 20, 60, 120), strict=True):
        flat = squares <= n * ROUNDING**2
        slope = np.where(flat, 0.0, products / (n * (n * n - 1) / 12))
        columns[f"trend_slope_{n}"] = slope
        columns[f"trend_r2_{n}"] = np.where(flat, np.nan, within(slope * products / squares, 0.0, 1.0))
        columns[f"trend_residual_{n}"] = np.where(flat, 0.0, log_price - mean - slope * ((n - 1) / 2))
    return columns
