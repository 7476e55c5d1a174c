"""By how much a symbol's stored signals move without a bar: the same scorer, once more, on the features without it."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from quant_assets.data_quality.blast_radius.counterfactual import TOLERANCE, Bar, Histories
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import TECHNICAL_V1
from quant_assets.signals.calibration import Calibration
from quant_assets.signals.champions import MODEL
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.signals.scoring import Thresholds

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "session": pl.Date,
    "horizon": pl.Int32,
    "known_at": pl.Datetime("us"),
    "used": pl.Boolean,
    "value_with": pl.Float64,
    "value_without": pl.Float64,
    "detail": pl.String,
}
_SCORED = ["session", "centre"]
_UNSCORED = pl.DataFrame(schema={"session": pl.Date, "centre": pl.Float64, "probability": pl.Float64, "recommendation": pl.String})

_SIGNALS = f"""
    with events as (
        select session, known_at from market_data.daily_bars where symbol = $symbol and source = $source
        union all select session, known_at from market_data.corporate_actions where symbol = $symbol and source = $source
        union all select session, known_at from data_quality.anomalies where symbol = $symbol and source = $source and severity = 'critical'
        union all select session, decided_at from data_quality.reviews where symbol = $symbol and source = $source
    ),
    copies as (
        select model_version, arg_max(model_sha256, promoted_at) as model_sha256
        from signals.promotions where model = '{MODEL}' and promoted_at <= $as_of group by model_version
    )
    select session, horizon, label_threshold, signal.known_at, recorded_at, probability, recommendation, mode, model_version, model_sha256, centre,
        scorer = 'model' and contributions is null as predicted,
        (
            select min(event.known_at) from events as event
            where event.session <= signal.session and event.known_at > signal.known_at and event.known_at <= $as_of
        ) as next_event
    from signals.daily_signals as signal left join copies using (model_version)
    where symbol = $symbol and session >= $session and signal.known_at <= $as_of
"""
"""Each version of a signal, and when the history that it was scored on changed next (null: never).

All signals whose history changed next at one instant are scored on one history, the one just before it: an old bar that
is reviewed today needs one recomputation, not one per night.
"""


def signal_moves(bar: Bar) -> pl.DataFrame:
    """The stored signals whose scorer reads a feature that differs without the bar, or with it where it was held back.

    One row per version of a signal: `session`, `horizon`, `known_at`, `used` (it rests on the bar; otherwise it would with
    a release), `value_with` and `value_without` (probability; null where it cannot be told, then `detail` says why),
    `detail` (who scored, the recommendations). The stored probability is the one of the two that was scored; it stands
    for itself unless its history as of then gives another by now, and then both are computed anew and `detail` says so.
    """
    signals = bar.read(_SIGNALS)
    parts = [pl.DataFrame(schema=SCHEMA)]
    for (next_event,), of_history in signals.group_by("next_event"):
        at = bar.as_of if next_event is None else next_event - timedelta(microseconds=1)  # type: ignore[operator]
        histories = bar.histories(at)
        if histories is None:
            continue
        label = ["horizon", "label_threshold"]
        for (version, sha256, predicted, *_), rows in of_history.group_by("model_version", "model_sha256", "predicted", *label):
            parts.append(_moves(bar, histories, rows, version, sha256, predicted))  # type: ignore[arg-type]
    return pl.concat(parts).sort("session", "horizon", "known_at")


def _moves(bar: Bar, histories: Histories, rows: pl.DataFrame, version: str | None, sha256: str | None, predicted: bool) -> pl.DataFrame:
    """The signals of one scorer over one history that rest on changed features, with and without the bar."""
    reads = Heuristic.reads if version is None else model_columns()
    touched = histories.feature_changes.filter(pl.col("feature").is_in(list(reads)))["session"].unique()
    affected = rows.filter(pl.col("session").is_in(touched.implode()))
    used = pl.Series([bar.was_used(histories, recorded_at) for recorded_at in affected["recorded_at"]], dtype=pl.Boolean)
    reason = "a walk-forward prediction, whose model is not kept: it cannot be scored again" if predicted else ""
    scored = _UNSCORED, _UNSCORED
    if affected.height and not predicted:
        try:
            scored = _scored_again(bar, histories, affected, version, sha256)
        except (QuantAssetsError, OSError) as error:
            reason = f"it cannot be scored again: {error}"
    both = (
        affected.with_columns(used=used)
        .join(scored[0], on=_SCORED, how="left", suffix="_with", nulls_equal=True)
        .join(scored[1], on=_SCORED, how="left", suffix="_without", nulls_equal=True)
    )
    stored, on_with, on_without, word = "probability", "probability_with", "probability_without", pl.col("recommendation_with")
    again = pl.when("used").then(on_with).otherwise(on_without)
    stands = ((again - pl.col(stored)).abs() <= TOLERANCE).fill_null(value=True)
    who = pl.format("{} signal of {}", "mode", pl.lit("the heuristic" if version is None else f"model version {version}"))
    when = pl.when("used").then(pl.lit("")).otherwise(pl.lit(", scored while the bar was held back"))
    words = (
        pl.when(pl.col("session") == bar.session)
        .then(pl.format("; {} with the bar, no signal without it", "recommendation"))
        .when(pl.lit(bool(reason)))
        .then(pl.lit(f"; {reason}"))
        .when(word == pl.col("recommendation_without"))
        .then(pl.format("; {} with and without the bar", word))
        .otherwise(pl.format("; {} with the bar, {} without it", word, "recommendation_without"))
    )
    drift = pl.format("; stored as {}, which its history does not give any more: both computed anew", pl.col(stored).round(6))
    return both.select(
        "session",
        "horizon",
        "known_at",
        "used",
        value_with=pl.when(stands & pl.col("used")).then(stored).otherwise(on_with),
        value_without=pl.when(stands & ~pl.col("used")).then(stored).otherwise(on_without),
        detail=pl.concat_str(who, when, words, pl.when(stands).then(pl.lit("")).otherwise(drift)),
    )


def _scored_again(
    bar: Bar, histories: Histories, signals: pl.DataFrame, version: str | None, sha256: str | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`session`, `centre`, `probability`, `recommendation` of one scorer on the features with and without the bar.

    The other symbols of the session are taken as they were: the symbol is held against the same `centre` on both sides.
    """
    held_against = signals.select(_SCORED).unique(maintain_order=True)
    with_bar, without = (
        side.join(held_against, on="session").sort(_SCORED) for side in (histories.features_with, histories.features_without)
    )
    if version is None:
        horizon, threshold = signals.select("horizon", "label_threshold").row(0)
        return tuple(_by_heuristic(bar, rows, horizon, threshold) for rows in (with_bar, without))  # type: ignore[return-value]
    view = TECHNICAL_V1.name
    model, _ = load_local_copy(bar.settings.models_path, version, str(sha256), view, definition_hash(view))
    return tuple(_told(bar, rows, model.predict(rows, rows["centre"])) for rows in (with_bar, without))  # type: ignore[return-value]


def _by_heuristic(bar: Bar, rows: pl.DataFrame, horizon: int, threshold: float) -> pl.DataFrame:
    """The heuristic as it was calibrated for the month of each row; as written in a month without a calibration."""
    calibrations = bar.read(
        """
        select valid_from, arg_max(intercept, known_at) as intercept, arg_max(slope, known_at) as slope
        from signals.heuristic_calibrations
        where horizon = $horizon and label_threshold = $threshold and known_at <= $as_of group by valid_from
        """,
        horizon=horizon,
        threshold=threshold,
    )
    by_month = {(month.year, month.month): Calibration("platt", intercept, slope) for month, intercept, slope in calibrations.iter_rows()}
    parts = [_UNSCORED]
    for (year, month), its_rows in rows.group_by(
        pl.col("session").dt.year(), pl.col("session").dt.month().alias("month"), maintain_order=True
    ):
        calibration = by_month.get((int(year), int(month)))  # type: ignore[call-overload]
        parts.append(_told(bar, its_rows, (Heuristic() if calibration is None else Heuristic(calibration)).predict(its_rows)))
    return pl.concat(parts)


def _told(bar: Bar, rows: pl.DataFrame, probability: pl.Series) -> pl.DataFrame:
    recommendation = Thresholds.of(bar.settings).recommendation(pl.col("probability"))
    return rows.select(*_SCORED, probability.alias("probability")).with_columns(recommendation=recommendation)
