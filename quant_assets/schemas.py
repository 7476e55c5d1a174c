"""Every table, declared once: kind, grain, key, clock, columns with dtypes and units.

Tables are created, frames are checked, docs are written and Dagster's column schemas are shown from these
declarations. Sessions are `DATE`, instants are `TIMESTAMP` in UTC; a column is nullable only where it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from quant_assets.feature_store import catalog

INSTANT = pl.Datetime("us")


class Kind(StrEnum):
    """How a table changes: see each value."""

    VERSIONS = "versions"  # append-only, known_at tells versions apart, never updated
    CURRENT = "current"  # rebuildable, rewritten where its inputs changed
    LEDGER = "ledger"  # what happened, append-only


@dataclass(frozen=True)
class Column:
    """One column: its Polars dtype, what it means, its unit where it has one."""

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table's declaration; `schema` is the stage, `clock` names the column that says when a row became known or happened."""

    schema: str
    name: str
    kind: Kind
    grain: str
    key: tuple[str, ...]
    clock: str
    description: str
    columns: tuple[Column, ...]
    ignored: tuple[str, ...] = ()
    """Columns that are not part of a row's identity: a row that differs only in these is the same row."""
    derived: bool = False
    """Computed from other tables alone: it may be dropped at any time and is then built anew."""

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def polars_schema(self) -> dict[str, pl.DataType | type[pl.DataType]]:
        return {column.name: column.dtype for column in self.columns}

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def entity(self) -> tuple[str, ...]:
        """The key without `known_at`: what there can be several versions of."""
        return tuple(name for name in self.key if name != "known_at")

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that make one version differ from another."""
        return tuple(name for name in self.column_names if name not in (*self.key, *self.ignored, "known_at"))


def _recorded_at() -> Column:
    return Column("recorded_at", INSTANT, "Wall clock of the write; kept, never compared", "UTC")


def _known_at(description: str = "Instant from which the row was known to us") -> Column:
    return Column("known_at", INSTANT, description, "UTC")


SYMBOL = Column("symbol", pl.String, "Instrument, unique through time")
SESSION = Column("session", pl.Date, "Trading date of the exchange calendar")
RUN_ID = Column("run_id", pl.String, "Dagster run that wrote the row")

FETCH_LEDGER = Table(
    "market_data", "fetch_ledger", Kind.LEDGER, "one request to a source, or one file read", ("request_id",), "requested_at",
    "Every request to a vendor and every file read, with what came of it.",
    (
        Column("request_id", pl.String, "Unique id of the request"),
        Column("source", pl.String, "Vendor or kind of source"),
        Column("symbol", pl.String, "Symbol asked for", nullable=True),
        Column("requested_at", INSTANT, "Wall clock of the request", "UTC"),
        Column("status", pl.String, "landed, partial (rows were rejected), unchanged or failed; else what the reply or delivery was, in one word"),
        Column("reply_class", pl.String, "How a vendor's reply was classified before it was parsed, null for files", nullable=True),
        Column("rows", pl.Int64, "Rows in the reply", "rows"),
        Column("payload_sha256", pl.String, "Content hash of what was received", nullable=True),
        Column("detail", pl.String, "What happened, in words"),
        Column("batch_id", pl.String, "Delivery the request belongs to"),
        RUN_ID,
    ),
)  # fmt: skip

REJECTED_ROWS = Table(
    "market_data", "rejected_rows", Kind.LEDGER, "one row of one delivered file that is no bar", ("batch_id", "file", "line"), "recorded_at",
    "Rows that could not become bars, with the reason; the rest of their file landed.",
    (
        Column("batch_id", pl.String, "Delivery the row came in"),
        Column("file", pl.String, "File the row stands in"),
        Column("line", pl.Int64, "Line of the file, the header being 1 (for Parquet: row number + 1)"),
        Column("column_name", pl.String, "Column that is at fault, as the file names it", nullable=True),
        Column("value", pl.String, "What stands there, as text", nullable=True),
        Column("reason", pl.String, "Why the row is no bar"),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip

INSTRUMENTS = Table(
    "market_data", "instruments", Kind.VERSIONS, "one version of one instrument", ("symbol", "known_at"), "known_at",
    "Which symbols are in scope, and from when to when.",
    (
        SYMBOL,
        _known_at(),
        Column("ticker", pl.String, "What the vendor calls it; several instruments may have used one ticker"),
        Column("valid_from", pl.Date, "First session with a bar"),
        Column("valid_to", pl.Date, "Last session, null while it is listed", nullable=True),
        Column("source", pl.String, "Where it was seen"),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip

DAILY_BARS = Table(
    "market_data", "daily_bars", Kind.VERSIONS, "one version of one symbol's bar in one session from one source",
    ("symbol", "session", "source", "known_at"), "known_at",
    "Daily bars as delivered; a changed value is a new version, an unchanged one writes nothing.",
    (
        SYMBOL,
        SESSION,
        Column("source", pl.String, "Vendor or kind of source"),
        _known_at(),
        Column("open", pl.Float64, "First price", "listing currency"),
        Column("high", pl.Float64, "Highest price", "listing currency"),
        Column("low", pl.Float64, "Lowest price", "listing currency"),
        Column("close", pl.Float64, "Last price", "listing currency"),
        Column("volume", pl.Float64, "Shares traded, null where the source has none", "shares", nullable=True),
        Column("adj_close", pl.Float64, "The vendor's adjusted close, as delivered; no part of a bar's identity", "listing currency", nullable=True),
        Column("basis", pl.String, "raw: prices as traded; restated: already adjusted by the vendor"),
        Column("known_at_basis", pl.String, "assumed: history loaded later; observed: seen at that instant"),
        Column("batch_id", pl.String, "Delivery that brought this version"),
        _recorded_at(),
    ),
    ignored=("adj_close", "known_at_basis", "batch_id", "recorded_at"),
)  # fmt: skip

CORPORATE_ACTIONS = Table(
    "market_data", "corporate_actions", Kind.VERSIONS, "one version of one action", ("symbol", "session", "kind", "source", "known_at"), "known_at",
    "Splits and dividends by ex-session.",
    (
        SYMBOL,
        Column("session", pl.Date, "Ex-session: the first session that trades without the entitlement"),
        Column("kind", pl.String, "split or dividend"),
        Column("source", pl.String, "Vendor or kind of source"),
        _known_at(),
        Column("value", pl.Float64, "Split: new shares per old share; dividend: amount per share", "ratio or listing currency"),
        Column("batch_id", pl.String, "Delivery that brought this version"),
        _recorded_at(),
    ),
    ignored=("batch_id", "recorded_at"),
)  # fmt: skip

UNIVERSE = Table(
    "market_data", "universe", Kind.VERSIONS, "one version of one stretch of time in which a symbol was in scope",
    ("symbol", "valid_from", "source", "known_at"), "known_at",
    "Who was in scope when: yesterday's losers stay in the past.",
    (
        SYMBOL,
        Column("valid_from", pl.Date, "First session in scope"),
        Column("source", pl.String, "Source whose scope it is"),
        _known_at(),
        Column("valid_to", pl.Date, "Last session in scope, null while it is", nullable=True),
        Column("batch_id", pl.String, "Delivery that brought this version"),
        _recorded_at(),
    ),
    ignored=("batch_id", "recorded_at"),
)  # fmt: skip

SYNTHETIC_TRUTH_STATES = Table(
    "market_data", "synthetic_truth_states", Kind.CURRENT, "one session of the synthetic market", ("session",), "session",
    "The hidden state that the synthetic market was in.",
    (SESSION, Column("state", pl.String, "bull, bear, sideways or high_volatility")),
)  # fmt: skip

SYNTHETIC_TRUTH_FAULTS = Table(
    "market_data", "synthetic_truth_faults", Kind.CURRENT, "one planted fault", ("symbol", "session", "kind"), "session",
    "The faults planted in the synthetic bars.",
    (SYMBOL, SESSION, Column("kind", pl.String, "Name of the fault"), Column("detail", pl.String, "What was done to the bar")),
)  # fmt: skip

SYNTHETIC_TRUTH_SIGNAL = Table(
    "market_data", "synthetic_truth_signal", Kind.CURRENT, "one symbol in one session", ("symbol", "session"), "session",
    "The planted score: the known combination of features that moves the next return.",
    (SYMBOL, SESSION, Column("oracle_score", pl.Float64, "Cross-sectional z-score of the planted combination", "standard deviations")),
)  # fmt: skip

ANOMALIES = Table(
    "data_quality", "anomalies", Kind.VERSIONS, "one finding of one rule about one version of a bar",
    ("symbol", "session", "rule", "detector", "source", "bar_known_at"), "known_at",
    "Suspicious bars; critical ones are held out of clean_bars until a person releases them.",
    (
        SYMBOL,
        SESSION,
        Column("source", pl.String, "Vendor or kind of source whose bar it is"),
        Column("rule", pl.String, "What was broken"),
        Column("detector", pl.String, "What found it, and how much it may look at"),
        Column("bar_known_at", INSTANT, "The version of the bar that is meant", "UTC"),
        Column("score", pl.Float64, "How suspicious, one scale for all rules", "0 to 1"),
        Column("severity", pl.String, "info, warning or critical"),
        Column("detail", pl.String, "The finding in words, with its numbers"),
        Column("suggestion", pl.String, "What would mend it, as JSON: column, value, evidence; never applied by itself", nullable=True),
        _known_at("Instant from which the finding could be made"),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip

REVIEWS = Table(
    "data_quality", "reviews", Kind.LEDGER, "one person's decision about one finding", ("symbol", "session", "rule", "source", "decided_at"), "decided_at",
    "Who released or confirmed a finding, when and why.",
    (
        SYMBOL,
        SESSION,
        Column("source", pl.String, "Vendor or kind of source whose bar it is"),
        Column("rule", pl.String, "Rule of the finding"),
        Column("decided_at", INSTANT, "When the decision was made, on the desk's clock: as of what the bars were then", "UTC"),
        Column("bar_known_at", INSTANT, "The version of the bar it concerns", "UTC"),
        Column("decision", pl.String, "release or confirm"),
        Column("decided_by", pl.String, "Who decided"),
        Column("reason", pl.String, "Why"),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip

JUDGED_BATCHES = Table(
    "data_quality", "judged_batches", Kind.LEDGER, "one delivery whose bars have been judged", ("batch_id", "landed_at"), "recorded_at",
    "Which deliveries have been judged, and what could not be said of them.",
    (
        Column("batch_id", pl.String, "Delivery"),
        Column("landed_at", INSTANT, "Wall clock at which its bars were written", "UTC"),
        Column("source", pl.String, "Vendor or kind of source"),
        Column("bars", pl.Int64, "Versions of bars in it", "rows"),
        Column("first_session", pl.Date, "Earliest session among them"),
        Column("last_session", pl.Date, "Latest session among them"),
        Column("not_judged", pl.String, "What could not be judged, and why; empty where all could", nullable=True),
        RUN_ID,
        _recorded_at(),
    ),
    ignored=("run_id", "recorded_at"),
)  # fmt: skip

BLAST_RADIUS = Table(
    "data_quality", "blast_radius", Kind.LEDGER, "one thing that used one version of a bar, as measured once",
    ("symbol", "session", "bar_known_at", "measured_at", "edge", "item"), "measured_at",
    "What a bar reached: feature rows, training sets, models, signals and documents, and how far signals move without it.",
    (
        SYMBOL,
        SESSION,
        Column("bar_known_at", INSTANT, "The version of the bar that is meant", "UTC"),
        Column("measured_at", INSTANT, "As of when it was measured, on the desk's clock", "UTC"),
        Column("edge", pl.String, "Kind of thing: feature_row, label, training_set, model_version, prediction, signal or document"),
        Column("item", pl.String, "Which one"),
        Column("item_session", pl.Date, "Its session, where it has one", nullable=True),
        Column("value_with", pl.Float64, "Its number with the bar, where it has one", nullable=True),
        Column("value_without", pl.Float64, "Its number had the bar been held back", nullable=True),
        Column("detail", pl.String, "How the bar reached it, in words"),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip


def _feature_columns(table: str) -> tuple[Column, ...]:
    """The columns of a feature table, from the catalog."""
    features = (feature for view in catalog.VIEWS.values() for feature in view if feature.table == table)
    return tuple(
        Column(feature.name, pl.Float64, f"{feature.sentence} {feature.definition}", feature.unit, nullable=True)
        for feature in dict.fromkeys(features)
    )


_FEATURES_KNOWN_AT = _known_at("Latest instant at which anything the row depends on became known")

TECHNICAL_V1 = Table(
    "feature_store", "technical_v1", Kind.CURRENT, "one symbol in one session with a clean bar", ("symbol", "session"), "known_at",
    "The 22 technical indicators; columns in price or share units stand in the basis of their own session.",
    (
        SYMBOL,
        SESSION,
        *_feature_columns("technical_v1"),
        Column("price_factor", pl.Float64, "Adjusted over raw price: splits and dividends since the symbol's first bar", "ratio"),
        Column("share_factor", pl.Float64, "Raw over adjusted volume: splits since the symbol's first bar", "ratio"),
        _FEATURES_KNOWN_AT,
    ),
    derived=True,
)  # fmt: skip

ALPHA_HISTORY_V1 = Table(
    "feature_store", "alpha_history_v1", Kind.CURRENT, "one symbol in one session with a clean bar", ("symbol", "session"), "known_at",
    "What alpha_v1 says of a symbol from its own history.",
    (SYMBOL, SESSION, *_feature_columns("alpha_history_v1"), _FEATURES_KNOWN_AT),
    derived=True,
)  # fmt: skip

MARKET_V1 = Table(
    "feature_store", "market_v1", Kind.CURRENT, "one session of the market, which is all symbols in scope", ("session",), "known_at",
    "The one-session returns of the market as a whole, over symbols with a bar on the session before too.",
    (SESSION, Column("symbols", pl.Int64, "Symbols that it counts", "symbols"), *_feature_columns("market_v1"), _FEATURES_KNOWN_AT),
    derived=True,
)  # fmt: skip

ALPHA_MARKET_V1 = Table(
    "feature_store", "alpha_market_v1", Kind.CURRENT, "one symbol in one session with a clean bar", ("symbol", "session"), "known_at",
    "What alpha_v1 says of a symbol against the market.",
    (SYMBOL, SESSION, *_feature_columns("alpha_market_v1"), _FEATURES_KNOWN_AT),
    derived=True,
)  # fmt: skip

CARRIED_STATES = Table(
    "feature_store", "carried_states", Kind.CURRENT, "one symbol of one feature table", ("view", "symbol"), "session",
    "Where each symbol's recursions stand after its newest row, so that a new session costs a new session.",
    (
        Column("view", pl.String, "Feature table"),
        SYMBOL,
        Column("session", pl.Date, "Session of the newest row"),
        Column("states", pl.List(pl.Float64), "State of each recursion, in the order of the code that computes the table", nullable=True),
    ),
    derived=True,
)  # fmt: skip

LABELS = Table(
    "feature_store", "labels", Kind.CURRENT, "one symbol, session and horizon whose outcome is known", ("symbol", "session", "horizon"), "known_at",
    "What models predict: the only thing that looks forward.",
    (
        SYMBOL,
        SESSION,
        Column("horizon", pl.Int32, "How far the label looks", "sessions"),
        Column("forward_return", pl.Float64, "Adjusted close to adjusted close, session to session + horizon", "fraction"),
        Column("up", pl.Boolean, "Whether the forward return is positive"),
        _known_at("When the outcome was known: the close of session + horizon"),
    ),
    derived=True,
)  # fmt: skip

DRIFT = Table(
    "feature_store", "drift", Kind.VERSIONS, "one version of one feature's drift as of one session", ("view", "feature", "session", "known_at"), "known_at",
    "Whether each feature has left the distribution it had in the champion's training window, autocorrelation allowed for.",
    (
        Column("view", pl.String, "Feature view"),
        Column("feature", pl.String, "Feature"),
        SESSION,
        _known_at("As-of instant of the night that judged it"),
        Column("reference_from", pl.Date, "First session of the reference"),
        Column("reference_to", pl.Date, "Last session of the reference"),
        Column("symbols", pl.Int64, "Median number of symbols in the window", "symbols", nullable=True),
        Column("window_sessions", pl.Int64, "Sessions in the window with a value", "sessions"),
        Column("effective_sessions", pl.Float64, "Independent sessions that carry as much", "sessions", nullable=True),
        Column("shift", pl.Float64, "Mean of the window less the reference's, in normal scores", "standard deviations", nullable=True),
        Column("statistic", pl.Float64, "Shift over its standard error", nullable=True),
        Column("p_value", pl.Float64, "Of no shift, two-sided", "0 to 1", nullable=True),
        Column("p_adjusted", pl.Float64, "The same, adjusted over the session's features (Benjamini and Hochberg)", "0 to 1", nullable=True),
        Column("spread_ratio", pl.Float64, "Spread across symbols in the window over the reference's", "ratio", nullable=True),
        Column("spread_statistic", pl.Float64, "Change of the spread over its standard error", nullable=True),
        Column("spread_p_value", pl.Float64, "Of no change of spread, two-sided", "0 to 1", nullable=True),
        Column("spread_p_adjusted", pl.Float64, "The same, adjusted over the session's features", "0 to 1", nullable=True),
        Column("verdict", pl.String, "shifted, spread changed, steady, or cannot be told"),
        Column("severity", pl.String, "critical, warning or info", nullable=True),
        Column("reason", pl.String, "Why it cannot be told", nullable=True),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip

VIEW_BUILDS = Table(
    "feature_store", "view_builds", Kind.LEDGER, "one build of a feature table that changed rows", ("view", "recorded_at"), "recorded_at",
    "With which definition a feature table was built, and what it had seen by then.",
    (
        Column("view", pl.String, "Feature table"),
        _recorded_at(),
        Column("definition_hash", pl.String, "Hash over the code and SQL that compute it"),
        Column("source", pl.String, "Source whose bars it was built from"),
        Column("rows", pl.Int64, "Rows written", "rows"),
        Column("bars_seen", pl.Int64, "Bar versions there were", "rows"),
        Column("actions_seen", pl.Int64, "Versions of corporate actions there were", "rows"),
        Column("findings_seen", pl.Int64, "Findings about bars there were", "rows"),
        Column("reviews_seen", pl.Int64, "Decisions about findings there were", "rows"),
        Column("scopes_seen", pl.Int64, "Versions of stretches in scope there were", "rows"),
        RUN_ID,
    ),
)  # fmt: skip

PREDICTIONS = Table(
    "signals", "predictions", Kind.VERSIONS, "one out-of-sample prediction of one walk-forward fold",
    ("model", "model_version", "horizon", "symbol", "session", "fold"), "known_at",
    "Walk-forward predictions: each session is scored by a model that had not seen it.",
    (
        Column("model", pl.String, "Registered model"),
        Column("model_version", pl.String, "Version the folds belong to"),
        Column("horizon", pl.Int32, "How far the label looks", "sessions"),
        SYMBOL,
        SESSION,
        Column("fold", pl.Int32, "Number of the fold, from 0"),
        Column("probability", pl.Float64, "That the return over the horizon exceeds the label's threshold, calibrated", "0 to 1"),
        Column("uncalibrated_probability", pl.Float64, "The same before calibration; null before it was kept", "0 to 1", nullable=True),
        Column("trained_until", INSTANT, "The fold's model used nothing known after this", "UTC"),
        _known_at("As-of instant of the training that made it"),
        _recorded_at(),
    ),
    ignored=("recorded_at",),
)  # fmt: skip

PROMOTIONS = Table(
    "signals", "promotions", Kind.LEDGER, "one decision about one model version", ("model", "model_version", "promoted_at"), "promoted_at",
    "Which version was champion when, which challenger was turned down, and on what evidence.",
    (
        Column("model", pl.String, "Registered model"),
        Column("model_version", pl.String, "Version in the registry"),
        Column("promoted_at", INSTANT, "From when the decision holds: the training's as-of, or when a person decided", "UTC"),
        Column("decision", pl.String, "promoted, rejected, rolled_back (made champion again) or deleted"),
        Column("decided_by", pl.String, "The rule, or the person"),
        Column("reason", pl.String, "Why, in words"),
        Column("incumbent_version", pl.String, "Champion that it was held against; null: no skill at all", nullable=True),
        Column("trained_until", INSTANT, "It used nothing known after this", "UTC"),
        Column("horizon", pl.Int32, "How far its label looks", "sessions"),
        Column("label_threshold", pl.Float64, "Its label is true where the forward return exceeds this", "fraction"),
        Column("feature_view", pl.String, "View it was trained on"),
        Column("definition_hash", pl.String, "Hash of the view's definition"),
        Column("fingerprint", pl.String, "Hash of training frame, configuration and code"),
        Column("model_sha256", pl.String, "Hash of the verified local copy"),
        Column("mlflow_run_id", pl.String, "Run that logged it"),
        Column("evidence", pl.String, "Metrics beside their baselines, as JSON"),
        RUN_ID,
        _recorded_at(),
    ),
    ignored=("mlflow_run_id", "run_id", "recorded_at"),
)  # fmt: skip

DAILY_SIGNALS = Table(
    "signals", "daily_signals", Kind.VERSIONS, "one version of one symbol's signal for one session and horizon",
    ("symbol", "session", "horizon", "known_at"), "known_at",
    "The night's result: the probability that a symbol's return over the horizon exceeds the label's threshold, and why.",
    (
        SYMBOL,
        SESSION,
        Column("horizon", pl.Int32, "How far it looks", "sessions"),
        _known_at(),
        Column("label_threshold", pl.Float64, "The return that is to be exceeded", "fraction"),
        Column("probability", pl.Float64, "That the return over the horizon exceeds the threshold, calibrated", "0 to 1"),
        Column("confidence", pl.Float64, "How far the probability is from a coin's: |2p - 1|", "0 to 1"),
        Column("recommendation", pl.String, "strong_buy, buy, hold, sell or strong_sell"),
        Column("scorer", pl.String, "model or heuristic"),
        Column("model_version", pl.String, "Version that scored; null for the heuristic", nullable=True),
        Column("contributions", pl.String, "JSON list of {feature, value, contribution}, largest first", nullable=True),
        Column("centre", pl.Float64, "Mean log-odds of the symbols scored with it, which its own is held against; null: none is", "log-odds", nullable=True),
        Column("regime", pl.String, "Regime known at the time; null before there is one", nullable=True),
        Column("feature_view", pl.String, "View the features came from"),
        Column("definition_hash", pl.String, "Hash of the view's definition"),
        Column("mode", pl.String, "live or replayed"),
        Column("trained_until", INSTANT, "The scorer used nothing known after this; null for the heuristic", "UTC", nullable=True),
        Column("batch_id", pl.String, "Delivery that brought the bar it was scored on"),
        RUN_ID,
        _recorded_at(),
    ),
    ignored=("batch_id", "run_id", "recorded_at"),
)  # fmt: skip

HEURISTIC_CALIBRATIONS = Table(
    "signals", "heuristic_calibrations", Kind.VERSIONS, "one calibration of the heuristic for one month",
    ("horizon", "label_threshold", "valid_from", "known_at"), "known_at",
    "How the heuristic's rules became probabilities in a month in which it scored, from outcomes known before its first close.",
    (
        Column("horizon", pl.Int32, "How far the label looks", "sessions"),
        Column("label_threshold", pl.Float64, "The return that is to be exceeded", "fraction"),
        Column("valid_from", pl.Date, "First session of the month"),
        _known_at("As-of instant of the night that made it"),
        Column("intercept", pl.Float64, "Log-odds where the rules are silent", "log-odds"),
        Column("slope", pl.Float64, "Log-odds per unit of the rules' sum"),
        Column("rows", pl.Int64, "Outcomes that it was fitted on; 0: the rules are taken as written", "rows"),
        RUN_ID,
        _recorded_at(),
    ),
    ignored=("run_id", "recorded_at"),
)  # fmt: skip

SIGNAL_SCORECARD = Table(
    "signals", "scorecard", Kind.CURRENT, "one signal beside what came of it, live and replayed apart", ("mode", "horizon", "symbol", "session"),
    "known_at",
    "What signals said before the outcome, and the outcome: live performance as a table.",
    (
        Column("mode", pl.String, "live or replayed; never mix the two"),
        Column("horizon", pl.Int32, "How far it looked", "sessions"),
        SYMBOL,
        SESSION,
        Column("signal_known_at", INSTANT, "Version of the signal: of live ones the last known before the next close", "UTC"),
        Column("label_threshold", pl.Float64, "The return that was to be exceeded", "fraction"),
        Column("probability", pl.Float64, "What it said", "0 to 1"),
        Column("recommendation", pl.String, "What it recommended"),
        Column("scorer", pl.String, "model or heuristic"),
        Column("model_version", pl.String, "Version that scored; null for the heuristic", nullable=True),
        Column("forward_return", pl.Float64, "What came", "fraction"),
        Column("up", pl.Boolean, "Whether it exceeded the threshold"),
        _known_at("When the outcome, as it stands, was known"),
        RUN_ID,
        _recorded_at(),
    ),
    ignored=("run_id", "recorded_at"),
)  # fmt: skip

OUTBOX = Table(
    "publishing", "outbox", Kind.LEDGER, "one immutable file of documents", ("session", "sha256"), "recorded_at",
    "The nights' documents, ready for the document store.",
    (
        SESSION,
        Column("sha256", pl.String, "Content hash, and the file's name"),
        Column("documents", pl.Int64, "Documents in the file", "documents"),
        Column("collections", pl.String, "Collections they go to, as JSON"),
        RUN_ID,
        _recorded_at(),
    ),
    ignored=("run_id", "recorded_at"),
)  # fmt: skip

TABLES: dict[str, Table] = {
    table.full_name: table
    for table in (
        FETCH_LEDGER, REJECTED_ROWS, INSTRUMENTS, UNIVERSE, DAILY_BARS, CORPORATE_ACTIONS,
        SYNTHETIC_TRUTH_STATES, SYNTHETIC_TRUTH_FAULTS, SYNTHETIC_TRUTH_SIGNAL,
        ANOMALIES, REVIEWS, JUDGED_BATCHES, BLAST_RADIUS, TECHNICAL_V1, ALPHA_HISTORY_V1, MARKET_V1, ALPHA_MARKET_V1,
        CARRIED_STATES, LABELS, VIEW_BUILDS, DRIFT, PREDICTIONS, PROMOTIONS,
        HEURISTIC_CALIBRATIONS, DAILY_SIGNALS, SIGNAL_SCORECARD, OUTBOX,
    )
}  # fmt: skip
