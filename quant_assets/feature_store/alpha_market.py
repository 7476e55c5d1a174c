"""The features of `alpha_v1` that hold a symbol's returns against the market's: regressions on it, and what they leave.

Every value is made of its window alone, at most 252 rows: a symbol may be computed from any row on, and what comes 252 rows
later is what the whole history gives, bit for bit.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from quant_assets.feature_store.adjustment import in_order
from quant_assets.feature_store.catalog import ALPHA_MARKET
from quant_assets.feature_store.windows import Floats, Rows, by_blocks

REGRESSIONS = (60, 120, 252)
COMPOUNDED = (5, 20, 60, 120)
LOOKBACK = 252
SKIPPED = 21
"""The latest rows, about a month, that momentum leaves out: there returns reverse."""
ROUNDING = 1e-8
"""Residuals with less than this share of the returns' sum of squares are rounding, not residuals."""


def alpha_market(returns: pl.DataFrame) -> pl.DataFrame:
    """The features of `alpha_market_v1`, one row per symbol and session, sorted.

    Takes, in any order, one row per bar: `symbol`, `session`, `price_change_1d` (null at a symbol's first bar),
    `market_return_1d` (of that session, null where it is unknown), `known_at` and `market_known_at` (of that session's market).
    Windows count the symbol's own bars; the return over a gap stands beside the market of its session. A null inside a window
    makes its features null, nothing is NaN or infinite. `known_at` is the latest of the row's own and of the markets of its last
    252 rows. Definitions, null rules and sources stand in the catalog.
    """
    return by_blocks(in_order(returns), _alpha_market)


def _alpha_market(returns: pl.DataFrame) -> pl.DataFrame:
    from quant_assets.feature_store.comoments import comoments

    rows = Rows.of(returns)
    market, own = (returns[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("market_return_1d", "price_change_1d"))
    day = returns["session"].to_physical().cast(pl.Float64).to_numpy()
    values: dict[str, Floats] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        *moments, year, half = comoments(market, own, np.array([*REGRESSIONS, 252 - SKIPPED, 126 - SKIPPED]))
        for n, sums in zip(REGRESSIONS, moments, strict=True):
            mean_x, mean_y, xx, xy, yy, xxx, xxy, xyy, yyy = rows.warm(sums, n)
            beta = xy / xx
            squares = yy - beta * xy
            np.copyto(squares, 0.0, where=squares <= ROUNDING * yy)
            cubes = yyy - 3.0 * beta * xyy + 3.0 * beta**2 * xxy - beta**3 * xxx
            variance = squares / n
            values[f"beta_{n}"] = beta
            values[f"market_correlation_{n}"] = np.clip(xy / np.sqrt(xx * yy), -1.0, 1.0)
            values[f"idiosyncratic_volatility_{n}"] = np.sqrt(squares / (n - 2))
            values[f"idiosyncratic_skewness_{n}"] = cubes / n / (variance * np.sqrt(variance))
        # What follows is of the longest regression, the last of the loop.
        alpha = mean_y - beta * mean_x
        values["alpha_252"] = alpha
        values["appraisal_ratio_252"] = alpha / values["idiosyncratic_volatility_252"]
        values["coskewness_252"] = (xxy - beta * xxx) / n / (np.sqrt(variance) * xx / n)
        values["residual_momentum_126_21"] = _standardised([rows.lag(moment, SKIPPED) for moment in half[:5]], beta, alpha, 126 - SKIPPED)
        values["residual_momentum_252_21"] = _standardised([rows.lag(moment, SKIPPED) for moment in year[:5]], beta, 0.0, 252 - SKIPPED)
        for side, part in (("downside", np.minimum(market, 0.0)), ("upside", np.maximum(market, 0.0))):
            ((together,), (alone,)) = rows.sums(own * part, 252), rows.sums(part * part, 252)
            values[f"{side}_beta_252"] = rows.warm(together / alone, 252)
        values["excess_return_1"] = own - market
        grown = (rows.sums(np.log1p(returns_of), *COMPOUNDED) for returns_of in (own, market))
        for n, of_own, of_market in zip(COMPOUNDED, *grown, strict=True):
            values[f"excess_return_{n}"] = rows.warm(np.exp(of_own) - np.exp(of_market), n)
        values["days_since_previous_session"] = rows.lag(np.diff(day, append=np.nan))
    features = {feature.name: values[feature.name] for feature in ALPHA_MARKET}
    for column in features.values():
        np.copyto(column, np.nan, where=~np.isfinite(column))
    reach = pl.col("market_known_at").cast(pl.Int64).rolling_max(LOOKBACK, min_samples=1).over("symbol").cast(pl.Datetime("us"))
    known = returns.select("symbol", "session", pl.max_horizontal("known_at", reach).alias("known_at"))
    return known.select("symbol", "session").hstack(pl.DataFrame(features, nan_to_null=True)).with_columns(known["known_at"])


def _standardised(moments: list[Floats], beta: Floats, alpha: Floats | float, n: int) -> Floats:
    """Mean of what n returns differ by from alpha + beta · market, in standard errors; null where they do not differ."""
    mean_x, mean_y, xx, xy, yy = moments
    squares = yy - 2.0 * beta * xy + beta**2 * xx
    np.copyto(squares, np.nan, where=squares <= ROUNDING * yy)
    return (mean_y - alpha - beta * mean_x) / np.sqrt(squares / (n - 1) / n)
