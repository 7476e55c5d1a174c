"""Drift of features beside a Kolmogorov–Smirnov test on the same series: `python -m benchmarks.drift`.

Prints one JSON line per case: shares of 2,000 simulated series (seed 7) in which each raises an alarm at the 5 % level,
reference of 1,000 sessions, window right after it unless `gap` sessions lie between. `shift` is in standard deviations of
the series, 0 meaning that every alarm is false; `told` the share of series on which ours says anything (`ours` counts
alarms among all), `spread` the alarms for the spread. Cases named `pooled` have 50 symbols with a common factor. The last line is the
time of 200 features in one session, 505 symbols of 1,259 sessions, in seconds (the peer: the same test for each feature).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter

import numpy as np
import polars as pl
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from quant_assets.feature_store.drift import drift
from quant_assets_tests.feature_store.test_drift import autoregression, panel_of

RUNS, REFERENCE, SEED = 2_000, 1_000, 7
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def ar(*coefficients: float, tails: float | None = None) -> Draw:
    """An autoregression, its innovations normal or Student's t."""
    return lambda random, runs, n: autoregression(random, runs, n, *coefficients, tails=tails)


def rolling_mean(random: np.random.Generator, runs: int, n: int) -> np.ndarray:
    """Means of 20 values of white noise."""
    total = np.cumsum(random.standard_normal((runs, n + 20)), axis=1)
    return (total[:, 20:] - total[:, :-20]) / 20


def arma(random: np.random.Generator, runs: int, n: int) -> np.ndarray:
    """A slow component under noise: ARMA(1, 1) with 0.97 and -0.6."""
    return lfilter([1, -0.6], [1, -0.97], random.standard_normal((runs, n + 500)), axis=1)[:, 500:]


def random_walk(random: np.random.Generator, runs: int, n: int) -> np.ndarray:
    """A unit root."""
    return np.cumsum(random.standard_normal((runs, n)), axis=1)


def garch(random: np.random.Generator, runs: int, n: int) -> np.ndarray:
    """Uncorrelated returns whose variance clusters: GARCH(1, 1) with 0.1 and 0.85."""
    x, variance = np.zeros((runs, n + 300)), np.ones(runs)
    for step in range(n + 300):
        x[:, step] = np.sqrt(variance) * random.standard_normal(runs)
        variance = 0.05 + 0.1 * x[:, step] ** 2 + 0.85 * variance
    return x[:, 300:]


CASES: list[tuple[str, Draw, int, float, int]] = [
    ("ar1 0.95", ar(0.95), 60, 0, 0), ("ar1 0.95", ar(0.95), 60, 2, 0), ("ar1 0.95", ar(0.95), 400, 0, 0), ("ar1 0.95", ar(0.95), 400, 1, 0),
    ("ar1 0.95", ar(0.95), 60, 0, 750), ("ar1 0.95", ar(0.95), 60, 2, 750),
    ("ar1 0.5", ar(0.5), 60, 0, 0), ("ar1 0.5", ar(0.5), 60, 1, 0), ("white noise", ar(), 60, 0, 0), ("white noise", ar(), 60, 0.5, 0),
    ("ar1 0.8", ar(0.8), 60, 0, 0), ("ar1 0.9", ar(0.9), 60, 0, 0), ("ar1 0.98", ar(0.98), 60, 0, 0), ("ar1 0.98", ar(0.98), 400, 0, 0),
    ("ar2 1.5 -0.75", ar(1.5, -0.75), 60, 0, 0), ("ar2 0.6 0.35", ar(0.6, 0.35), 60, 0, 0), ("arma 0.97 -0.6", arma, 60, 0, 0),
    ("rolling mean of 20", rolling_mean, 60, 0, 0), ("rolling mean of 20", rolling_mean, 60, 2, 0),
    ("t3 ar1 0.5", ar(0.5, tails=3), 60, 0, 0), ("t3 ar1 0.95", ar(0.95, tails=3), 60, 0, 0), ("garch", garch, 60, 0, 0),
    ("random walk", random_walk, 60, 0, 0), ("random walk", random_walk, 400, 0, 0),
]  # fmt: skip


def measure(name: str, draw: Draw, window: int, shift: float, gap: int) -> None:
    """One case of single series: every run is a feature of one symbol."""
    x = draw(np.random.default_rng(SEED), RUNS, REFERENCE + gap + window)
    x[:, REFERENCE + gap :] += shift * x.std()
    panel = panel_of(x[:, None, :])
    report(name, panel, x[:, :REFERENCE], x[:, REFERENCE + gap :], window, shift, gap)


def report(name: str, panel: pl.DataFrame, before: np.ndarray, after: np.ndarray, window: int, shift: float, gap: int) -> None:
    """Print the alarms of both."""
    days = panel["session"].unique().sort()
    found = drift(panel, (days[0], days[REFERENCE - 1]), [days[-1]], window=window)
    ours = (found["p_value"] <= 0.05).sum() / len(before)
    peer = float(np.mean([ks_2samp(a.ravel(), b.ravel()).pvalue <= 0.05 for a, b in zip(before, after, strict=True)]))
    print(json.dumps({
        "bench": f"drift {name}", "window": window, "shift": shift, "gap": gap, "runs": len(before),
        "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 3), "told": round(found["p_value"].count() / len(before), 4),
        "spread": round((found["spread_p_value"] <= 0.05).sum() / len(before), 4), "effective": found["effective_sessions"].median(),
    }), flush=True)  # fmt: skip


def measure_pooled(shift: float, runs: int = 500, symbols: int = 50, window: int = 60) -> None:
    """50 symbols: a common AR(1) with 0.9 and, as large, an AR(1) with 0.9 of each."""
    random, n = np.random.default_rng(SEED), REFERENCE + window
    x = autoregression(random, runs, n, 0.9)[:, None, :] + autoregression(random, runs * symbols, n, 0.9).reshape(runs, symbols, n)
    x[:, :, REFERENCE:] += shift * x.std()
    report("pooled ar1 0.9", panel_of(x), x[:, :, :REFERENCE], x[:, :, REFERENCE:], window, shift, 0)


def measure_time(features: int = 200, symbols: int = 505, n: int = 1_259) -> None:
    """One session of a wide panel."""
    random = np.random.default_rng(SEED)
    panel = panel_of(autoregression(random, symbols, n, 0.9)[None])
    values = panel["f0"].to_numpy()
    panel = panel.select("symbol", "session", *(pl.Series(f"f{k}", np.roll(values, 977 * k)) for k in range(features)))
    days = panel["session"].unique().sort()
    started = perf_counter()
    drift(panel, (days[0], days[REFERENCE - 1]), [days[-1]])
    ours = perf_counter() - started
    before, after = (panel.filter(pl.col("session").is_in(part.to_list())) for part in (days[:REFERENCE], days[-60:]))
    started = perf_counter()
    for k in range(features):
        ks_2samp(before[f"f{k}"].to_numpy(), after[f"f{k}"].to_numpy(), method="asymp")
    peer = perf_counter() - started
    print(
        json.dumps(
            {"bench": "drift seconds", "ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(ours / peer, 3), "features": features}
        )
    )


if __name__ == "__main__":
    for case in CASES:
        measure(*case)
    for size in (0.0, 1.0):
        measure_pooled(size)
    measure_time()
