"""Champion and challenger: a model takes the place of another, or of none, only on evidence.

Both are held against the same outcomes on the same sessions, none of which either had seen: a version's walk-forward
predictions as far as its training reached, its final model after that. Where there is no champion that may score, the
incumbent is no skill at all: every symbol at the training's base rate. A gain counts when the lower bound of its paired
block bootstrap, one-sided, lies above zero, and it takes both: a better order of the symbols (rank IC) and better
probabilities (log loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.signals.evaluation.bootstrap import block_length, paired_difference
from quant_assets.signals.evaluation.per_session import log_loss, rank_ic

LEAST_SESSIONS = 60
RESAMPLES, SEED = 2000, 7
PAIR = ("symbol", "session")
EVIDENCE = (
    "incumbent", "window_sessions", "window_from", "window_to", "rank_ic_gain", "rank_ic_gain_bound", "log_loss_gain", "log_loss_gain_bound",
)  # fmt: skip
"""What a decision rests on, by name, in the ledger and the registry."""


@dataclass(frozen=True)
class Gain:
    """How much a challenger gains on the incumbent per session, and the one-sided lower bound of that."""

    mean: float
    bound: float


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, why in words, and the numbers behind it.

    `rank_ic` and `log_loss` are null where there were too few common sessions to look at; a gain in log loss is nats
    saved per symbol.
    """

    promoted: bool
    reason: str
    incumbent: str | None
    sessions: int
    first_session: date | None
    last_session: date | None
    rank_ic: Gain | None
    log_loss: Gain | None

    @property
    def evidence(self) -> dict[str, object]:
        """The numbers by name, for the ledger and the registry."""
        named: dict[str, object] = {
            "incumbent": self.incumbent or "no skill",
            "window_sessions": self.sessions,
            "window_from": str(self.first_session),
            "window_to": str(self.last_session),
        }
        for name, gain in (("rank_ic", self.rank_ic), ("log_loss", self.log_loss)):
            if gain is not None:
                named |= {f"{name}_gain": gain.mean, f"{name}_gain_bound": gain.bound}
        return named


@dataclass(frozen=True)
class Verdict:
    """What was decided about a version, why in words, and the numbers that it rests on."""

    decision: str
    reason: str
    evidence: Mapping[str, object]


def decide(
    challenger: pl.DataFrame,
    incumbent: pl.DataFrame | None,
    horizon: int,
    confidence: float,
    incumbent_version: str | None = None,
    leaks: Sequence[str] = (),
) -> Decision:
    """Hold a challenger's out-of-sample predictions against an incumbent's, or against no skill where there is none.

    `challenger` has `symbol`, `session`, `probability`, `train_up_share`, `forward_return`, `up`; `incumbent` the first three.
    Only what both predicted counts; of one symbol alone, which has no rank, the log loss decides. `confidence` is that of each one-sided bound; 0 asks for no evidence at all. A
    challenger that looks like a leak is turned down whatever it gains.
    """
    if incumbent is None:
        rival = challenger.select(*PAIR, pl.col("train_up_share").alias("rival"))
    else:
        rival = incumbent.select(*PAIR, pl.col("probability").alias("rival"))
    both = challenger.join(rival, on=list(PAIR))
    gains, alone = _gains(both), both["symbol"].n_unique() < 2
    n = len(gains)
    first, last = (gains["session"].min(), gains["session"].max()) if n else (None, None)
    against = f"version {incumbent_version}" if incumbent is not None else "no skill"

    def decision(promoted: bool, reason: str, *found: Gain | None) -> Decision:
        ic, loss = found or (None, None)
        return Decision(promoted, reason, incumbent_version if incumbent is not None else None, n, first, last, ic, loss)  # type: ignore[arg-type]

    if n < LEAST_SESSIONS and confidence > 0:
        return decision(False, f"{n} common sessions out of sample are too few to hold it against {against}; {LEAST_SESSIONS} are needed")
    ranked, told = (_bounded(gains[name], horizon, confidence) for name in ("rank_ic", "log_loss"))
    numbers = (
        f"against {against} on {n} sessions, rank IC {ranked.mean:+.4f} (bound {ranked.bound:+.4f}), "
        f"log loss {-told.mean:+.6f} (bound {-told.bound:+.6f})"
    )
    if leaks:
        return decision(False, f"it looks like a leak: {'; '.join(leaks)}; {numbers}", ranked, told)
    if confidence == 0:
        return decision(True, f"no evidence was asked for (QUANT_PROMOTION_CONFIDENCE=0); {numbers}", ranked, told)
    asked = {"log loss": told} if alone else {"rank IC": ranked, "log loss": told}
    lacking = [word for word, gain in asked.items() if not gain.bound > 0]
    gained = f"{'no' if lacking else 'a'} gain in {' and '.join(lacking or asked)} that a confidence of {confidence:g} bears out"
    return decision(not lacking, f"{gained}; {numbers}", ranked, told)


def _gains(both: pl.DataFrame) -> pl.DataFrame:
    """Per session what the challenger gains: `rank_ic` and `log_loss` (nats saved per symbol); ranks that tie tell nothing, 0."""
    ranks = [rank_ic(column).fill_nan(0.0).fill_null(0.0) for column in ("probability", "rival")]
    losses = [log_loss(column).mean() for column in ("probability", "rival")]
    return both.group_by("session").agg(rank_ic=ranks[0] - ranks[1], log_loss=losses[1] - losses[0]).sort("session")


def _bounded(gains: pl.Series, horizon: int, confidence: float) -> Gain:
    # A one-sided bound is an end of the two-sided interval that leaves as much out on the other side.
    nothing = pl.zeros(len(gains), eager=True)
    level = max(2 * confidence - 1, 0.02)
    found = paired_difference(gains, nothing, block_length(len(gains), horizon), RESAMPLES, SEED, horizon=horizon, level=level)
    mean = found.mean if found.mean is not None else 0.0
    return Gain(mean, mean if found.low is None else found.low)
