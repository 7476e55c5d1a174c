"""The kinds of faults: how each one is written into the bars of one symbol.

What a fault leaves untouched is as much a part of it as what it changes: a wrong close takes high and low along, a unit
error the whole bar and the vendor's adjusted close, a split that nobody recorded the volumes before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.rules.prices import PRICES

APART = 12
"""Bars of the symbol that are right before and after a fault, at least."""
BEFORE = 25
"""Bars of the symbol before a fault, at least, so that there is something to judge it by."""
VALUES = (*PRICES, "volume", "adj_close")


class BarArrays:
    """Bars of all symbols as arrays, one row per bar, a symbol's rows in a row; faults are written into them."""

    def __init__(self, bars: pl.DataFrame, actions: pl.DataFrame, calendar: TradingCalendar, seed: int) -> None:
        self.frame = bars.sort("symbol", "session")
        self.actions: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for action in actions.iter_rows(named=True):
            self.actions[action["symbol"]].append(dict(action))
        self.calendar, self.random = calendar, np.random.default_rng(seed)
        self._places = {key: row for row, key in enumerate(self.frame.select("symbol", "session").iter_rows())}
        self.value = {name: self.frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy().copy() for name in VALUES}
        self.symbol, self.session = self.frame["symbol"].to_list(), self.frame["session"].to_list()
        self.known_at: list[datetime] = self.frame["known_at"].to_list()
        height = self.frame.height
        run = self.frame["symbol"].rle_id().to_numpy()
        lengths = np.bincount(run) if height else np.zeros(0, int)
        ends = np.cumsum(lengths)
        self.start, self.end = (ends - lengths)[run], ends[run]
        rows = np.arange(height)
        prices = np.stack([self.value[name] for name in PRICES])
        self.sound = np.isfinite(prices).all(0) & (prices > 0).all(0)
        self.inside = (rows - self.start >= BEFORE) & (self.end - rows > APART)
        self.taken = np.zeros(height, bool)
        for symbol, session in actions.filter(pl.col("kind") == "split").select("symbol", "session").iter_rows():
            if (split_at := self._places.get((symbol, session))) is not None:
                self.take(split_at, 1)
        self.raw = np.zeros(height, bool)
        self.removed = np.zeros(height, bool)
        self.added: list[dict[str, Any]] = []
        self.truth: list[tuple[int, str, str, date, datetime]] = []
        self.scale = _robust_scale(self.frame)

    def take(self, row: int, length: int) -> None:
        self.taken[max(self.start[row], row - APART) : min(self.end[row], row + length + APART)] = True

    def free(self, row: int, length: int) -> bool:
        """Whether a fault over these rows has the room, sound bars around it and no other fault near."""
        last = row + length
        return bool(
            self.inside[row]
            and last + APART <= self.end[row]
            and self.sound[row - 1 : last + 1].all()
            and not self.taken[row - APART : last + APART].any()
        )

    def row_of(self, symbol: str, session: date) -> int | None:
        return self._places.get((symbol, session))

    def copy(self, into: int, source: int, names: tuple[str, ...] = VALUES) -> None:
        for name in names:
            self.value[name][into] = self.value[name][source]

    def times(self, rows: int | slice, factor: float) -> None:
        for name in (*PRICES, "adj_close"):
            self.value[name][rows] *= factor

    def add(self, row: int, **changed: Any) -> None:
        """A further bar with the values of a row but for the changed ones."""
        values = {name: float(self.value[name][row]) for name in VALUES}
        self.added.append({"row": row, "session": self.session[row], "known_at": self.known_at[row], **values, **changed})

    def act(self, row: int, kind: str, value: float) -> None:
        known_at = self.known_at[row]
        self.actions[self.symbol[row]].append({"symbol": self.symbol[row], "session": self.session[row], "kind": kind, "value": value, "known_at": known_at})  # fmt: skip

    def to_raw(self, row: int, ratio: float, *, shares: bool) -> None:
        """The symbol's bars before a row as they were before a split (or dividend) of this ratio, all of them as traded."""
        before = slice(self.start[row], row)
        self.times(before, ratio)
        self.raw[self.start[row] : self.end[row]] = True
        if shares:
            self.value["volume"][before] /= ratio
            for action in self.actions[self.symbol[row]]:
                if action["kind"] == "dividend" and action["session"] < self.session[row]:
                    action["value"] *= ratio

    def close_to(self, row: int, factor: float) -> None:
        """The close alone, off by a factor; high and low go along, so that no order of prices gives it away."""
        for name in ("close", "adj_close"):
            self.value[name][row] *= factor
        for name, widest in (("high", max), ("low", min)):
            self.value[name][row] = widest(self.value[name][row], self.value["close"][row])

    def sign(self) -> float:
        return 1.0 if self.random.random() < 0.5 else -1.0


def _robust_scale(ordered: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A symbol's usual move from close to close over the 250 bars before each: median absolute log return × 1.4826."""
    close = pl.when(pl.col("close") > 0).then("close")
    moves = close.log().diff().over("symbol").abs()
    scale = moves.shift(1).rolling_median(250, min_samples=20).over("symbol") * 1.4826
    return ordered.select(scale.cast(pl.Float64).fill_null(np.nan).alias("scale"))["scale"].to_numpy()


Put = Callable[[BarArrays, int, int], list[int] | None]
"""Writes a fault at a row over a length; returns the faulty rows, or None where the row does not serve."""


def _ohlc_order(panel: BarArrays, row: int, length: int) -> list[int]:
    value, off = panel.value, panel.random.uniform(0.005, 0.03)
    if panel.sign() > 0:
        value["high"][row] = min(value["open"][row], value["close"][row]) * (1 - off)
    else:
        value["low"][row] = max(value["open"][row], value["close"][row]) * (1 + off)
    return [row]


def _missing_price(panel: BarArrays, row: int, length: int) -> list[int]:
    panel.value[panel.random.choice(PRICES)][row] = np.nan
    return [row]


def _non_positive_price(panel: BarArrays, row: int, length: int) -> list[int]:
    values = panel.value[panel.random.choice(PRICES)]
    values[row] = 0.0 if panel.sign() > 0 else -values[row]
    return [row]


def _unit(factor: float, panel: BarArrays, row: int, length: int) -> list[int]:
    panel.times(row, factor)
    return [row]


def _split(ratio: float, panel: BarArrays, row: int, length: int, *, recorded: bool = False) -> list[int]:
    panel.to_raw(row, ratio, shares=True)
    if recorded:
        panel.act(row, "split", ratio)
    return [row]


def _twice_adjusted_split(panel: BarArrays, row: int, length: int) -> list[int]:
    panel.raw[panel.start[row] : panel.end[row]] = True
    panel.act(row, "split", float(panel.random.choice([2.0, 3.0, 4.0])))
    return [row]


def _dividend(factor: float, panel: BarArrays, row: int, length: int) -> list[int]:
    paid = panel.random.uniform(0.002, 0.009)
    panel.to_raw(row, 1 / (1 - paid), shares=False)
    panel.act(row, "dividend", float(factor * paid * panel.value["close"][row - 1]))
    return [row]


def _stale_run(panel: BarArrays, row: int, length: int) -> list[int]:
    names = (*PRICES, "adj_close") if panel.sign() > 0 else VALUES
    for at in range(row, row + length):
        panel.copy(at, row - 1, names)
    return list(range(row, row + length))


def _duplicate_bar(panel: BarArrays, row: int, length: int) -> list[int]:
    panel.add(row, **({} if panel.sign() > 0 else {"volume": 0.9 * float(panel.value["volume"][row])}))
    return [row]


def _closed_session_bar(panel: BarArrays, row: int, length: int) -> list[int] | None:
    closed = panel.session[row] + timedelta(days=1)
    if panel.calendar.is_session(closed) or panel.session[row + 1] <= closed:
        return None
    off = float(np.exp(panel.random.normal(0, 0.005)))
    prices = {name: off * float(panel.value[name][row]) for name in (*PRICES, "adj_close")}
    panel.add(row, session=closed, known_at=panel.known_at[row] + timedelta(days=1), **prices)
    return [-len(panel.added)]


def _missing_session(panel: BarArrays, row: int, length: int) -> list[int]:
    panel.removed[row] = True
    return [row]


def _identical_series(panel: BarArrays, row: int, length: int) -> list[int] | None:
    for start in panel.random.choice(panel.start, 20):
        other = panel.row_of(panel.symbol[start], panel.session[row])
        if (
            other is None
            or other == row
            or not panel.free(other, length)
            or panel.session[other + length - 1] != panel.session[row + length - 1]
        ):
            continue
        for step in range(length):
            panel.copy(other + step, row + step)
        panel.take(other, length)
        return [*range(row, row + length), *range(other, other + length)]
    return None


def _jump(scales: float, panel: BarArrays, row: int, length: int) -> list[int] | None:
    if not panel.scale[row] > 0:
        return None
    panel.close_to(row, float(np.exp(panel.sign() * scales * panel.scale[row])))
    return [row]


def _wrong_close(low: float, high: float, panel: BarArrays, row: int, length: int) -> list[int]:
    panel.close_to(row, 1 + panel.sign() * float(np.exp(panel.random.uniform(np.log(low), np.log(high)))))
    return [row]


def _other_session(panel: BarArrays, row: int, length: int) -> list[int] | None:
    source = row + int(panel.sign() * panel.random.integers(1, APART - 1))
    if not panel.sound[source]:
        return None
    panel.copy(row, source)
    return [row]


def _volume(factor: float, panel: BarArrays, row: int, length: int) -> list[int] | None:
    if not panel.value["volume"][row] > 0:
        return None
    panel.value["volume"][row] *= factor
    return [row]


SERIES: dict[str, Put] = {
    "split_2": partial(_split, 2.0),
    "split_3": partial(_split, 3.0),
    "split_4": partial(_split, 4.0),
    "reverse_split_10": partial(_split, 0.1),
    "twice_adjusted_split": _twice_adjusted_split,
    "bad_dividend": partial(_dividend, 100.0),
    "recorded_split": partial(_split, 2.0, recorded=True),
    "recorded_dividend": partial(_dividend, 1.0),
}
"""Faults of a symbol's actions: its earlier bars are multiplied, and it is held as traded (`basis` raw)."""
BARS: dict[str, Put] = {
    "ohlc_order": _ohlc_order,
    "missing_price": _missing_price,
    "non_positive_price": _non_positive_price,
    "unit_100": partial(_unit, 100.0),
    "unit_10": partial(_unit, 10.0),
    "unit_0.01": partial(_unit, 0.01),
    "stale_run": _stale_run,
    "duplicate_bar": _duplicate_bar,
    "closed_session_bar": _closed_session_bar,
    "missing_session": _missing_session,
    "identical_series": _identical_series,
    "jump_8": partial(_jump, 8.0),
    "wrong_close_small": partial(_wrong_close, 0.005, 0.03),
    "wrong_close_large": partial(_wrong_close, 0.03, 0.12),
    "other_session": _other_session,
    "volume_10": partial(_volume, 10.0),
    "volume_0": partial(_volume, 0.0),
}
LENGTHS = {"stale_run": (5, 10), "identical_series": (8, 12)}
DELIVERIES = {"stale_delivery": (0.8, 0.95), "partial_delivery": (0.5, 0.9)}
"""Shares of a session's bars that repeat the session before, or are missing."""
NEEDS = {
    "identical_series": "two symbols on the same sessions",
    "closed_session_bar": "a closed day after the session",
    "jump_8": "a usual move to measure by",
    "volume_10": "a volume",
    "volume_0": "a volume",
}
