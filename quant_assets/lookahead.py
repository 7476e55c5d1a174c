"""No look-ahead, defined once: a stored row known at k comes out the same when it is recomputed from what was known as of k.

Cutting history at a date, for a table that can be rebuilt, is the special case in which all rows share the cut.
`offending_rows` cuts a history and recomputes; `differences` compares rows that somebody else stored and recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from quant_assets.errors import QuantAssetsError

KEY = ("symbol", "session")
FOUND = {"column": pl.String, "stored": pl.String, "recomputed": pl.String}
"""What is said of an offending value, beside its key: the column, and the value on both sides as text."""


class NotComparable(QuantAssetsError):
    """Two frames, or a history and its cuts, cannot show whether anything looked ahead; the text names the reason."""


def offending_rows(
    compute: Callable[..., pl.DataFrame],
    history: Mapping[str, pl.DataFrame],
    cuts: Iterable[date | datetime],
    *,
    key: Sequence[str] = KEY,
    clock: str = "session",
    tolerance: float = 0.0,
) -> pl.DataFrame:
    """Values of `compute(**history)` that change when everything after a cut is unknown; an empty frame is the proof.

    Every frame of `history` and the result carry the column `clock`, never null: `session` with dates as cuts, or
    `known_at` with instants (naive UTC); a row at the cut itself is known. Returns `cut` and what `differences` does.

    A row whose stored version was known after the cut is not compared at that cut: what the cut gives is an older
    version of it. A row that is stored nowhere is, so that a universe chosen with hindsight shows.

    Raises `NotComparable` where the frames cannot be compared, and where the cuts prove nothing: none of them hides a
    row of the history, or all rows that they give were known in a later version.
    """
    moments = list(cuts)
    full = compute(**history)
    for name, frame in (*((f"history {name!r}", frame) for name, frame in history.items()), ("the result", full)):
        _expect_clock(name, frame, clock, moments)
    found, hidden, compared, superseded = [], False, 0, 0
    for cut in moments:
        known = {name: frame.filter(pl.col(clock) <= cut) for name, frame in history.items()}
        hidden |= any(known[name].height < frame.height for name, frame in history.items())
        stored = full.filter(pl.col(clock) <= cut)
        redone = compute(**known)
        _expect_clock(f"the result as of {cut}", redone, clock, [cut])
        redone = redone.filter(pl.col(clock) <= cut)
        recomputed = redone.join(full.filter(pl.col(clock) > cut), on=list(key), how="anti", nulls_equal=True)
        compared += stored.height + recomputed.height
        superseded += redone.height - recomputed.height
        found.append(differences(stored, recomputed, key=key, tolerance=tolerance).select(pl.lit(cut).alias("cut"), pl.all()))
    if not hidden:
        raise NotComparable(f"Nothing lies after any of the {len(moments)} cuts: to prove something they must hide rows of the history.")
    if superseded and not compared:
        raise NotComparable(f"All {superseded} rows that the cuts give are stored with a later {clock}: nothing was compared.")
    return pl.concat(found)


def differences(stored: pl.DataFrame, recomputed: pl.DataFrame, key: Sequence[str] = KEY, tolerance: float = 0.0) -> pl.DataFrame:
    """Values that differ between two frames of the same rows, both unique by `key`, in any order of rows and columns.

    Returns one row per offending value, in the order of `stored`'s columns and sorted by key: the key, `column`,
    `stored` and `recomputed` as text, null for a null. A row that one side alone has is one offence, `column = "row"`,
    `present` on that side and `absent` on the other. Floats, also inside lists and structs, may differ by `tolerance`
    relative to the larger; NaN equals NaN, null equals null, neither equals anything else. All other types, instants
    among them, must be equal.

    Raises `NotComparable` with the difference where columns or dtypes differ, where a key is missing or not unique,
    and for a tolerance that is no fraction.
    """
    keys = list(key)
    _expect_comparable(stored, recomputed, keys, tolerance)
    values = {name: dtype for name, dtype in stored.schema.items() if name not in keys}
    on = [f"key {i}" for i in range(len(keys))]  # numbered, so that no name of a column can meet one of ours
    sides = [
        frame.select(
            *(pl.col(name).alias(number) for name, number in zip(keys, on, strict=True)),
            *(pl.col(name).alias(f"{side} {i}") for i, name in enumerate(values)),
            pl.lit(True).alias(side),
        )
        for side, frame in (("stored", stored), ("recomputed", recomputed))
    ]
    both = sides[0].join(sides[1], on=on, how="full", coalesce=True, nulls_equal=True).sort(on)
    named = [pl.col(number).alias(name) for name, number in zip(keys, on, strict=True)]
    in_both = (pl.col("stored") & pl.col("recomputed")).fill_null(value=False)
    lonely, shared = both.filter(~in_both), both.filter(in_both)
    presence = (pl.when(side).then(pl.lit("present")).otherwise(pl.lit("absent")).alias(side) for side in ("stored", "recomputed"))
    parts = [lonely.select(*named, pl.lit("row").alias("column"), *presence)]
    changed = shared.select((~_equal(i, dtype, tolerance)).alias(name) for i, (name, dtype) in enumerate(values.items()))
    for i, (name, dtype) in enumerate(values.items()):
        if not changed[name].any():
            continue
        rows = shared.select(*named, pl.col(f"stored {i}").alias("stored"), pl.col(f"recomputed {i}").alias("recomputed")).filter(
            changed[name]
        )
        if tolerance and dtype.is_nested():
            close = [_close(a, b, tolerance) for a, b in zip(rows["stored"].to_list(), rows["recomputed"].to_list(), strict=True)]
            rows = rows.filter(~pl.Series(close, dtype=pl.Boolean))
        parts.append(rows.select(*keys, pl.lit(name).alias("column"), _text(rows["stored"]), _text(rows["recomputed"])))
    return pl.concat(parts)


def described(offending: pl.DataFrame, limit: int = 5) -> str:
    """The first offences of `offending_rows` or `differences` in words, one a line: column, key, both values, cut."""
    lines = []
    for row in offending.head(limit).iter_rows(named=True):
        where = ", ".join(f"{name}={value}" for name, value in row.items() if name not in FOUND and name != "cut")
        cut = f" (cut at {row['cut']})" if "cut" in row else ""
        lines.append(f"{row['column']} of {where}: stored {_or_null(row['stored'])}, recomputed {_or_null(row['recomputed'])}{cut}")
    if offending.height > limit:
        lines.append(f"and {offending.height - limit} more")
    return "\n".join(lines) or "nothing differs"


def _expect_clock(name: str, frame: pl.DataFrame, clock: str, cuts: Sequence[date | datetime]) -> None:
    if clock not in frame.columns:
        raise NotComparable(f"{name} has no column {clock!r}; it has {', '.join(frame.columns)}.")
    dtype = frame.schema[clock]
    if dtype != pl.Date and dtype != pl.Datetime(time_zone=None):
        raise NotComparable(f"{clock} of {name} is {dtype}; it must be a date or an instant without time zone.")
    for cut in cuts:
        wrong = isinstance(cut, datetime) == (dtype == pl.Date) or (isinstance(cut, datetime) and cut.tzinfo is not None)
        if wrong:
            raise NotComparable(f"The cut {cut!r} is not of the type of {clock} in {name}, {dtype} without time zone.")
    unknown = frame.filter(pl.col(clock).is_null())
    if unknown.height:
        raise NotComparable(f"{clock} is null in {unknown.height} rows of {name}, the first {unknown.row(0, named=True)}.")


def _expect_comparable(stored: pl.DataFrame, recomputed: pl.DataFrame, keys: list[str], tolerance: float) -> None:
    if not 0.0 <= tolerance < 1.0:
        raise NotComparable(f"tolerance {tolerance} is not a fraction from 0 to below 1.")
    reserved = {"cut", *FOUND} & set(keys)
    missing = [name for name in keys if name not in stored.columns]
    if not keys or missing or reserved:
        raise NotComparable(
            f"{keys} cannot be a key of rows with columns {', '.join(stored.columns)}: {missing or sorted(reserved) or 'empty'}."
        )
    if dict(stored.schema) != dict(recomputed.schema):
        names = dict.fromkeys([*stored.columns, *recomputed.columns])
        pairs = ((name, stored.schema.get(name, "missing"), recomputed.schema.get(name, "missing")) for name in names)
        raise NotComparable("Columns differ: " + "; ".join(f"{name} stored {a}, recomputed {b}" for name, a, b in pairs if a != b) + ".")
    for side, frame in (("stored", stored), ("recomputed", recomputed)):
        doubled = frame.select(keys).filter(pl.struct(keys).is_duplicated())
        if doubled.height:
            raise NotComparable(
                f"{doubled.height} {side} rows are not unique by {', '.join(keys)}, among them {doubled.row(0, named=True)}."
            )


def _equal(i: int, dtype: pl.DataType, tolerance: float) -> pl.Expr:
    a, b = pl.col(f"stored {i}"), pl.col(f"recomputed {i}")
    if not (tolerance and dtype.is_float()):
        return a.eq_missing(b)
    gap = (a - b).abs()
    within = gap.is_finite() & (gap <= tolerance * pl.max_horizontal(a.abs(), b.abs()))
    return a.eq_missing(b) | within.fill_null(value=False)


def _close(a: Any, b: Any, tolerance: float) -> bool:
    """The rule for floats, carried into lists and structs, which Polars compares exactly only."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_close(one, other, tolerance) for one, other in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_close(a[name], b[name], tolerance) for name in a)  # of one struct type, hence of the same names
    return bool(a == b)


def _text(values: pl.Series) -> pl.Series:
    """Values as text in full precision, for people: two that differ never read the same."""
    return pl.Series(values.name, [None if value is None else str(value) for value in values.to_list()], dtype=pl.String)


def _or_null(text: str | None) -> str:
    return "null" if text is None else text
