"""Autoregressions as a measure of what the mean of a few dependent observations is worth, and a test of two means.

- The fit is Burg's, order by AICc (Hurvich & Tsai 1989), the sum of the coefficients freed of its bias of order 1/n
  (Kendall 1954; Marriott & Pope 1954; Shaman & Stine 1988).
- The mean is the generalised least squares one, the best linear unbiased (Beran 1994, *Statistics for Long-Memory
  Processes*, ch. 8). Its exact variance under the autoregression says the effective number of observations, for an AR(1)
  (n(1 - phi) + 2 phi) / (1 + phi); more than their number are not believed.
- The p value is normal, averaged over the uncertainty of its own standard error (delta method, lognormal).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

LARGEST_ORDER = 30
"""More than a month of sessions: a rolling window of 20 is a moving average, which short autoregressions fit badly."""
PREDICTABLE = 1e-8
"""Share of the variance below which a prediction is exact, as for the day of the week: such an order is not fitted."""
NODES = np.polynomial.hermite_e.hermegauss(9)[0]
WEIGHTS = (np.polynomial.hermite_e.hermegauss(9)[1] / math.sqrt(2 * math.pi)).tolist()
"""Of the average over a standard normal variable (Gauss and Hermite's quadrature)."""


@dataclass(frozen=True)
class Autoregression:
    """Partial autocorrelations and the variance of the innovations, from `n` observations."""

    partial: Array
    innovation: float
    n: int

    @property
    def variances(self) -> Array:
        """Of the prediction from 0, 1, … p values before: the first is the variance of the series."""
        return self.innovation / np.concatenate([np.cumprod((1 - self.partial**2)[::-1])[::-1], [1.0]])

    @property
    def filters(self) -> list[Array]:
        """Weights (1, -c1, -c2, …) of the newest and the values before it in the error of each of those predictions."""
        found = [np.ones(1)]
        for value in self.partial:
            longer = np.append(found[-1], 0.0)
            found.append(longer - value * longer[::-1])
        return found

    def whitened(self, x: Array) -> tuple[Array, Array]:
        """The series and a series of ones as uncorrelated values of unit variance (Levinson and Durbin's prediction errors)."""
        deviations, p = np.sqrt(self.variances), len(self.partial)
        white, ones = np.empty(len(x)), np.empty(len(x))
        for order, weights in enumerate(self.filters[: len(x)]):
            place = slice(order, order + 1) if order < p else slice(p, None)
            white[place] = np.convolve(x[: order + 1] if order < p else x, weights, "valid") / deviations[order]
            ones[place] = weights.sum() / deviations[order]
        return white, ones

    def variance_of_mean(self, n: int) -> float:
        """Of the generalised least squares mean of n values; at least that of independent ones, since what returns like the
        day of the week would otherwise be known without error.
        """
        return max(1 / self.information(n), float(self.variances[0]) / n)

    def information(self, n: int) -> float:
        """1' C^-1 1 over n values, C their covariance."""
        sums = np.cumprod(np.concatenate([[1.0], 1 - self.partial]))
        each, p = sums**2 / self.variances, len(self.partial)
        return float(each[: min(n, p)].sum() + max(n - p, 0) * each[p])

    def uncertainty(self, n: int) -> float:
        """Standard error of the logarithm of the standard error of the difference between the means of n new and of the own values."""
        relative = 2 / self.n
        if len(self.partial):
            total, deviation = self.total, math.sqrt(self.variance_of_total)
            above, below = (self.with_total(total + side * 0.01 * deviation) for side in (1, -1))
            logarithms = [math.log(model.variance_of_mean(n) + model.variance_of_mean(self.n)) for model in (above, below)]
            relative += ((logarithms[0] - logarithms[1]) / 0.02) ** 2
        return math.sqrt(relative) / 2

    @property
    def total(self) -> float:
        """One less the sum of the coefficients, which is near zero where the series is near a random walk."""
        return float(np.prod(1 - self.partial))

    @property
    def variance_of_total(self) -> float:
        """Of its estimate: 1' C^-1 1 over the order's values, times the variance of an innovation, over n."""
        return self.innovation * self.information(len(self.partial)) / self.n

    def with_total(self, total: float) -> Autoregression:
        """The same with another `total`, the first partial autocorrelation moved for it."""
        first = 1 - (1 - self.partial[0]) * total / self.total
        return Autoregression(np.append(np.clip(first, -0.999999, 0.999999), self.partial[1:]), self.innovation, self.n)


def fit_autoregression(x: Array) -> Autoregression:
    """Burg's fit of a series (no NaN, not constant, 20 values or more), order by AICc, the bias of its coefficients' sum taken off."""
    n, largest = len(x), min(LARGEST_ORDER, len(x) // 10)
    centred = x - x.mean()
    forward, backward = centred[1:], centred[:-1]
    partial, variances = np.empty(largest), np.empty(largest + 1)
    variances[0] = centred @ centred / n
    for order in range(largest):
        partial[order] = 2 * (forward @ backward) / (forward @ forward + backward @ backward)
        variances[order + 1] = variances[order] * (1 - partial[order] ** 2)
        if variances[order + 1] < PREDICTABLE * variances[0]:
            largest = order
            break
        forward, backward = (forward - partial[order] * backward)[1:], (backward - partial[order] * forward)[:-1]
    orders, variances = np.arange(largest + 1), variances[: largest + 1]
    chosen = int(np.argmin(n * np.log(variances) + 2 * n * (orders + 2) / (n - orders - 3)))
    model = Autoregression(partial[:chosen], float(variances[chosen]) * n / (n - chosen - 1), n)
    if not chosen:
        return model
    # The sum of the coefficients c is low by about (2 (c1 + 2 c2 + …) + v) / n, with v from the mean that is estimated too;
    # (1 + 3 c) / n for the first order, and for any order in the limit of a random walk.
    coefficients = -model.filters[-1][1:]
    bias = (2 * float(coefficients @ orders[1 : chosen + 1]) + model.variance_of_total * n / model.total) / n
    return model.with_total(max(model.total - bias, 1e-9))


@dataclass(frozen=True)
class Reference:
    """A series to which others are compared: its autoregression, its mean, and its innovations in standard deviations."""

    model: Autoregression
    mean: float
    innovations: Array

    @property
    def effective(self) -> float:
        """The number of independent observations whose mean is as uncertain."""
        return float(self.model.variances[0]) / self.model.variance_of_mean(self.model.n)


def reference_of(x: Array) -> Reference:
    """Fit a series (no NaN, not constant, 20 values or more) that others are to be compared to."""
    model = fit_autoregression(x)
    mean, innovations = _mean(model, x)
    return Reference(model, mean, innovations)


def compare_means(reference: Reference, x: Array) -> tuple[float, float, float]:
    """The mean of a window (no NaN), its difference from the reference's over its standard error, and the p value, two-sided."""
    model = reference.model
    mean, innovations = _mean(model, x)
    of_window, size, usual = model.variance_of_mean(len(x)), np.abs(innovations), np.abs(reference.innovations)
    # A stormier window has a less certain mean. Absolute values, since a step within the window is one large innovation.
    if size.mean() > usual.mean() + NormalDist().inv_cdf(0.999) * usual.std() / math.sqrt(len(x)):
        of_window *= float(size.mean() / usual.mean()) ** 2
    statistic = (mean - reference.mean) / math.sqrt(of_window + model.variance_of_mean(model.n))
    factors = np.exp(model.uncertainty(len(x)) * NODES).tolist()
    p = sum(weight * math.erfc(abs(statistic) / factor / math.sqrt(2)) for weight, factor in zip(WEIGHTS, factors, strict=True))
    return mean, statistic, min(p, 1.0)


def _mean(model: Autoregression, x: Array) -> tuple[float, Array]:
    """The generalised least squares mean, and the innovations around it in standard deviations."""
    white, ones = model.whitened(x)
    information, n = float(ones @ ones), len(x)
    # Where these say more than independent values would (see `variance_of_mean`), the weights lean on a few; the plain mean does not.
    mean = float(white @ ones) / information if information * model.variances[0] <= n else float(x.mean())
    return mean, white - mean * ones
