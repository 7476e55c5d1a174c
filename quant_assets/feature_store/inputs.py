"""What feature tables are computed from: what changed since a build, and the bars and actions as they stand or stood.

The tables that decide about features only ever grow, so the rows past the count that a build had seen are what is new:
to find them costs what is new, not what there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.schemas import Table
from quant_assets.warehouse import Connection, query, scalar

IN_SCOPE = """exists (
    select 1 from market_data.scope_as_of($as_of) as stretch
    where stretch.symbol = row.symbol and row.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')
)"""
"""SQL that says of a `row` with symbol and session whether it was in scope, as known at `$as_of`: what signals and trainings select by."""
BEGINNING = date(1, 1, 1)
_GROWING = {
    "bars": ("market_data.daily_bars", "symbol, session", "true"),
    "actions": ("market_data.corporate_actions", "symbol, session", "true"),
    "findings": ("data_quality.anomalies", "symbol, session", "severity = 'critical'"),
    "reviews": ("data_quality.reviews", "symbol, session", "true"),
}
_SCOPES = "market_data.universe"
FOREVER = datetime(9999, 12, 31)
_END = "coalesce({valid_to}, date '9999-12-31')"
SCOPE_CHANGES = f"""
    select rowid as place, known_at,
        case when lag(known_at) over earlier is null then valid_from
             else greatest(valid_from, least({_END.format(valid_to="valid_to")}, {_END.format(valid_to="lag(valid_to) over earlier")}) + 1)
        end as changed_from,
        case when lag(known_at) over earlier is null then {_END.format(valid_to="valid_to")}
             else greatest({_END.format(valid_to="valid_to")}, {_END.format(valid_to="lag(valid_to) over earlier")})
        end as changed_to
    from {_SCOPES} where source = $source and known_at <= $until
    window earlier as (partition by symbol, valid_from order by known_at)
"""
"""SQL: the stretch of sessions whose scope each version of a stretch changed, beside the version before it; none where it is empty."""


@dataclass(frozen=True)
class Changes:
    """What a feature table has not seen yet.

    `rebuild`: all of it, because its definition, its source or its inputs' past is another. Else `histories` has the symbols
    whose history changed and the session from which on (`symbol, from_session`); `sessions` are all sessions about which
    anything is new, `scopes` the stretches of time in which the scope changed (`first, last`); `seen` is what the next
    build notes.
    """

    rebuild: bool
    histories: pl.DataFrame
    sessions: list[date]
    scopes: pl.DataFrame
    seen: dict[str, int]

    @property
    def nothing(self) -> bool:
        return not self.rebuild and self.histories.is_empty() and self.scopes.is_empty()


def changes_since_build(connection: Connection, table: Table, definition: str, source: str) -> Changes:
    """What became known since a feature table was last built; a table that was never built is to be built whole."""
    last = query(
        connection, "select * from feature_store.view_builds where view = $view order by recorded_at desc limit 1", {"view": table.name}
    )
    tables = {name: name_of for name, (name_of, *_) in _GROWING.items()} | {"scopes": _SCOPES}
    seen = {f"{name}_seen": int(scalar(connection, f"select count(*) from {name_of}")) for name, name_of in tables.items()}
    before = dict.fromkeys(seen, 0) if last.is_empty() else last.select(*seen).row(0, named=True)
    rebuild = (
        last.is_empty()
        or last.select("definition_hash", "source").row(0) != (definition, source)
        or any(seen[name] < before[name] for name in seen)
        or (last["rows"].item() > 0 and not scalar(connection, f"select count(*) from {table.full_name}"))
    )
    if rebuild:
        histories = pl.DataFrame(schema={"symbol": pl.String, "from_session": pl.Date})
        return Changes(rebuild, histories, [], pl.DataFrame(schema={"first": pl.Date, "last": pl.Date}), seen)
    # `rowid` is a row's place in a table from which nothing is ever deleted.
    new_rows = " union all ".join(
        f"select {columns} from {name_of} where rowid >= {before[f'{name}_seen']} and source = $source and {rule}"
        for name, (name_of, columns, rule) in _GROWING.items()
    )
    new = query(connection, f"select distinct symbol, session from ({new_rows})", {"source": source})
    histories = new.group_by("symbol").agg(pl.col("session").min().alias("from_session"))
    scopes = query(
        connection,
        f"select changed_from as first, changed_to as last from ({SCOPE_CHANGES}) where place >= {before['scopes_seen']} and first <= last",
        {"source": source, "until": FOREVER},
    )
    if scopes.height and not before["scopes_seen"]:  # until now every symbol with a bar was in scope, on every session
        scopes = pl.DataFrame({"first": [BEGINNING], "last": [FOREVER.date()]})
    return Changes(rebuild, histories, new["session"].unique().to_list(), scopes, seen)


def clean_bars_of(connection: Connection, source: str, symbols: list[str], first: date = BEGINNING) -> pl.DataFrame:
    """The rows of `data_quality.clean_bars` of some symbols from a session on, sorted by symbol and session.

    The versions are told apart here: DuckDB moves the choice of symbols below no window, and would number all there are.
    """
    given = {"symbols": symbols, "first": first, "source": source}
    chosen = "symbol in (select unnest($symbols)) and session >= $first and source = $source"
    versions = query(
        connection,
        f"""
        select symbol, session, open, high, low, close, volume, basis, known_at from market_data.daily_bars
        where {chosen} order by symbol, session, known_at
        """,
        given,
    )
    newest = versions.filter(
        (pl.col("symbol").ne_missing(pl.col("symbol").shift(-1))) | (pl.col("session").ne_missing(pl.col("session").shift(-1)))
    )
    held = query(connection, f"select symbol, session, known_at from data_quality.held_bars where {chosen}", given)
    return newest.join(held, on=["symbol", "session", "known_at"], how="anti", maintain_order="left") if held.height else newest


def adjusted_bars(
    connection: Connection, source: str, symbols: list[str], first: date = BEGINNING, carried: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Forward-adjusted clean bars of some symbols from a session on, with `known_at` as `forward_adjusted` gives it.

    An event without a bar (an action, a critical finding, a review) counts for the bars after it. `carried` as there.
    """
    given = {"symbols": symbols, "first": first, "source": source}
    chosen = "symbol in (select unnest($symbols)) and session >= $first and source = $source"
    actions = query(
        connection,
        f"""
        select symbol, session, kind, value, known_at from market_data.corporate_actions where {chosen}
        qualify row_number() over (partition by symbol, session, kind order by known_at desc) = 1
        """,
        given,
    )
    events = query(
        connection,
        f"""
        select symbol, session, known_at from data_quality.anomalies where severity = 'critical' and {chosen}
        union all select symbol, session, decided_at from data_quality.reviews where {chosen}
        """,
        given,
    )
    events = pl.concat([events, actions.select(events.columns)])
    return _adjusted(clean_bars_of(connection, source, symbols, first), actions, events, carried)


def _adjusted(bars: pl.DataFrame, actions: pl.DataFrame, events: pl.DataFrame, carried: pl.DataFrame | None = None) -> pl.DataFrame:
    """Forward-adjusted bars whose `known_at` counts the events at or before them too."""
    if events.height:
        met = events.sort("session").join_asof(
            bars.select("symbol", pl.col("session").alias("bar_session")).sort("bar_session"),
            left_on="session", right_on="bar_session", by="symbol", strategy="forward", check_sortedness=False,
        )  # fmt: skip
        latest = met.drop_nulls("bar_session").group_by("symbol", "bar_session").agg(pl.col("known_at").max().alias("event_known_at"))
        bars = bars.join(
            latest, left_on=["symbol", "session"], right_on=["symbol", "bar_session"], how="left", maintain_order="left"
        ).with_columns(pl.max_horizontal("known_at", "event_known_at").alias("known_at")).drop("event_known_at")  # fmt: skip
    return forward_adjusted(bars, actions, carried)


def adjusted_as_of(connection: Connection, source: str, as_of: datetime, symbols: list[str] | None = None) -> pl.DataFrame:
    """Forward-adjusted bars as they were known at an instant, with `in_scope` as known then; of some symbols, or of all."""
    given = {"as_of": as_of, "source": source, **({"symbols": symbols} if symbols is not None else {})}
    chosen = "source = $source" + ("" if symbols is None else " and symbol in (select unnest($symbols))")
    actions = query(
        connection, f"select symbol, session, kind, value, known_at from market_data.corporate_actions_as_of($as_of) where {chosen}", given
    )
    events = query(
        connection,
        f"""
        select symbol, session, known_at from data_quality.anomalies where severity = 'critical' and known_at <= $as_of and {chosen}
        union all select symbol, session, decided_at from data_quality.reviews where decided_at <= $as_of and {chosen}
        """,
        given,
    )
    events = pl.concat([events, actions.select(events.columns)])
    bars = query(
        connection,
        f"""
        select symbol, session, open, high, low, close, volume, basis, known_at, {IN_SCOPE} as in_scope
        from data_quality.clean_bars_as_of($as_of) as row where {chosen} order by symbol, session
        """,
        given,
    )
    return _adjusted(bars, actions, events)
