"""Faults of every kind put into real bars at stated rates: what is wrong is then known to the bar.

A fault stands alone: no two of them lie within `APART` bars of each other in one symbol, so that what is found there is
found because of it. The bars before and after are right, and of the panel as given. What the bars bring along in errors
of their own stays in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.calibration_report.faults import APART, BARS, BEFORE, DELIVERIES, LENGTHS, NEEDS, SERIES, VALUES, BarArrays
from quant_assets.errors import ConfigurationError

LEAST_SYMBOLS = 10
"""Symbols of a session from which on it is a delivery that can be stale or partial."""
TRUTH: dict[str, pl.DataType | type[pl.DataType]] = {
    "fault": pl.Int64,
    "kind": pl.String,
    "symbol": pl.String,
    "session": pl.Date,
    "known_at": pl.Datetime("us"),
}
CONTROLS = ("recorded_split", "recorded_dividend")
"""Put into the bars like faults, and none: the price falls as the stored action says."""


@dataclass(frozen=True)
class Injection:
    """Bars and actions with faults in them.

    `truth` has one row per faulty bar (`fault` numbers what belongs together, `known_at` is when the bar is or would have
    been known); `not_injected` one per kind that found too little room (`kind`, `wanted`, `injected`, `why`).
    """

    bars: pl.DataFrame
    actions: pl.DataFrame
    truth: pl.DataFrame
    not_injected: pl.DataFrame


RATES: dict[str, float] = {**dict.fromkeys(DELIVERIES, 2.0), **dict.fromkeys((*SERIES, *BARS), 1.0)}
"""Faults per 10,000 bars, of deliveries per 1,000 sessions."""


def inject(
    bars: pl.DataFrame, actions: pl.DataFrame, calendar: TradingCalendar, rates: Mapping[str, float] | None = None, seed: int = 0
) -> Injection:
    """Put faults into a panel of bars (`judge.BAR_COLUMNS`; one row per symbol and session) and its corporate actions.

    `rates` are by kind, of `RATES` where not given; a rate above 0 puts in at least one fault, where there is room. The
    same seed on the same bars gives the same faults. Raises `ConfigurationError` for a kind that does not exist or a negative rate.
    """
    wanted = {**RATES, **(rates or {})}
    if wrong := [f"{kind}={rate}" for kind, rate in wanted.items() if kind not in RATES or not rate >= 0]:
        raise ConfigurationError(f"No such kind of fault, or a rate below 0: {', '.join(wrong)}. Kinds: {', '.join(RATES)}.")
    panel, missed = BarArrays(bars, actions, calendar, seed), []
    for kind, rate in wanted.items():
        units = bars["session"].n_unique() / 1_000 if kind in DELIVERIES else bars.height / 10_000
        count = max(1, round(rate * units)) if rate > 0 else 0
        placed = (_deliver if kind in DELIVERIES else _place)(panel, kind, count)
        if placed < count:
            needs = f"{LEAST_SYMBOLS} symbols on one session" if kind in DELIVERIES else NEEDS.get(kind, "")
            why = f"too few sound bars with {BEFORE} before and {APART} after them, no other fault near{' and ' * bool(needs)}{needs}"
            missed.append((kind, count, placed, why))
    not_injected = pl.DataFrame(missed, {"kind": pl.String, "wanted": pl.Int64, "injected": pl.Int64, "why": pl.String}, orient="row")
    changed_actions = pl.DataFrame([row for rows in panel.actions.values() for row in rows], schema=actions.schema)
    return Injection(_bars(panel), changed_actions, pl.DataFrame(panel.truth, TRUTH, orient="row"), not_injected)


def _place(panel: BarArrays, kind: str, count: int) -> int:
    put, (least, most) = {**SERIES, **BARS}[kind], LENGTHS.get(kind, (1, 1))
    placed = 0
    for row in panel.random.permutation(np.flatnonzero(panel.inside & panel.sound & ~panel.taken)) if count else ():
        length = int(panel.random.integers(least, most + 1))
        if not panel.free(row, length) or (rows := put(panel, int(row), length)) is None:
            continue
        panel.take(row, length)
        _record(panel, kind, rows)
        placed += 1
        if placed == count:
            break
    return placed


def _deliver(panel: BarArrays, kind: str, count: int) -> int:
    by_session = panel.frame.with_row_index("row").group_by("session").agg("row").sort("session")
    placed = 0
    for day in panel.random.permutation(by_session.height) if count else ():
        whole = by_session["row"][int(day)].to_list()
        rows = [row for row in whole if panel.free(row, 1)]
        if len(rows) < max(LEAST_SYMBOLS, 0.8 * len(whole)):
            continue
        chosen = np.sort(panel.random.choice(rows, int(panel.random.uniform(*DELIVERIES[kind]) * len(rows)), replace=False))
        for row in chosen:
            if kind == "stale_delivery":
                panel.copy(row, row - 1)
            else:
                panel.removed[row] = True
        for row in whole:
            panel.take(row, 1)
        _record(panel, kind, chosen.tolist())
        placed += 1
        if placed == count:
            break
    return placed


def _record(panel: BarArrays, kind: str, rows: list[int]) -> None:
    """The faulty bars of one fault; a row below 0 counts from the added ones."""
    fault = panel.truth[-1][0] + 1 if panel.truth else 0
    for row in rows:
        added = panel.added[-row - 1] if row < 0 else {"row": row, "session": panel.session[row], "known_at": panel.known_at[row]}
        panel.truth.append((fault, kind, panel.symbol[added["row"]], added["session"], added["known_at"]))


def _bars(panel: BarArrays) -> pl.DataFrame:
    schema = panel.frame.schema
    values = {name: pl.Series(panel.value[name], nan_to_null=True).cast(schema[name]) for name in VALUES}
    basis = pl.when(pl.Series(panel.raw)).then(pl.lit("raw")).otherwise("basis").alias("basis")
    changed = panel.frame.with_columns(basis, **values)
    parts = [changed.filter(~pl.Series(panel.removed, dtype=pl.Boolean))]
    if panel.added:
        new = pl.DataFrame(panel.added).drop("row")
        new = new.with_columns(pl.col(VALUES).fill_nan(None))
        template = changed[[added["row"] for added in panel.added]]
        parts.append(template.with_columns(new.cast({name: schema[name] for name in new.columns}).get_columns()))
    return pl.concat(parts).sort("symbol", "session", maintain_order=True)
