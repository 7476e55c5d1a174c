"""Windows and recursions over the flat, sorted columns of many symbols at once: what every feature kernel is made of.

A window's value is built by doubling, from the values inside the window alone: blocks of 1, 2, 4 … rows are merged, so
that a window of n rows costs about log2(n) passes whatever its statistic, and windows of several lengths share them. A
running sum, which keeps the rounding error of a spike long after it left, is used nowhere: history that was cut, or that
another symbol adds, changes no bit of a row. Squares and products are merged about their means (Chan, Golub and LeVeque,
Algorithms for computing the sample variance, 1983; Pébay, Formulas for robust one-pass parallel computation of
covariances and statistical moments, 2008), without cancellation. A NaN inside a window makes its value NaN; so does a
window that reaches over the symbol's first row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Block = tuple[Floats, ...]
Merge = Callable[[Block, Block, int, int], Block]

ROUNDING = 1e-12
"""Prices that differ by less than this fraction of them differ by the rounding of their factors: no move."""
BLOCK_ROWS = 131_072
"""Rows that a kernel takes at once, whole symbols: a column of them is a megabyte, so that memory stays small; less costs more calls."""
THREADS = 2


@dataclass(frozen=True)
class Rows:
    """Which rows of flat columns, sorted by symbol and session, are whose: all windows are taken through it.

    `index` counts the symbol's rows before each row. `states` holds, by name, the values from which recursions go on, at
    the rows `at` which they stood; the rows `before` are look-back for windows and count for no recursion.
    """

    symbol: pl.Series
    index: Ints
    at: npt.NDArray[np.bool_]
    before: npt.NDArray[np.bool_]
    states: Mapping[str, Floats]

    @classmethod
    def of(cls, frame: pl.DataFrame, carried: pl.DataFrame | None = None) -> Rows:
        """The rows of a sorted frame; `carried` has a row per symbol that goes on: `symbol`, `session`, and a column per state."""
        symbol = frame["symbol"]
        starts = np.flatnonzero((symbol != symbol.shift(1)).fill_null(value=True).to_numpy())
        lengths = np.diff(starts, append=frame.height)
        index = (np.arange(frame.height) - np.repeat(starts, lengths)).astype(np.int32)
        nowhere = np.zeros(frame.height, dtype=bool)
        if carried is None or carried.is_empty():
            return cls(symbol, index, nowhere, nowhere, {})
        beside = frame.select("symbol", "session").join(carried, on="symbol", how="left", maintain_order="left", suffix="_of_state")
        since = (pl.col("session") - pl.col("session_of_state")).dt.total_days()
        at, before = (beside.select(rule.fill_null(value=False)).to_series().to_numpy() for rule in (since == 0, since < 0))
        names = [name for name in carried.columns if name not in ("symbol", "session")]
        return cls(symbol, index, at, before, {name: beside[name].to_numpy() for name in names})

    def warm(self, values: Floats, lookback: int) -> Floats:
        """The values, blanked in place where the look-back reaches over the symbol's first row."""
        np.copyto(values, np.nan, where=self.index < lookback)
        return values

    def lag(self, values: Floats, n: int = 1) -> Floats:
        """The symbol's value n rows before."""
        return self.warm(_lag(values, n), n)

    def sums(self, values: Floats, *ns: int) -> list[Floats]:
        """Sums of the last n rows, for each n; windows of one call share their blocks."""
        return [total for (total,) in self._windows((values,), ns, lambda a, b, *_: (a[0] + b[0],))]

    def means(self, values: Floats, *ns: int) -> list[Floats]:
        """Means of the last n rows."""
        return [total / n for n, total in zip(ns, self.sums(values, *ns), strict=True)]

    def mean(self, values: Floats, n: int) -> Floats:
        """Mean of the last n rows."""
        return self.means(values, n)[0]

    def maxima(self, values: Floats, *ns: int) -> list[Floats]:
        """Largest of the last n rows."""
        return [top for (top,) in self._windows((values,), ns, lambda a, b, *_: (np.maximum(a[0], b[0]),))]

    def minima(self, values: Floats, *ns: int) -> list[Floats]:
        """Smallest of the last n rows."""
        return [bottom for (bottom,) in self._windows((values,), ns, lambda a, b, *_: (np.minimum(a[0], b[0]),))]

    def rows_since_max(self, values: Floats, *ns: int) -> list[Floats]:
        """How many rows ago the largest of the last n rows stood; the latest of those that are equal but for rounding."""
        from quant_assets.feature_store.recursions import merged_maxima

        def merge(earlier: Block, later: Block, _: int, n_later: int) -> Block:
            merged: Block = merged_maxima(*earlier, *later, n_later, ROUNDING)
            return merged

        return [age for _, age in self._windows((values, np.zeros_like(values)), ns, merge)]

    def max_drawdowns(self, values: Floats, *ns: int) -> list[Floats]:
        """The deepest fall from a high to a later low within the last n rows, as a fraction of the high (0 to 1)."""
        from quant_assets.feature_store.recursions import merged_drawdowns

        return [fall for *_, fall in self._windows((values, values, np.zeros_like(values)), ns, _compiled(merged_drawdowns))]

    def squares(self, values: Floats, *ns: int) -> list[Block]:
        """Mean, and sum of squares about it, of the last n rows; the sum is 0 exactly where they are equal."""
        from quant_assets.feature_store.recursions import merged_squares

        return self._windows((values, np.zeros_like(values)), ns, _compiled(merged_squares))

    def deviation(self, values: Floats, n: int, ddof: int = 0) -> Floats:
        """Standard deviation of the last n rows, 0 exactly where they are equal."""
        return np.sqrt(self.squares(values, n)[0][1] / (n - ddof))

    def moments(self, values: Floats, *ns: int) -> list[Block]:
        """Mean, and sums of squares, cubes and fourth powers about it, of the last n rows."""
        from quant_assets.feature_store.recursions import merged_moments

        zeros = np.zeros_like(values)
        return self._windows((values, zeros, zeros, zeros), ns, _compiled(merged_moments))

    def products(self, x: Floats, y: Floats, *ns: int) -> list[Block]:
        """Means of x and of y, and sums of squares of x, of y and of their products about the means, over the last n rows."""
        from quant_assets.feature_store.recursions import merged_products

        zeros = np.zeros_like(x)
        return self._windows((x, y, zeros, zeros, zeros), ns, _compiled(merged_products))

    def trends(self, values: Floats, *ns: int) -> list[Block]:
        """Mean of the last n rows, and sums of squares and of products with the row number about the means."""
        from quant_assets.feature_store.recursions import merged_trends

        zeros = np.zeros_like(values)
        return self._windows((values, zeros, zeros), ns, _compiled(merged_trends))

    def absolute_deviation(self, values: Floats, means: Floats, n: int) -> Floats:
        """Mean distance of the last n rows from their mean, which is given."""
        from quant_assets.feature_store.recursions import absolute_deviations

        distances: Floats = absolute_deviations(values, means, n)
        return distances

    def recursion(self, name: str, values: Floats, first: int, n: int, alpha: float) -> Floats:
        """e += alpha · (value − e) per symbol, seeded with the mean of the first n values, which start at its row `first`.

        Goes on from the state of that name where one is carried. A NaN value changes nothing.
        """
        from quant_assets.feature_store.recursions import exponential

        smoothed: Floats = exponential(values, self.index, self.before, self.at, self.states.get(name, values), first, n, alpha)
        return smoothed

    def total(self, name: str, flows: Floats) -> Floats:
        """Running total per symbol since its first row, or from the state of that name where one is carried."""
        from quant_assets.feature_store.recursions import running_total

        totals: Floats = running_total(flows, self.index, self.before, self.at, self.states.get(name, flows))
        return totals

    def _windows(self, leaf: Block, ns: Sequence[int], merge: Merge) -> list[Block]:
        """Merge the last n rows, for each n, by doubling: `merge(earlier, later, rows of earlier, rows of later)`.

        A block's arrays begin with the first row at which it is whole.
        """
        block, width, totals = leaf, 1, dict.fromkeys(ns, leaf)
        while True:
            for n in totals:
                if n & width:
                    taken = n & (width - 1)
                    totals[n] = merge(*_pairs(block, totals[n], width), width, taken) if taken else block
            if 2 * width > max(ns):
                return [tuple(self._whole(values, n - 1) for values in totals[n]) for n in ns]
            block, width = merge(*_pairs(block, block, width), width, width), 2 * width

    def _whole(self, values: Floats, lookback: int) -> Floats:
        filled = np.empty(len(self.index))
        filled[:lookback] = np.nan
        filled[lookback:] = values[: max(len(filled) - lookback, 0)]
        return self.warm(filled, lookback)


def by_blocks(frame: pl.DataFrame, kernel: Callable[[pl.DataFrame], pl.DataFrame], rows: int = BLOCK_ROWS) -> pl.DataFrame:
    """Run a kernel over whole symbols of a frame sorted by symbol, some at a time and on both cores; the results in order."""
    if frame.height <= rows:
        return kernel(frame)
    symbol = frame["symbol"]
    starts = np.flatnonzero((symbol != symbol.shift(1)).fill_null(value=True).to_numpy())
    cuts = [0, *starts[np.flatnonzero(np.diff(starts // rows)) + 1].tolist(), frame.height]
    blocks = [frame[first:last] for first, last in pairwise(cuts) if last > first]
    with ThreadPoolExecutor(THREADS) as pool:
        return pl.concat(pool.map(kernel, blocks))


def _lag(values: Floats, n: int) -> Floats:
    lagged = np.empty_like(values)
    lagged[:n] = np.nan
    lagged[n:] = values[: max(len(values) - n, 0)]
    return lagged


def _pairs(earlier: Block, later: Block, width: int) -> tuple[Block, Block]:
    """The two halves of each merged block: `later` is `width` rows long where its block begins, `earlier` ends before that."""
    whole = max(len(later[0]) - width, 0)
    return tuple(values[:whole] for values in earlier), tuple(values[width:] for values in later)


def _compiled(merge: Callable[..., Block]) -> Merge:
    return lambda earlier, later, a, b: merge(*earlier, *later, a, b)
