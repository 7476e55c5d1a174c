"""Out-of-sample scores of walk-forward predictions: each with its interval, in every group, beside its rivals.

No score stands alone here: accuracy stands beside the majority class of the training labels, log loss beside the training's base rate,
AUC and rank IC beside a model that was trained on shuffled labels. Such a model knows nothing, but it is still some function of the
features: where these move returns, its rank IC strays from zero by more than chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_assets.signals.evaluation import grouping
from quant_assets.signals.evaluation.bootstrap import Floats
from quant_assets.signals.evaluation.classification import calibration, log_losses
from quant_assets.signals.evaluation.grouping import GROUPS, Panel, Score
from quant_assets.signals.evaluation.rivals import METRICS, PREDICTORS

PREDICTION_COLUMNS = ("symbol", "session", "fold", "probability", "control_probability", "train_up_share", "forward_return", "up")
SCORES = {
    "group": pl.String, "member": pl.String, "predictor": pl.String, "metric": pl.String,
    "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "rows": pl.Int64, "sessions": pl.Int64,
}  # fmt: skip

# The summary holds every metric of the model, these with their intervals, and these of its rivals.
_WITH_INTERVAL = ("auc", "log_loss", "log_loss_gain", "brier", "accuracy", "accuracy_gain", "ece", "rank_ic", "icir", "spread_net")
_OF_RIVALS = {
    "uncalibrated": ("log_loss", "ece"),
    "heuristic": ("auc", "log_loss", "accuracy", "rank_ic", "rank_ic_t"),
    "control": ("auc", "rank_ic", "rank_ic_t"),
    "base_rate": ("log_loss",),
    "majority": ("accuracy",),
    "previous_sign": ("auc", "accuracy", "rank_ic"),
    "oracle": ("rank_ic", "rank_ic_t"),
}

Scores = dict[tuple[str, str], Score]  # by predictor and metric


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; a score that cannot be computed (one class, one symbol, constant predictions) is null, never zero.

    - `scores`: one row per group, member, predictor and metric: `value`, its 95 % interval `low`, `high`, and how many `rows` and
      `sessions` it rests on (of a rank metric: the sessions that have one)
    - `sessions`: one row per session, sorted: `fold`, `session`, the model's `rank_ic`, `spread_gross`, `spread_net`, `turnover` and
      `log_loss`, and each rival's `<rival>_rank_ic` and `<rival>_log_loss` where it has them
    - `calibration`: one row per `stage` (raw, calibrated) and tenth of the rows: what was claimed beside how often it was up
    - `folds`: one row per fold, with the names of `summary`
    - `summary`: the model's metrics by name, some with `_low` and `_high`; of its rivals some, as `<rival>_<metric>`; `rows`,
      `sessions` and `rank_ic_sessions` (those that have one)
    """

    scores: pl.DataFrame
    sessions: pl.DataFrame
    calibration: pl.DataFrame
    folds: pl.DataFrame
    summary: dict[str, float | None]


def evaluate(predictions: pl.DataFrame, horizon: int, *, fee_bps: float = 5.0, seed: int = 7, resamples: int = 500) -> Evaluation:
    """Score walk-forward predictions over all rows, per fold, per year, and per sector and regime where there are such columns.

    `predictions` holds out-of-sample rows, one per symbol and session, in any order, with `PREDICTION_COLUMNS`: `probability` that `up`
    is true, the same from the shuffled-label control, and the share of ups in the fold's training labels. It may hold
    `uncalibrated_probability`, `heuristic_probability`, `previous_up` and `oracle_score` (a predictor is scored on the rows where it is
    not null), `sector` and `regime` (null: in no group). `horizon` is the label's in sessions, `fee_bps` the fee of one side of a trade
    in basis points. The metrics are defined in `classification` and `ranking`; tenths are cut once, over all rows.

    Intervals come from `resamples` circular block resamples of a group's sessions; null below 20 sessions, and for `rank_ic_t`, which
    says itself how sure the rank IC is. That of `ece` is reflected and reaches to the value at least: binned errors are biased
    upwards and their resamples twice so (basic bootstrap; Davison and Hinkley 1997, chapter 5.2). Raises `ValueError` for a missing
    column, an outcome or a prediction that is unknown, a repeated symbol and session, a session of two folds, or no rows.
    """
    rows = _checked(predictions, horizon)
    panel = grouping.panel(rows, horizon, fee_bps, seed, resamples)
    found: dict[tuple[str, str], Scores] = {}
    ranked: list[dict[str, Floats]] = []
    for grid in grouping.grids(rows, panel):
        per_unit = [grouping.per_session(panel, grid, column) for column in panel.columns]
        ranked = ranked or per_unit  # the first grid is that of whole sessions
        found |= {(kind, member): scores for kind, member, scores in grouping.grid_scores(panel, grid, per_unit)}
    keys = [key for kind in ("all", *GROUPS) for key in found if key[0] == kind]
    names = [(predictor.name, metric) for predictor in PREDICTORS if predictor.column in rows.columns for metric in METRICS]
    long = [(*key, *name, *_fields(found[key], name)) for key in keys for name in names]
    summary = _summary(found["all", "all"])
    folds = [{"fold": int(member), **_summary(found[kind, member])} for kind, member in keys if kind == "fold"]
    return Evaluation(
        scores=pl.DataFrame(long, schema=SCORES, orient="row"),
        sessions=_session_table(rows, panel, ranked),
        calibration=_stages(rows),
        folds=pl.DataFrame(folds, schema={"fold": pl.Int32, **dict.fromkeys(summary, pl.Float64)}),
        summary=summary,
    )


def _checked(predictions: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """The predictions sorted by session and symbol; what cannot be scored is refused."""
    if missing := [name for name in PREDICTION_COLUMNS if name not in predictions.columns]:
        raise ValueError(f"predictions lack {', '.join(missing)}; evaluation needs {', '.join(PREDICTION_COLUMNS)}.")
    if horizon < 1:
        raise ValueError(f"horizon {horizon} must be a count of sessions, at least 1.")
    if predictions.is_empty():
        raise ValueError("there are no predictions to evaluate.")
    for name in PREDICTION_COLUMNS:
        values = predictions[name]
        unknown = values.null_count() + (int((~values.is_finite()).sum()) if values.dtype.is_float() else 0)
        if unknown:
            raise ValueError(f"{name} is unknown in {unknown} of {len(predictions)} rows; evaluate rows whose outcome is known.")
    rows = predictions.sort("session", "symbol")
    if repeated := len(rows) - rows.select(pl.struct("symbol", "session").n_unique()).item():
        raise ValueError(f"{repeated} of {len(rows)} rows repeat a symbol and session; evaluate one path of predictions at a time.")
    shared = rows.group_by("session").agg(pl.col("fold").n_unique()).filter(pl.col("fold") > 1)
    if len(shared):
        raise ValueError(f"session {shared['session'].sort()[0]} is tested by several folds; evaluate one path of predictions at a time.")
    return rows


def _fields(scores: Scores, name: tuple[str, str]) -> tuple[float | None, float | None, float | None, int, int]:
    predictor, _ = name
    about = next(score for (whose, _), score in scores.items() if whose == predictor)
    score = scores.get(name, Score(None, None, None, about.rows, about.sessions))
    return score.value, score.low, score.high, score.rows, score.sessions


def _summary(scores: Scores) -> dict[str, float | None]:
    model = {metric: scores["model", metric] for metric in METRICS}
    summary = {metric: score.value for metric, score in model.items()}
    for metric in _WITH_INTERVAL:
        summary |= {f"{metric}_low": model[metric].low, f"{metric}_high": model[metric].high}
    for rival, metrics in _OF_RIVALS.items():
        summary |= {f"{rival}_{metric}": scores[rival, metric].value for metric in metrics if (rival, metric) in scores}
    counts = {"rank_ic_sessions": model["rank_ic"].sessions, "rows": model["auc"].rows, "sessions": model["auc"].sessions}
    return summary | {name: float(count) for name, count in counts.items()}


def _session_table(rows: pl.DataFrame, panel: Panel, ranked: list[dict[str, Floats]]) -> pl.DataFrame:
    table = rows.group_by("session", maintain_order=True).agg(pl.col("fold").first()).select("fold", "session")
    series: dict[str, Floats] = {}
    for column, values in zip(panel.columns, ranked, strict=True):
        prefix = "" if column.predictor.name == "model" else f"{column.predictor.name}_"
        series |= {f"{prefix}{name}": of for name, of in values.items() if name == "rank_ic" or not prefix}
        if "log_loss" in column.predictor.metrics and column.probability is not None:
            session, losses = panel.session[column.rows], log_losses(column.probability, panel.up[column.rows])
            with np.errstate(invalid="ignore"):
                total = np.bincount(session, weights=losses, minlength=panel.n_sessions)
                series[f"{prefix}log_loss"] = total / np.bincount(session, minlength=panel.n_sessions)
    return table.with_columns(pl.Series(name, values).fill_nan(None) for name, values in series.items())


def _stages(rows: pl.DataFrame) -> pl.DataFrame:
    stages = {"raw": "uncalibrated_probability", "calibrated": "probability"}
    return pl.concat(
        calibration(rows, column=column).select(pl.lit(stage).alias("stage"), pl.all())
        for stage, column in stages.items()
        if column in rows.columns
    )
