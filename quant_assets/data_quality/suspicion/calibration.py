"""From log odds to the one scale of scores: the share of clean bars that look less suspicious.

A score of 0.999 says: one clean bar in a thousand is at least as suspicious as this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
"""Shares of clean bars at which a calibration holds its thresholds."""

_LEAST_RATE = 1e-12


@dataclass(frozen=True)
class Calibration:
    """Log odds that a share of `RATES` of the clean bars reach or exceed, in the same order (rising)."""

    thresholds: tuple[float, ...]

    def rate(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of clean bars at least as suspicious; beyond the last threshold the tail goes on as it ended.

        From the first threshold on it falls strictly as the log odds rise: ranking by score is ranking by log odds.
        """
        knots, logs = np.array(self.thresholds), np.log(RATES)
        inside = np.interp(log_odds, knots, logs)
        slope = (logs[-1] - logs[-4]) / max(knots[-1] - knots[-4], 0.5)
        # Rates below what a float distinguishes from one are of no use: the tail flattens towards the least one.
        room = np.log(_LEAST_RATE) - logs[-1]
        tail = logs[-1] + room * -np.expm1(slope * np.maximum(log_odds - knots[-1], 0.0) / -room)
        rates: NDArray[np.float64] = np.exp(np.where(log_odds > knots[-1], tail, inside))
        return rates

    def score(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """One less the rate: in [0, 1], higher is more suspicious."""
        score: NDArray[np.float64] = 1.0 - np.clip(self.rate(log_odds), 0.0, 1.0)
        return score


def fitted_calibration(log_odds: NDArray[np.float64]) -> Calibration:
    """Calibrate on bars known to be clean; beyond the rates that so many bars can tell, the last slope goes on.

    Raises `ValueError` for fewer than a thousand finite values: a rate of 1 in 1,000 cannot be read off them.
    """
    finite = np.sort(log_odds[np.isfinite(log_odds)])
    if len(finite) < 1000:
        raise ValueError(f"{len(finite)} clean bars are too few to calibrate on; 1,000 are the least.")
    told = [rate for rate in RATES if rate * len(finite) >= 3]
    values = [float(np.quantile(finite, 1 - rate)) for rate in told]
    slope = (values[-1] - values[-3]) / np.log(told[-3] / told[-1])
    values += [values[-1] + slope * float(np.log(told[-1] / rate)) for rate in RATES[len(told) :]]
    rising: list[float] = []
    for value in values:
        rising.append(value if not rising else max(value, rising[-1] + 1e-6))
    return Calibration(tuple(rising))
