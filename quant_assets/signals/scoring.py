"""The night's scoring: features in, probabilities with a recommendation and their reasons out, in one vectorised call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.heuristic import Heuristic

KEYS = ("symbol", "session", "known_at")
SIGNAL_COLUMNS = ("symbol", "session", "probability", "recommendation", "scorer", "contributions")
CONTRIBUTIONS_KEPT = 5


class Scorer(Protocol):
    """What can stand behind a signal: a booster or the heuristic."""

    @property
    def features(self) -> Sequence[str]:
        """The columns it reads, in its order."""
        ...

    def predict(self, frame: pl.DataFrame) -> pl.Series:
        """Probability per row that the return is positive."""
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

    def recommendation(self, probability: pl.Expr) -> pl.Expr:
        """strong_buy, buy, hold, sell or strong_sell; a threshold itself belongs to the stronger word."""
        return (
            pl.when(probability >= self.strong_buy).then(pl.lit("strong_buy"))
            .when(probability >= self.buy).then(pl.lit("buy"))
            .when(probability <= self.strong_sell).then(pl.lit("strong_sell"))
            .when(probability <= self.sell).then(pl.lit("sell"))
            .otherwise(pl.lit("hold"))
        )  # fmt: skip


def score(
    frame: pl.DataFrame,
    booster: Scorer | None,
    contract: FeatureContract | None,
    view: str,
    definition_hash: str,
    thresholds: Thresholds | None = None,
) -> pl.DataFrame:
    """Score every row of a feature frame with a model, or with the heuristic where `booster` is `None`.

    `frame` has one row per symbol and session: `symbol`, `session`, perhaps `known_at`, and feature columns (nulls
    allowed); `view` and `definition_hash` say what computed them. Every column that is no key is offered to a model, whose
    contract refuses all but its own features in its own order, with `ContractError`; the heuristic has no contract and
    takes the columns that it needs. Returns `SIGNAL_COLUMNS`, sorted by session and symbol, never null; `contributions`
    is a JSON list of the five largest by size, `{feature, value, contribution}`, the contribution in log-odds.
    """
    scorer: Scorer = Heuristic() if booster is None else booster
    if booster is not None:
        if contract is None:
            raise ValueError("A model scores only with its feature contract; none was given.")
        contract.check_model(booster.features)
        contract.check(frame.drop(KEYS, strict=False), view, definition_hash)
    ordered = frame.sort("session", "symbol")
    scored = ordered.select("symbol", "session").with_columns(
        scorer.predict(ordered).alias("probability"),
        _largest(ordered, scorer.contributions(ordered).drop("base")).alias("contributions"),
        scorer=pl.lit("heuristic" if booster is None else "model"),
    )
    recommendation = (thresholds or Thresholds()).recommendation(pl.col("probability"))
    return scored.with_columns(recommendation=recommendation).select(SIGNAL_COLUMNS)


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
