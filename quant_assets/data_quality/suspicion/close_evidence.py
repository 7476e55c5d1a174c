"""How much more likely a bar is if its close is wrong: two ways of being wrong, weighed against every innocent one.

Of a bar come the gap before it, the move within it, the gap after it (once the next session is known), and both volumes.
If the close is right these are independent, with the heavy tails that real gaps (earnings) and moves have; volume rises
with them. If the close is off by an amount e, the next gap carries -e, and

- `close_only`: the move carries +e, gap and open being right;
- `whole_bar`: the bar belongs to another session: gap and move together carry +e, and its volume does not answer to its gap.

Each is integrated over e, which also yields how large the error would be. Innocent explanations that look alike are part
of the other side: an open that was off while the close was not, the next open off, the close before it suspect already.
A large move that nothing takes back is no evidence, and neither is a reversal that the whole market makes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant_assets.data_quality.suspicion.panel_features import Matrix, PanelFeatures, shifted

SIZES = (0.005, 0.01, 0.03)
"""Relative errors of a close for which the chance is given that the true one is larger, if there is one at all."""

_Vector = NDArray[np.float64]
_CHUNK = 32_768  # bars at a time: the integration's intermediates stay in the processor's cache

# Student t densities of 4, 2 and 5 degrees of freedom need no logarithm; the first factor makes the median of |x| that of a
# normal, because scales are measured by medians.
_T4_WIDTH = 0.91
_T4, _T2, _T5 = 3 / 8, 1 / (2 * math.sqrt(2)), 8 / (3 * math.pi * math.sqrt(5))
_GAP_TAIL, _GAP_TAIL_WIDTH = 0.05, 9.0  # share and width of gaps on news
_OPEN_OFF, _NEXT_OPEN_OFF, _CLOSE_BEFORE_OFF = 0.03, 0.02, 0.002  # prior shares of the innocent explanations
_THIN = 0.2  # share of wrong bars that hold only part of the session's volume

# Unusual volume (in its own scatter) that goes with a move or a gap of so many scales: medians over liquid US shares.
_MOVE_SCALES, _VOLUME_OF_MOVE = (0, 0.75, 1.5, 2.5, 3.5, 5, 8, 15, 40), (-0.24, -0.1, 0.24, 0.89, 1.59, 2.5, 3.65, 4.7, 6)
_GAP_SCALES, _VOLUME_OF_GAP = (0, 1.5, 2.5, 3.5, 5, 8, 15, 30, 80), (0, 0.15, 0.4, 0.7, 1.1, 1.8, 3, 4.5, 6)

_STEPS = np.linspace(-3.6, 3.6, 13)
_BLIND_STEPS = ((0.25, 0.35), (0.7, 0.6), (1.5, 1.0), (2.7, 1.6), (5.0, 3.2), (10.0, 6.0), (20.0, 14.0), (45.0, 30.0))


@dataclass(frozen=True)
class Evidence:
    """Per bar: natural logarithms of the two Bayes factors, the chances `larger[k]` of an error over `SIZES[k]` given that
    there is one (for both ways), and its expected absolute size (log return). NaN where the bar cannot be judged."""

    close_only: Matrix
    whole_bar: Matrix
    close_only_larger: list[Matrix]
    whole_bar_larger: list[Matrix]
    size: Matrix


def close_evidence(
    features: PanelFeatures,
    *,
    next_known: bool,
    suspect_before: Matrix | None = None,
    suspect_after: Matrix | None = None,
    where: NDArray[np.bool_] | None = None,
) -> Evidence:
    """Weigh the bars (of `where`, else all); those without a next session, or all unless `next_known`, by their own alone.

    `suspect_before` and `suspect_after` are the probabilities that the close before each bar is wrong, and that the bar
    after it is, where that was judged already: what a wrong neighbour explains is no evidence.
    """
    f = features
    unknown = np.full_like(f.gap, np.nan)
    columns = {
        "gap": f.gap,
        "move": f.move,
        "gap_scale": f.gap_scale,
        "move_scale": f.move_scale,
        "volume": f.volume,
        "before": np.zeros_like(f.gap) if suspect_before is None else np.nan_to_num(suspect_before),
        "after": np.zeros_like(f.gap) if suspect_after is None else np.nan_to_num(suspect_after),
        "next_gap": shifted(f.gap, -1) if next_known else unknown,
        "next_gap_scale": shifted(f.gap_scale, -1),
        "next_move": shifted(f.move, -1),
        "next_move_scale": shifted(f.move_scale, -1),
        "next_volume": shifted(f.volume, -1),
    }
    judged = np.isfinite(f.gap) & np.isfinite(f.move) & np.isfinite(f.gap_scale) & np.isfinite(f.move_scale)
    if where is not None:
        judged &= where
    out = [unknown.copy() for _ in range(3 + 2 * len(SIZES))]
    for known_next in (True, False):
        places = np.flatnonzero(judged & (np.isfinite(columns["next_gap"]) == known_next))
        for start in range(0, len(places), _CHUNK):
            part = places[start : start + _CHUNK]
            for matrix, values in zip(out, _weigh({k: v.ravel()[part] for k, v in columns.items()}, known_next), strict=True):
                matrix.ravel()[part] = values
    n = len(SIZES)
    return Evidence(out[0], out[1], out[2 : 2 + n], out[2 + n : 2 + 2 * n], out[-1])


def _weigh(bar: dict[str, _Vector], known_next: bool) -> list[_Vector]:
    gap, move, gap_scale, move_scale = bar["gap"], bar["move"], bar["gap_scale"], bar["move_scale"]
    day_scale = np.hypot(gap_scale, move_scale)
    has_volume = np.isfinite(bar["volume"])
    volume = np.where(has_volume, bar["volume"], 0.0)
    gaps, moves = gap / gap_scale, move / move_scale

    usual_gap, usual_move = _gap_density(gap, gap_scale), _density(move, move_scale)
    own_wide_move = _density(move, 3 * move_scale)
    before = np.clip(bar["before"], _CLOSE_BEFORE_OFF, 0.9)
    innocent = (
        (1 - _OPEN_OFF - 0.9 * before) * usual_gap * usual_move
        + _OPEN_OFF * _density(gap + move, day_scale) * own_wide_move
        + before * _wide_density(gap, day_scale) * usual_move
    ) * _volume_density(volume, moves, gaps, has_volume)
    thin = _thin_volume_density(volume, has_volume)
    foreign_volume = (1 - _THIN) * _volume_density(volume, 0.6, 0.0, has_volume) + _THIN * thin
    foreign_move = _density(move, 1.1 * move_scale)

    if known_next:
        next_gap = bar["next_gap"]
        # After an unusual day the next gap is wider, in both directions alike.
        wider = 1 + 0.06 * np.clip(np.abs(moves) - 1, 0, 12) + 0.02 * np.clip(np.abs(gaps) - 3, 0, 30)
        next_gap_scale = bar["next_gap_scale"] * wider
        traded = np.isfinite(bar["next_move"]) & np.isfinite(bar["next_volume"])
        next_volume = np.where(traded, bar["next_volume"], 0.0)
        next_move = np.where(traded, bar["next_move"], 0.0)
        next_scale = np.where(traded, bar["next_move_scale"], 1.0)
        next_moves = next_move / next_scale
        next_open_off = (
            _density(next_gap + next_move, np.hypot(next_gap_scale, next_scale))
            * _density(next_move, 3 * next_scale)
            / _density(next_move, next_scale)
        )
        usual_next = _gap_density(next_gap, next_gap_scale)
        after = np.clip(bar["after"], 0.0, 0.9)
        usual_next = (1 - after) * usual_next + after * _wide_density(next_gap, day_scale)
        usual_next = np.where(traded, (1 - _NEXT_OPEN_OFF) * usual_next + _NEXT_OPEN_OFF * next_open_off, usual_next)
        innocent = innocent * usual_next * _volume_density(next_volume, next_moves, next_gap / next_gap_scale, traded)
        step = _STEPS[1] - _STEPS[0]
        errors = [
            (
                u * next_gap_scale - next_gap,
                _gap_density(u * next_gap_scale, next_gap_scale)
                * (step * next_gap_scale)
                * _volume_density(next_volume, next_moves, u, traded),
            )
            for u in _STEPS
        ]
    else:
        errors = [(sign * size * day_scale, width * day_scale) for sign in (-1.0, 1.0) for size, width in _BLIND_STEPS]

    close_only, whole_bar, sizes = [], [], []
    for error, weight in errors:
        chance = weight * _wide_density(error, 1.5 * day_scale)
        true_move = move - error
        own_volume = (1 - _THIN) * _volume_density(volume, true_move / move_scale, gaps, has_volume) + _THIN * thin
        close_only.append(chance * usual_gap * _density(true_move, move_scale) * own_volume)
        true_day = gap + move - error
        day = (1 - _GAP_TAIL) * _density(true_day, day_scale) + _GAP_TAIL * _wide_density(true_day, _GAP_TAIL_WIDTH * gap_scale)
        whole_bar.append(chance * day * foreign_move * foreign_volume)
        sizes.append(np.abs(error))
    size = np.stack(sizes)
    out: list[_Vector] = []
    larger: list[_Vector] = []
    total = np.zeros_like(gap)
    expected = np.zeros_like(gap)
    for way in (np.stack(close_only), np.stack(whole_bar)):
        likelihood = way.sum(0)
        out.append(np.log(likelihood / innocent))
        larger.extend(np.where(size > bound, way, 0.0).sum(0) / likelihood for bound in SIZES)
        total += likelihood
        expected += (way * size).sum(0)
    return [*out, *larger, expected / total]


def _density(x: _Vector, scale: _Vector) -> _Vector:
    width = scale * _T4_WIDTH
    q = 1 + (x / width) ** 2 / 4
    return _T4 / (width * q * q * np.sqrt(q))


def _wide_density(x: _Vector, scale: _Vector) -> _Vector:
    q = 1 + (x / scale) ** 2 / 2
    return _T2 / (scale * q * np.sqrt(q))


def _gap_density(x: _Vector, scale: _Vector) -> _Vector:
    width = scale * _T4_WIDTH
    return (1 - _GAP_TAIL) * _density(x, scale) + _GAP_TAIL * _wide_density(x, _GAP_TAIL_WIDTH * width)


def _volume_density(volume: _Vector, moves: _Vector | float, gaps: _Vector | float, known: NDArray[np.bool_]) -> _Vector:
    """Density of the unusual volume given a move and a gap; one where the volume is unknown, which says nothing."""
    mean = np.interp(np.abs(moves), _MOVE_SCALES, _VOLUME_OF_MOVE) + np.interp(np.abs(gaps), _GAP_SCALES, _VOLUME_OF_GAP)
    width = 0.9 * (1.05 + 0.15 * np.maximum(mean, 0.0))
    return np.where(known, _T5 / (width * (1 + ((volume - mean) / width) ** 2 / 5) ** 3), 1.0)


def _thin_volume_density(volume: _Vector, known: NDArray[np.bool_]) -> _Vector:
    return np.where(known, _T5 / (1.5 * (1 + ((volume + 3.5) / 1.5) ** 2 / 5) ** 3), 1.0)
