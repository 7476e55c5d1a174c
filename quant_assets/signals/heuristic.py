"""A transparent scorer for the nights on which no model may score: six rules, weights in plain sight, no training.

Each rule maps one feature to -1 … +1 and adds weight times that to the log-odds of a positive return. The weights sum
to 0.40, which keeps every probability between 0.401 and 0.599: rules of thumb must not sound sure.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from quant_assets.errors import ContractError


@dataclass(frozen=True)
class Rule:
    """One rule: the feature it reads, its weight in log-odds, its value between -1 and +1, and why it should hold."""

    feature: str
    weight: float
    value: pl.Expr
    reason: str


RULES: tuple[Rule, ...] = (
    Rule(
        "price_change_20d", 0.08, (pl.col("price_change_20d") / 0.10).tanh(),
        "Momentum: what rose keeps rising (Jegadeesh and Titman 1993; theirs is over months, hence no larger weight).",
    ),
    Rule(
        "price_change_5d", 0.08, -(pl.col("price_change_5d") / 0.05).tanh(),
        "Reversal: a week's move is partly taken back (Lehmann 1990).",
    ),
    Rule(
        "price_change_1d", 0.05, -(pl.col("price_change_1d") / 0.02).tanh(),
        "Reversal of the last session's move, liquidity being paid for (Jegadeesh 1990).",
    ),
    Rule(
        "rsi_14", 0.08, ((50.0 - pl.col("rsi_14")) / 50.0).clip(-1.0, 1.0),
        "Oversold below 30, overbought above 70 (Wilder 1978).",
    ),
    Rule(
        "bb_position", 0.06, (1.0 - 2.0 * pl.col("bb_position")).clip(-1.0, 1.0),
        "Back from the band towards the middle (Bollinger 2001).",
    ),
    Rule(
        "volume_ratio", 0.05, pl.col("volume_ratio").log().tanh(),
        "The high-volume return premium (Gervais, Kaniel and Mingelgrin 2001).",
    ),
)  # fmt: skip


class Heuristic:
    """Scores with `RULES`; offers what a booster offers, so that either can stand behind the night's signals."""

    features: tuple[str, ...] = tuple(rule.feature for rule in RULES)

    def predict(self, frame: pl.DataFrame) -> pl.Series:
        """Probability per row that the return is positive; a row whose features are all null gets 0.5."""
        log_odds = self.contributions(frame).sum_horizontal()
        return (1.0 / (1.0 + (-log_odds).exp())).cast(pl.Float64).alias("probability")

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What each rule adds to the log-odds, per row: a column per feature and `base`, which is 0; null features add 0.

        Raises `ContractError` where a feature is missing.
        """
        if missing := [name for name in self.features if name not in frame.columns]:
            raise ContractError(f"The heuristic needs {', '.join(self.features)}; the frame lacks {', '.join(missing)}.")
        terms = ((rule.weight * rule.value).fill_nan(None).fill_null(0.0).alias(rule.feature) for rule in RULES)
        return frame.select(*terms).with_columns(base=pl.lit(0.0))
