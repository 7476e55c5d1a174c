"""Moments of two series together over windows, to the third order, in a compiled loop: what regressions are made of.

As in `windows.py`, a window is built by doubling from the values inside it alone, and blocks are merged about their means
(Pébay, Formulas for robust one-pass parallel computation of covariances and arbitrary-order statistical moments, 2008).
Nine moments merge in one pass over the rows, and windows of several lengths share their blocks: numpy, a pass for each
operation, took five times as long. Compiled once per machine; import it where it is called, as `recursions.py`.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


TILE_ROWS = 2048
"""Rows that are merged at once, so that their moments stay in a core's cache."""


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _merge(earlier: Floats, later: Floats, merged: Floats, lag: int, a: int, b: int) -> None:
    """Merge the block of `b` rows that ends at each row with that of `a` rows that ends `lag` rows before."""
    n = a + b
    of_b, first, second, third = b / n, a * b / n, 1.0 / n, a * b * (a - b) / (n * n)
    for row in range(lag, later.shape[1]):
        i = row - lag
        x, y = later[0, row] - earlier[0, i], later[1, row] - earlier[1, i]
        axx, axy, ayy = earlier[2, i], earlier[3, i], earlier[4, i]
        bxx, bxy, byy = later[2, row], later[3, row], later[4, row]
        xx, xy, yy = (a * bxx - b * axx) * second, (a * bxy - b * axy) * second, (a * byy - b * ayy) * second
        merged[0, row] = earlier[0, i] + x * of_b
        merged[1, row] = earlier[1, i] + y * of_b
        merged[2, row] = axx + bxx + x * x * first
        merged[3, row] = axy + bxy + x * y * first
        merged[4, row] = ayy + byy + y * y * first
        merged[5, row] = earlier[5, i] + later[5, row] + x * x * x * third + 3.0 * x * xx
        merged[6, row] = earlier[6, i] + later[6, row] + x * x * y * third + 2.0 * x * xy + y * xx
        merged[7, row] = earlier[7, i] + later[7, row] + x * y * y * third + x * yy + 2.0 * y * xy
        merged[8, row] = earlier[8, i] + later[8, row] + y * y * y * third + 3.0 * y * yy


@numba.njit(cache=True, nogil=True)
def _copy(source: Floats, target: Floats, skipped: int, start: int) -> None:
    # Loops, for numba takes seconds to compile assignments of slices.
    for moment in range(9):
        for row in range(skipped, source.shape[1]):
            target[moment, start + row - skipped] = source[moment, row]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def comoments(x: Floats, y: Floats, lengths: npt.NDArray[np.int64]) -> Floats:
    """Moments of the last n rows for each n of `lengths`, an array of length, moment and row.

    The moments: means of x and of y, and the sums of xx, xy, yy, xxx, xxy, xyy and yyy about the means. A NaN inside a window
    makes it NaN; a window that reaches over the first row has no meaning, and its caller blanks it.
    """
    out = np.empty((len(lengths), 9, len(x)))
    longest = lengths.max()
    for start in range(0, len(x), TILE_ROWS):
        first, end = max(start - longest + 1, 0), min(start + TILE_ROWS, len(x))
        block, spare, totals = np.zeros((9, end - first)), np.zeros((9, end - first)), np.zeros((len(lengths), 9, end - first))
        block[0], block[1] = x[first:end], y[first:end]
        width = 1
        while True:
            for i in range(len(lengths)):
                taken = lengths[i] & (width - 1)
                if lengths[i] & width and taken:
                    _merge(block, totals[i], spare, taken, width, taken)
                    _copy(spare, totals[i], 0, 0)
                elif lengths[i] & width:
                    _copy(block, totals[i], 0, 0)
            if 2 * width > longest:
                break
            _merge(block, block, spare, width, width, width)
            block, spare = spare, block
            width *= 2
        for i in range(len(lengths)):
            _copy(totals[i], out[i], start - first, start)
    return out
