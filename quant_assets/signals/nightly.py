"""The night's signals: tonight by the champion or the heuristic, past sessions by a model of their time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.training_sets import features_as_of
from quant_assets.feature_store.views import definition_hash, features_of
from quant_assets.schemas import DAILY_SIGNALS, INSTANT
from quant_assets.settings import Settings
from quant_assets.signals.champions import MODEL, Champion, champion_for, champions_for
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.signals.rules_of_thumb import heuristics
from quant_assets.signals.scoring import KEYS, Thresholds, confidence, score
from quant_assets.warehouse import Warehouse, append_versions, query

MANY = 10
"""From how many signals on it is odd that all get the same strong word."""


@dataclass(frozen=True)
class SignalRun:
    """What one night scored: the rows written, what a person should know, and of that why a champion could not score."""

    written: pl.DataFrame
    notes: tuple[str, ...]
    faults: tuple[str, ...]


def score_night(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    settings: Settings,
    as_of: datetime,
    tonight: date,
    sessions: Sequence[date],
    run_id: str,
) -> SignalRun:
    """Score the sessions as of an instant and store what is new; every symbol in scope with features gets a signal.

    Tonight is `live`: a signal that was known before the instant gets a new version where it comes out differently, one
    known at the instant or later stands. Earlier sessions are `replayed`, by a walk-forward prediction whose model had not
    seen them, else by the champion of their time, else by the heuristic; a session that has signals already keeps them.
    Where the settings say so, the heuristic scores everything.
    """
    horizon, view = settings.horizon, settings.feature_view
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
    desk = _Desk(warehouse, calendar, settings, as_of, run_id)
    champion = desk.champion(tonight)
    standing = stored.filter((pl.col("session") < tonight) | (pl.col("stored_at") >= as_of))
    fresh = _whole_sessions(features, standing)
    live, live_faults = desk.scored(fresh.filter(pl.col("session") == tonight), champion if tonight in sessions else None, "live")
    replayed, replay_faults = desk.replayed(fresh.filter(pl.col("session") < tonight))
    faults = tuple(dict.fromkeys((*live_faults, *replay_faults)))
    remarks = tonight in sessions and not live_faults
    of_tonight = features.filter(pl.col("session") == tonight)
    notes = _remarks(of_tonight, standing, champion, tonight, as_of, settings.scorer) if remarks else ()
    notes += _one_word(live)
    signals = pl.concat([live, replayed]).join(standing.select("symbol", "session"), on=["symbol", "session"], how="anti")
    stamped = signals.join(batches, on=["symbol", "session"]).with_columns(
        horizon=pl.lit(horizon, pl.Int32),
        label_threshold=pl.lit(settings.label_threshold),
        known_at=pl.lit(as_of, INSTANT),
        regime=pl.lit(None, pl.String),
        run_id=pl.lit(run_id),
        recorded_at=pl.lit(utc_now(), INSTANT),
    )
    with warehouse.transaction() as connection:
        written = append_versions(connection, DAILY_SIGNALS, stamped.select(DAILY_SIGNALS.column_names))
    return SignalRun(written, (*notes, *faults), faults)


def scorers(warehouse: Warehouse, horizon: int, session: date, as_of: datetime) -> pl.DataFrame:
    """Who made the signals of a session as of an instant: `scorer`, `model_version` (null: the heuristic), `signals`."""
    return warehouse.read(
        """
        select scorer, model_version, count(*) as signals
        from signals.daily_signals_as_of($as_of) where session = $session and horizon = $horizon group by all order by all
        """,
        {"as_of": as_of, "session": session, "horizon": horizon},
    )


def _whole_sessions(features: pl.DataFrame, standing: pl.DataFrame) -> pl.DataFrame:
    """The sessions in which a symbol has no signal that stands: all of their symbols, for they are held against one another."""
    fresh = features.join(standing, on=["symbol", "session"], how="anti")
    return features.join(fresh.select("session").unique(), on="session", how="semi")


def _remarks(
    features: pl.DataFrame, standing: pl.DataFrame, champion: Champion | None, tonight: date, as_of: datetime, scorer: str
) -> tuple[str, ...]:
    """What a person should know about tonight where nothing went wrong: nobody to score, nothing to score with, too late."""
    if features.is_empty():
        return (f"no symbol in scope has features on {tonight}: there is nothing to score",)
    if scorer == "heuristic":
        return ("the heuristic scores, as QUANT_SCORER says",)
    if champion is None:
        return ("no model may score tonight: the heuristic does",)
    left = standing.filter((pl.col("session") == tonight) & (pl.col("stored_scorer") == "heuristic")).height
    if not left:
        return ()
    return (
        f"{left} signals of {tonight} stay as the heuristic made them, for what was known as of {as_of} UTC does not change; "
        f"a run as of a later instant scores them with model version {champion.model_version}",
    )


def _one_word(live: pl.DataFrame) -> tuple[str, ...]:
    """That all symbols get the same strong word, which tells none from another: thresholds that do not fit the label."""
    words = live["recommendation"].unique().to_list()
    if len(live) < MANY or len(words) > 1 or words[0] not in ("strong_buy", "strong_sell"):
        return ()
    low, high = live.select(low=pl.col("probability").min(), high=pl.col("probability").max()).row(0)
    return (
        f"all {len(live)} signals are {words[0]}, at probabilities from {low:.3f} to {high:.3f}: set QUANT_STRONG_BUY, QUANT_BUY, QUANT_SELL and "
        "QUANT_STRONG_SELL around the label's base rate",
    )


@dataclass(frozen=True)
class _Desk:
    """One night's means: where models, predictions and outcomes are read, and by which settings."""

    warehouse: Warehouse
    calendar: TradingCalendar
    settings: Settings
    as_of: datetime
    run_id: str

    @property
    def _label(self) -> tuple[str, str, float]:
        return self.settings.feature_view, definition_hash(self.settings.feature_view), self.settings.label_threshold

    def champion(self, session: date) -> Champion | None:
        """The champion of a session; None where there is none, or the settings want the heuristic."""
        if self.settings.scorer == "heuristic":
            return None
        return champion_for(self.warehouse, self.settings.horizon, self.calendar.close(session), self.as_of, *self._label)

    def scored(self, features: pl.DataFrame, champion: Champion | None, mode: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """Signals by a champion, or by the heuristic where there is none or where it may not score, and then the reason why."""
        view, definition, _ = self._label
        notes: tuple[str, ...] = ()
        if champion is not None:
            try:
                model, contract = load_local_copy(
                    self.settings.models_path, champion.model_version, champion.model_sha256, view, definition
                )
                offered = [feature.name for feature in features_of(view) if feature.name in contract.names]
                scored = score(features.select(*KEYS, *offered), model, contract, view, definition, Thresholds.of(self.settings))
                return _marked(scored, mode, view, definition, champion.model_version, champion.trained_until), ()
            except (QuantAssetsError, OSError) as error:
                notes = (f"champion {champion.model_version} may not score, the heuristic does: {error}",)
        sessions = features["session"].unique().sort().to_list()
        by_month = heuristics(
            self.warehouse, self.calendar, self.settings.horizon, self.settings.label_threshold, self.as_of, sessions, self.run_id
        )
        parts = [score(features.clear(), Heuristic(), None, view, definition)]
        for heuristic in dict.fromkeys(by_month.values()):
            its_sessions = [session for session in sessions if by_month[session] == heuristic]
            its_features = features.filter(pl.col("session").is_in(its_sessions))
            parts.append(score(its_features, heuristic, None, view, definition, Thresholds.of(self.settings)))
        return _marked(pl.concat(parts), mode, view, definition, None, None), notes

    def replayed(self, features: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """Signals of past sessions, each by what was trained before its close: the newest prediction, else the champion then."""
        if features.is_empty():
            return self.scored(features, None, "replayed")
        first, last = features.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        closes = self.calendar.frame(first, last).select("session", "close_at")
        predictions = self._predictions(first, last).join(closes, on="session").filter(pl.col("trained_until") < pl.col("close_at"))
        newest = predictions.sort("known_at", "number").unique(["symbol", "session"], keep="last")
        seen = features.select("symbol", "session").join(newest, on=["symbol", "session"])
        by_model = seen.select(
            "symbol",
            "session",
            "probability",
            confidence(pl.col("probability")).alias("confidence"),
            Thresholds.of(self.settings).recommendation(pl.col("probability")).alias("recommendation"),
            pl.lit("model").alias("scorer"),
            pl.lit(None, pl.String).alias("contributions"),
            pl.lit(None, pl.Float64).alias("centre"),
            pl.lit("replayed").alias("mode"),
            "feature_view",
            "definition_hash",
            "model_version",
            "trained_until",
        )
        unseen = _whole_sessions(features, seen.select("symbol", "session")).join(closes, on="session")
        champions = self._champions(unseen["close_at"].unique().to_list())
        parts, notes = [by_model], list[str]()
        for champion in dict.fromkeys([*champions.values(), None]):
            its_closes = [close for close in unseen["close_at"].unique() if champions.get(close) == champion]
            scored, why = self.scored(unseen.filter(pl.col("close_at").is_in(its_closes)), champion, "replayed")
            parts.append(scored.join(seen, on=["symbol", "session"], how="anti"))
            notes.extend(why)
        return pl.concat(parts), tuple(notes)

    def _champions(self, closes: Collection[datetime]) -> dict[datetime, Champion]:
        if self.settings.scorer == "heuristic":
            return {}
        return champions_for(self.warehouse, self.settings.horizon, closes, self.as_of, *self._label)

    def _predictions(self, first: date, last: date) -> pl.DataFrame:
        """Walk-forward predictions of versions that were champion at some time, with the view and the definition they are of."""
        return self.warehouse.read(
            """
            select symbol, session, probability, model_version, trained_until, known_at, model_version::bigint as number,
                feature_view, definition_hash
            from signals.predictions_as_of($as_of) join (
                select model, horizon, model_version, any_value(feature_view) as feature_view, any_value(definition_hash) as definition_hash
                from signals.promotions
                where decision in ('promoted', 'rolled_back') and promoted_at <= $as_of and label_threshold = $label_threshold
                group by all
            ) using (model, horizon, model_version)
            where model = $model and horizon = $horizon and session between $first and $last and $scorer = 'model'
            """,
            {
                "as_of": self.as_of,
                "model": MODEL,
                "horizon": self.settings.horizon,
                "label_threshold": self.settings.label_threshold,
                "first": first,
                "last": last,
                "scorer": self.settings.scorer,
            },
        )


def _marked(
    scored: pl.DataFrame, mode: str, view: str, definition: str, model_version: str | None, trained_until: datetime | None
) -> pl.DataFrame:
    return scored.with_columns(
        mode=pl.lit(mode),
        feature_view=pl.lit(view),
        definition_hash=pl.lit(definition),
        model_version=pl.lit(model_version, pl.String),
        trained_until=pl.lit(trained_until, INSTANT),
    )
