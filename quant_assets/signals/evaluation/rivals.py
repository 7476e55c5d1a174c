"""Who stands beside the model: what knows nothing, what is simple, what was trained on shuffled labels, and what knows the truth."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

_CALLS = ("accuracy", "accuracy_gain", "precision", "recall", "f1")
_RANKS = ("auc", "rank_ic", "rank_ic_t", "icir")
_SPREADS = ("spread_gross", "spread_net", "turnover")
METRICS = ("auc", "log_loss", "log_loss_gain", "brier", *_CALLS, "ece", "rank_ic", "rank_ic_t", "icir", *_SPREADS)


@dataclass(frozen=True)
class Predictor:
    """One that predicts: from which column, and which of `METRICS` say something about it; its others are null.

    A `kind` of `probability` gives probabilities, called up at 0.5 or more; `call` says up or not, worth +1 or -1 as a score; `score`
    gives an order alone.
    """

    name: str
    column: str
    kind: str
    metrics: tuple[str, ...]

    def read(self) -> list[pl.Expr]:
        """Its `score`, `probability` and `called` per row; what its kind does not give is missing, an unknown value is null."""
        value = pl.col(self.column).cast(pl.Float64).fill_nan(None)
        if self.kind == "probability":
            return [value.alias("score"), value.alias("probability"), (value >= 0.5).alias("called")]
        if self.kind == "call":
            return [(2.0 * (value >= 0.5).cast(pl.Float64) - 1.0).alias("score"), (value >= 0.5).alias("called")]
        return [value.alias("score")]


PREDICTORS = (
    Predictor("model", "probability", "probability", METRICS),
    Predictor("uncalibrated", "uncalibrated_probability", "probability", METRICS),
    Predictor("heuristic", "heuristic_probability", "probability", METRICS),
    Predictor("control", "control_probability", "probability", METRICS),  # trained on shuffled labels: whatever it wins is chance or leak
    # The training's share of ups, the same for all rows of a fold: what is known without looking.
    Predictor("base_rate", "train_up_share", "probability", ("log_loss", "brier", "accuracy", "ece")),
    # The training's more frequent class, always: sure of itself, so that its log loss would be infinite.
    Predictor("majority", "train_up_share", "call", ("accuracy", "precision", "recall", "f1")),
    Predictor("previous_sign", "previous_up", "call", (*_RANKS, *_CALLS)),
    Predictor("oracle", "oracle_score", "score", (*_RANKS, *_SPREADS)),  # the planted truth of a synthetic market
)


def predictors(columns: list[str]) -> list[Predictor]:
    """Those of `PREDICTORS` whose column is there."""
    return [predictor for predictor in PREDICTORS if predictor.column in columns]
