"""A transparent scorer for the nights on which no model may score: seven rules, weights in plain sight.

Each rule maps features to -1 … +1 and adds weight times that to a sum. The weights sum to 0.45. Taken as log-odds, which
is what is done where no outcomes are known yet, that keeps every probability between 0.389 and 0.611: rules of thumb
must not sound sure. Once outcomes are known, they say how much the sum is worth, and what the base rate is (`calibrated`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from quant_assets.errors import ContractError
from quant_assets.signals.calibration import Calibration, fit_calibration


@dataclass(frozen=True)
class Rule:
    """One rule: the feature it speaks of, its weight, its value between -1 and +1, why it should hold, and what else it reads."""

    feature: str
    weight: float
    value: pl.Expr
    reason: str
    beside: tuple[str, ...] = ()


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
        "macd_hist", 0.05, (pl.col("macd_hist") / pl.col("sma_20") / 0.01).tanh(),
        "Trend: MACD above its signal line (Appel 1979); as a share of the price, so that a dear stock speaks no louder.",
        ("sma_20",),
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

AS_WRITTEN = Calibration("none")


@dataclass(frozen=True)
class Heuristic:
    """Scores with `RULES`; offers what a model offers, so that either can stand behind the night's signals."""

    calibration: Calibration = AS_WRITTEN

    features = tuple(rule.feature for rule in RULES)
    reads = tuple(dict.fromkeys(name for rule in RULES for name in (rule.feature, *rule.beside)))

    @classmethod
    def calibrated(cls, frame: pl.DataFrame, label: str = "up") -> Heuristic:
        """The heuristic whose sums are held against outcomes, by Platt's method, so that its mean probability is their base rate.

        `frame` has what the rules read and the boolean label, one row per outcome; where all came out alike, or there are
        none, the rules are taken as written.
        """
        base_rate = frame[label].mean()
        if base_rate is None or base_rate in (0.0, 1.0):
            return cls()
        sums = cls().log_odds(frame).to_numpy()
        return cls(fit_calibration("platt", sums, frame[label].to_numpy(), float(base_rate)))  # type: ignore[arg-type]

    def log_odds(self, frame: pl.DataFrame) -> pl.Series:
        """The rules' sum per row, not calibrated; null features add 0. Raises `ContractError` where a feature is missing."""
        return frame.select(pl.sum_horizontal(_terms(frame.columns)).alias("log_odds")).to_series()

    def predict(self, frame: pl.DataFrame, centre: pl.Series | None = None) -> pl.Series:
        """Probability per row that the label is true; a row whose features are all null gets the base rate (as written: 0.5)."""
        return self.calibration.probability(self.log_odds(frame)).rename("probability")

    def centre(self, frame: pl.DataFrame) -> pl.Series:
        """Null per row: the rules hold no symbol against the others."""
        return pl.Series("centre", [None] * len(frame), dtype=pl.Float64)

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What each rule adds to the log-odds, per row: a column per rule's feature and `base`, what is left without any.

        A row's sum is the logit of its probability. Raises `ContractError` where a feature is missing.
        """
        terms = frame.select(_terms(frame.columns))
        return terms.with_columns(pl.all() * self.calibration.slope).with_columns(base=pl.lit(self.calibration.intercept))


def _terms(offered: Sequence[str]) -> list[pl.Expr]:
    if missing := [name for name in Heuristic.reads if name not in offered]:
        raise ContractError(f"The heuristic needs {', '.join(Heuristic.reads)}; the frame lacks {', '.join(missing)}.")
    return [(rule.weight * _within(rule.value)).alias(rule.feature) for rule in RULES]


def _within(value: pl.Expr) -> pl.Expr:
    """A rule's value, 0 where a feature is null or leaves none (a zero denominator)."""
    return value.fill_nan(None).fill_null(0.0)
