"""The door for models: features as they were known at an instant, and with them the outcomes known by then.

The stored tables are read where they are up to date and nothing in reach became known since; otherwise everything is
computed again from the bars, actions, findings, reviews and scope known at the instant. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.errors import FeaturesUnavailable
from quant_assets.feature_store.fingerprints import fingerprint
from quant_assets.feature_store.inputs import SCOPE_THEN, adjusted_bars, changes_since_build
from quant_assets.feature_store.labels import HORIZONS, labels, uniqueness_weights
from quant_assets.feature_store.market_sessions import market_rows
from quant_assets.feature_store.views import definition_hash, features_of, labels_hash, model_sql
from quant_assets.schemas import ALPHA_MARKET_V1, LABELS, MARKET_V1, TABLES
from quant_assets.warehouse import Connection, Warehouse, query, scalar

OUTCOME = ("forward_return", "up", "weight", "known_at")
ALPHA_SQL = "features/alpha_v1.sql"


@dataclass(frozen=True)
class TrainingSet:
    """Features with the outcomes that followed them, all known at one instant.

    `frame` has one row per symbol and session, sorted by session and symbol: `symbol`, `session`, the view's features
    (Float64, nulls as the catalog says), `forward_return` (fraction), `up`, `weight` (0 to 1, the average uniqueness of
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
) -> TrainingSet:
    """Features, labels and weights of some sessions as they were known at an instant; the same arguments give the same set for ever.

    `universe` names the symbols, or is None for those in scope on each session, as known at the instant: who left later
    stays, and who joined later is no part of the time before. `sessions` are the first and the last one, both included.
    Rows whose outcome was not known by `as_of` are left out. Raises `FeaturesUnavailable` for an unknown view, a symbol
    without bars, sessions in the wrong order, an instant before any data, a horizon below 1 or longer than the history,
    and tables that were built with another calendar or definition.
    """
    features = [feature.name for feature in features_of(view)]
    first, last = sessions
    if first > last:
        raise FeaturesUnavailable(f"The first session {first} lies after the last one {last}; give them in order.")
    with warehouse.connect() as connection:
        newest = _refuse_what_cannot_be(connection, warehouse.preferred_source, calendar, universe, horizon, as_of)
        definitions = _definitions(view) | {LABELS.name: labels_hash(calendar)}
        _refuse_other_definitions(connection, definitions, calendar)
        stored = _as_known(connection, definitions, warehouse.preferred_source, as_of, max(last, newest))
        adjusted = None if stored else adjusted_bars(connection, warehouse.preferred_source, as_of=as_of)
        rows = _features(connection, calendar, warehouse.preferred_source, view, as_of, first, last, adjusted, universe)
        outcomes = _outcomes(connection, calendar, horizon, as_of, first, last, adjusted)
    frame = rows.select("symbol", "session", *features).join(outcomes, on=["symbol", "session"])
    weighted = uniqueness_weights(frame, calendar.frame(first, last), horizon).select("symbol", "session", *features, *OUTCOME)
    ordered = weighted.sort("session", "symbol")
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
        stored = not recompute and _as_known(connection, _definitions(view), source, as_of, last)
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

    sessions = calendar.between(*technical.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0))
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
    parts = {"market_v1": market, "alpha_history_v1": history, "alpha_market_v1": alpha_market(beside).filter(wanted)}
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


def _definitions(view: str) -> dict[str, str]:
    """The tables that a view is made of, and the definition that each is to be built with."""
    tables = dict.fromkeys(["technical_v1", *(feature.table for feature in features_of(view) if feature.table != view)])
    return {name: definition_hash("technical_v1" if name == "technical_v1" else view) for name in tables}


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
                union all select valid_from, known_at, source from market_data.universe
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


def _refuse_what_cannot_be(
    connection: Connection, source: str, calendar: TradingCalendar, universe: Sequence[str] | None, horizon: int, as_of: datetime
) -> date:
    """Raise for arguments that no data could answer; returns the newest session known at the instant."""
    if as_of.tzinfo is not None:
        utc = as_of.astimezone(UTC).replace(tzinfo=None)
        raise FeaturesUnavailable(f"The instant {as_of} carries an offset; instants are in UTC and carry none: give {utc}.")
    if horizon < 1:
        raise FeaturesUnavailable(f"A horizon of {horizon} sessions looks at nothing; give at least 1.")
    oldest, newest, count = query(
        connection,
        "select min(session), max(session), count(distinct session) from market_data.daily_bars where source = $source and known_at <= $as_of",
        {"source": source, "as_of": as_of},
    ).row(0)
    if not count:
        known = scalar(connection, "select min(known_at) from market_data.daily_bars where source = ?", [source])
        there_is = f"the first bar of {source} was known at {known} UTC" if known else f"no bar of {source} is stored at all"
        raise FeaturesUnavailable(f"Nothing was known as of {as_of} UTC: {there_is}. Give a later as_of, or load history first.")
    if horizon >= count:
        raise FeaturesUnavailable(
            f"A horizon of {horizon} sessions is longer than the history known as of {as_of} UTC: {count} sessions from {oldest} to {newest}. "
            "Give a shorter horizon or load more history."
        )
    foreign = [day for (day,) in connection.execute(
        "select distinct session from data_quality.clean_bars_as_of(?) order by 1", [as_of]
    ).fetchall() if not calendar.is_session(day)]  # fmt: skip
    if len(foreign) > count / 100:
        shown = ", ".join(map(str, foreign[:3]))
        raise FeaturesUnavailable(
            f"The calendar {calendar.name} does not match the bars of {source}: {len(foreign)} of {count} sessions with bars, such as {shown}, "
            "are none of its sessions. Set QUANT_CALENDAR to the exchange's calendar and QUANT_START no later than the first bar."
        )
    if universe is not None:
        known_symbols = [
            name for (name,) in connection.execute(
                "select distinct symbol from market_data.daily_bars where source = ? and known_at <= ?", [source, as_of]
            ).fetchall()
        ]  # fmt: skip
        if not universe:
            raise FeaturesUnavailable("The universe is empty; name symbols, or give None for those in scope.")
        if unknown := sorted(set(universe) - set(known_symbols)):
            near = get_close_matches(unknown[0], known_symbols, cutoff=0.5) or sorted(known_symbols)[:3]
            raise FeaturesUnavailable(
                f"{len(unknown)} of {len(set(universe))} symbols have no bars known as of {as_of} UTC: {', '.join(unknown[:5])}. "
                f"There are {len(known_symbols)} symbols, such as {', '.join(near)}."
            )
    return newest  # type: ignore[no-any-return]


def _refuse_other_definitions(connection: Connection, definitions: dict[str, str], calendar: TradingCalendar) -> None:
    """Raise where a stored table was built with another definition than the code's; one that was never built says nothing."""
    built = dict(
        connection.execute("select view, arg_max(definition_hash, recorded_at) from feature_store.view_builds group by view").fetchall()
    )
    for name, definition in definitions.items():
        if built.get(name, definition) != definition:
            what = f" (calendar {calendar.name})" if name == LABELS.name else ""
            raise FeaturesUnavailable(
                f"feature_store.{name} was built with definition {built[name][:12]}, the code now defines {definition[:12]}{what}: "
                "run the nightly job to build it anew, or use the calendar and settings that it was built with."
            )
