"""The door for models: features as they were known at an instant, and with them the outcomes known by then.

The stored tables are read where they are up to date and nothing in reach became known since; otherwise everything is
computed again from the bars, actions, findings, reviews and scope known at the instant. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.fingerprints import fingerprint
from quant_assets.feature_store.inputs import SCOPE_THEN, adjusted_bars, changes_since_build
from quant_assets.feature_store.labels import HORIZONS, exceeds, labels, uniqueness_weights
from quant_assets.feature_store.market_sessions import market_rows
from quant_assets.feature_store.refusals import refuse_malformed, refuse_other_definitions, refuse_unanswerable
from quant_assets.feature_store.views import build_hash, definition_hash, features_of, labels_hash, model_sql
from quant_assets.schemas import ALPHA_MARKET_V1, LABELS, MARKET_V1, TABLES
from quant_assets.warehouse import Connection, Warehouse, query, scalar

OUTCOME = ("forward_return", "up", "weight", "known_at")
ALPHA_SQL = "features/alpha_v1.sql"


@dataclass(frozen=True)
class TrainingSet:
    """Features with the outcomes that followed them, all known at one instant.

    `frame` has one row per symbol and session, sorted by session and symbol: `symbol`, `session`, the view's features
    (Float64, nulls as the catalog says), `forward_return` (fraction), `up` (whether it exceeds the threshold that was asked for), `weight` (0 to 1, the average uniqueness of
    the label) and `known_at` (when the outcome was known). `fingerprint` is a hash (hexadecimal sha256) of all that,
    with the view's name and definition: equal ones are equal sets.
    """

    frame: pl.DataFrame
    view: str
    definition_hash: str
    horizon: int
    as_of: datetime
    fingerprint: str


def training_set(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    view: str,
    universe: Sequence[str] | None,
    sessions: tuple[date, date],
    horizon: int,
    as_of: datetime,
    label_threshold: float = 0.0,
) -> TrainingSet:
    """Features, labels and weights of some sessions as they were known at an instant; the same arguments give the same set for ever.

    `universe` names the symbols, or is None for those in scope on each session, as known at the instant: who left later
    stays, and who joined later is no part of the time before. `sessions` are the first and the last one, both included.
    Rows whose outcome was not known by `as_of` are left out; `up` is a return above `label_threshold` (a fraction). Raises `FeaturesUnavailable` for an unknown view, a symbol
    without bars, sessions in the wrong order, an instant before any data, a horizon below 1 or longer than the history,
    and tables that were built with another calendar or definition.
    """
    features = [feature.name for feature in features_of(view)]
    refuse_malformed(universe, sessions, horizon, as_of)
    first, last = sessions
    with warehouse.connect() as connection:
        newest = refuse_unanswerable(connection, warehouse.preferred_source, calendar, universe, sessions, horizon, as_of)
        definitions = _definitions(view, calendar) | {LABELS.name: labels_hash(calendar)}
        refuse_other_definitions(connection, definitions, calendar)
        stored = _as_known(connection, definitions, warehouse.preferred_source, as_of, max(last, newest))
        adjusted = None if stored else adjusted_bars(connection, warehouse.preferred_source, as_of=as_of)
        rows = _features(connection, calendar, warehouse.preferred_source, view, as_of, first, last, adjusted, universe)
        outcomes = _outcomes(connection, calendar, horizon, as_of, first, last, adjusted)
    frame = rows.select("symbol", "session", *features).join(outcomes, on=["symbol", "session"])
    weighted = uniqueness_weights(frame, calendar.frame(first, last), horizon).select("symbol", "session", *features, *OUTCOME)
    ordered = weighted.with_columns(up=exceeds(label_threshold)).sort("session", "symbol")
    definition = definition_hash(view)
    return TrainingSet(ordered, view, definition, horizon, as_of, fingerprint(ordered, view=view, definition=definition, horizon=horizon))


def features_as_of(
    warehouse: Warehouse,
    calendar: TradingCalendar,
    view: str,
    as_of: datetime,
    first: date,
    last: date,
    universe: Sequence[str] | None = None,
    recompute: bool = False,
) -> pl.DataFrame:
    """Rows of a view from first to last session as they were known at an instant: `symbol`, `session`, features, `known_at`.

    `universe` as in `training_set`; bars of sessions out of scope are looked back on all the same. With `recompute` the
    stored tables are not read even where they could be.
    """
    source = warehouse.preferred_source
    with warehouse.connect() as connection:
        stored = not recompute and _as_known(connection, _definitions(view, calendar), source, as_of, last)
        # A row of technical_v1 needs no other symbol's bars; one of alpha_v1 needs them all.
        needed = list(universe) if universe is not None and view == "technical_v1" else None
        adjusted = None if stored else adjusted_bars(connection, source, needed, as_of=as_of)
        return _features(connection, calendar, source, view, as_of, first, last, adjusted, universe)


def _features(
    connection: Connection,
    calendar: TradingCalendar,
    source: str,
    view: str,
    as_of: datetime,
    first: date,
    last: date,
    adjusted: pl.DataFrame | None,
    universe: Sequence[str] | None,
) -> pl.DataFrame:
    """The view's rows, from the stored tables or, where adjusted bars are given, computed from these."""
    columns = ", ".join(["symbol", "session", *(feature.name for feature in features_of(view)), "known_at"])
    relations = {} if adjusted is None else _tables_from(connection, calendar, source, view, as_of, adjusted, first, last)
    rows = (
        relations.get("feature_store.technical_v1", "feature_store.technical_v1")
        if view == "technical_v1"
        else f"({model_sql(ALPHA_SQL, relations)})"
    )
    chosen = f"semi join {SCOPE_THEN}" if universe is None else "semi join (select unnest($universe) as symbol) as chosen using (symbol)"
    asked = ("as_of", as_of) if universe is None else ("universe", list(universe))
    given = dict([("first", first), ("last", last), asked])
    found = query(connection, f"select {columns} from {rows} as row {chosen} where session between $first and $last", given)
    for relation in relations.values():
        if relation.endswith("_then"):
            connection.unregister(relation)
    return found


def _tables_from(
    connection: Connection,
    calendar: TradingCalendar,
    source: str,
    view: str,
    as_of: datetime,
    adjusted: pl.DataFrame,
    first: date,
    last: date,
) -> dict[str, str]:
    """Compute what a view is made of from adjusted bars, and register each part; returns the relations by the tables they stand for."""
    from quant_assets.feature_store.indicators import technical_v1

    technical = technical_v1(adjusted).hstack(adjusted.select("price_factor", "share_factor", "known_at"))
    connection.register("technical_v1_then", technical)
    relations = {"feature_store.technical_v1": "technical_v1_then"}
    if view == "technical_v1":
        return relations
    from quant_assets.feature_store.alpha.history import alpha_history
    from quant_assets.feature_store.alpha_market import alpha_market
    from quant_assets.feature_store.windows import by_blocks

    oldest, newest = technical.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    sessions = calendar.between(oldest, newest) if oldest else []
    market = market_rows(connection, calendar, source, sessions, "technical_v1_then", as_of)
    returns = technical.select("symbol", "session", "price_change_1d", "known_at")
    beside = returns.join(
        market.select("session", "market_return_1d", pl.col("known_at").alias("market_known_at")),
        on="session",
        how="left",
        maintain_order="left",
    )
    wanted = pl.col("session").is_between(first, last)
    # Only the wanted rows of each block are kept: all of them would be gigabytes.
    history = by_blocks(
        adjusted.hstack(technical.select("price_change_1d")),
        lambda block: alpha_history(block).hstack(block.select("known_at")).filter(wanted),
    )
    against_market = by_blocks(beside, lambda block: alpha_market(block).filter(wanted))
    parts = {"market_v1": market, "alpha_history_v1": history, "alpha_market_v1": against_market}
    for name, part in parts.items():
        connection.register(f"{name}_then", part)
        relations[f"feature_store.{name}"] = f"{name}_then"
    return relations | {"market_data.scope": f"market_data.scope_as_of(timestamp '{as_of}')"}


def _outcomes(
    connection: Connection, calendar: TradingCalendar, horizon: int, as_of: datetime, first: date, last: date, adjusted: pl.DataFrame | None
) -> pl.DataFrame:
    """Labels of some sessions that were known at an instant."""
    if adjusted is None and horizon in HORIZONS:
        return query(
            connection,
            """
            select symbol, session, forward_return, up, known_at from feature_store.labels
            where horizon = $horizon and session between $first and $last and known_at <= $as_of
            """,
            {"horizon": horizon, "first": first, "last": last, "as_of": as_of},
        )
    if adjusted is None:
        adjusted = query(
            connection,
            """
            select symbol, session, close * price_factor as adj_close, row.known_at
            from feature_store.technical_v1 as row join data_quality.clean_bars using (symbol, session) where session >= $first
            """,
            {"first": first},
        )
    newest: date = adjusted.select(pl.col("session").max()).item() or last
    known = labels(adjusted.filter(pl.col("session") >= first), calendar.frame(first, max(newest, last)), [horizon])
    return known.filter(pl.col("known_at") <= as_of, pl.col("session") <= last).drop("horizon")


def _definitions(view: str, calendar: TradingCalendar) -> dict[str, str]:
    """The tables that a view is made of, and the hash that each is to be built under."""
    tables = dict.fromkeys(["technical_v1", *(feature.table for feature in features_of(view) if feature.table != view)])
    return {name: build_hash(name, view, calendar) for name in tables}


def _as_known(connection: Connection, definitions: dict[str, str], source: str, as_of: datetime, last: date) -> bool:
    """Whether the tables hold what was known at an instant: nothing about the sessions up to the last became known since, and they have seen all else.

    The inputs are asked, for a row that was removed since has left nothing in the tables.
    """
    newer = scalar(
        connection,
        """
        select exists (
            select 1 from (
                select session, known_at, source from market_data.daily_bars
                union all select session, known_at, source from market_data.corporate_actions
                union all select session, known_at, source from data_quality.anomalies where severity = 'critical'
                union all select session, decided_at, source from data_quality.reviews
                union all select -- the first universe says of every session that who is not in it is not in scope
                    case when known_at > min(known_at) over (partition by source) then valid_from else date '0001-01-01' end, known_at, source
                from market_data.universe
            ) where session <= ? and known_at > ? and source = ?
        )
        """,
        [last, as_of, source],
    )
    return not newer and not any(_behind(connection, name, definition, source) for name, definition in definitions.items())


def _behind(connection: Connection, name: str, definition: str, source: str) -> bool:
    """Whether a table has yet to be brought up to date; who is in scope matters to the market alone."""
    changes = changes_since_build(connection, TABLES[f"feature_store.{name}"], definition, source)
    scoped = name in (MARKET_V1.name, ALPHA_MARKET_V1.name) and not changes.scopes.is_empty()
    return changes.rebuild or scoped or not changes.histories.is_empty()
