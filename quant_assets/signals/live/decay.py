"""Decay: is the champion's live rank IC below what its walk-forward folds let one expect?

Judged by a band around the folds' mean that allows for both means being estimates: of the live sessions, which are few,
and of the folds themselves. Neighbouring sessions' rank ICs depend on one another (labels overlap, skill comes in spells),
so variances are those of the circular block bootstrap. Its variance of a mean has a closed form, the mean square of all
block means, so nothing is drawn; its quantiles are Student's t, since few folds hold few blocks.

Looks cost: at 99 % a champion of constant skill is called decayed at one or two looks in a hundred, but when looked at every
night of a year, in 3 to 10 years of 100 (simulated: horizons 1, 5 and 20, with and without spells of skill). Therefore it is
judged only after every 20 live sessions, on the last ones up to then, and in between the last judgement stands: 2 to 7 years
of 100. Each costs a retraining, which must still earn a promotion.
A champion that was chosen for its folds does a little worse afterwards, which no band here allows for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from quant_assets.signals.champions import MODEL
from quant_assets.signals.live.scorecard import performance, rank_ic
from quant_assets.warehouse import Warehouse

Array = np.ndarray[Any, np.dtype[np.float64]]

LOOK_EVERY = 20
"""Live sessions from one judgement to the next, and before the first."""
LEAST_FOLDS = 60
"""Sessions of the folds below which there is no band."""
SHORT_WINDOW, LONG_WINDOW = 120, 252
"""Live sessions that are judged at most, for horizon 1 and for longer ones, whose sessions tell less: old success must not hide decay."""


@dataclass(frozen=True)
class Decay:
    """One judgement: the live sessions judged and the last of them, their mean rank IC, the band, the verdict, and it in words.

    `decayed` is false and `low` and `high` are null where it cannot be told; `text` says why.
    """

    live_sessions: int
    live_until: date | None
    live_rank_ic: float | None
    low: float | None
    high: float | None
    decayed: bool
    text: str


def expected_band(fold_ics: Array, live_sessions: int, horizon: int, confidence: float = 0.99) -> tuple[float, float]:
    """Where the mean rank IC of so many live sessions lies if skill stays as it was in the folds.

    `fold_ics` are the rank ICs of successive walk-forward sessions. Each bound is crossed with probability
    `1 - confidence` on its own. Raises `ValueError` for fewer than 60 sessions of folds, no live one, or a confidence not
    between 0.5 and 1. Live sessions are taken to be as noisy as those of the folds: a much smaller universe is noisier.

    Source: Politis and Romano (1992), circular blocks; their length: Carlstein, Annals of Statistics 14 (1986), for an
    AR(1) of the same first autocorrelation.
    """
    from scipy.special import stdtrit

    if len(fold_ics) < LEAST_FOLDS or live_sessions < 1 or not 0.5 < confidence < 1:
        raise ValueError(
            f"{len(fold_ics)} sessions of folds (at least {LEAST_FOLDS}), {live_sessions} live ones (at least 1), confidence {confidence} (0.5 to 1)"
        )
    block = _block(fold_ics)
    variance = sum(_variance_of_mean(fold_ics, sessions, block, horizon) for sessions in (live_sessions, len(fold_ics)))
    width = float(stdtrit(len(fold_ics) / block - 1, confidence)) * math.sqrt(variance)
    mean = float(fold_ics.mean())
    return mean - width, mean + width


def mean_interval(ics: Array, horizon: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """An interval for the mean of successive rank ICs from these alone, two-sided; None under 20 sessions."""
    from scipy.special import stdtrit

    if len(ics) < LOOK_EVERY:
        return None
    block = _block(ics)
    width = float(stdtrit(len(ics) / block - 1, (1 + confidence) / 2)) * math.sqrt(_variance_of_mean(ics, len(ics), block, horizon))
    return float(ics.mean()) - width, float(ics.mean()) + width


def judge_decay(fold_ics: Array, live: pl.DataFrame, horizon: int, confidence: float = 0.99) -> Decay:
    """Judge a champion's live rank IC as of its last look, which is after every 20 live sessions.

    `live` holds `session` and `rank_ic` (null: none, left out) of the champion's live sessions, in any order. Judged are
    the last 120 sessions up to the look, 252 for horizons above 1.
    """
    known = live.drop_nulls("rank_ic").sort("session")
    if known.height < LOOK_EVERY:
        text = f"decay cannot be told: {known.height} live sessions have an outcome, fewer than {LOOK_EVERY}"
        return Decay(known.height, None, None, None, None, False, text)
    judged = known.head(known.height // LOOK_EVERY * LOOK_EVERY).tail(SHORT_WINDOW if horizon == 1 else LONG_WINDOW)
    until: date = judged["session"][-1]
    mean = float(judged["rank_ic"].to_numpy().mean())
    if len(fold_ics) < LEAST_FOLDS:
        text = f"decay cannot be told: the folds hold {len(fold_ics)} sessions with a rank IC, fewer than {LEAST_FOLDS}"
        return Decay(judged.height, until, mean, None, None, False, text)
    low, high = expected_band(fold_ics, judged.height, horizon, confidence)
    where = "below" if mean < low else "above" if mean > high else "within"
    text = (
        f"live rank IC {mean:.4f} over {judged.height} sessions to {until} lies {where} the {low:.4f} to {high:.4f} "
        f"that its {len(fold_ics)} walk-forward sessions (mean {float(fold_ics.mean()):.4f}) let one expect"
    )
    return Decay(judged.height, until, mean, low, high, mean < low, text)


def champion_decay(warehouse: Warehouse, model_version: str, horizon: int, as_of: datetime, scorecard: pl.DataFrame) -> Decay:
    """Judge one version by its own folds in `signals.predictions` and its live rows in the scorecard, as of an instant."""
    live = performance(scorecard.filter(mode="live", scorer="model", model_version=model_version, horizon=horizon))
    return judge_decay(fold_rank_ics(warehouse, model_version, horizon, as_of)["rank_ic"].to_numpy(), live, horizon)


def fold_rank_ics(warehouse: Warehouse, model_version: str, horizon: int, as_of: datetime) -> pl.DataFrame:
    """Rank IC of a version's walk-forward predictions: `session`, `rank_ic` (never null), by session, as of an instant."""
    rows = warehouse.read(
        """
        select prediction.session, prediction.probability, label.forward_return
        from signals.predictions_as_of($as_of) as prediction join feature_store.labels as label using (symbol, session, horizon)
        where prediction.model = $model and prediction.model_version = $version and horizon = $horizon and label.known_at <= $as_of
        """,
        {"as_of": as_of, "model": MODEL, "version": model_version, "horizon": horizon},
    )
    return rows.group_by("session").agg(rank_ic=rank_ic()).drop_nulls().sort("session")


def drift_of_night(warehouse: Warehouse, view: str, session: date, as_of: datetime) -> pl.DataFrame:
    """The night's rows of `feature_store.drift`: `feature`, `session`, `shift`, `p_adjusted`, `severity`."""
    return warehouse.read(
        """
        select feature, session, shift, p_adjusted, severity from feature_store.drift_as_of($as_of)
        where view = $view and session = $session order by feature
        """,
        {"as_of": as_of, "view": view, "session": session},
    )


def retraining_reason(drift_rows: pl.DataFrame, decay: Decay | None) -> str:
    """Why the model should be trained again, in words: critical drift of features, or decay; empty where neither.

    `drift_rows` as `drift_of_night` gives them; `decay` is None where there is no champion.
    """
    critical = drift_rows.filter(severity="critical").sort(pl.col("shift").abs(), "feature", descending=[True, False])
    reasons = []
    if decay is not None and decay.decayed:
        reasons.append(decay.text)
    if critical.height:
        named = ", ".join(f"{name} ({shift:+.1f})" for name, shift in critical.select("feature", "shift").head(5).iter_rows())
        more = f" and {critical.height - 5} more" if critical.height > 5 else ""
        session: date = critical["session"][0]
        reasons.append(
            f"{critical.height} of {drift_rows.height} features have drifted critically as of {session}, "
            f"in standard deviations: {named}{more}"
        )
    return "; ".join(reasons)


def _block(ics: Array) -> int:
    """Sessions per block, at most half of them."""
    deviations = ics - ics.mean()
    square = float(deviations @ deviations)
    correlation = min(max(float(deviations[1:] @ deviations[:-1]) / square, 0.0), 0.98) if square > 0 else 0.0
    stretched = max(1.0, (2 * correlation / (1 - correlation**2)) ** (2 / 3))
    return int(min(math.ceil(len(ics) ** (1 / 3) * stretched), len(ics) // 2))


def _variance_of_mean(ics: Array, sessions: int, block: int, horizon: int) -> float:
    """Variance of the mean of so many sessions, strung together from blocks."""
    n, block = len(ics), min(block, sessions)
    total = np.concatenate([[0.0], np.cumsum(np.concatenate([ics, ics[:block]]) - ics.mean())])
    of_blocks = float(np.mean(((total[block : block + n] - total[:n]) / block) ** 2)) / (1 - block / n)
    variance = of_blocks * block / sessions
    if sessions > block >= horizon:
        # What labels that overlap share across the joints of blocks is lost: known, for their overlap is.
        shared = (horizon**2 - 1) / 3
        variance *= (horizon - shared / sessions) / (horizon - shared / block)
    return variance
