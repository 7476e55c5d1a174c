"""Bars that repeat another session's bar of their symbol: how likely each is the copy, not the original.

Two bars of one symbol, up to ten sessions apart, whose prices agree in three or four of open, high, low and close are
twins; that is chance at times, hardly ever when the volumes agree as well, and never when many symbols do it in the
same two sessions. Which of the two is the copy is told by which of them fits worse between its neighbours, and by which
of them the other symbols' twins in these two sessions point at: a delivery is copied in one direction.
"""

from __future__ import annotations

import numpy as np

from quant_assets.data_quality.suspicion.panel_features import Matrix, PanelFeatures, shifted

MAX_LAG = 10
"""Sessions between two bars that are compared, in both directions."""

_SAME_VOLUME, _FOUR_PRICES, _THREE_PRICES = 0.995, 0.9, 0.3  # that twins of one pair alone are no chance
_DOUBTFUL = 0.3  # the same, where four prices agree and the volumes do not even roughly
_OWN_BOUND, _BOUND = 4.0, 8.0  # on the log odds of which is the copy: from one pair, and in all
_SHARED = 0.5  # how far the other symbols' twins count


def twin_probability(features: PanelFeatures, lag: int) -> Matrix:
    """Probability that a bar and its symbol's bar `lag` sessions later are one bar delivered twice; zero where they differ."""
    raw = features.raw
    agreeing = np.sum([raw[name] == shifted(raw[name], -lag) for name in ("open", "high", "low", "close")], axis=0)
    later_volume = shifted(raw["volume"], -lag)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.abs(np.log(later_volume / raw["volume"])) < 0.1
    near |= ~np.isfinite(later_volume / raw["volume"])
    alone = np.where(agreeing == 4, np.where(near, _FOUR_PRICES, _DOUBTFUL), np.where((agreeing == 3) & near, _THREE_PRICES, 0.0))
    alone = np.where((agreeing >= 3) & (raw["volume"] == later_volume), _SAME_VOLUME, alone)
    alone = np.where(raw["high"] > raw["low"], alone, 0.0)  # a bar without a range repeats itself innocently
    together = (alone > 0).sum(1, keepdims=True)
    odds = alone / (1 - alone) * np.maximum(together, 1)
    probability: Matrix = odds / (1 + odds)
    return probability


def copy_probability(features: PanelFeatures, twins: dict[int, Matrix], own: Matrix, settled: Matrix, blind: Matrix, sight: int) -> Matrix:
    """Probability that each bar is a copy of another session's; zero where it has no twin in sight.

    `own`, `settled` and `blind` are log Bayes factors of a bar from another session: as the variant at hand knows them,
    with the next session known, and without it. A later twin counts up to `sight` sessions ahead; one that lies as far
    ahead as that is weighed by its own session alone.
    """
    found = np.zeros_like(own)
    for lag, twin in twins.items():
        if lag <= sight:
            later = shifted(blind if lag == sight else settled, -lag)
            found = np.maximum(found, twin * _copied(twin > 0, own - later))
        # The same pair seen from the later bar, which may know more by now than the earlier one could.
        earlier_twin = np.nan_to_num(shifted(twin, lag))
        found = np.maximum(found, earlier_twin * _copied(earlier_twin > 0, own - shifted(settled, lag)))
    return found


def _copied(pairs: np.typing.NDArray[np.bool_], difference: Matrix) -> Matrix:
    one = np.where(pairs, np.clip(np.nan_to_num(difference), -_OWN_BOUND, _OWN_BOUND), 0.0)
    others = one.sum(1, keepdims=True) - one
    side: Matrix = 1 / (1 + np.exp(-np.clip(one + _SHARED * others, -_BOUND, _BOUND)))
    return side
