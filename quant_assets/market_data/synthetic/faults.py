"""The faults planted in the synthetic market's bars, each of a named kind that a quality rule can find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.schemas import SYNTHETIC_TRUTH_FAULTS

Floats = NDArray[np.float64]

KINDS = ("ohlc_order", "non_positive_price", "identical_series")
REPEATED_SESSIONS = 8
_BLOCK_STREAM = 1 << 32  # far above any date's ordinal, so that no fault shares its stream with a session


def stream(seed: int, number: int) -> np.random.Generator:
    """The random stream of one seed and number: the same whatever was drawn from other streams before."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, number], dtype=np.uint64)))


@dataclass(frozen=True)
class PlannedFault:
    """One fault before it is planted; positions count sessions and symbols from 0, `variant` lies in [0, 1)."""

    kind: str
    position: int
    symbol: int
    origin: int
    variant: float


def plan_faults(seed: int, sessions: Sequence[date], listed_from: NDArray[np.int64]) -> Iterator[PlannedFault]:
    """Which fault falls on which symbol and session.

    `sessions` are all sessions since the market began, `listed_from` is each symbol's listing date as a proleptic ordinal.
    Sessions come in blocks (252 for 30 symbols, shorter with the root of the number of symbols); each third of a block
    holds one fault of one kind, in random order, so that no two faults ever meet in one session. A block's plan
    depends on the seed and its number alone, which is why a growing history never moves a fault.
    """
    third = max(REPEATED_SESSIONS + 2, round(84 * (30 / len(listed_from)) ** 0.5))
    for block in range(-(-len(sessions) // (3 * third))):
        rng = stream(seed, _BLOCK_STREAM + block)
        order, draws = rng.permutation(len(KINDS)), rng.random((len(KINDS), 4))
        for slot, (kind, (when, who, whose, variant)) in enumerate(zip(order, draws, strict=True)):
            position = (3 * block + slot) * third + int(when * (third - REPEATED_SESSIONS + 1))
            if position >= len(sessions):
                continue
            listed = np.flatnonzero(listed_from <= sessions[position].toordinal())
            victim = int(who * len(listed))
            origin = (victim + 1 + int(whose * (len(listed) - 1))) % len(listed)
            if KINDS[kind] != "identical_series":
                yield PlannedFault(KINDS[kind], position, int(listed[victim]), int(listed[victim]), variant)
            elif origin != victim:
                for day in range(position, min(position + REPEATED_SESSIONS, len(sessions))):
                    yield PlannedFault(KINDS[kind], day, int(listed[victim]), int(listed[origin]), variant)


def plant_faults(
    bars: dict[str, Floats], faults: Iterator[PlannedFault], sessions: Sequence[date], offset: int, symbols: Sequence[str]
) -> pl.DataFrame:
    """Write the faults into the bars in place and return the truth about them.

    `bars` holds open, high, low, close and volume as arrays of shape (sessions from `offset` on, symbols). Returns a frame
    as `market_data.synthetic_truth_faults` declares it, one row per faulty bar. `ohlc_order` leaves every price positive and
    `non_positive_price` leaves the order intact, so that each is found by its own rule alone.
    """
    rows: list[tuple[str, date, str, str]] = []
    for fault in faults:
        if fault.position < offset:
            continue
        at = fault.position - offset, fault.symbol
        if fault.kind == "identical_series":
            for values in bars.values():
                values[at] = values[at[0], fault.origin]
            detail = f"bar of {symbols[fault.origin]} repeated"
        elif fault.kind == "ohlc_order":
            column = ("low", "open", "close")[int(fault.variant * 3)]
            bars[column][at] = np.round(bars["high"][at] * 1.02 + 0.01, 2)
            detail = f"{column} {bars[column][at]:.2f} above high {bars['high'][at]:.2f}"
        else:
            columns = ("low",) if fault.variant < 2 / 3 else ("open", "high", "low", "close")
            factor = -1.0 if fault.variant < 1 / 3 else 0.0
            for column in columns:
                bars[column][at] *= factor
            detail = f"{', '.join(columns)} {'negated' if factor else 'set to 0'}"
        rows.append((symbols[fault.symbol], sessions[fault.position], fault.kind, detail))
    return pl.DataFrame(rows, schema=SYNTHETIC_TRUTH_FAULTS.polars_schema, orient="row").sort("session", "symbol")
