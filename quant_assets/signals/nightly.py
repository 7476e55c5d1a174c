"""The night's signals: tonight by the champion or the heuristic, past sessions by a model of their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.training_sets import features_as_of
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import DAILY_SIGNALS, INSTANT
from quant_assets.signals.champions import MODEL, Champion, champion_for, champions_for
from quant_assets.signals.local_copies import load_local_copy
from quant_assets.signals.scoring import KEYS, Thresholds, score
from quant_assets.warehouse import Warehouse, append_versions, query


@dataclass(frozen=True)
class SignalRun:
    """What one night scored: the rows written, and what a person should know."""

    written: pl.DataFrame
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
    view: str = "technical_v1",
) -> SignalRun:
    """Score the sessions as of an instant and store what is new; every symbol in scope with features gets a signal.

    Tonight is `live`: a signal that was known before the instant gets a new version where it comes out differently, one
    known at the instant or later stands. Earlier sessions are `replayed`, by a walk-forward prediction whose model had not
    seen them, else by the champion of their time, else by the heuristic; a session that has signals already keeps them.
    """
    features = features_as_of(warehouse, calendar, view, as_of, sessions[0], sessions[-1])
    with warehouse.connect() as connection:
        batches = query(
            connection,
            "select symbol, session, batch_id from data_quality.clean_bars_as_of($as_of) where session between $first and $last",
            {"as_of": as_of, "first": sessions[0], "last": sessions[-1]},
        )
        stored = query(
            connection,
            """
            select symbol, session, max(known_at) as stored_at, arg_max(scorer, known_at) as stored_scorer
            from signals.daily_signals where horizon = $horizon and session between $first and $last group by symbol, session
            """,
            {"horizon": horizon, "first": sessions[0], "last": sessions[-1]},
        )
    champion = champion_for(warehouse, horizon, calendar.close(tonight), as_of, view, definition_hash(view))
    standing = stored.filter((pl.col("session") < tonight) | (pl.col("stored_at") >= as_of))
    fresh = features.join(standing, on=["symbol", "session"], how="anti")
    live, notes = _scored(fresh.filter(pl.col("session") == tonight), champion if tonight in sessions else None, models_path, "live", view)
    if tonight in sessions and not notes:
        notes = _remarks(features.filter(pl.col("session") == tonight), standing, champion, tonight, as_of)
    replayed, replay_notes = _replayed(warehouse, calendar, fresh.filter(pl.col("session") < tonight), horizon, models_path, as_of, view)
    signals = pl.concat([live, replayed]).join(batches, on=["symbol", "session"])
    stamped = signals.with_columns(
        horizon=pl.lit(horizon, pl.Int32),
        known_at=pl.lit(as_of, INSTANT),
        feature_view=pl.lit(view),
        definition_hash=pl.lit(definition_hash(view)),
        run_id=pl.lit(run_id),
        recorded_at=pl.lit(utc_now(), INSTANT),
    )
    with warehouse.transaction() as connection:
        written = append_versions(connection, DAILY_SIGNALS, stamped.select(DAILY_SIGNALS.column_names))
    return SignalRun(written, tuple(dict.fromkeys((*notes, *replay_notes))))


def scorers(warehouse: Warehouse, horizon: int, session: date, as_of: datetime) -> pl.DataFrame:
    """Who made the signals of a session as of an instant: `scorer`, `model_version` (null: the heuristic), `signals`."""
    return warehouse.read(
        """
        select scorer, model_version, count(*) as signals
        from signals.daily_signals_as_of($as_of) where session = $session and horizon = $horizon group by all order by all
        """,
        {"as_of": as_of, "session": session, "horizon": horizon},
    )


def _scored(
    features: pl.DataFrame, champion: Champion | None, models_path: Path, mode: str, view: str
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Signals by a champion, or by the heuristic where there is none or where it may not score, and then the reason why."""
    notes: tuple[str, ...] = ()
    offered, definition = features.select(*KEYS, *model_columns(view)), definition_hash(view)
    if champion is not None:
        try:
            booster, contract = load_local_copy(models_path, champion.model_version, champion.model_sha256, view, definition)
            scored = score(offered, booster, contract, view, definition)
            return _marked(scored, mode, champion.model_version, champion.trained_until), ()
        except (QuantAssetsError, OSError) as error:
            notes = (f"champion {champion.model_version} may not score, the heuristic does: {error}",)
    return _marked(score(offered, None, None, view, definition), mode, None, None), notes


def _remarks(features: pl.DataFrame, standing: pl.DataFrame, champion: Champion | None, tonight: date, as_of: datetime) -> tuple[str, ...]:
    """What a person should know about tonight where nothing went wrong: nobody to score, nothing to score with, too late."""
    if features.is_empty():
        return (f"no symbol in scope has features on {tonight}: there is nothing to score",)
    if champion is None:
        return ("no model may score tonight: the heuristic does",)
    left = standing.filter((pl.col("session") == tonight) & (pl.col("stored_scorer") == "heuristic")).height
    if not left:
        return ()
    return (
        f"{left} signals of {tonight} stay as the heuristic made them, for what was known as of {as_of} UTC does not change; "
        f"a run as of a later instant scores them with model version {champion.model_version}",
    )


def _replayed(
    warehouse: Warehouse, calendar: TradingCalendar, features: pl.DataFrame, horizon: int, models_path: Path, as_of: datetime, view: str
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Signals of past sessions, each by what was trained before its close: the newest prediction, else the champion then."""
    if features.is_empty():
        return _scored(features, None, models_path, "replayed", view)
    first, last = features.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    closes = calendar.frame(first, last).select("session", "close_at")
    predictions = (
        warehouse.read(
            """
            select symbol, session, probability, model_version, trained_until, known_at, model_version::bigint as number
            from signals.predictions_as_of($as_of) where model = $model and horizon = $horizon and session between $first and $last
            """,
            {"as_of": as_of, "model": MODEL, "horizon": horizon, "first": first, "last": last},
        )
        .join(closes, on="session")
        .filter(pl.col("trained_until") < pl.col("close_at"))
        .sort("known_at", "number")
        .unique(["symbol", "session"], keep="last")
    )
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
    unseen = features.join(seen, on=["symbol", "session"], how="anti").join(closes, on="session")
    champions = champions_for(warehouse, horizon, unseen["close_at"].unique().to_list(), as_of, view, definition_hash(view))
    parts, notes = [by_model], list[str]()
    for champion in dict.fromkeys([*champions.values(), None]):
        its_closes = [close for close in unseen["close_at"].unique() if champions.get(close) == champion]
        scored, why = _scored(unseen.filter(pl.col("close_at").is_in(its_closes)), champion, models_path, "replayed", view)
        parts.append(scored)
        notes.extend(why)
    return pl.concat(parts), tuple(notes)


def _marked(scored: pl.DataFrame, mode: str, model_version: str | None, trained_until: datetime | None) -> pl.DataFrame:
    return scored.with_columns(
        mode=pl.lit(mode), model_version=pl.lit(model_version, pl.String), trained_until=pl.lit(trained_until, INSTANT)
    )
