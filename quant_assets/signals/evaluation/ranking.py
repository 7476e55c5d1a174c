"""How good an order of symbols is, session by session: rank IC, and what a portfolio of the extremes would have earned.

- `rank_ic`: mean over sessions of the Spearman correlation between score and forward return (Grinold and Kahn, Active Portfolio
  Management, 2000); `icir`: that mean over the standard deviation of the sessions' values (per session, not annualised)
- `rank_ic_t`: `newey_west_t` of the sessions' values, lags 2 · (horizon - 1)
- `spread_gross`: every session forms a tranche that is long the top tenth of the symbols by score and short the bottom tenth
  (max(1, n // 10) names each, equal weights, equal scores in the order of their symbols) and is held `horizon` sessions; mean forward
  return of the top less that of the bottom, divided by `horizon`: a fraction per session, of the capital of one leg (Jegadeesh and
  Titman, Journal of Finance 48, 1993: overlapping tranches)
- `turnover`: share of a tranche's names that were not in the one formed `horizon` sessions before, whose capital it takes over; mean of
  the two legs, null where either is missing
- `spread_net` = gross - cost / horizon, where cost = 4 · turnover · fee: in each of the two legs a replaced name costs a sell and a buy
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quant_assets.signals.evaluation.bootstrap import Floats
from quant_assets.signals.evaluation.classification import Ints

PER_SESSION = ("rank_ic", "spread_gross", "spread_net", "turnover")


def newey_west_t(values: Floats, lags: int) -> float | None:
    """t-value of a mean whose terms are correlated over up to `lags` steps; null below three values or without variance.

    With no lags this is the plain t-value. Labels of neighbouring sessions share horizon - 1 sessions; Bartlett weights fall with the
    lag, so that twice as many lags are taken to give those full enough weight.
    Source: Newey and West, Econometrica 55 (1987), with the small-sample factor n / (n - 1).
    """
    n = len(values)
    if n < 3:
        return None
    deviations = values - values.mean()
    lags = min(lags, n - 1)
    weighted = sum((1 - lag / (lags + 1)) * float(deviations[lag:] @ deviations[:-lag]) for lag in range(1, lags + 1))
    variance = (float(deviations @ deviations) + 2 * weighted) / (n - 1)
    return float(values.mean() / np.sqrt(variance / n)) if variance > 1e-18 else None


def order_within(unit: Ints, codes: Ints) -> Ints:
    """The rows unit by unit, each by code; equal codes stay in the order of the rows."""
    return np.argsort(unit * (int(codes.max(initial=0)) + 1) + codes, kind="stable")


def average_ranks(unit: Ints, codes: Ints, order: Ints) -> Floats:
    """Rank of each row's code within its unit, from 1, ties sharing the mean of their places; `order` as of `order_within`."""
    n = len(unit)
    changes = (np.diff(unit[order]) > 0) | (np.diff(codes[order]) != 0)
    first = np.flatnonzero(np.r_[True, changes][:n])  # where each run of ties begins
    last = np.r_[first[1:], n] - 1
    below = np.r_[0, np.bincount(unit)].cumsum()[unit[order[first]]]  # rows of earlier units
    ranks = np.empty(n)
    ranks[order] = np.repeat((first + last) / 2 + 1 - below, last - first + 1)
    return ranks


def rank_ics(unit: Ints, units: int, ranks: Floats, return_ranks: Floats) -> Floats:
    """Spearman correlation per unit; not a number where a side is constant or there is one symbol."""
    middle = (np.bincount(unit, minlength=units)[unit] + 1) / 2
    a, b = ranks - middle, return_ranks - middle
    product, a_square, b_square = (np.bincount(unit, weights=terms, minlength=units) for terms in (a * b, a * a, b * b))
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = product / np.sqrt(a_square * b_square)
    return result


def tranches(
    unit: Ints, units: int, n_sessions: int, symbol: Ints, codes: Ints, order: Ints, forward_return: Floats, horizon: int, fee_bps: float
) -> dict[str, Floats]:
    """`spread_gross`, `spread_net`, `turnover` per unit; rows sorted by symbol within a session, symbols and scores as codes, `order` as of
    `order_within`.

    A unit is a session (or one of a sector: then the units run through all sessions, sector by sector). Not a number where a unit's
    scores are all equal or it has one symbol, and for turnover and net where the tranche before is missing.
    """
    sorted_unit = unit[order]
    counts = np.bincount(unit, minlength=units)
    ends = counts.cumsum()
    place = np.arange(len(unit)) - (ends - counts)[sorted_unit]
    size = np.maximum(1, counts // 10)
    ranked = np.zeros(units, dtype=np.bool_)
    ranked[counts > 0] = codes[order][ends[counts > 0] - 1] > codes[order][(ends - counts)[counts > 0]]
    in_ranked = ranked[sorted_unit]
    has_before = np.r_[np.zeros(horizon, dtype=np.bool_), ranked][:units] & ranked & (np.arange(units) % n_sessions >= horizon)
    n_symbols = int(symbol.max(initial=0)) + 1
    mean, kept = [], []
    for leg in (in_ranked & (place >= (counts - size)[sorted_unit]), in_ranked & (place < size[sorted_unit])):
        rows = order[leg]
        mean.append(np.bincount(unit[rows], weights=forward_return[rows], minlength=units) / size)
        names = unit[rows] * n_symbols + symbol[rows]
        before = np.isin(names - horizon * n_symbols, names) & has_before[unit[rows]]
        kept.append(np.bincount(unit[rows], weights=before, minlength=units) / size)
    gross = np.where(ranked, (mean[0] - mean[1]) / horizon, np.nan)
    turnover = np.where(has_before, 1 - (kept[0] + kept[1]) / 2, np.nan)
    return {"spread_gross": gross, "spread_net": gross - 4 * turnover * fee_bps / 1e4 / horizon, "turnover": turnover}


def ranking_sums(per_unit: Mapping[str, Floats]) -> dict[str, Floats]:
    """Each unit's values with a count of those that exist, and the squares of the rank ICs: what the scores' means need."""
    sums: dict[str, Floats] = {}
    for name, values in per_unit.items():
        sums |= {name: np.nan_to_num(values), f"{name}_count": np.isfinite(values).astype(np.float64)}
    if "rank_ic" in sums:
        sums["rank_ic_squared"] = sums["rank_ic"] ** 2
    return sums


def ranking_scores(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """The scores that given sums allow; not a number where one cannot be computed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {name: sums[name] / sums[f"{name}_count"] for name in PER_SESSION if name in sums}
        if "rank_ic" in sums:
            count, mean = sums["rank_ic_count"], scores["rank_ic"]
            variance = (sums["rank_ic_squared"] - count * mean**2) / (count - 1)
            scores["icir"] = np.where((count > 1) & (variance > 1e-12), mean / np.sqrt(np.maximum(variance, 1e-12)), np.nan)
    return scores
