"""What a family learns from: a matrix of features, outcomes and sample weights, read from a training frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from quant_assets.errors import ContractError

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Vector = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Samples:
    """Rows to learn from, in the frame's order: `values` (NaN for unknown), `up` 0 or 1, `weight` or none where all count alike."""

    values: Matrix
    up: Vector
    weight: Vector | None


def matrix(frame: pl.DataFrame, features: Sequence[str]) -> Matrix:
    """The features in the model's order, rows by features, NaN for null; raises `ContractError` where one is missing."""
    if missing := [name for name in features if name not in frame.columns]:
        raise ContractError(f"The model needs {', '.join(features)}; the frame lacks {', '.join(missing)}.")
    return frame.select(pl.col(name).cast(pl.Float64) for name in features).to_numpy()


def single_precision(values: Matrix) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The values as float32, NaN kept, what lies beyond its range (infinity too) at its ends."""
    most = np.finfo(np.float32).max
    return np.clip(values, -most, most).astype(np.float32)


def samples(
    frame: pl.DataFrame, features: Sequence[str], label: str, weight: str | None, balanced: bool, validation: pl.DataFrame | None
) -> tuple[Samples, Samples | None]:
    """The training and the validation rows; weights of each sum to its rows, so that other hyperparameters keep their meaning.

    `balanced` weighs the training classes so that both count alike, and the validation rows by the same two factors.
    Raises `ValueError` for no rows, a null label, labels all alike in training, and weights that are null, negative or all zero.
    """
    outcomes = [_outcomes(rows, label) for rows in (frame, validation) if rows is not None]
    if outcomes[0].min() == outcomes[0].max():
        raise ValueError(f"Label {label} is {bool(outcomes[0][0])} in all {len(frame)} rows; train on rows with both outcomes.")
    weights = [_weights(rows, weight) for rows in (frame, validation) if rows is not None]
    if balanced:
        share = float(np.average(outcomes[0], weights=weights[0]))
        if share in {0.0, 1.0}:
            raise ValueError(f"Only rows of one outcome of {label} have a weight; classes cannot be balanced.")
        weights = [w * np.where(up > 0, 0.5 / share, 0.5 / (1 - share)) for w, up in zip(weights, outcomes, strict=True)]
    plain = not balanced and all((w == w[0]).all() for w in weights)
    found = [
        Samples(matrix(rows, features), up, None if plain else w * (len(w) / w.sum()))
        for rows, up, w in zip([frame, validation][: len(outcomes)], outcomes, weights, strict=True)
        if rows is not None
    ]
    return found[0], found[1] if len(found) > 1 else None


def _outcomes(frame: pl.DataFrame, label: str) -> Vector:
    if frame.is_empty():
        raise ValueError(f"There are no rows with label {label}; a model needs some to learn from and to be validated on.")
    if nulls := frame[label].null_count():
        raise ValueError(f"Label {label} is null in {nulls} of {len(frame)} rows; train on rows whose outcome is known.")
    return frame[label].cast(pl.Float64).to_numpy()


def _weights(frame: pl.DataFrame, weight: str | None) -> Vector:
    if weight is None:
        return np.ones(len(frame))
    found = frame[weight].cast(pl.Float64).to_numpy()
    if wrong := int((~np.isfinite(found) | (found < 0)).sum()):
        raise ValueError(f"Weight {weight} is null, negative or infinite in {wrong} of {len(frame)} rows; give a number from 0 on.")
    if not found.sum():
        raise ValueError(f"Weight {weight} is 0 in all {len(frame)} rows; nothing would be learnt.")
    return found
