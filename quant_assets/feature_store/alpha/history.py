"""What a symbol's own history says in the view `alpha_v1`, for all symbols at once.

Every window is bounded and its value made of the values inside it alone; only Wilder's recursions reach further back,
and their states are returned, so that a new session costs a new session.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import polars as pl

from quant_assets.feature_store.adjustment import in_order
from quant_assets.feature_store.alpha.distribution import distribution
from quant_assets.feature_store.alpha.extremes import extremes
from quant_assets.feature_store.alpha.oscillators import candles, oscillators
from quant_assets.feature_store.alpha.returns import returns
from quant_assets.feature_store.alpha.series import Bars, Columns
from quant_assets.feature_store.alpha.trends import trends
from quant_assets.feature_store.alpha.volatility import range_volatility, volatility
from quant_assets.feature_store.alpha.volumes import volumes
from quant_assets.feature_store.alpha.wilder import STATES, wilder
from quant_assets.feature_store.catalog import ALPHA_HISTORY
from quant_assets.feature_store.windows import by_blocks

__all__ = ["STATES", "alpha_history", "with_states"]

FAMILIES = (returns, volatility, range_volatility, distribution, oscillators, candles, trends, volumes, extremes)


def alpha_history(bars: pl.DataFrame) -> pl.DataFrame:
    """The features of the catalog's ALPHA_HISTORY for each symbol in each session.

    Takes one row per symbol and session in any order: `symbol`, `session`, raw `open`, `high`, `low`, `close`, `volume`
    (nullable), the same forward-adjusted as `adj_…`, `price_factor`, `share_factor`, and `price_change_1d` as
    `technical_v1` gives it (null at the symbol's first bar). Returns `symbol`, `session` and the features in the
    catalog's order, all Float64, sorted by symbol and session: one row per bar. Look-backs count the symbol's own bars,
    so a missing bar leaves no hole. Before warm-up, over a missing volume and over a zero denominator a value is null;
    nothing is NaN or infinite. Definitions, null rules and sources stand in the catalog.
    """
    return with_states(bars).drop(f"state_{name}" for name in STATES)


def with_states(bars: pl.DataFrame, carried: pl.DataFrame | None = None) -> pl.DataFrame:
    """The same, with the recursions' states beside each row as `state_…`, and going on from states where they are given.

    `carried` has one row per symbol that goes on (`symbol`, `session`, and each of `STATES`) as of one of the symbol's
    rows in `bars`; rows up to it are look-back, and only those after it come out as from the whole history. A symbol
    with a state that is still null has to be computed from its first bar.
    """
    return by_blocks(in_order(bars), partial(_with_states, carried=carried))


def _with_states(frame: pl.DataFrame, carried: pl.DataFrame | None) -> pl.DataFrame:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        bars = Bars.of(frame, carried)
        values: Columns = {}
        for family in FAMILIES:
            values |= family(bars)
        smoothed, states = wilder(bars)
        values |= smoothed
    features = {feature.name: values[feature.name] for feature in ALPHA_HISTORY}
    for column in features.values():
        np.copyto(column, np.nan, where=~np.isfinite(column))
    beside = {f"state_{name}": states[name] for name in STATES}
    return frame.select("symbol", "session").hstack(pl.DataFrame({**features, **beside}, nan_to_null=True))
