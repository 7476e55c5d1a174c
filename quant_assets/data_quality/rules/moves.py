"""Moves of the close that nothing explains: rare enough to be shown, critical only where they are extreme.

All three see a move as `panel_features` does: the market's part taken out, in units of the symbol's own scale and of how far
the session's cross-section scattered. Volume is a cause: a move counts less, the more unusual its volume was. They say in
words why a bar looks wrong; `suspicion` ranks closes far better and weighs what these rules only cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from quant_assets.data_quality.findings import BELOW_CRITICAL, findings
from quant_assets.data_quality.rules.coverage import one_per_session
from quant_assets.data_quality.suspicion.panel_features import Matrix, PanelFeatures, panel_features, shifted

RATES = (1e-3, 1e-4, 1e-5, 1e-6)
"""Shares of clean bars at which a rule holds the thresholds of its statistic."""
RULES_THAT_SHARE = 10
"""So many statistical rules share the rate that a severity stands for: each counts its own rate so many times."""

# Statistics that the shares `RATES` of clean bars exceed.
JUMP = (3.1, 4.6, 10.0, 20.0)
SPIKE = (1.5, 2.2, 4.0, 6.0)
OPEN = (1.2, 1.8, 3.3, 5.0)
RECENT = 40
"""Sessions over which a symbol's recent trading is looked at."""
WILDEST, USUAL_MEAN = 20.0, 1.1
IDLE = 0.05
"""Share of recent bars with volume 0 from which on a symbol is not judged: its moves are those of many sessions."""
TICK = 0.01
"""A price moves by so much at least: what is a large move of a warrant at 0.12 is one tick."""
HISTORY = 60
"""Earlier bars that a symbol must have: with fewer, its scale is not its own yet."""


def tail_score(statistic: Matrix, thresholds: Sequence[float]) -> Matrix:
    """Score of a statistic that a share `RATES[i]` of clean bars exceeds at `thresholds[i]`; logarithmic between them.

    It is 0.99 at the first threshold, which is where a finding begins, 0.9999 (critical) at the third, and rises no
    further beyond the last.
    """
    rate: Matrix = np.exp(np.interp(statistic, thresholds, np.log(RATES)))
    return 1.0 - RULES_THAT_SHARE * rate


def adjusted_features(bars: pl.DataFrame) -> PanelFeatures:
    """The features of the adjusted prices and volumes of a panel; bars on closed days are left out, of duplicates all but the last."""
    adjusted = bars.filter(pl.col("ordinal").is_not_null()).select(
        "symbol", "session", *(pl.col(f"adj_{name}").alias(name) for name in ("open", "high", "low", "close", "volume"))
    )
    return panel_features(adjusted)


def jump_without_cause(bars: pl.DataFrame, features: PanelFeatures) -> pl.DataFrame:
    """Closes far from the one before, with no action on that session and no volume that would go with news.

    At most a warning: a spin-off that nobody told looks the same. What returns to the close before last is the end of a
    spike, and no jump. A bar without volume is not judged.
    """
    day, scale = _day(features)
    unexplained = np.minimum(np.abs(day), np.abs(day + shifted(day, 1))) / scale / _cause(features.volume) / _wild(day / scale)
    action = (pl.col("price_factor") != pl.col("price_factor").shift(1)).fill_null(value=False)
    found = _offenders(bars.with_columns(action=action), features, unexplained, JUMP, move=day, unusual_volume=features.volume)
    detail = pl.format(
        "moved {} % beyond the market without a corporate action, on a volume {} sigmas from its usual one",
        _percent("move"),
        pl.col("unusual_volume").round(1),
    )
    score = pl.min_horizontal("score", pl.lit(BELOW_CRITICAL))
    return findings(found.filter(~pl.col("action")), "jump_without_cause", detail, score=score, known_at="known_so_far")


def spike_and_revert(bars: pl.DataFrame, features: PanelFeatures) -> pl.DataFrame:
    """Closes whose move the next session takes back; without its volume (null), a move counts as one on usual volume."""
    day, scale = _day(features)
    back = shifted(day, -1)
    reverted = _taken_back(day, back, np.maximum(scale, shifted(scale, -1))) / _cause(np.nan_to_num(features.volume)) / _wild(day / scale)
    found = _offenders(bars, features, reverted, SPIKE, move=day, back=back)
    detail = pl.format("moved {} % beyond the market, and {} % the next session", _percent("move"), _percent("back"))
    return findings(found, "spike_and_revert", detail, score=pl.col("score"), known_at="known_next", detector="rules_next_session")


def close_off_next_open(bars: pl.DataFrame, features: PanelFeatures) -> pl.DataFrame:
    """Closes that the next open does not go on from: it takes the session's own move back, by more than the usual gap.

    A gap that goes on, or that nothing before it answers to, is news; only one that undoes the move within the session says
    that the close was off.
    """
    gap, gap_scale = shifted(features.gap, -1), shifted(features.gap_scale, -1)
    scale = np.hypot(np.maximum(features.move_scale, gap_scale), TICK / features.raw["close"])
    off = _taken_back(features.move, gap, scale) / _cause(np.nan_to_num(features.volume))
    off /= _wild(features.gap / features.gap_scale)
    found = _offenders(bars, features, off, OPEN, move=features.move, gap=gap, usual=gap_scale)
    detail = pl.format(
        "close {} % from its open, next open {} % from it; its usual gap is {} %", _percent("move"), _percent("gap"), _percent("usual")
    )
    return findings(found, "close_off_next_open", detail, score=pl.col("score"), known_at="known_next", detector="rules_next_session")


def _day(features: PanelFeatures) -> tuple[Matrix, Matrix]:
    return features.gap + features.move, np.hypot(np.hypot(features.gap_scale, features.move_scale), TICK / features.raw["close"])


def _cause(volume: Matrix) -> Matrix:
    return 1.0 + np.maximum(volume, 0.0)


def _wild(statistic: Matrix) -> Matrix:
    """How far beyond a normal one the mean of a symbol's recent values lies, at least one.

    The scale is a median: of a symbol that stands still most sessions it is next to nothing, and every move is far beyond it.
    """
    return np.fmax(_recent_mean(np.minimum(np.abs(statistic), WILDEST)) / USUAL_MEAN, 1.0)


def _recent_mean(values: Matrix) -> Matrix:
    means = pl.DataFrame(values).select(pl.all().fill_nan(None).rolling_mean(RECENT, min_samples=RECENT // 2).shift(1))
    return means.to_numpy().astype(np.float64)


def _taken_back(move: Matrix, back: Matrix, scale: Matrix) -> Matrix:
    """By how many scales the part that came back outweighs the part that did not; negative where nothing came back."""
    came_back = np.minimum(np.abs(move), np.abs(back)) - np.abs(move + back)
    return np.where(move * back < 0, came_back, -1.0) / scale


def _offenders(bars: pl.DataFrame, features: PanelFeatures, statistic: Matrix, thresholds: Sequence[float], **told: Matrix) -> pl.DataFrame:
    """The bars whose statistic is at its first threshold or beyond, with `score`, what is told of them, and when neighbours were known."""
    rows, columns = np.nonzero((statistic >= thresholds[0]) & (features.history >= HISTORY))
    at = (rows, columns)
    far = pl.DataFrame(
        {
            "symbol": features.symbols.gather(columns),
            "session": features.sessions.gather(rows),
            "score": tail_score(statistic[at], thresholds),
            **{name: values[at] for name, values in told.items()},
        }
    )
    # All of them have `HISTORY` bars before them: what looks back no further needs no bounds between symbols.
    idle = (pl.col("volume") == 0).cast(pl.Float64).rolling_mean(RECENT, min_samples=1).shift(1)
    known, last = pl.col("known_at"), pl.col("known_at").shift(1)
    following = pl.when(pl.col("symbol") == pl.col("symbol").shift(-1)).then(known.shift(-1))
    return (
        one_per_session(bars)
        .with_columns(idle=idle, known_so_far=pl.max_horizontal(known, last), known_next=pl.max_horizontal(known, last, following))
        .join(far, on=["symbol", "session"], how="inner", maintain_order="left")
        .filter((pl.col("idle") <= IDLE) | pl.col("idle").is_null())
    )


def _percent(name: str) -> pl.Expr:
    return (100 * pl.col(name)).round(2)
