"""How suspicious each close is, from 0 to 1, by what may be looked at: the learned part of the sentinel.

`same_session` looks at nothing after the bar's own session, `next_session` at most at the one after it, `later_sessions`
at up to ten. What is known grows from one to the next, and with it what can be found: a wrong close mostly shows only
when the next open does not go on from it.

Three findings are put together as probabilities: the close alone is wrong, the whole bar is another session's (both from
`close_evidence`, the first joined by the Isolation Forest), the bar repeats another bar of its symbol (`copied_bars`).
The share of wrong bars in a delivery is itself unknown and estimated per session: where many bars show the same
fault, each of them is believed sooner. The suspicion is the chance of an error weighed by its size: a close that is
surely wrong by 5 % comes before one that is surely wrong by 0.6 %.

The weights are constants, chosen on 29 symbols of one panel and on planted errors; nothing is fitted while scoring, so that
a score does not change when later sessions come in. They say nothing about price levels that are wrong for weeks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Literal, get_args

import numpy as np
import polars as pl

from quant_assets.data_quality.suspicion.calibration import Calibration
from quant_assets.data_quality.suspicion.close_evidence import Evidence, close_evidence
from quant_assets.data_quality.suspicion.copied_bars import MAX_LAG, copy_probability, twin_probability
from quant_assets.data_quality.suspicion.isolation import USUAL, unusualness
from quant_assets.data_quality.suspicion.panel_features import (
    FLAT,
    MIN_CROSS_SECTION,
    MIN_HISTORY,
    Matrix,
    PanelFeatures,
    panel_features,
    shifted,
)

Variant = Literal["same_session", "next_session", "later_sessions"]
SIGHT: dict[Variant, int] = {"same_session": 0, "next_session": 1, "later_sessions": MAX_LAG}
"""Sessions after its own that each variant looks at, at most."""

REASONS = ("close_only", "whole_bar", "copied_bar")
SCHEMA = {
    "symbol": pl.String,
    "session": pl.Date,
    "score": pl.Float64,
    "log_odds": pl.Float64,
    "error_size": pl.Float64,
    "reason": pl.String,
    "note": pl.String,
}
CALIBRATIONS: dict[Variant, Calibration] = {
    "same_session": Calibration((-13.39, -7.91, -7.13, -6.61, -6.12, -5.45, -4.96, -4.45, -3.74, -3.23, -2.68, -2.01, -1.52)),
    "next_session": Calibration((-27.63, -10.22, -8.74, -7.8, -6.91, -5.78, -5.04, -4.37, -3.53, -2.95, -2.51, -1.95, -1.49)),
    "later_sessions": Calibration((-27.63, -10.25, -8.77, -7.83, -6.93, -5.81, -5.07, -4.4, -3.57, -2.94, -2.54, -1.96, -1.37)),
}
"""Of 117,000 bars of the S&P panel that another vendor confirms to 0.2 %; for another market, fit one and pass it."""

# Prior shares of wrong closes. A session's share of foreign bars is the least one but for one session in fifty, which may
# have any of the others.
_CLOSE_ONLY_SHARE = 3e-3
_FOREIGN_SHARES = np.array([2e-4, 1e-3, 3e-3, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5])
_FAULTY_SESSIONS = 0.02
_DELIVERY = 2 * MIN_CROSS_SECTION  # bars of a session from which on they speak for a delivery
_TEMPER = 0.8  # the evidence's parts are not quite independent: its logarithms count this much
_NO_TWIN: dict[Variant, float] = {"same_session": 1.0, "next_session": 1.0, "later_sessions": 0.5}  # of a foreign bar, by sight
_FOREST_WEIGHT = 4.0
_WORTH_THE_FOREST = -6.5  # log odds below which no forest makes a bar one of the highest hundredth
_OUT_OF_RANGE = 6.0  # log odds for a close outside its own bar's high and low
_BY_SIZE = (0.3, 0.2, 0.5)  # what the chances of an error over 0.5 %, 1 % and 3 % count
_WORTH_A_SECOND_LOOK = 2e-3
_UNKNOWN = -30.0


def suspicion(
    bars: pl.DataFrame,
    variant: Variant = "next_session",
    sessions: Collection[date] | None = None,
    calibration: Calibration | None = None,
) -> pl.DataFrame:
    """Score the closes of a panel of bars, or of the given sessions of it, by what the variant may look at.

    Takes `symbol`, `session`, `open`, `high`, `low`, `close`, `volume` in any order. Returns one row per symbol and session
    with a bar, sorted by session and symbol: `score` (share of clean bars that are less suspicious), `log_odds` (before
    calibration), `error_size` (expected relative error of the close if it is wrong; null if not judged), `reason`
    (`close_only`, `whole_bar` or `copied_bar`, whichever is likeliest) and `note`.

    No score is null or NaN: what could not be judged has score 0, and `note` says why; a `note` beside a score says
    what was missing. To score new sessions alone, pass a window of the `LOOKBACK` sessions before them. Sessions are
    those that any symbol of the panel traded: pass each exchange's bars by themselves.

    Raises `ValueError` for a variant that does not exist.
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant {variant!r} is none of {', '.join(get_args(Variant))}.")
    return suspicions(panel_features(bars), {variant: sessions}, {} if calibration is None else {variant: calibration})[variant]


def suspicions(
    features: PanelFeatures,
    sessions: Mapping[Variant, Collection[date] | None],
    calibrations: Mapping[Variant, Calibration] | None = None,
) -> dict[Variant, pl.DataFrame]:
    """What `suspicion` says by several variants, each of its own sessions (None: all): what they share is weighed once."""
    scales = {**CALIBRATIONS, **(calibrations or {})}
    days = features.sessions
    wanted = {variant: days if asked is None else days.filter(days.is_in(list(asked))) for variant, asked in sessions.items()}
    out = {variant: pl.DataFrame(schema=SCHEMA) for variant in wanted}
    if not (some := {variant: chosen for variant, chosen in wanted.items() if len(chosen)}):
        return out
    # Evidence about a bar reaches back to its earlier twins, the bars before these and the sessions those lie in.
    start = max(0, min(int((days < chosen[0]).sum()) for chosen in some.values()) - MAX_LAG - 2)
    end = min(len(days), max(int((days <= chosen[-1]).sum()) + SIGHT[variant] for variant, chosen in some.items()))
    near = _rows(features, start, end)
    shared = _shared(near)
    for variant, chosen in some.items():
        out[variant] = _result(near, _judged(near, shared, variant), variant, scales[variant], chosen)
    return out


@dataclass(frozen=True)
class _Shared:
    """What every variant needs: each bar's evidence once its next session is known, the suspicion of the bar before it, and twins."""

    settled: Evidence
    suspect: Matrix
    before: Matrix
    twins: dict[int, Matrix]


def _shared(features: PanelFeatures) -> _Shared:
    settled = close_evidence(features, next_known=True)
    alone = _TEMPER * np.nan_to_num(settled.close_only, nan=-5.0)
    suspect = _either(_in_faulty_session(_foreign(settled)), _sigmoid(alone + _logit(_CLOSE_ONLY_SHARE)))
    before = np.vstack([np.zeros((1, suspect.shape[1])), suspect[:-1]])
    twins = {lag: twin_probability(features, lag) for lag in range(1, MAX_LAG + 1)}
    return _Shared(_updated(settled, features, before, np.zeros_like(before)), suspect, before, twins)


def _judged(features: PanelFeatures, shared: _Shared, variant: Variant) -> tuple[Matrix, Matrix, Matrix]:
    """Log odds, expected error size and the index of the likeliest reason of each bar."""
    sight = SIGHT[variant]
    settled, before, twins = shared.settled, shared.before, shared.twins
    if sight == 0:
        evidence = blind = close_evidence(features, next_known=False, suspect_before=before)
    else:
        # Whether the bar after it is wrong is told by the session after that one, which only the last variant may see.
        after = np.vstack([shared.suspect[1:], np.zeros((1, before.shape[1]))]) if sight > 1 else np.zeros_like(before)
        evidence = _updated(settled, features, before, after) if sight > 1 else settled
        furthest = np.zeros(before.shape, bool)
        furthest[sight:] = twins[sight][:-sight] > 0
        blind = close_evidence(features, next_known=False, suspect_before=before, where=furthest)
    own = _foreign(evidence)

    copied = copy_probability(features, twins, own, _foreign(settled), _foreign(blind), sight)
    own = own + np.where(np.isfinite(evidence.whole_bar) & (copied == 0), np.log(_NO_TWIN[variant]), 0.0)
    # A twin speaks for the session as a whole by how sure it is, whatever its neighbours say.
    known = np.where(copied > 0, np.clip(_logit(copied) + 5.0, -10.0, 7.0), own)
    whole_bar = np.maximum(_in_faulty_session(known, own), copied)

    raw = features.raw
    log_odds = _TEMPER * np.nan_to_num(evidence.close_only, nan=-5.0) + _logit(_CLOSE_ONLY_SHARE)
    log_odds += _OUT_OF_RANGE * ((raw["close"] > raw["high"]) | (raw["close"] < raw["low"]))
    log_odds += _FOREST_WEIGHT * (unusualness(features, next_known=sight > 0, where=log_odds > _WORTH_THE_FOREST) - USUAL)
    close_only = _sigmoid(log_odds)

    total = np.zeros_like(own)
    sizes = zip(_BY_SIZE, evidence.close_only_larger, evidence.whole_bar_larger, strict=True)
    for weight, close_only_larger, whole_bar_larger in sizes:
        total += weight * _either(close_only * np.nan_to_num(close_only_larger), whole_bar * np.nan_to_num(whole_bar_larger))
    known_scale = (features.history >= MIN_HISTORY) | (np.isfinite(features.gap).sum(1, keepdims=True) >= MIN_CROSS_SECTION)
    judged = np.isfinite(evidence.close_only) & known_scale
    reason = np.where(copied > np.maximum(close_only, 0.5 * whole_bar), 2.0, np.where(whole_bar > close_only, 1.0, 0.0))
    return np.where(judged, _logit(total), _UNKNOWN), evidence.size, reason


def _foreign(evidence: Evidence) -> Matrix:
    """What speaks for each bar being another session's; nothing either way for one that is missing or cannot be judged."""
    weighed: Matrix = _TEMPER * np.nan_to_num(evidence.whole_bar, nan=0.0)
    return weighed


def _in_faulty_session(evidence: Matrix, own: Matrix | None = None) -> Matrix:
    """Probability that a bar is foreign, over what all bars of its session say about the share of foreign bars in it.

    `own`, if given, is what each bar says about itself; what it says about the session is `evidence` all the same.
    """
    own = evidence if own is None else own
    weights = np.full(len(_FOREIGN_SHARES), _FAULTY_SESSIONS / (len(_FOREIGN_SHARES) - 1))
    weights[0] = 1 - _FAULTY_SESSIONS
    factors = np.expm1(np.clip(evidence, -30.0, 30.0))
    likelihood = np.stack([np.log1p(share * factors).sum(1) for share in _FOREIGN_SHARES]) + np.log(weights)[:, None]
    # A few symbols that move together are their market's day, which they are too few to take out, and no faulty delivery.
    likelihood[1:, np.count_nonzero(evidence, axis=1) < _DELIVERY] = -np.inf
    posterior = np.exp(likelihood - likelihood.max(0))
    posterior /= posterior.sum(0)
    parts = [posterior[k][:, None] * _sigmoid(own + _logit(share)) for k, share in enumerate(_FOREIGN_SHARES)]
    probability: Matrix = np.sum(parts, axis=0)
    return probability


def _updated(evidence: Evidence, features: PanelFeatures, before: Matrix, after: Matrix) -> Evidence:
    """The evidence with the next session known, weighed anew where a neighbour is suspect itself."""
    where = (before > _WORTH_A_SECOND_LOOK) | (after > _WORTH_A_SECOND_LOOK)
    new = close_evidence(features, next_known=True, suspect_before=before, suspect_after=after, where=where)
    return Evidence(
        close_only=np.where(where, new.close_only, evidence.close_only),
        whole_bar=np.where(where, new.whole_bar, evidence.whole_bar),
        close_only_larger=[np.where(where, a, b) for a, b in zip(new.close_only_larger, evidence.close_only_larger, strict=True)],
        whole_bar_larger=[np.where(where, a, b) for a, b in zip(new.whole_bar_larger, evidence.whole_bar_larger, strict=True)],
        size=np.where(where, new.size, evidence.size),
    )


def _result(
    features: PanelFeatures, judged: tuple[Matrix, Matrix, Matrix], variant: Variant, scale: Calibration, sessions: pl.Series
) -> pl.DataFrame:
    """The bars of some sessions as the public frame."""
    log_odds, size, reason = judged
    raw = features.raw
    next_gap = shifted(features.gap, -1)
    at = np.nonzero(features.present & features.sessions.is_in(sessions.implode()).to_numpy()[:, None])
    scored = log_odds[at] > _UNKNOWN
    notes = [
        (~np.isfinite(raw["open"] * raw["close"]), "not judged: open or close is missing or not positive"),
        (np.isfinite(raw["open"] * raw["close"]) & ~np.isfinite(features.gap), "not judged: no close before it"),
        (np.isfinite(features.gap) & (log_odds == _UNKNOWN), "not judged: too few earlier bars and too few symbols"),
        (~np.isfinite(raw["volume"]), "volume is not known"),
        ((features.gap_scale < FLAT) & (features.move_scale < FLAT), "its price hardly moves"),
    ]
    if variant != "same_session":
        notes.append((~np.isfinite(next_gap), "next session not known: judged by its own session alone"))
    reasons = pl.when("scored").then(pl.col("reason").replace_strict(dict(enumerate(REASONS)), return_dtype=pl.String))
    texts = (pl.when(f"note_{n}").then(pl.lit(text)) for n, (_, text) in enumerate(notes))
    return (
        pl.DataFrame(
            {
                "symbol": features.symbols.gather(at[1]),
                "session": features.sessions.gather(at[0]),
                "score": np.where(scored, scale.score(log_odds[at]), 0.0),
                "log_odds": log_odds[at],
                "error_size": np.expm1(size[at]),
                "reason": reason[at],
                "scored": scored,
                **{f"note_{n}": where[at] for n, (where, _) in enumerate(notes)},
            }
        )
        .with_columns(
            error_size=pl.when("scored").then("error_size"),
            reason=reasons,
            note=pl.concat_str(texts, separator="; ", ignore_nulls=True).replace("", None),
        )
        .select(*SCHEMA)
        .cast(SCHEMA)  # type: ignore[arg-type]
    )


def _rows(features: PanelFeatures, start: int, end: int) -> PanelFeatures:
    return replace(
        features,
        sessions=features.sessions[start:end],
        raw={name: matrix[start:end] for name, matrix in features.raw.items()},
        **{
            field.name: getattr(features, field.name)[start:end]
            for field in fields(features)
            if field.name not in ("sessions", "symbols", "raw")
        },
    )


def _either(one: Matrix, other: Matrix) -> Matrix:
    return 1 - (1 - one) * (1 - other)


def _sigmoid(log_odds: Matrix) -> Matrix:
    probability: Matrix = 1 / (1 + np.exp(-np.clip(log_odds, -500.0, 500.0)))
    return probability


def _logit(probability: Matrix | float) -> Matrix:
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    odds: Matrix = np.log(inside / (1 - inside))
    return odds
