"""From a model's raw log-odds to a probability that means what it says.

A validation stretch's own share of risen symbols is mostly the market's luck, so it teaches the slope alone; the level
comes from the base rate of all training labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import log
from typing import Any

import numpy as np
import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.models.config import CALIBRATIONS

Vector = np.ndarray[Any, np.dtype[np.float64]]

PRIOR_SLOPE, PRIOR_DEVIATION = 1.0, 0.5
LEAST_SLOPE = 0.1  # a slope that comes out negative must not turn the model over: that is the evaluation's business
EDGE = 1e-3  # isotonic shares are kept this far from 0 and 1
ISOTONIC_ROWS = 1000


@dataclass(frozen=True)
class Calibration:
    """A fitted map from raw log-odds to probabilities, never decreasing.

    platt: the log-odds become intercept + slope · log-odds. isotonic: the probability is interpolated from `claimed` to
    `observed`, then moved by `intercept` in log-odds. none: nothing changes.
    """

    method: str
    intercept: float = 0.0
    slope: float = 1.0
    claimed: tuple[float, ...] = ()
    observed: tuple[float, ...] = ()

    def log_odds(self, log_odds: pl.Series) -> pl.Series:
        """Calibrated log-odds per row, null where unknown."""
        return _series("log_odds", self._calibrated(log_odds.cast(pl.Float64).to_numpy()))

    def probability(self, log_odds: pl.Series) -> pl.Series:
        """Calibrated probability per row that the label is true, null where the raw log-odds are unknown."""
        return _series("probability", sigmoid(self._calibrated(log_odds.cast(pl.Float64).to_numpy())))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives the same calibration back, bit for bit."""
        return asdict(self) | {"claimed": list(self.claimed), "observed": list(self.observed)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Read what `to_dict` wrote; raises `QuantAssetsError` where it is not that."""
        try:
            found = cls(
                str(values["method"]),
                float(values["intercept"]),
                float(values["slope"]),
                tuple(map(float, values["claimed"])),
                tuple(map(float, values["observed"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise QuantAssetsError(f"These are no values of a calibration ({error!r}); train the model again to write some.") from None
        steps = np.array([found.claimed, found.observed]) if len(found.claimed) == len(found.observed) else None
        if (
            found.method not in CALIBRATIONS
            or not np.isfinite([found.intercept, found.slope]).all()
            or found.slope <= 0
            or steps is None
            or (steps.size == 0) == (found.method == "isotonic")
            or not np.isfinite(steps).all()
            or (np.diff(steps) < 0).any()
        ):
            raise QuantAssetsError(f"These values make no calibration: {values}; train the model again to write some.")
        return found

    def _calibrated(self, raw: Vector) -> Vector:
        if self.method == "isotonic":
            raw = logit(np.interp(sigmoid(raw), self.claimed, self.observed))
        return self.intercept + self.slope * raw


def fit_calibration(method: str, log_odds: Vector, up: Vector, base_rate: float) -> Calibration:
    """Fit on raw log-odds and outcomes the model has not seen; the mean probability over them becomes `base_rate`.

    platt: the slope is the most probable one of a logistic regression under a Normal(1, 0.5²) prior, at least 0.1.
    isotonic: scikit-learn's regression of the outcome on the claimed probability; below 1,000 rows, of which its steps learn little
    but luck (Niculescu-Mizil and Caruana 2005), platt stands in. none: nothing is fitted.
    Raises `ValueError` for an unknown method, outcomes all alike, lengths that differ, values that are not finite, and a
    base rate of 0 or 1. Source: Platt, Probabilistic outputs for support vector machines (1999).
    """
    if method not in CALIBRATIONS:
        raise ValueError(f"There is no calibration {method!r}; choose one of {', '.join(CALIBRATIONS)}.")
    if method == "none":
        return Calibration("none")
    z, y = np.asarray(log_odds, dtype=np.float64), np.asarray(up, dtype=np.float64)
    if z.shape != y.shape or z.ndim != 1:
        raise ValueError(f"Calibration needs one outcome for each log-odds; there are {y.size} for {z.size}.")
    if not np.isfinite(z).all():
        raise ValueError(f"Calibration needs finite log-odds; {int((~np.isfinite(z)).sum())} of {z.size} are not.")
    if not np.isin(y, (0, 1)).all() or len(np.unique(y)) < 2:
        raise ValueError(f"Calibration needs outcomes of both kinds, 0 and 1 alone; these are {np.unique(y)[:5].tolist()}.")
    if not 0 < base_rate < 1:
        raise ValueError(f"A base rate lies between 0 and 1; this is {base_rate}.")
    if method == "platt" or len(z) < ISOTONIC_ROWS:
        slope = max(LEAST_SLOPE, _slope(z, y))
        return Calibration("platt", intercept=_intercept(slope * z, base_rate), slope=slope)
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=EDGE, y_max=1 - EDGE, out_of_bounds="clip").fit(sigmoid(z), y)
    claimed, observed = steps.X_thresholds_, steps.y_thresholds_
    moved = _intercept(logit(np.interp(sigmoid(z), claimed, observed)), base_rate)
    return Calibration("isotonic", intercept=moved, claimed=tuple(claimed.tolist()), observed=tuple(observed.tolist()))


def sigmoid(z: Vector) -> Vector:
    """The probability of log-odds, without overflow; NaN where unknown."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def logit(p: Vector) -> Vector:
    """The log-odds of a probability."""
    return np.asarray(np.log(p) - np.log1p(-p))


def _slope(z: Vector, y: Vector) -> float:
    """Newton's method on the negative log posterior of (intercept, slope), halving a step that does not lower it."""
    centred = z - z.mean()  # all but separates the two parameters
    design = np.column_stack([np.ones_like(z), centred])
    precision, prior = np.diag([0.0, PRIOR_DEVIATION**-2]), np.array([0.0, PRIOR_SLOPE])

    def loss(at: Vector) -> float:
        score = design @ at
        return float(np.sum(np.logaddexp(0.0, score) - y * score) + (at - prior) @ precision @ (at - prior) / 2)

    at = np.array([log(y.mean() / (1 - y.mean())), PRIOR_SLOPE])
    for _ in range(100):
        p = sigmoid(design @ at)
        gradient = design.T @ (p - y) + precision @ (at - prior)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + precision
        step = np.linalg.solve(hessian, gradient)
        decrement, now = float(gradient @ step), loss(at)
        if decrement <= 1e-20 * len(z):
            break
        size = 1.0
        while loss(at - size * step) > now - 0.25 * size * decrement and size > 1e-6 and decrement > 1e-12 * now:
            size /= 2
        at = at - size * step
    return float(at[1])


def _intercept(scores: Vector, base_rate: float) -> float:
    """What must be added to log-odds so that the mean probability is the base rate: Newton's method inside a shrinking bracket."""
    target = log(base_rate / (1 - base_rate))
    low, high = target - float(scores.max()), target - float(scores.min())
    at = target - float(scores.mean())
    for _ in range(200):
        p = sigmoid(scores + at)
        excess = float(p.mean()) - base_rate
        if abs(excess) < 1e-14 or high - low < 1e-14 * max(1.0, abs(at)):
            break
        low, high = (low, at) if excess > 0 else (at, high)
        slope = float((p * (1 - p)).mean())
        newton = at - excess / slope if slope > 0 else np.inf
        at = newton if low < newton < high else (low + high) / 2
    return at


def _series(name: str, values: Vector) -> pl.Series:
    return pl.Series(name, values, dtype=pl.Float64).fill_nan(None)
