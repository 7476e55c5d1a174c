"""Out-of-sample scores of walk-forward predictions, each beside its baselines and a shuffled-label control.

No score stands alone here: accuracy stands beside the majority class of the training labels, log loss beside the
training's base rate, AUC and rank IC beside a model that was trained on shuffled labels. Such a model knows nothing, but it
is still some function of the features: where these move returns, its rank IC strays from zero by more than chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

PREDICTION_COLUMNS = ("symbol", "session", "fold", "probability", "control_probability", "train_up_share", "forward_return", "up")


@dataclass(frozen=True)
class Evaluation:
    """`folds` has one row per fold, `sessions` one per session, `summary` the same scores over all of them.

    `calibration` has one row per tenth of the rows, by probability: what was claimed beside how often it was up.

    A score that cannot be computed (one class only, one symbol, constant predictions) is null, never zero.
    """

    folds: pl.DataFrame
    sessions: pl.DataFrame
    calibration: pl.DataFrame
    summary: dict[str, float | None]


def evaluate(predictions: pl.DataFrame, horizon: int) -> Evaluation:
    """Score walk-forward predictions, per fold and over all folds.

    `predictions` holds out-of-sample rows with `PREDICTION_COLUMNS`: `probability` that `up` is true, the same from the
    shuffled-label control, and the share of ups in the fold's training labels. `horizon` is the label's, in sessions.

    Scores: `auc`, `log_loss`, `brier`, `accuracy` (up is called at a probability of 0.5 or more), `majority_accuracy`,
    `base_rate_log_loss`, `rank_ic` (mean over sessions of the Spearman correlation between probability and forward
    return), `rank_ic_t`, `rank_ic_sessions` (those that have one), `control_auc`, `control_rank_ic`,
    `control_rank_ic_t`, `rows`, `sessions`. `Evaluation.sessions` holds `fold`, `session`, `rank_ic`, `control_rank_ic`.
    """
    sessions = predictions.group_by("fold", "session").agg(
        _spearman("probability").alias("rank_ic"), _spearman("control_probability").alias("control_rank_ic")
    ).sort("session")  # fmt: skip
    parts = [
        {"fold": fold, **_scores(part, sessions.filter(pl.col("fold") == fold), horizon)}
        for (fold,), part in predictions.sort("fold").group_by("fold", maintain_order=True)
    ]
    summary = _scores(predictions, sessions, horizon)
    schema = {"fold": pl.Int32, **dict.fromkeys(summary, pl.Float64)}
    return Evaluation(pl.DataFrame(parts, schema=schema), sessions, calibration(predictions), summary)


def calibration(predictions: pl.DataFrame, bins: int = 10) -> pl.DataFrame:
    """Reliability by equal-count bins of `probability`: `bin`, `rows`, `probability` (mean claimed), `up_share` (observed)."""
    rank = pl.col("probability").rank("ordinal") - 1
    return (
        predictions.group_by((rank * bins // pl.len()).cast(pl.Int32).alias("bin"))
        .agg(rows=pl.len(), probability=pl.col("probability").mean(), up_share=pl.col("up").mean())
        .sort("bin")
    )


def newey_west_t(values: np.ndarray[tuple[int], np.dtype[np.float64]], lags: int) -> float | None:
    """t-value of a mean whose terms are correlated over up to `lags` steps; null below three values or without variance.

    With no lags this is the plain t-value. Source: Newey and West, Econometrica 55 (1987), Bartlett weights.
    """
    n = len(values)
    if n < 3:
        return None
    deviations = values - values.mean()
    lags = min(lags, n - 1)
    weighted = sum((1 - lag / (lags + 1)) * float(deviations[lag:] @ deviations[:-lag]) for lag in range(1, lags + 1))
    variance = (float(deviations @ deviations) + 2 * weighted) / (n - 1)
    return float(values.mean() / np.sqrt(variance / n)) if variance > 1e-18 else None


def auc(probability: pl.Series, up: pl.Series) -> float | None:
    """Area under the ROC curve by ranks, ties counting half; null where only one class is there.

    Source: Hanley and McNeil, Radiology 143 (1982): the Mann-Whitney statistic over the number of pairs.
    """
    ups, downs = int(up.sum()), len(up) - int(up.sum())
    if ups == 0 or downs == 0:
        return None
    rank_sum = float(probability.rank("average").filter(up).sum())
    return (rank_sum - ups * (ups + 1) / 2) / (ups * downs)


def _spearman(column: str) -> pl.Expr:
    # A constant side has no ranks to correlate: Polars answers NaN, we say null.
    return pl.corr(pl.col(column).rank(), pl.col("forward_return").rank()).fill_nan(None)


def _scores(rows: pl.DataFrame, sessions: pl.DataFrame, horizon: int) -> dict[str, float | None]:
    up = pl.col("up").cast(pl.Float64)
    called = (pl.col("probability") >= 0.5) == pl.col("up")
    majority = (pl.col("train_up_share") >= 0.5) == pl.col("up")
    means = rows.select(
        log_loss=_log_loss(pl.col("probability"), up),
        brier=((pl.col("probability") - up) ** 2).mean(),
        accuracy=called.mean(),
        majority_accuracy=majority.mean(),
        base_rate_log_loss=_log_loss(pl.col("train_up_share"), up),
    ).row(0, named=True)
    # Labels of neighbouring sessions share horizon - 1 sessions; Bartlett weights fall with the lag, so that twice as
    # many lags are taken to give those full enough weight.
    lags = 2 * (horizon - 1)
    ics = {name: sessions[name].drop_nulls().to_numpy() for name in ("rank_ic", "control_rank_ic")}
    return {
        "auc": auc(rows["probability"], rows["up"]),
        **means,
        "rank_ic": float(ics["rank_ic"].mean()) if len(ics["rank_ic"]) else None,
        "rank_ic_t": newey_west_t(ics["rank_ic"], lags),
        "rank_ic_sessions": float(len(ics["rank_ic"])),
        "control_auc": auc(rows["control_probability"], rows["up"]),
        "control_rank_ic": float(ics["control_rank_ic"].mean()) if len(ics["control_rank_ic"]) else None,
        "control_rank_ic_t": newey_west_t(ics["control_rank_ic"], lags),
        "rows": float(len(rows)),
        "sessions": float(len(sessions)),
    }


def _log_loss(probability: pl.Expr, up: pl.Expr) -> pl.Expr:
    clipped = probability.clip(1e-15, 1 - 1e-15)
    return -(up * clipped.log() + (1 - up) * (1 - clipped).log()).mean()
