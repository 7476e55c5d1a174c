"""Drift of features: has the trailing window left the training window's distribution, autocorrelation allowed for?

A shock that all symbols share makes the rows of a session one observation, and persistence makes the sessions few: 60
sessions of an AR(1) with phi = 0.95 carry about 2.5 independent ones. So each session's cross-section is reduced to one
location and one spread, and the two series are tested as series:

- Normal scores: a piecewise linear map takes the reference's quantiles to those of the standard normal (linear and then
  capped beyond the 1st and 99th percentile), which makes units alike and leaves no power to outliers.
- Each is told by the generalised least squares means of the window and of the reference, under the autoregression that the
  reference follows (`autoregression.py`), which also says the effective number of sessions.

Where the reference cannot be told from a random walk, nothing is said: n(1 - phi) is then under about 14 (Dickey & Fuller
1979, 5 %), and the effective number of its sessions under (14 + 2) / 2 = 8.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from quant_assets.feature_store.autoregression import Array, Reference, compare_means, reference_of

WINDOW, LEVEL = 60, 0.05
LEAST_REFERENCE, LEAST_WINDOW = 100, 20
"""Observed sessions below which nothing is said."""
LEAST_EFFECTIVE_REFERENCE, LEAST_EFFECTIVE_WINDOW = 8.0, 1.5
PROBABILITIES = np.array([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99])
CAP = 5.0
SAMPLE = 50_000
"""Rows of the reference that place the quantiles. Any fixed monotone map is valid, so a sample loses nothing."""
LEAST_SHARE = 0.2
"""Sessions with fewer symbols than this share of the reference's median are left out: one symbol is no cross-section."""
ONE_VALUE = 0.02
"""Mean absolute deviation within a session, in standard deviations, below which all symbols share one value."""

POOLED = {"feature": pl.String, "session": pl.Date, "symbols": pl.Int64, "location": pl.Float64, "spread": pl.Float64}
DRIFT = {
    "feature": pl.String, "session": pl.Date, "reference_from": pl.Date, "reference_to": pl.Date,
    "symbols": pl.Int64, "window_sessions": pl.Int64, "effective_sessions": pl.Float64,
    "shift": pl.Float64, "statistic": pl.Float64, "p_value": pl.Float64, "p_adjusted": pl.Float64,
    "spread_ratio": pl.Float64, "spread_statistic": pl.Float64, "spread_p_value": pl.Float64, "spread_p_adjusted": pl.Float64,
    "verdict": pl.String, "severity": pl.String, "reason": pl.String,
}  # fmt: skip


def drift(
    panel: pl.DataFrame,
    reference: tuple[date, date],
    sessions: Sequence[date],
    *,
    features: Sequence[str] | None = None,
    window: int = WINDOW,
    level: float = LEVEL,
) -> pl.DataFrame:
    """Whether each feature's trailing window has shifted against the reference: one row per feature and session.

    `panel` holds `symbol`, `session` and the features (by default all numeric columns); null and not finite values are
    no observations. The other arguments and the result are those of `shifts`.
    """
    known = panel.select(pl.col("session").unique().sort())["session"].to_list()
    needed = {day for day in known if reference[0] <= day <= reference[1]}
    for session in sessions:
        # One more, for the first change within the window; the sessions asked for stay, that `shifts` may answer for them all.
        needed.update([day for day in known if reference[1] < day <= session][-window - 1 :], [session])
    series = pooled(panel, reference, features, sessions=needed)
    return shifts(series, reference, sessions, window=window, level=level)


def pooled(
    panel: pl.DataFrame, reference: tuple[date, date], features: Sequence[str] | None = None, *, sessions: Collection[date] | None = None
) -> pl.DataFrame:
    """Location and spread of each session's cross-section in normal scores of the reference: one row per feature and session.

    `location` is the mean score, in standard deviations of the reference's rows; `spread` the mean absolute deviation
    from it, or, where all symbols share one value or there is but one symbol, the absolute change since the session before
    (in the reference's standard deviations, not in scores); `symbols` how many had a value. Location and spread are null
    without one, where the reference is constant or empty, and where less than a fifth of the usual symbols is there. Rows
    of all symbols weigh the same and share one map, so a changed universe counts as a shift, as it does for a model. Of
    `sessions`, where given, and no others. Raises `ValueError` for a column that is missing or not numeric and for rows
    that are not unique by symbol and session.
    """
    names = _features(panel, features)
    kept = panel.select(pl.lit(True) if sessions is None else pl.col("session").is_in(list(sessions))).to_series()
    used = panel.select("symbol", "session").filter(kept)
    days = used["session"].unique().sort()
    place = (used["session"].rank("dense") - 1).cast(pl.Int64).to_numpy()
    within = days.is_between(*reference).to_numpy()
    rows = np.flatnonzero(within[place])
    drawn = rows
    if len(rows) > SAMPLE:  # the same rows, however they are ordered
        ordered = used[rows].select(pl.arg_sort_by("symbol", "session")).to_series().to_numpy()
        drawn = rows[ordered[np.random.default_rng(0).choice(len(rows), SAMPLE, replace=False)]]

    def one(name: str) -> tuple[Any, Array, Array]:
        x = panel[name].filter(kept).cast(pl.Float64).fill_null(math.nan).to_numpy()
        return _cross_sections(x, place, within, rows, drawn)

    with ThreadPoolExecutor() as threads:  # NumPy lets go of the interpreter
        found = list(threads.map(one, names))
    columns = [np.concatenate([part[k] for part in found]) if found else np.empty(0) for k in range(3)]
    cells = pl.DataFrame({"feature": names}, schema={"feature": pl.String}).join(days.to_frame(), how="cross", maintain_order="left_right")
    values = pl.DataFrame(dict(zip(("symbols", "location", "spread"), columns, strict=True))).fill_nan(None)
    return cells.hstack(values).cast(POOLED)  # type: ignore[arg-type]


def shifts(
    series: pl.DataFrame, reference: tuple[date, date], sessions: Sequence[date], *, window: int = WINDOW, level: float = LEVEL
) -> pl.DataFrame:
    """The tests on the series of `pooled`: one row per feature and session, columns and dtypes as in `DRIFT`.

    The window is the last `window` sessions up to the session that lie after the reference (both ends included).
    `shift` is the difference of the means in standard deviations of the reference's rows, `spread_ratio` the window's
    spread over the reference's (tested by its square root, which is less skewed). Each has a p value of its own,
    two-sided, and one adjusted over the features of the session (Benjamini & Hochberg 1995). `symbols` is the median
    number in the window. The spread's columns are null where its own reference may be a random walk or is constant.

    `verdict` is `shifted` (location at `level`), `spread changed` (spread alone), `steady`, or `cannot be told`, where
    `p_value` is null and `reason` says why. `severity` is `critical` for an adjusted location p at most `level` and a
    shift of one standard deviation or more, `warning` for the p alone, `info` where the spread's adjusted p or the
    unadjusted one of the location is at most `level`, else null.

    The window is taken to be as autocorrelated as the reference; a larger variance of its innovations is allowed for.
    Sessions without an observation are closed up. Raises `ValueError` for a reference that ends before it begins, a
    window under 20 sessions, a level that is no probability, and a session that the series do not hold.
    """
    if reference[0] > reference[1]:
        raise ValueError(f"the reference ends ({reference[1]}) before it begins ({reference[0]})")
    if window < LEAST_WINDOW:
        raise ValueError(f"a window of {window} sessions: at least {LEAST_WINDOW} are needed")
    if not 0 < level < 1:
        raise ValueError(f"the level {level} does not lie between 0 and 1")
    if missing := sorted(set(sessions) - set(series["session"].unique())):
        raise ValueError(f"no row of the panel in session {', '.join(map(str, missing))}")
    found = []
    for own in series.sort("feature", "session").partition_by("feature", maintain_order=True):
        days, symbols = own["session"].to_numpy(), own["symbols"].to_numpy()
        values = np.column_stack([own["location"].to_numpy(), own["spread"].to_numpy()])
        first, last = np.array(reference, "datetime64[D]")
        ends = np.searchsorted(days, [first, last + 1])
        fitted = _fit_reference(values[slice(*ends)], symbols[slice(*ends)])
        for session in sessions:
            key = {"feature": own["feature"][0], "session": session, "reference_from": reference[0], "reference_to": reference[1]}
            if session <= reference[1]:
                found.append({**key, "reason": "the session does not lie after the reference"})
            else:
                end = int(np.searchsorted(days, np.datetime64(session), "right"))
                trailing = slice(max(int(ends[1]), end - window), end)
                found.append({**key, **_compare(fitted, values[trailing], symbols[trailing])})
    told = pl.DataFrame(found, schema={name: dtype for name, dtype in DRIFT.items() if name not in ("verdict", "severity")}, orient="row")
    adjusted = told.with_columns(_adjusted("p_value").alias("p_adjusted"), _adjusted("spread_p_value").alias("spread_p_adjusted"))
    located, wide = pl.col("p_value") <= level, pl.col("spread_p_value") <= level
    sure = pl.col("p_adjusted") <= level
    return adjusted.with_columns(
        verdict=pl.when(pl.col("p_value").is_null()).then(pl.lit("cannot be told"))
        .when(located).then(pl.lit("shifted")).when(wide).then(pl.lit("spread changed")).otherwise(pl.lit("steady")),
        severity=pl.when(sure & (pl.col("shift").abs() >= 1)).then(pl.lit("critical")).when(sure).then(pl.lit("warning"))
        .when(located | (pl.col("spread_p_adjusted") <= level)).then(pl.lit("info")),
    ).select(*DRIFT)  # fmt: skip


def _features(panel: pl.DataFrame, features: Sequence[str] | None) -> list[str]:
    if absent := [name for name in ("symbol", "session", *(features or ())) if name not in panel.columns]:
        raise ValueError(f"the panel has no column {', '.join(absent)}")
    names = [name for name, dtype in panel.schema.items() if dtype.is_numeric()] if features is None else list(features)
    if wrong := [name for name in names if not (panel[name].dtype.is_numeric() or panel[name].dtype in (pl.Boolean, pl.Null))]:
        raise ValueError(f"not numeric: {', '.join(f'{name} ({panel[name].dtype})' for name in wrong)}")
    keys = panel.select("symbol", "session")
    if keys.unique().height < keys.height:
        raise ValueError(f"rows are not unique by symbol and session: {keys.filter(keys.is_duplicated()).row(0)}")
    return names


def _cross_sections(x: Array, place: Any, within: Any, rows: Any, drawn: Any) -> tuple[Any, Array, Array]:
    """One feature's symbols, location and spread per session; NaN for none."""
    n = len(within)
    finite = np.isfinite(x)
    count = np.bincount(place, finite, minlength=n)
    usual = count[within & (count > 0)]
    if not len(usual) or (knots := _normal_scores(x[rows][finite[rows]], x[drawn][finite[drawn]])) is None:
        return count.astype(np.int64), np.full(n, math.nan), np.full(n, math.nan)
    score = np.interp(np.where(finite, x, 0.0), *knots)
    with np.errstate(invalid="ignore", divide="ignore"):
        location = np.bincount(place, score * finite, minlength=n) / count
        spread = np.bincount(place, np.abs(score - location[place]) * finite, minlength=n) / count
    thin = count < max(1.0, LEAST_SHARE * float(np.median(usual)))
    location[thin] = spread[thin] = math.nan
    if np.nanmean(spread[within]) < ONE_VALUE:
        # Scores stretch where the reference is sparse, so the size of a change would depend on the level.
        (low, high), (first, last) = knots[0][[0, -1]], knots[1][[0, -1]]
        level = (
            np.bincount(place, np.where(finite, np.clip(x, low, high), 0.0), minlength=n)
            / np.maximum(count, 1)
            * (last - first)
            / (high - low)
        )
        level[thin] = math.nan
        spread = np.abs(np.diff(level, prepend=math.nan))
    return count.astype(np.int64), location, spread


def _normal_scores(values: Array, sample: Array) -> tuple[Array, Array] | None:
    """Knots (values, scores) of the map to normal scores of unit variance; none where the values are constant."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        return None
    quantiles = np.quantile(sample, PROBABILITIES)
    at, inverse = np.unique(quantiles, return_inverse=True)
    normal = np.array([NormalDist().inv_cdf(float(p)) for p in PROBABILITIES])
    scores = np.bincount(inverse, normal) / np.bincount(inverse)
    if len(at) == 1:  # all but one in a hundred are equal
        mean, deviation = float(values.mean()), float(values.std())
        return np.array([mean - CAP * deviation, mean + CAP * deviation]), np.array([-CAP, CAP])
    slope = (scores[-1] - scores[0]) / (at[-1] - at[0])
    knots = np.concatenate([[at[0] - (CAP + scores[0]) / slope], at, [at[-1] + (CAP - scores[-1]) / slope]])
    scores = np.concatenate([[-CAP], scores, [CAP]])
    return knots, scores / np.interp(sample, knots, scores).std()


@dataclass(frozen=True)
class _Fitted:
    location: Reference
    spread: Reference | None


def _fit_reference(values: Array, symbols: Any) -> _Fitted | str:
    """The reference's two series (location, spread per session); or why there are none."""
    x, root = _observed(values)
    if not len(x):
        return "the reference is constant" if symbols.any() else "the reference holds no values"
    if len(x) < LEAST_REFERENCE:
        return f"the reference holds {len(x)} sessions, fewer than {LEAST_REFERENCE}"
    if np.ptp(x) <= 1e-12:
        return "the reference's location is constant"
    varies = len(root) >= LEAST_REFERENCE and np.ptp(root) > 1e-12
    return _Fitted(reference_of(x), reference_of(root) if varies else None)


def _observed(values: Array) -> tuple[Array, Array]:
    """Locations and square roots of spreads, without the sessions that have none."""
    x, spread = values[:, 0], values[:, 1]
    return x[~np.isnan(x)], np.sqrt(spread[~np.isnan(spread)])


def _compare(fitted: _Fitted | str, values: Array, symbols: Any) -> dict[str, object]:
    """One window against the reference."""
    x, root = _observed(values)
    sizes: dict[str, object] = {"window_sessions": len(x), "symbols": round(float(np.median(symbols))) if len(symbols) else 0}
    if isinstance(fitted, str):
        return {**sizes, "reason": fitted}
    if len(x) < LEAST_WINDOW:
        return {**sizes, "reason": f"the window holds {len(x)} sessions, fewer than {LEAST_WINDOW}"}
    location = fitted.location
    effective = float(location.model.variances[0]) / location.model.variance_of_mean(len(x))
    sizes["effective_sessions"] = effective
    if location.effective < LEAST_EFFECTIVE_REFERENCE:
        return {**sizes, "reason": f"the reference may be a random walk: {location.effective:.1f} effective sessions"}
    if effective < LEAST_EFFECTIVE_WINDOW:
        return {**sizes, "reason": f"the window holds {effective:.2f} effective sessions, fewer than {LEAST_EFFECTIVE_WINDOW}"}
    mean, statistic, p = compare_means(location, x)
    result = {**sizes, "shift": mean - location.mean, "statistic": statistic, "p_value": p}
    if fitted.spread is None or fitted.spread.effective < LEAST_EFFECTIVE_REFERENCE or len(root) < LEAST_WINDOW:
        return result
    mean, statistic, p = compare_means(fitted.spread, root)
    ratio = (max(mean, 0.0) / fitted.spread.mean) ** 2
    return {**result, "spread_ratio": ratio, "spread_statistic": statistic, "spread_p_value": p}


def _adjusted(name: str) -> pl.Expr:
    """Benjamini and Hochberg's step-up over the features of a session; null where the p value is."""
    p = pl.col(name)
    raised = (p * p.count() / p.rank("max")).sort_by(p, descending=True, nulls_last=True).cum_min()
    back = p.rank("ordinal", descending=True) - 1
    return pl.when(p.is_not_null()).then(raised.gather(back)).over("session")
