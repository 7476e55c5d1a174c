"""Returns over several windows: momentum, reversal, and the parts of a session's return by night and by day."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, moves


def returns(bars: Bars) -> Columns:
    """Returns over windows of sessions, momentum that skips the last month, and reversals."""
    rows, close = bars.rows, bars.adj_close
    before = {n: rows.lag(close, n) for n in (2, 3, 5, 10, 21, 40, 60, 120, 126, 180, 252)}
    columns = {f"return_{n}d": moves(close / before[n] - 1.0) for n in (2, 3, 10, 40, 60, 120, 180, 252)}
    for first, last in ((60, 5), (126, 21), (252, 21)):
        columns[f"momentum_{first}_{last}"] = moves(before[last] / before[first] - 1.0)
    for n, total in zip((5, 20), rows.sums(bars.log_return, 5, 20), strict=True):
        columns[f"reversal_{n}"] = -total / (bars.return_volatility[60] * np.sqrt(n))
    for name, part in (("overnight_return", bars.overnight), ("intraday_return", bars.intraday)):
        columns[name] = part
        for n, mean in zip((20, 60), rows.means(part, 20, 60), strict=True):
            columns[f"{name}_mean_{n}"] = mean
    above, below = bars.adj_open - rows.lag(bars.adj_high), bars.adj_open - rows.lag(bars.adj_low)
    columns["gap"] = moves((np.maximum(above, 0.0) + np.minimum(below, 0.0)) / bars.previous_close)
    return columns
