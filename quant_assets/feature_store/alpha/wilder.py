"""Wilder's average true range and directional movement: the recursions of this view."""

from __future__ import annotations

import numpy as np

from quant_assets.feature_store.alpha.series import Bars, Columns, moves, within
from quant_assets.feature_store.windows import ROUNDING

STATES = ("true_range", "plus_movement", "minus_movement", "directional_index")
"""What the recursions carry from a session to the next; the first three in adjusted prices."""


def wilder(bars: Bars) -> tuple[Columns, Columns]:
    """The features, and the states beside each row."""
    rows, close = bars.rows, bars.adj_close
    up = moves(bars.adj_high - rows.lag(bars.adj_high), close)
    down = moves(rows.lag(bars.adj_low) - bars.adj_low, close)
    margin, unknown = ROUNDING * close, np.isnan(up)
    series = {
        "true_range": bars.true_range,
        "plus_movement": np.where(unknown, np.nan, np.where(up - down > margin, np.maximum(up, 0.0), 0.0)),
        "minus_movement": np.where(unknown, np.nan, np.where(down - up > margin, np.maximum(down, 0.0), 0.0)),
    }
    states = {name: rows.recursion(name, values, 1, 14, 1 / 14) for name, values in series.items()}
    average, plus, minus = states.values()
    both = plus + minus
    index = np.where(both == 0.0, 0.0, 100.0 * (np.abs(plus - minus) / both))
    states["directional_index"] = rows.recursion("directional_index", index, 14, 14, 1 / 14)
    return {
        "atr_14": average / bars.price_factor,
        "natr_14": 100.0 * average / close,
        "plus_di_14": within(100.0 * (plus / average), 0.0, 100.0),
        "minus_di_14": within(100.0 * (minus / average), 0.0, 100.0),
        "adx_14": within(states["directional_index"], 0.0, 100.0),
    }, states
