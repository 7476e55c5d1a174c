"""The compiled loops of the feature store: what depends on the row before and fits no window.

Compiled once per machine by numba, on the first call, and kept beside the bytecode. Imported where it is called, since
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
    level = np.nan
    for row in range(len(values)):
        place = index[row] - first
        if at[row]:
            level = states[row]
        elif before[row] or place < 0:
            level = np.nan
        elif place < n:  # the sum of the seed, until it is whole
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
