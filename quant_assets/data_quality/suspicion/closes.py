"""Learned scores as findings: what is stored of them, how severe it is, and when it became known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_assets.data_quality.findings import BELOW_CRITICAL, INFO_RATE, WARNING_RATE, findings
from quant_assets.data_quality.rules.coverage import one_per_session
from quant_assets.data_quality.suspicion.panel_features import MIN_CROSS_SECTION, PanelFeatures
from quant_assets.data_quality.suspicion.scores import SIGHT, Variant, suspicions

SHARES: dict[Variant, float] = {"same_session": 0.1, "next_session": 0.7, "later_sessions": 0.5}
"""Of the clean bars that may be called critical, those that each detector may call so: together, for they overlap, about
nine in ten (measured on 150,000 bars that another vendor confirms), which leaves one to the rules."""

STILL_SESSIONS, STILL = 60, 0.05
"""Earlier bars of a symbol, and the share of them without a move within the session from which on it trades thinly."""


def suspicious_closes(
    panel: pl.DataFrame, features: PanelFeatures, sessions: Sequence[date] | None = None
) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """What the learned scores say, by each detector: all that is rarer than one clean bar in a hundred, and a session's highest 1 %.

    With `sessions`, each detector speaks of these and of the earlier ones in whose sight they are. Also returns the scores of
    the sessions themselves, whose `note` tells what could not be judged.
    """
    days, regular = features.sessions, one_per_session(panel).with_columns(thin=trades_thinly())
    first, last = (0, len(days)) if sessions is None else (int((days < sessions[0]).sum()), int((days <= sessions[-1]).sum()))
    # A session is judged once all that a detector looks at is there.
    wanted = {detector: days[max(0, first - sight) : min(last, max(0, len(days) - sight))].to_list() for detector, sight in SIGHT.items()}
    told, suspected = [], suspicions(features, wanted)
    for detector, scores in suspected.items():
        share = SHARES[detector]
        scored = scores.with_columns(score=(1 - (1 - pl.col("score")) / share).clip(0.0, 1.0))
        # So few symbols tell nothing of the market: what it did and took back is then each symbol's own, and no error.
        alone = pl.len().over("session") < MIN_CROSS_SECTION
        scored = scored.with_columns(score=pl.when(alone).then(pl.min_horizontal("score", pl.lit(1 - 2 * WARNING_RATE))).otherwise("score"))
        scored = scored.join(regular.select("symbol", "session", "thin"), on=["symbol", "session"], how="left", maintain_order="left")
        scored = scored.with_columns(score=pl.when("thin").then(pl.min_horizontal("score", pl.lit(BELOW_CRITICAL))).otherwise("score"))
        highest = pl.col("log_odds").rank("ordinal", descending=True).over("session") <= (pl.len().over("session") * INFO_RATE).ceil()
        kept = scored.filter(pl.col("error_size").is_not_null(), (pl.col("score") >= 1 - INFO_RATE) | highest)
        offenders = kept.join(regular.select("symbol", "session", "known_at", "close"), on=["symbol", "session"])
        offenders = _in_sight(offenders, regular, SIGHT[detector])
        told.append(findings(offenders, "suspicious_close", _IN_WORDS, score=pl.col("score"), known_at="found_at", detector=detector))
    return told, suspected["same_session"]


def trades_thinly() -> pl.Expr:
    """Whether a symbol often opens where it closes, or trades at one price all session, as far as its earlier bars say.

    Its prices step from bid to ask and back, which looks like wrong closes taken back: of 6,000 US shares the fifth that
    trades like this made nine in ten of the critical scores.
    """
    still = ((pl.col("open") == pl.col("close")) | (pl.col("high") == pl.col("low"))).cast(pl.Float64)
    return (still.rolling_mean(STILL_SESSIONS, min_samples=1).shift(1).over("symbol") > STILL).fill_null(value=False)


_WHY = {
    "close_only": "its neighbours do not go with it",
    "whole_bar": "the whole bar looks like another session's",
    "copied_bar": "the bar repeats another session's",
}
_IN_WORDS = pl.format(
    "close {} may be off by {} %: {}{}",
    "close",
    (100 * pl.col("error_size")).round(1),
    pl.col("reason").replace_strict(_WHY, return_dtype=pl.String),
    pl.format(" ({})", "note").fill_null(""),
)


def _in_sight(offenders: pl.DataFrame, bars: pl.DataFrame, sight: int) -> pl.DataFrame:
    """Those whose sessions in sight have begun, by a bar of their own then or later; `found_at` is when that became known.

    A later session is known once its first bars are: those that came late or were corrected are of later nights.
    """
    own = bars.select(
        "symbol", "session", found_at=pl.max_horizontal(pl.col("known_at").shift(-n).over("symbol") for n in range(sight + 1))
    )
    opened = bars.group_by("session").agg(opened=pl.col("known_at").min()).sort("session")
    furthest = opened.select(session=pl.col("session").shift(sight), opened="opened").drop_nulls()
    joined = offenders.join(own, on=["symbol", "session"], how="left").join(furthest, on="session", how="left")
    return joined.filter(pl.col("found_at") >= pl.col("opened"))
