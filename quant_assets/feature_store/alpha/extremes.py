"""Drawdown, and how far and how long ago the recent high and low are."""

from __future__ import annotations

from quant_assets.feature_store.alpha.series import Bars, Columns


def extremes(bars: Bars) -> Columns:
    """How far the close lies from its highs and lows, how long ago these were, and how far it fell between, one column per window."""
    rows, close = bars.rows, bars.adj_close
    columns: Columns = {}
    for n in (20, 60, 120, 252):
        columns[f"distance_from_high_{n}"] = close / bars.highs[n] - 1.0
        columns[f"distance_from_low_{n}"] = close / bars.lows[n] - 1.0
    for n, top, fall in zip((60, 252), rows.maxima(close, 60, 252), rows.max_drawdowns(close, 60, 252), strict=True):
        columns[f"drawdown_{n}"] = 1.0 - close / top
        columns[f"max_drawdown_{n}"] = fall
    for name, values in (("high", bars.adj_high), ("low", -bars.adj_low)):
        for n, age in zip((60, 252), rows.rows_since_max(values, 60, 252), strict=True):
            columns[f"sessions_since_{name}_{n}"] = age / (n - 1)
    return columns | {f"position_in_range_{n}": bars.place_in_range(n) for n in (20, 60, 252)}
