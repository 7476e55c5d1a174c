"""The series that several families of features share, each computed once per block of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from quant_assets.feature_store.windows import ROUNDING, Block, Floats, Rows

Columns = dict[str, Floats]
"""Features by name, each a value per row, NaN or infinite where there is none."""


@dataclass(frozen=True)
class Bars:
    """Bars of whole symbols as flat columns, and the series that are made of them, NaN where unknown.

    Raw prices serve what compares prices of one session, adjusted ones what compares sessions. A high or a low that
    leaves out the open or the close is taken to reach to them, so that the ranges of the features hold for every bar.
    """

    rows: Rows
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    adj_open: Floats
    adj_high: Floats
    adj_low: Floats
    adj_close: Floats
    volume: Floats
    """Adjusted for splits."""
    traded_value: Floats
    """Close × volume, in currency."""
    price_factor: Floats
    change: Floats
    """One-session simple return; 0 where it is rounding."""

    @classmethod
    def of(cls, frame: pl.DataFrame, carried: pl.DataFrame | None) -> Bars:
        """The bars of a frame sorted by symbol and session."""
        prices: Columns = {}
        for prefix in ("", "adj_"):
            opened, high, low, close = (_values(frame, prefix + name) for name in ("open", "high", "low", "close"))
            high, low = np.maximum(high, np.maximum(opened, close)), np.minimum(low, np.minimum(opened, close))
            prices |= {f"{prefix}open": opened, f"{prefix}high": high, f"{prefix}low": low, f"{prefix}close": close}
        return cls(
            rows=Rows.of(frame, carried),
            volume=_values(frame, "adj_volume"),
            traded_value=prices["close"] * _values(frame, "volume"),
            price_factor=_values(frame, "price_factor"),
            change=moves(_values(frame, "price_change_1d")),
            **prices,
        )

    @cached_property
    def log_return(self) -> Floats:
        return np.log1p(self.change)

    @cached_property
    def return_moments(self) -> Mapping[int, Block]:
        """Mean, and sums of squares, cubes and fourth powers about it, of log returns, by window; squares are 0 where they are rounding."""
        ns = (5, 10, 20, 60, 120, 252)
        moments = dict(zip(ns, self.rows.moments(self.log_return, *ns), strict=True))
        for n, (_, squares, *_) in moments.items():
            squares[squares <= n * ROUNDING**2] = 0.0
        return moments

    @cached_property
    def return_volatility(self) -> Mapping[int, Floats]:
        """Sample standard deviation of log returns, by window."""
        return {n: np.sqrt(moments[1] / (n - 1)) for n, moments in self.return_moments.items()}

    @cached_property
    def previous_close(self) -> Floats:
        return self.rows.lag(self.adj_close)

    @cached_property
    def overnight(self) -> Floats:
        """Return from the previous close to the open."""
        return moves(self.adj_open / self.previous_close - 1.0)

    @cached_property
    def intraday(self) -> Floats:
        """Return from the open to the close."""
        return self.close / self.open - 1.0

    @cached_property
    def true_range(self) -> Floats:
        """Range of the session that reaches to the previous close, in adjusted prices; 0 where it is rounding."""
        span = np.maximum(self.adj_high, self.previous_close) - np.minimum(self.adj_low, self.previous_close)
        return moves(span, self.adj_close)

    @cached_property
    def typical_price(self) -> Floats:
        return (self.adj_high + self.adj_low + self.adj_close) / 3.0

    @cached_property
    def highs(self) -> Mapping[int, Floats]:
        """Highest adjusted high, by window."""
        ns = (14, 20, 28, 60, 120, 252)
        return dict(zip(ns, self.rows.maxima(self.adj_high, *ns), strict=True))

    @cached_property
    def lows(self) -> Mapping[int, Floats]:
        """Lowest adjusted low, by window."""
        ns = (14, 20, 28, 60, 120, 252)
        return dict(zip(ns, self.rows.minima(self.adj_low, *ns), strict=True))

    def place_in_range(self, n: int) -> Floats:
        """Where the close stands between the lowest low (0) and the highest high (1) of the last n rows; NaN where these are equal."""
        return (self.adj_close - self.lows[n]) / moves(self.highs[n] - self.lows[n], self.adj_close)

    @cached_property
    def volume_sums(self) -> Mapping[int, Floats]:
        ns = (5, 20, 60)
        return dict(zip(ns, self.rows.sums(self.volume, *ns), strict=True))


def moves(values: Floats, scale: Floats | float = 1.0) -> Floats:
    """The values, set to 0 in place where they are rounding of prices of this scale."""
    values[np.abs(values) <= ROUNDING * scale] = 0.0
    return values


def within(values: Floats, low: float, high: float) -> Floats:
    """The values, those that rounding put beyond a bound set to it; what is not finite stays unknown."""
    return np.clip(np.where(np.isfinite(values), values, np.nan), low, high)


def _values(frame: pl.DataFrame, name: str) -> Floats:
    return frame[name].cast(pl.Float64).to_numpy(writable=True)
