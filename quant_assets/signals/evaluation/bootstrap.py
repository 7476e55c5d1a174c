"""How sure a score is: whole blocks of sessions are drawn again and again, so that neighbours stay together.

A resample is a row of weights, one per session. Whatever is a function of sums over sessions is then resampled by one
matrix product.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

MIN_SESSIONS = 20  # fewer say too little about their own scatter for an interval
_MIN_DEFINED = 0.95  # share of the resamples in which a score must exist, to have an interval


class Difference(NamedTuple):
    """Mean of a paired difference, its interval and standard error, in the unit of the series; null where unknown."""

    mean: float | None
    low: float | None
    high: float | None
    standard_error: float | None


def block_length(n_sessions: int, horizon: int) -> int:
    """Sessions to a block: twice the horizon or the cube root of the sessions, the larger, at most a third of the sessions.

    Labels of `horizon` sessions overlap over `horizon - 1`, and a block must be longer than that. The cube root is the
    rate that is best for a mean. Source: Hall, Horowitz and Jing, Biometrika 82 (1995).
    """
    return max(1, min(max(2 * horizon, round(math.cbrt(n_sessions))), n_sessions // 3))


def block_weights(n_sessions: int, block: int, resamples: int, seed: int) -> Floats:
    """How often each session is drawn: shape (resamples, n_sessions), every row sums to `n_sessions`.

    Blocks of `block` consecutive sessions start anywhere with the same chance and go round from the last session to the first; the
    last block is cut so that the length comes out. Raises `ValueError` unless 1 <= block <= n_sessions.
    Source: Politis and Romano, "A circular block-resampling procedure for stationary data" (1992).
    """
    if not 1 <= block <= n_sessions:
        raise ValueError(f"a block of {block} sessions cannot be drawn from {n_sessions}; it must be between 1 and their number")
    blocks = -(-n_sessions // block)
    starts = np.random.default_rng(seed).integers(0, n_sessions, size=(resamples, blocks))
    lengths = np.full(blocks, block)
    lengths[-1] = n_sessions - block * (blocks - 1)
    edges = np.zeros((resamples, 2 * n_sessions + 1))
    row = np.arange(resamples)[:, np.newaxis]
    np.add.at(edges, (row, starts), 1.0)
    np.add.at(edges, (row, starts + lengths), -1.0)
    drawn = edges.cumsum(axis=1)
    weights: Floats = drawn[:, :n_sessions] + drawn[:, n_sessions : 2 * n_sessions]
    return weights


def scatter(n_sessions: int, block: int, horizon: int) -> float:
    """Standard error of a mean over that of its resamples (1 or more), for values whose labels span `horizon` sessions.

    Of the variance of a mean, b blocks show a share of (b - 1) / b, and of the covariance of sessions k apart one of 1 - k / block, since
    blocks part neighbours; that covariance is taken as that of sums over `horizon` sessions, which share horizon - k.
    Source: Künsch, Annals of Statistics 17 (1989), theorem 3.3; Davison and Hinkley, Bootstrap Methods and their Application (1997),
    chapter 8.2.
    """
    lags = np.arange(1, min(horizon, block))
    shown = (horizon + 2 * ((horizon - lags) * (1 - lags / block)).sum()) / horizon**2
    return math.sqrt(1 / shown / (1 - block / n_sessions))


def intervals(values: Floats, resampled: Floats, n_sessions: int, block: int, horizon: int, *, level: float = 0.95) -> Floats:
    """Two-sided intervals of scores (k) from their resampled values (k, resamples): shape (k, 2), the low and the high end.

    They are the percentiles' distances from the value, widened by `scatter` and by Student's t, with one degree of freedom less than there
    are blocks, over the normal (together 4 % at 50 blocks without overlap, 170 % at 3). Not a number where a score, or more than 5 % of
    its resamples, cannot be computed.
    """
    ordered = np.sort(np.where(np.isfinite(resampled), resampled, np.nan), axis=1)  # what cannot be computed comes last
    defined = np.isfinite(ordered).sum(axis=1)
    place = np.maximum(defined - 1, 0)[:, np.newaxis] * np.array([(1 - level) / 2, (1 + level) / 2])
    below, above = (np.take_along_axis(ordered, ends(place).astype(np.int64), axis=1) for ends in (np.floor, np.ceil))
    quantiles = below + (above - below) * (place % 1)
    widened = scatter(n_sessions, block, horizon) * _student(n_sessions / block - 1, level)
    known = np.isfinite(values) & (defined >= _MIN_DEFINED * resampled.shape[1])
    found: Floats = np.where(known[:, np.newaxis], values[:, np.newaxis] + widened * (quantiles - values[:, np.newaxis]), np.nan)
    return found


def paired_difference(
    a: pl.Series | Floats, b: pl.Series | Floats, block: int, resamples: int = 2000, seed: int = 7, *, horizon: int = 1, level: float = 0.95
) -> Difference:
    """Mean of a - b over sessions, its two-sided interval and standard error, by blocks of `block` sessions (at most a third).

    `a` and `b` are series over the same sessions in the same order; a session that lacks either is left out. A one-sided 99 % bound is
    an end of the two-sided interval of `level` 0.98. `horizon` is that of the labels that the series were scored on. Below 20 sessions only the mean is known; without any, nothing.
    Raises `ValueError` for series of different length.
    """
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} sessions and b {len(b)}; a paired difference needs the same ones")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    difference = difference[np.isfinite(difference)]
    n = len(difference)
    if n < MIN_SESSIONS:
        return Difference(float(difference.mean()) if n else None, None, None, None)
    block = min(block, n // 3)
    resampled = block_weights(n, block, resamples, seed) @ difference / n
    mean = float(difference.mean())
    ((low, high),) = intervals(np.array([mean]), resampled[np.newaxis], n, block, horizon, level=level).tolist()
    return Difference(mean, low, high, float(resampled.std()) * scatter(n, block, horizon))


def _student(degrees: float, level: float) -> float:
    """How much further out Student's t has its quantile than the normal."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + level) / 2)) / NormalDist().inv_cdf((1 + level) / 2)
