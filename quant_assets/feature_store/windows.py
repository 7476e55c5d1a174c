"""Windows and recursions over the flat, sorted columns of many symbols at once: what every feature kernel is made of.

A window's value is built by doubling, from the values inside the window alone: blocks of 1, 2, 4 … rows are merged, so
that a window of n rows costs about log2(n) numpy passes whatever its statistic. A running sum, which keeps the rounding
error of a spike long after it left, is used nowhere: history that was cut, or that another symbol adds, changes no bit
of a row. Squares and products are merged about their means (Chan, Golub and LeVeque, Algorithms for computing the sample
variance, 1983; Pébay, Formulas for robust one-pass parallel computation of covariances and statistical moments, 2008),
without cancellation. A NaN inside a window makes its value NaN; so does a window that reaches over the symbol's first row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    ends: Ints
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
            return cls(symbol, index, starts + lengths - 1, nowhere, nowhere, {})
        beside = frame.select("symbol", "session").join(carried, on="symbol", how="left", maintain_order="left", suffix="_of_state")
        since = (pl.col("session") - pl.col("session_of_state")).dt.total_days()
        at, before = (beside.select(rule.fill_null(value=False)).to_series().to_numpy() for rule in (since == 0, since < 0))
        names = [name for name in carried.columns if name not in ("symbol", "session")]
        return cls(symbol, index, starts + lengths - 1, at, before, {name: beside[name].to_numpy() for name in names})

    def warm(self, values: Floats, lookback: int) -> Floats:
        """The values, blanked in place where the look-back reaches over the symbol's first row."""
        np.copyto(values, np.nan, where=self.index < lookback)
        return values

    def lag(self, values: Floats, n: int = 1) -> Floats:
        """The symbol's value n rows before."""
        return self.warm(_lag(values, n), n)

    def sum(self, values: Floats, n: int) -> Floats:
        """Sum of the last n rows."""
        return self._window((values,), n, lambda a, b, *_: (a[0] + b[0],))[0]

    def mean(self, values: Floats, n: int) -> Floats:
        """Mean of the last n rows."""
        return self.sum(values, n) / n

    def max(self, values: Floats, n: int) -> Floats:
        """Largest of the last n rows."""
        return self._window((values,), n, lambda a, b, *_: (np.maximum(a[0], b[0]),))[0]

    def min(self, values: Floats, n: int) -> Floats:
        """Smallest of the last n rows."""
        return -self.max(-values, n)

    def rows_since_max(self, values: Floats, n: int) -> Floats:
        """How many rows ago the largest of the last n rows stood; the latest of equal ones."""
        return self._window((values, np.zeros_like(values)), n, _later_max)[1]

    def max_drawdown(self, values: Floats, n: int) -> Floats:
        """The deepest fall from a high to a later low within the last n rows, as a fraction of the high (0 to 1)."""
        return self._window((values, values, np.zeros_like(values)), n, _drawdowns)[2]

    def deviation(self, values: Floats, n: int, ddof: int = 0) -> Floats:
        """Standard deviation of the last n rows, 0 exactly where they are equal."""
        return np.sqrt(self._window((values, np.zeros_like(values)), n, _squares)[1] / (n - ddof))

    def skewness_and_kurtosis(self, values: Floats, n: int) -> tuple[Floats, Floats]:
        """Skewness and excess kurtosis of the last n rows (population moments); NaN where they are equal."""
        zeros = np.zeros_like(values)
        _, squares, cubes, fourths = self._window((values, zeros, zeros, zeros), n, _moments)
        variance = squares / n
        return cubes / n / (variance * np.sqrt(variance)), fourths / n / variance**2 - 3.0

    def covariance(self, x: Floats, y: Floats, n: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Means of x and y, and sums of squares of x, of y and of their products about the means, over the last n rows."""
        zeros = np.zeros_like(x)
        mean_x, mean_y, xx, yy, xy = self._window((x, y, zeros, zeros, zeros), n, _products)
        return mean_x, mean_y, xx, yy, xy

    def correlation(self, x: Floats, y: Floats, n: int) -> Floats:
        """Pearson's correlation of the last n rows; NaN where one of the two is constant."""
        *_, xx, yy, xy = self.covariance(x, y, n)
        return np.clip(xy / np.sqrt(xx * yy), -1.0, 1.0)

    def trend(self, values: Floats, n: int) -> tuple[Floats, Floats, Floats]:
        """Least squares on the row number over the last n rows: slope per row, R², and the last row's residual."""
        zeros = np.zeros_like(values)
        mean, squares, products = self._window((values, zeros, zeros), n, _on_rows)
        slope = products / (n * (n * n - 1) / 12)
        return slope, np.clip(slope * products / squares, 0.0, 1.0), values - mean - slope * ((n - 1) / 2)

    def recursion(self, name: str, values: Floats, first: int, n: int, alpha: float) -> Floats:
        """e += alpha · (value − e) per symbol, seeded with the mean of the first n values, which start at its row `first`.

        Goes on from the state of that name where one is carried. A NaN value changes nothing.
        """
        from quant_assets.feature_store.recursions import exponential

        return exponential(values, self.index, self.before, self.at, self.states.get(name, values), first, n, alpha)

    def total(self, name: str, flows: Floats) -> Floats:
        """Running total per symbol since its first row, or from the state of that name where one is carried."""
        from quant_assets.feature_store.recursions import running_total

        return running_total(flows, self.index, self.before, self.at, self.states.get(name, flows))

    def _window(self, leaf: Block, n: int, merge: Merge) -> Block:
        """Merge the last n rows by doubling: `merge(earlier, later, rows of earlier, rows of later)`."""
        block, width, total, taken = leaf, 1, leaf, 0
        while True:
            if n & width:
                total = merge(_lagged(block, taken), total, width, taken) if taken else block
                taken += width
            if taken == n:
                return total if n == 1 else tuple(self.warm(values, n - 1) for values in total)
            block, width = merge(_lagged(block, width), block, width, width), 2 * width


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


def _lagged(block: Block, n: int) -> Block:
    return tuple(_lag(values, n) for values in block)


def _later_max(earlier: Block, later: Block, _: int, n_later: int) -> Block:
    wins = later[0] >= earlier[0]
    unknown = np.isnan(earlier[0]) | np.isnan(later[0])
    age = np.where(unknown, np.nan, np.where(wins, later[1], earlier[1] + n_later))
    return np.maximum(earlier[0], later[0]), age


def _drawdowns(earlier: Block, later: Block, *_: int) -> Block:
    across = 1.0 - later[1] / earlier[0]
    return np.maximum(earlier[0], later[0]), np.minimum(earlier[1], later[1]), np.maximum(np.maximum(earlier[2], later[2]), across)


def _squares(earlier: Block, later: Block, a: int, b: int) -> Block:
    gap = later[0] - earlier[0]
    return earlier[0] + gap * (b / (a + b)), earlier[1] + later[1] + gap * gap * (a * b / (a + b))


def _moments(earlier: Block, later: Block, a: int, b: int) -> Block:
    n, gap = a + b, later[0] - earlier[0]
    (_, squares_a, cubes_a, fourths_a), (_, squares_b, cubes_b, fourths_b) = earlier, later
    return (
        earlier[0] + gap * (b / n),
        squares_a + squares_b + gap**2 * (a * b / n),
        cubes_a + cubes_b + gap**3 * (a * b * (a - b) / n**2) + 3 * gap * (a * squares_b - b * squares_a) / n,
        fourths_a
        + fourths_b
        + gap**4 * (a * b * (a * a - a * b + b * b) / n**3)
        + 6 * gap**2 * (a * a * squares_b + b * b * squares_a) / n**2
        + 4 * gap * (a * cubes_b - b * cubes_a) / n,
    )


def _products(earlier: Block, later: Block, a: int, b: int) -> Block:
    gap_x, gap_y, weight = later[0] - earlier[0], later[1] - earlier[1], a * b / (a + b)
    return (
        earlier[0] + gap_x * (b / (a + b)),
        earlier[1] + gap_y * (b / (a + b)),
        earlier[2] + later[2] + gap_x * gap_x * weight,
        earlier[3] + later[3] + gap_y * gap_y * weight,
        earlier[4] + later[4] + gap_x * gap_y * weight,
    )


def _on_rows(earlier: Block, later: Block, a: int, b: int) -> Block:
    gap = later[0] - earlier[0]
    return (
        earlier[0] + gap * (b / (a + b)),
        earlier[1] + later[1] + gap * gap * (a * b / (a + b)),
        earlier[2] + later[2] + gap * (a * b / 2),
    )
