"""What a model looks at: exact contributions, what the test folds lose without a feature, and its worst confident misses.

A centred model holds a symbol against the other symbols of its session, so whole sessions are sampled, never rows of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import polars as pl

from quant_assets.errors import ContractError
from quant_assets.signals.evaluation.bootstrap import block_length, paired_difference
from quant_assets.signals.evaluation.per_session import log_loss, rank_ic

CONTRIBUTIONS_SHOWN = 3
"""How many contributions stand beside each counter-example."""
RESAMPLES = 500
LEAST_SESSIONS = 30
"""How many sessions of a fold features are exchanged in, whatever their rows: of fewer than 20 no error can be told."""
UNUSED = "the model does not use it"
SHARED = "the same for all symbols of a session, so that exchanging it among them shows nothing"


SUMMARY = ("mean_absolute", "mean_signed", "direction")
MEASURES = ("rank_ic_loss", "rank_ic_loss_se", "log_loss_rise", "log_loss_rise_se")
PERMUTATION = {"feature": pl.String, **dict.fromkeys(MEASURES, pl.Float64), "sessions": pl.Int64, "note": pl.String}
MISSES = ("symbol", "session", "fold", "sector", "regime", "probability", "forward_return", "up")


class Explained(Protocol):
    """What can be explained: a `SignalModel`, or anything that answers as it does."""

    @property
    def features(self) -> Sequence[str]:
        """The columns it reads, in its order."""
        ...

    @property
    def importance(self) -> pl.DataFrame:
        """One row per feature: `feature`, `gain`, `splits`; both zero where it is not used."""
        ...

    def predict(self, frame: pl.DataFrame) -> pl.Series:
        """Probability per row that the label is true; rows of one session may be held against one another."""
        ...

    def contributions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Log-odds per row and feature, and `base`."""
        ...


def sample_of(frame: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    """About `rows` rows of a panel: whole sessions, evenly spaced from a start that the seed picks, at least one.

    Returns the sample sorted by session and symbol; a panel that is small enough comes back whole. The same rows in any
    order give the same sample.
    """
    sessions = frame["session"].unique().sort()
    wanted = max(1, len(sessions) * rows // max(1, len(frame)))
    if wanted < len(sessions):
        start = np.random.default_rng(seed).random()
        sessions = sessions.gather(((np.arange(wanted) + start) * len(sessions) / wanted).astype(np.int64))
    return frame.filter(pl.col("session").is_in(sessions.implode())).sort("session", "symbol")


def shap_values(model: Explained, frame: pl.DataFrame) -> pl.DataFrame:
    """What each feature adds to each row's log-odds, in the frame's order: `symbol`, `session`, one column per feature, `base`.

    Exact for the families that there are. Of a centred model these are the shares beyond the session's mean, so `frame`
    holds whole sessions (`sample_of`). Raises `ContractError` where a feature is missing.
    Source: Lundberg and others, From local explanations to global understanding with explainable AI for trees (2020).
    """
    _require(frame, ("symbol", "session", *model.features))
    return frame.select("symbol", "session").hstack(model.contributions(frame).select(*model.features, "base"))


def shap_summary(contributions: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """One row per feature, the largest first: `feature`, `mean_absolute` and `mean_signed` contribution, `direction`.

    Contributions are in log-odds (the result of `shap_values` for `frame`, or for some of its rows). `direction` is the
    Spearman correlation, from −1 to 1, of the feature's value and its contribution over rows where the value is known:
    null where either is constant. Raises `ContractError` where `frame` lacks a feature or a row.
    """
    names = features_of(contributions)
    values = values_beside(contributions, frame).select(pl.col(names).rank().name.prefix("rank of "))
    both = contributions.select(names).hstack(values)
    known = [pl.when(pl.col(f"rank of {name}").is_not_null()).then(pl.col(name)).rank() for name in names]
    direction = both.select(pl.corr(f"rank of {name}", rank).fill_nan(None).alias(name) for name, rank in zip(names, known, strict=True))
    columns = [both.select(pl.col(names).abs().mean()), both.select(pl.col(names).mean()), direction]
    table = pl.DataFrame(
        {"feature": names, **{SUMMARY[i]: list(column.row(0)) if names else [] for i, column in enumerate(columns)}},
        schema={"feature": pl.String, **dict.fromkeys(SUMMARY, pl.Float64)},
    )
    return table.sort(["mean_absolute", "feature"], descending=[True, False])


def permutation_importance(
    model: Explained, test_frame: pl.DataFrame, label: str, horizon: int, seed: int, rows: int = 20_000
) -> pl.DataFrame:
    """What one test fold loses when a feature's values are exchanged at random among the symbols of each session.

    `test_frame` holds sessions that the model was not trained on: `symbol`, `session`, the features, `forward_return` and
    the boolean `label`; of a large fold about `rows` rows are used, and 30 sessions
    at least (`sample_of`). Returns one row per feature, the largest
    loss first: `feature`, `rank_ic_loss` (what the Spearman correlation of probability and forward return falls by, mean
    over sessions; of equal probabilities it is 0), `log_loss_rise` (of the sessions' mean log loss, likewise), the standard
    error of each, `sessions`, `note`. The errors are those of the paired differences by session, from resampled blocks that
    are longer than the labels overlap; null below 20 sessions. What the model does not use loses exactly 0, what is the same
    for all symbols of every session is null: `note` says so.
    Raises `ContractError` for a missing column and `ValueError` for an unknown outcome.
    Source: Breiman, Random forests, Machine Learning 45 (2001); exchanged within sessions, as the rank IC is measured.
    """
    _require(test_frame, ("symbol", "session", *model.features, "forward_return", label))
    if unknown := test_frame.filter(pl.any_horizontal(pl.col("forward_return", label).is_null())).height:
        raise ValueError(f"The outcome of {unknown} of {len(test_frame)} rows is null; measure on rows whose outcome is known.")
    least = math.ceil(LEAST_SESSIONS * len(test_frame) / max(1, test_frame["session"].n_unique()))
    frame = sample_of(test_frame, max(rows, least), seed)
    kinds = frame.group_by("session").agg(pl.col(model.features).n_unique()).select(pl.col(model.features).max()).row(0, named=True)
    used = set(model.importance.filter((pl.col("gain") != 0) | (pl.col("splits") != 0))["feature"])
    notes = {name: UNUSED if name not in used else SHARED if (kinds[name] or 0) < 2 else None for name in model.features}
    tried = [name for name, note in notes.items() if note is None]
    session, random = frame["session"].rank("dense").to_numpy(), np.random.default_rng(seed)
    # Rows are sorted by session: any order of them that keeps the sessions' order exchanges values within each.
    exchanged = (frame[name].gather(np.lexsort((random.random(len(frame)), session))) for name in tried)
    after = [model.predict(frame.with_columns(values)).alias(str(i)) for i, values in enumerate(exchanged)]
    scored = frame.select("session", "forward_return", up=pl.col(label)).hstack([model.predict(frame).alias("before"), *after])
    losses = _by_session(scored, _mean_log_loss)
    ranked = _by_session(scored.filter(pl.col("forward_return").n_unique().over("session") > 1), _rank_ic)
    spacing = test_frame["session"].n_unique() / max(1, len(losses))  # sampled sessions overlap less than neighbours
    measured = {}
    for i, name in enumerate(tried):
        loss, rise = (
            paired_difference(table[one], table[other], block_length(len(table), math.ceil(horizon / spacing)), RESAMPLES, seed)
            for table, one, other in ((ranked, "before", str(i)), (losses, str(i), "before"))
        )
        measured[name] = dict(zip(MEASURES, (loss.mean, loss.standard_error, rise.mean, rise.standard_error), strict=True))
    nothing: dict[str | None, dict[str, float | None]] = {UNUSED: dict.fromkeys(MEASURES, 0.0), SHARED: dict.fromkeys(MEASURES), None: {}}
    table = [
        {"feature": name, **nothing[note], **measured.get(name, {}), "sessions": len(losses), "note": note} for name, note in notes.items()
    ]
    return _largest_first(pl.DataFrame(table, schema=PERMUTATION))


def combine(folds: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row per feature over the folds' `permutation_importance`, the largest loss first; the same columns.

    A fold counts by its sessions, and folds are taken as independent. A feature that some folds could not measure is judged
    by the others; `note` says in how many folds it was not used.
    """
    stacked = pl.concat([fold.with_columns(fold=pl.lit(i)) for i, fold in enumerate(folds)]) if folds else pl.DataFrame(schema=PERMUTATION)

    def mean(name: str) -> pl.Expr:
        weight = pl.col("sessions").filter(pl.col(name).is_not_null())
        return pl.when(weight.sum() > 0).then((pl.col(name) * pl.col("sessions")).sum() / weight.sum())

    def error(name: str) -> pl.Expr:
        measured = pl.col(name).is_not_null()
        variance = ((pl.col(f"{name}_se") * pl.col("sessions")) ** 2).filter(measured)
        known = pl.col(f"{name}_se").filter(measured).null_count() == 0
        return pl.when(known & measured.any()).then(variance.sum().sqrt() / pl.col("sessions").filter(measured).sum())

    unused, n = pl.col("note").eq_missing(UNUSED).sum(), pl.len()
    note = (
        pl.when(unused == n).then(pl.lit(UNUSED))
        .when(unused > 0).then(pl.format("not used in {} of {} folds", unused, n))
        .when(pl.col("note").eq_missing(SHARED).all()).then(pl.lit(SHARED))
    )  # fmt: skip
    names = ("rank_ic_loss", "log_loss_rise")
    return _largest_first(
        stacked.group_by("feature", maintain_order=True)
        .agg(*(mean(name).alias(name) for name in names), *(error(name).alias(f"{name}_se") for name in names),
             pl.col("sessions").sum(), note.alias("note"))
        .select(list(PERMUTATION))
    )  # fmt: skip


def counter_examples(
    predictions: pl.DataFrame, model_or_contributions: Explained | pl.DataFrame, frame: pl.DataFrame, count: int = 20
) -> pl.DataFrame:
    """The confident misses with the largest log loss, the worst first, beside what the model saw there.

    `predictions` are out of sample (`symbol`, `session`, `probability`, `forward_return`, `up`), `frame` has the features
    of their whole sessions. The reasons must be those of the model that made the predictions: give one fold's rows with its
    own model, or the result of `shap_values`, and join the folds with `worst`. A miss is a probability on the other side of
    a half than `up`. Returns `symbol`, `session`, `fold` where it is there, `probability`, `forward_return`, `up`,
    `log_loss`, `contributions`: a JSON list of the three largest {feature, value, contribution}, in log-odds. Raises
    `ContractError` where a miss is not in `frame` or in the contributions.
    """
    _require(predictions, ("symbol", "session", "probability", "forward_return", "up"))
    shown = [name for name in MISSES if name in predictions.columns]
    missed = predictions.filter((pl.col("probability") >= 0.5) != pl.col("up"))
    worst_rows = worst([missed.with_columns(log_loss=log_loss("probability")).select(*shown, "log_loss")], count)
    if isinstance(model_or_contributions, pl.DataFrame):
        contributions = model_or_contributions.join(worst_rows, on=["symbol", "session"], how="semi")
    else:
        whole = frame.filter(pl.col("session").is_in(worst_rows["session"].unique().implode()))
        contributions = shap_values(model_or_contributions, whole).join(worst_rows, on=["symbol", "session"], how="semi")
    names = features_of(contributions)
    values = values_beside(contributions, frame)
    keys = ["symbol", "session"]
    entry = pl.struct("feature", "value", "contribution").struct.json_encode()
    reasons = (
        contributions.drop("base").unpivot(names, index=keys, variable_name="feature", value_name="contribution")
        .with_columns(values.select(*keys, *names).unpivot(names, index=keys, value_name="value")["value"])
        .sort(pl.col("contribution").abs(), descending=True, maintain_order=True)
        .with_columns(pl.col("value", "contribution").round_sig_figs(6))
        .group_by(keys, maintain_order=True).agg(entry.head(CONTRIBUTIONS_SHOWN))
        .select(*keys, contributions=pl.format("[{}]", pl.col("feature").list.join(",")))
    )  # fmt: skip
    if lacking := worst_rows.join(reasons, on=keys, how="anti").height:
        raise ContractError(f"{lacking} of {len(worst_rows)} misses have no features or contributions; give those of the same rows.")
    return worst_rows.join(reasons, on=keys, how="left", maintain_order="left")


def worst(misses: Sequence[pl.DataFrame], count: int = 20) -> pl.DataFrame:
    """Of several folds' `counter_examples` those with the largest log loss, the worst first."""
    return pl.concat(misses).sort(["log_loss", "session", "symbol"], descending=[True, False, False]).head(count)


def features_of(contributions: pl.DataFrame) -> list[str]:
    """The features that a frame of contributions speaks of, in its order."""
    return [name for name in contributions.columns if name not in ("symbol", "session", "base")]


def values_beside(contributions: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """The features' values in the rows and order of their contributions (`symbol`, `session`, features; NaN is null).

    Raises `ContractError` where `frame` lacks a feature or a row.
    """
    names = features_of(contributions)
    _require(frame, ("symbol", "session", *names))
    keys = contributions.select("symbol", "session")
    if lacking := keys.join(frame, on=["symbol", "session"], how="anti").height:
        raise ContractError(
            f"{lacking} of {len(keys)} rows with contributions are not in the frame; give the frame that they were made of."
        )
    values = frame.select("symbol", "session", pl.col(names).cast(pl.Float64).fill_nan(None))
    return keys.join(values, on=["symbol", "session"], how="left", maintain_order="left")


def _by_session(scored: pl.DataFrame, measure: Callable[[str], pl.Expr]) -> pl.DataFrame:
    """Sessions by columns of probabilities, in their order: the measure of each."""
    columns = [name for name in scored.columns if name not in ("session", "forward_return", "up")]
    return scored.group_by("session", maintain_order=True).agg(measure(name).alias(name) for name in columns)


def _rank_ic(column: str) -> pl.Expr:
    # Equal probabilities rank nothing: Polars answers NaN, here it is a correlation of 0.
    return rank_ic(column).fill_nan(0.0)


def _mean_log_loss(column: str) -> pl.Expr:
    return log_loss(column).mean()


def _largest_first(table: pl.DataFrame) -> pl.DataFrame:
    return table.sort(["rank_ic_loss", "feature"], descending=[True, False], nulls_last=True)


def _require(frame: pl.DataFrame, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in frame.columns]:
        raise ContractError(f"The frame lacks {', '.join(missing[:8])}{f', … ({len(missing)} in all)' if len(missing) > 8 else ''}.")
