"""Scores too good to be true, in words: what no honest model reaches is a leak until shown otherwise."""

from __future__ import annotations

import polars as pl

from quant_assets.signals.evaluation.bootstrap import MIN_SESSIONS, block_length, paired_difference

REMEDY = (
    "Check that labels stand at their own session, that folds are cut by session with a purge of at least the horizon, "
    "and that no feature is known only after its session."
)


def leak_report(sessions: pl.DataFrame, horizon: int, *, limit: float = 0.20, resamples: int = 2000, seed: int = 7) -> list[str]:
    """Findings in words about rank ICs that are better than can be, empty where there are none.

    `sessions` is `Evaluation.sessions`: one row per session in order, with `rank_ic` and, on a synthetic market, `oracle_rank_ic`, that of
    the planted truth; null where there is none. With an oracle a finding says that the model's mean exceeds the oracle's by more than 3
    paired block standard errors (a look at the future beats the truth known then; chance does so once in 700); without one, that
    the model's mean rank IC, one-sided 99 % bound included, lies above `limit` (0.05 is good, and
    above 0.20 a backtest is usually faulty: Grinold and Kahn, Active Portfolio Management, 2000). With fewer
    than 20 sessions that have a rank IC nothing can be said, and nothing is.
    """
    with_oracle = "oracle_rank_ic" in sessions.columns and sessions["oracle_rank_ic"].count() > 0
    known = sessions.drop_nulls(["rank_ic", "oracle_rank_ic"] if with_oracle else ["rank_ic"])
    if len(known) < MIN_SESSIONS:
        return []
    ic = known["rank_ic"]
    rival = known["oracle_rank_ic"] if with_oracle else pl.zeros(len(known), eager=True)
    excess = paired_difference(ic, rival, block_length(len(known), horizon), resamples, seed, horizon=horizon, level=0.98)
    mean, low, error = excess.mean, excess.low, excess.standard_error
    if mean is None or low is None or error is None:
        return []
    if with_oracle and mean > 3 * error:
        return [
            f"Leak: the model's mean rank IC {ic.to_numpy().mean():.4f} exceeds that of the planted truth, {rival.to_numpy().mean():.4f}, by {mean:.4f} over "
            f"{len(known)} sessions; the paired standard error is {error:.4f}, and more than 3 of them cannot be luck. {REMEDY}"
        ]
    if not with_oracle and low > limit:
        return [
            f"Implausible: the mean rank IC {mean:.4f} over {len(known)} sessions, with its lower 99 % bound {low:.4f}, lies above "
            f"{limit:.2f}, which no model of returns keeps up honestly. {REMEDY}"
        ]
    return []
