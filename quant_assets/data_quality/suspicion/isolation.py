"""An Isolation Forest over the scaled features: how unusual a bar is in all of them together.

The forest is grown on a reference sample drawn from the distributions that innocent bars are weighed against, not on the
panel: it is the same for every panel, window and night (nothing learned later changes an earlier score), and wrong bars
cannot hide in it by being many. On the real panel a forest grown on the panel itself ranks no better.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant_assets.data_quality.suspicion.panel_features import Matrix, PanelFeatures, shifted

SEED = 20_130_208
TREES, SAMPLES, REFERENCE = 60, 1024, 20_000
USUAL = 0.45
"""The forest's score of an ordinary bar."""


def unusualness(features: PanelFeatures, *, next_known: bool, where: NDArray[np.bool_]) -> Matrix:
    """Isolation Forest score in (0, 1) per bar of `where`, higher is more unusual; `USUAL` for others, and where a bar cannot be judged."""
    f = features
    gaps, moves = f.gap / f.gap_scale, f.move / f.move_scale
    columns = [gaps, moves, f.volume]
    if next_known:
        columns += [shifted(gaps, -1), shifted(f.volume, -1)]
    flat = [np.nan_to_num(column).ravel() for column in columns]
    ratio = np.nan_to_num(f.gap_scale / f.move_scale, nan=0.35).ravel()
    score = np.full(f.gap.shape, USUAL)
    known = np.flatnonzero(np.isfinite(gaps) & np.isfinite(moves) & where)
    if len(known):
        chosen = _columns([column[known] for column in flat], ratio[known])
        score.ravel()[known] = -_forest(next_known).score_samples(chosen)
    return score


def _columns(scaled: list[NDArray[np.float64]], ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    gaps, moves, volume, *following = scaled
    columns = [np.log1p(np.abs(gaps)), np.log1p(np.abs(moves)), np.clip(volume, -8, 8)]
    if following:
        next_gaps, next_volume = following
        columns += [np.log1p(np.abs(next_gaps)), np.clip(next_volume, -8, 8)]
        # What the next gap takes back of the day, and of the move within it, in scales of these.
        for taken_from, scale in ((gaps * ratio + moves, np.hypot(ratio, 1.0)), (moves, np.ones_like(ratio))):
            reverts = taken_from * next_gaps < 0
            columns.append(np.log1p(np.where(reverts, np.minimum(np.abs(taken_from), np.abs(next_gaps * ratio)), 0.0) / scale))
    return np.stack(columns, axis=1)


@lru_cache(maxsize=2)
def _forest(next_known: bool) -> Any:
    from sklearn.ensemble import IsolationForest

    random = np.random.default_rng(SEED)

    def heavy() -> NDArray[np.float64]:
        return random.standard_t(4, REFERENCE) * 0.91

    def gap() -> NDArray[np.float64]:
        return np.where(random.random(REFERENCE) < 0.05, 8 * random.standard_t(2, REFERENCE), heavy())

    def volume(moves: NDArray[np.float64], gaps: NDArray[np.float64]) -> NDArray[np.float64]:
        return random.normal(-0.25, 1.05, REFERENCE) + 0.4 * np.minimum(np.abs(moves), 12) + 0.2 * np.minimum(np.abs(gaps), 20)

    gaps, moves, next_gaps, next_moves = gap(), heavy(), gap(), heavy()
    scaled = [gaps, moves, volume(moves, gaps)]
    if next_known:
        scaled += [next_gaps, volume(next_moves, next_gaps)]
    reference = _columns(scaled, np.full(REFERENCE, 0.35))
    return IsolationForest(n_estimators=TREES, max_samples=SAMPLES, random_state=SEED).fit(reference)
