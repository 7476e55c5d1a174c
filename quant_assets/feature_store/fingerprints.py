"""One hash for a frame's content: what says that two training sets are the same."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import polars as pl


def fingerprint(frame: pl.DataFrame, **also: object) -> str:
    """Hash (hexadecimal sha256) of a frame's columns, dtypes and values, bit by bit, and of some named values beside it.

    Rows count in their order, columns whatever theirs. Two zeros of different sign are one, and so are all NaN.
    """
    digest = hashlib.sha256(json.dumps(also, sort_keys=True, default=str).encode())
    for name in sorted(frame.columns):
        column = frame[name]
        digest.update(f"{name}:{column.dtype}:{len(column)}".encode())
        if column.dtype == pl.String:
            digest.update(json.dumps(column.to_list()).encode())
            continue
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        values = column.to_physical().cast(pl.Float64 if column.dtype.is_float() else pl.Int64).fill_null(0).to_numpy()
        digest.update(np.where(np.isnan(values), np.nan, values + 0.0).tobytes() if column.dtype.is_float() else values.tobytes())
    return digest.hexdigest()
