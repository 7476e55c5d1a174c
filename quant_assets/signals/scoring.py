"""The night's scoring: features in, probabilities with a recommendation and their reasons out, in one vectorised call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from quant_assets.feature_store.contract import FeatureContract
from quant_assets.settings import Settings
from quant_assets.signals.heuristic import Heuristic

KEYS = ("symbol", "session", "known_at")
SIGNAL_COLUMNS = ("symbol", "session", "probability", "confidence", "recommendation", "scorer", "contributions", "centre")
CONTRIBUTIONS_KEPT = 5


class Scorer(Protocol):
    """What can stand behind a signal: a model or the heuristic."""

    @property
    def features(self) -> Sequence[str]:
        """The columns it reads, in its order."""
        ...

    def centre(self, frame: pl.DataFrame) -> pl.Series:
        """The log-odds that each row's count against; null: none."""
        ...

    def predict(self, frame: pl.DataFrame, centre: pl.Series | None = None) -> pl.Series:
        """Probability per row that the label is true."""
        ...

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Log-odds per row and feature, and `base`; a row's sum is the logit of its probability."""
        ...


@dataclass(frozen=True)
class Thresholds:
    """The probability from which each recommendation is given; between `sell` and `buy` it is `hold`."""

    strong_buy: float = 0.56
    buy: float = 0.52
    sell: float = 0.48
    strong_sell: float = 0.44

    def __post_init__(self) -> None:
        if not 0 <= self.strong_sell < self.sell < self.buy < self.strong_buy <= 1:
            raise ValueError(f"Thresholds must ascend from strong_sell over sell and buy to strong_buy, within 0 to 1; got {self}.")

    @classmethod
    def of(cls, settings: Settings) -> Thresholds:
        """Those that the settings name."""
        return cls(settings.strong_buy, settings.buy, settings.sell, settings.strong_sell)

    def recommendation(self, probability: pl.Expr) -> pl.Expr:
        """strong_buy, buy, hold, sell or strong_sell; a threshold itself belongs to the stronger word."""
        return (
            pl.when(probability >= self.strong_buy).then(pl.lit("strong_buy"))
            .when(probability >= self.buy).then(pl.lit("buy"))
            .when(probability <= self.strong_sell).then(pl.lit("strong_sell"))
            .when(probability <= self.sell).then(pl.lit("sell"))
            .otherwise(pl.lit("hold"))
        )  # fmt: skip


def confidence(probability: pl.Expr) -> pl.Expr:
    """How far a probability is from a coin's: |2p - 1|, 0 to 1."""
    return (2.0 * probability - 1.0).abs()


def score(
    frame: pl.DataFrame,
    scorer: Scorer,
    contract: FeatureContract | None,
    view: str,
    definition_hash: str,
    thresholds: Thresholds | None = None,
) -> pl.DataFrame:
    """Score every row of a feature frame with a model and its contract, or with the heuristic, which has none.

    `frame` has one row per symbol and session, of each session all symbols that are to be held against one another:
    `symbol`, `session`, perhaps `known_at`, and feature columns (nulls allowed); `view` and `definition_hash` say what
    computed them. Every column that is no key is offered to a model, whose contract refuses all but its own features in
    its own order, with `ContractError`; the heuristic takes the columns that it needs. Returns `SIGNAL_COLUMNS`, sorted by
    session and symbol, null in `centre` alone; `contributions` is a JSON list of the five largest by size,
    `{feature, value, contribution}`, the contribution in log-odds.
    """
    if contract is None and not isinstance(scorer, Heuristic):
        raise ValueError("A model scores only with its feature contract; none was given.")
    if contract is not None:
        contract.check_model(scorer.features)
        contract.check(frame.drop(KEYS, strict=False), view, definition_hash)
    ordered = frame.sort("session", "symbol")
    centre = scorer.centre(ordered)
    scored = ordered.select("symbol", "session").with_columns(
        scorer.predict(ordered, centre).alias("probability"),
        _largest(ordered, scorer.contributions(ordered).drop("base")).alias("contributions"),
        centre.alias("centre"),
        scorer=pl.lit("heuristic" if contract is None else "model"),
    )
    probability = pl.col("probability")
    recommendation = (thresholds or Thresholds()).recommendation(probability)
    return scored.with_columns(recommendation=recommendation, confidence=confidence(probability)).select(SIGNAL_COLUMNS)


def _largest(frame: pl.DataFrame, contributions: pl.DataFrame) -> pl.Series:
    """The largest contributions of each row as JSON text; equal sizes stand in the features' order."""
    names, amounts = contributions.columns, contributions.to_numpy()
    order = np.argsort(-np.abs(amounts), axis=1, kind="stable")[:, :CONTRIBUTIONS_KEPT]
    values = frame.select(pl.col(names).cast(pl.Float64)).to_numpy()
    rows, kept = order.shape
    long = pl.DataFrame(
        {
            "row": np.repeat(np.arange(rows), kept),
            "feature": np.array(names)[order].ravel(),
            "value": np.take_along_axis(values, order, axis=1).ravel(),
            "contribution": np.take_along_axis(amounts, order, axis=1).ravel(),
        }
    ).with_columns(pl.col("value", "contribution").fill_nan(None).round_sig_figs(6))
    entry = pl.struct("feature", "value", "contribution").struct.json_encode()
    return long.group_by("row", maintain_order=True).agg(pl.format("[{}]", entry.str.join(",")).alias("json"))["json"]
