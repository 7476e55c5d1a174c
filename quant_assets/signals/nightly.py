"""The night's signals: tonight by the champion or the heuristic, past sessions by the walk-forward model of their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.indicators import definition_hash
from quant_assets.feature_store.store import features_as_of
from quant_assets.schemas import DAILY_SIGNALS, INSTANT, TECHNICAL_V1
from quant_assets.signals.champions import MODEL, Champion, champion_for
from quant_assets.signals.local_copies import load_local_copy
from quant_assets.signals.scoring import Thresholds, score
from quant_assets.warehouse import Warehouse, append_versions, query


@dataclass(frozen=True)
class SignalRun:
    """What one night scored: the rows written, who scored tonight, and what a person should know."""

    written: pl.DataFrame
    champion: Champion | None
    notes: tuple[str, ...]


def score_night(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    models_path: Path,
    horizon: int,
    as_of: datetime,
    tonight: date,
    sessions: Sequence[date],
    run_id: str,
) -> SignalRun:
    """Score the sessions as of an instant and store what is new; every symbol with features gets a signal.

    Tonight is `live`. Earlier sessions are `replayed`: by the walk-forward predictions of the champion's folds, which
    had not seen them, else by the heuristic; a session that has signals already keeps them.
    """
    with warehouse.connect() as connection:
        features = features_as_of(connection, as_of, sessions[0], sessions[-1])
        batches = query(
            connection,
            "select symbol, session, batch_id from data_quality.clean_bars_as_of($as_of) where session between $first and $last",
            {"as_of": as_of, "first": sessions[0], "last": sessions[-1]},
        )
        stored = query(
            connection,
            "select distinct symbol, session from signals.daily_signals where horizon = $horizon and session between $first and $last",
            {"horizon": horizon, "first": sessions[0], "last": sessions[-1]},
        )
    champion = champion_for(warehouse, horizon, calendar.close(tonight), as_of)
    live, notes = _live(features.filter(pl.col("session") == tonight), champion, models_path)
    past = features.filter(pl.col("session") < tonight).join(stored, on=["symbol", "session"], how="anti")
    replayed = _replayed(warehouse, calendar, past, horizon, as_of)
    signals = pl.concat([live, replayed]).join(batches, on=["symbol", "session"])
    stamped = signals.with_columns(
        horizon=pl.lit(horizon, pl.Int32),
        known_at=pl.lit(as_of, INSTANT),
        feature_view=pl.lit(TECHNICAL_V1.name),
        definition_hash=pl.lit(definition_hash()),
        run_id=pl.lit(run_id),
        recorded_at=pl.lit(utc_now(), INSTANT),
    )
    with warehouse.transaction() as connection:
        written = append_versions(connection, DAILY_SIGNALS, stamped.select(DAILY_SIGNALS.column_names))
    return SignalRun(written, champion, notes)


def _live(features: pl.DataFrame, champion: Champion | None, models_path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Tonight's signals, by the champion where one may score, else by the heuristic with the reason why."""
    if champion is None:
        return _marked(score(features, None, None, definition_hash()), "live", None, None), (
            "no model may score tonight: the heuristic did",
        )
    try:
        booster, contract = load_local_copy(models_path, champion.model_version, champion.model_sha256)
        scored = score(features, booster, contract, definition_hash())
    except (QuantAssetsError, OSError) as error:
        heuristic = _marked(score(features, None, None, definition_hash()), "live", None, None)
        return heuristic, (f"champion {champion.model_version} may not score, the heuristic did: {error}",)
    return _marked(scored, "live", champion.model_version, champion.trained_until), ()


def _replayed(warehouse: Warehouse, calendar: TradingCalendar, features: pl.DataFrame, horizon: int, as_of: datetime) -> pl.DataFrame:
    """Signals of past sessions: the newest walk-forward prediction whose model was trained before their close."""
    if features.is_empty():
        return _marked(score(features, None, None, definition_hash()), "replayed", None, None)
    first, last = features.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    predictions = warehouse.read(
        """
        select symbol, session, probability, model_version, trained_until from signals.predictions_as_of($as_of)
        where model = $model and horizon = $horizon and session between $first and $last
        qualify row_number() over (partition by symbol, session order by known_at desc, recorded_at desc) = 1
        """,
        {"as_of": as_of, "model": MODEL, "horizon": horizon, "first": first, "last": last},
    ).join(calendar.frame(first, last).select("session", "close_at"), on="session")
    predictions = predictions.filter(pl.col("trained_until") < pl.col("close_at"))
    seen = features.select("symbol", "session").join(predictions, on=["symbol", "session"])
    by_model = seen.select(
        "symbol",
        "session",
        "probability",
        Thresholds().recommendation(pl.col("probability")).alias("recommendation"),
        pl.lit("model").alias("scorer"),
        pl.lit(None, pl.String).alias("contributions"),
        pl.lit("replayed").alias("mode"),
        "model_version",
        "trained_until",
    )
    unseen = features.join(seen, on=["symbol", "session"], how="anti")
    return pl.concat([by_model, _marked(score(unseen, None, None, definition_hash()), "replayed", None, None)])


def _marked(scored: pl.DataFrame, mode: str, model_version: str | None, trained_until: datetime | None) -> pl.DataFrame:
    return scored.with_columns(
        mode=pl.lit(mode), model_version=pl.lit(model_version, pl.String), trained_until=pl.lit(trained_until, INSTANT)
    )
