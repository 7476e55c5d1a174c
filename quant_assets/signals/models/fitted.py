"""What all fitted models share: frames in, Polars out, and a text whose damage is seen before a library reads it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from hashlib import sha256
from typing import ClassVar

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.signals.models.samples import Matrix, Vector, matrix


@dataclass(frozen=True)
class Fitted(ABC):
    """A fitted model of one family; equal models have equal texts. `threads` is how many a prediction may use."""

    family: ClassVar[str]

    features: tuple[str, ...]
    rounds: int
    body: str = field(repr=False)
    threads: int = field(default=2, compare=False)

    @property
    @abstractmethod
    def importance(self) -> pl.DataFrame:
        """One row per feature, most important first: `feature`, `gain`, `splits`."""

    @abstractmethod
    def _log_odds(self, values: Matrix) -> Vector:
        """Raw log-odds of at least one row."""

    @abstractmethod
    def _contributions(self, values: Matrix) -> Matrix:
        """Rows by features and, last, the base, of at least one row."""

    def log_odds(self, frame: pl.DataFrame) -> pl.Series:
        """Raw log-odds per row that the label is true, in the frame's order, never null.

        Other columns and their order do not matter; raises `ContractError` where a feature is missing.
        """
        values = matrix(frame, self.features)
        return pl.Series("log_odds", self._log_odds(values) if len(frame) else [], dtype=pl.Float64)

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What each feature adds to the log-odds, per row, exact; one column per feature and `base`, never null.

        A row's sum is its log-odds. Source: Lundberg and others, From local explanations to global understanding with
        explainable AI for trees (2020).
        """
        values = matrix(frame, self.features)
        columns = [*self.features, "base"]
        if frame.is_empty():
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64))
        return pl.from_numpy(self._contributions(values), schema=columns, orient="row")

    def to_text(self) -> str:
        """The whole model: a line with its family and the hash of what follows, then what its family wrote."""
        return sealed(self.family, self.body)


def sealed(family: str, body: str) -> str:
    """A model's text: its family and the hash of the body in one line, then the body."""
    return f"{family} {sha256(body.encode()).hexdigest()}\n{body}"


def opened(family: str, text: str) -> str:
    """The body of a model's text; raises `QuantAssetsError` where the text is not one of that family, whole and unchanged."""
    _, _, body = text.partition("\n")
    if text != sealed(family, body):
        raise QuantAssetsError(
            f"This is no text of a {family} model, or it was cut or changed; restore the file, or train the model again to write one."
        )
    return body


def unreadable(family: str, error: Exception) -> QuantAssetsError:
    """The error for a whole text that the installed library cannot read."""
    return QuantAssetsError(
        f"The installed library cannot read this {family} model ({error}); install the version it was trained with, or train it again."
    )


def importance_frame(features: tuple[str, ...], gain: Vector | list[float], splits: Vector | list[int]) -> pl.DataFrame:
    """One row per feature, most important first, ties by name: `feature`, `gain`, `splits` (count)."""
    frame = pl.DataFrame({"feature": features, "gain": gain, "splits": splits}, schema_overrides={"gain": pl.Float64, "splits": pl.Int64})
    return frame.sort(["gain", "feature"], descending=[True, False])
