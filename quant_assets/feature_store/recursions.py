"""The compiled loops of the feature store: what depends on the row before and fits no window, and merges of windows.

A merge takes the state of each row's earlier and later block of a window, a and b rows long, and gives that of both in
one pass (Pébay 2008, see `windows.py`); numpy, a pass for each operation, takes five times as long. Compiled once per machine by numba, on the first call, and kept beside the bytecode. Imported where it is called, since
importing numba takes a third of a second.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@numba.njit(cache=True, nogil=True)
def exponential(
    values: Floats, index: npt.NDArray[np.int32], before: npt.NDArray[np.bool_], at: npt.NDArray[np.bool_], states: Floats,
    first: int, n: int, alpha: float,
) -> Floats:  # fmt: skip
    """e += alpha · (value − e), seeded with the mean of the n values from row `first` of a symbol on; a NaN value changes nothing.

    Rows `before` a carried state are NaN; where it stood (`at`) the recursion takes it from `states`.
    """
    smoothed = np.empty_like(values)
    level, goes_on = np.nan, False
    for row in range(len(values)):
        place = index[row] - first
        if index[row] == 0:
            goes_on = False
        if at[row]:
            level, goes_on = states[row], True
        elif before[row] or (place < 0 and not goes_on):
            level = np.nan
        elif place < n and not goes_on:  # the sum of the seed, until it is whole
            level = values[row] if place == 0 else level + values[row]
            if place == n - 1:
                level /= n
            else:
                smoothed[row] = np.nan
                continue
        elif not np.isnan(values[row]):
            level += alpha * (values[row] - level)
        smoothed[row] = level
    return smoothed


@numba.njit(cache=True, nogil=True)
def running_total(
    flows: Floats, index: npt.NDArray[np.int32], before: npt.NDArray[np.bool_], at: npt.NDArray[np.bool_], states: Floats
) -> Floats:
    """The sum of a symbol's flows since its first row; it goes on from `states` where a state is carried (`at`)."""
    totals = np.empty_like(flows)
    total = 0.0
    for row in range(len(flows)):
        if index[row] == 0:
            total = 0.0
        if at[row]:
            total = states[row]
        elif not before[row]:
            total += flows[row]
        totals[row] = total
    return totals


@numba.njit(cache=True, nogil=True)
def merged_squares(mean_a: Floats, squares_a: Floats, mean_b: Floats, squares_b: Floats, a: int, b: int) -> tuple[Floats, Floats]:
    """Mean, and sum of squares about it."""
    mean, squares = np.empty_like(mean_a), np.empty_like(mean_a)
    weight, apart = b / (a + b), a * b / (a + b)
    for row in range(len(mean_a)):
        gap = mean_b[row] - mean_a[row]
        mean[row] = mean_a[row] + gap * weight
        squares[row] = squares_a[row] + squares_b[row] + gap * gap * apart
    return mean, squares


@numba.njit(cache=True, nogil=True)
def merged_moments(
    mean_a: Floats, squares_a: Floats, cubes_a: Floats, fourths_a: Floats,
    mean_b: Floats, squares_b: Floats, cubes_b: Floats, fourths_b: Floats, a: int, b: int,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Mean, and sums of squares, cubes and fourth powers about it."""
    mean, squares, cubes, fourths = np.empty_like(mean_a), np.empty_like(mean_a), np.empty_like(mean_a), np.empty_like(mean_a)
    n = a + b
    weight, apart, cubed, fourth = b / n, a * b / n, a * b * (a - b) / n**2, a * b * (a * a - a * b + b * b) / n**3
    of_a, of_b = a / n, b / n
    for row in range(len(mean_a)):
        gap, xx, yy, xxx, yyy = mean_b[row] - mean_a[row], squares_a[row], squares_b[row], cubes_a[row], cubes_b[row]
        square = gap * gap
        mean[row] = mean_a[row] + gap * weight
        squares[row] = xx + yy + square * apart
        cubes[row] = xxx + yyy + square * gap * cubed + 3.0 * gap * (of_a * yy - of_b * xx)
        fourths[row] = (
            fourths_a[row] + fourths_b[row] + square * square * fourth
            + 6.0 * square * (of_a * of_a * yy + of_b * of_b * xx) + 4.0 * gap * (of_a * yyy - of_b * xxx)
        )  # fmt: skip
    return mean, squares, cubes, fourths


@numba.njit(cache=True, nogil=True)
def merged_products(
    x_a: Floats, y_a: Floats, xx_a: Floats, yy_a: Floats, xy_a: Floats,
    x_b: Floats, y_b: Floats, xx_b: Floats, yy_b: Floats, xy_b: Floats, a: int, b: int,
) -> tuple[Floats, Floats, Floats, Floats, Floats]:  # fmt: skip
    """Means of x and y, and sums of squares of x, of y and of their products about the means."""
    x, y, xx, yy, xy = np.empty_like(x_a), np.empty_like(x_a), np.empty_like(x_a), np.empty_like(x_a), np.empty_like(x_a)
    weight, apart = b / (a + b), a * b / (a + b)
    for row in range(len(x_a)):
        gap_x, gap_y = x_b[row] - x_a[row], y_b[row] - y_a[row]
        x[row] = x_a[row] + gap_x * weight
        y[row] = y_a[row] + gap_y * weight
        xx[row] = xx_a[row] + xx_b[row] + gap_x * gap_x * apart
        yy[row] = yy_a[row] + yy_b[row] + gap_y * gap_y * apart
        xy[row] = xy_a[row] + xy_b[row] + gap_x * gap_y * apart
    return x, y, xx, yy, xy


@numba.njit(cache=True, nogil=True)
def merged_trends(
    mean_a: Floats, squares_a: Floats, products_a: Floats, mean_b: Floats, squares_b: Floats, products_b: Floats, a: int, b: int
) -> tuple[Floats, Floats, Floats]:
    """Mean, and sums of squares and of products with the row number about the means."""
    mean, squares, products = np.empty_like(mean_a), np.empty_like(mean_a), np.empty_like(mean_a)
    weight, apart = b / (a + b), a * b / (a + b)
    for row in range(len(mean_a)):
        gap = mean_b[row] - mean_a[row]
        mean[row] = mean_a[row] + gap * weight
        squares[row] = squares_a[row] + squares_b[row] + gap * gap * apart
        products[row] = products_a[row] + products_b[row] + gap * (a * b / 2)
    return mean, squares, products


@numba.njit(cache=True, nogil=True)
def merged_maxima(
    top_a: Floats, age_a: Floats, top_b: Floats, age_b: Floats, b: int, tolerance: float
) -> tuple[Floats, Floats]:  # fmt: skip
    """Largest, and how many rows ago it stood; the latest of those that are equal to a relative tolerance."""
    top, age = np.empty_like(top_a), np.empty_like(top_a)
    for row in range(len(top_a)):
        earlier, later = top_a[row], top_b[row]
        if np.isnan(earlier + later):
            top[row], age[row] = np.nan, np.nan
        else:
            top[row] = np.maximum(earlier, later)
            age[row] = age_b[row] if later >= earlier - tolerance * np.abs(earlier) else age_a[row] + b
    return top, age


@numba.njit(cache=True, nogil=True, error_model="numpy")
def merged_drawdowns(
    high_a: Floats, low_a: Floats, fall_a: Floats, high_b: Floats, low_b: Floats, fall_b: Floats, a: int, b: int
) -> tuple[Floats, Floats, Floats]:
    """Highest, lowest, and the deepest fall from a high to a later low as a fraction of the high."""
    high, low, fall = np.empty_like(high_a), np.empty_like(high_a), np.empty_like(high_a)
    for row in range(len(high_a)):
        across = 1.0 - low_b[row] / high_a[row]
        high[row] = np.maximum(high_a[row], high_b[row])
        low[row] = np.minimum(low_a[row], low_b[row])
        fall[row] = np.maximum(np.maximum(fall_a[row], fall_b[row]), across)
    return high, low, fall


@numba.njit(cache=True, nogil=True)
def absolute_deviations(values: Floats, means: Floats, n: int) -> Floats:
    """Mean distance of the last n rows from their mean; NaN where that is."""
    total = np.zeros_like(values)
    total[: n - 1] = np.nan
    for lag in range(n):
        for row in range(n - 1, len(values)):
            total[row] += np.abs(values[row - lag] - means[row])
    return total / n
