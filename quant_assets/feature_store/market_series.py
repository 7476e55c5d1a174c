"""The market of the symbols in scope, session by session: what `market_v1` stores and betas are measured against."""

from __future__ import annotations

import numpy as np
import polars as pl

from quant_assets.feature_store.windows import Floats


def market_series(returns: pl.DataFrame) -> pl.DataFrame:
    """The cross-section of one-session returns, one row per session, in order.

    Takes `symbol`, `session` and `price_change_1d` (fractions; null ones are left out) of the symbols that make up the
    market, in any order: those in scope, with a bar on the exchange's session before as well, so that each return is of
    one session. Returns `session`, `symbols` (how many) and the catalog's features of `market_v1`, Float64: dispersion and
    skewness are null below two and three symbols, and skewness where all returns are equal. Each session is told from its
    own rows alone, added in the order of their symbols: no other row and no order of the input changes a bit.
    """
    rows = returns.drop_nulls("price_change_1d").sort("session", "symbol")
    sessions = rows["session"].rle().struct.unnest()
    n, values = sessions["len"].to_numpy().astype(np.int64), rows["price_change_1d"].to_numpy()
    of = np.repeat(np.arange(len(n)), n)

    def total(terms: Floats) -> Floats:
        # One after the other: a parallel sum adds in another order each time.
        return np.bincount(of, weights=terms, minlength=len(n)).astype(np.float64, copy=False)

    first = values[np.cumsum(n) - n]
    mean = first + total(values - first[of]) / n  # exact where all are equal
    about = values - mean[of]
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = total(about**2) / n
        dispersion = np.sqrt(total(about**2) / (n - 1))
        skewness = np.where(n < 3, np.nan, total(about**3) / n / (variance * np.sqrt(variance)))
    columns = {
        "market_return_1d": mean,
        "market_dispersion_1d": dispersion,
        "market_breadth_1d": total((values > 0).astype(np.float64)) / n,
        "market_skewness_1d": skewness,
    }
    return pl.DataFrame({"session": sessions["value"], "symbols": n, **columns}, nan_to_null=True)
