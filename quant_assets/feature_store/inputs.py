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

IN_STRETCH = "stretch.symbol = row.symbol and row.session between stretch.valid_from and coalesce(stretch.valid_to, date '9999-12-31')"
SCOPE_THEN = f"market_data.scope_as_of($as_of) as stretch on {IN_STRETCH}"
"""SQL to semi join rows (`row`, with symbol and session) to: those that were in scope, as known at `$as_of`; signals and trainings select by it."""
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


def changes_since_build(connection: Connection, table: Table, definition: str, source: str, upstream: tuple[Table, ...] = ()) -> Changes:
    """What became known since a feature table was last built; a table that was never built is to be built whole.

    A table that is computed from others sees no more than these had seen at their last build: what landed or was decided
    since is not in their rows yet.
    """
    last = query(connection, "select * from feature_store.view_builds where view = $view order by rowid desc limit 1", {"view": table.name})
    tables = {name: name_of for name, (name_of, *_) in _GROWING.items()} | {"scopes": _SCOPES}
    seen = {f"{name}_seen": int(scalar(connection, f"select count(*) from {name_of}")) for name, name_of in tables.items()}
    for other in upstream:
        built = query(
            connection, "select * from feature_store.view_builds where view = $view order by rowid desc limit 1", {"view": other.name}
        )
        known = dict.fromkeys(seen, 0) if built.is_empty() else built.select(*seen).row(0, named=True)
        seen |= {name: min(count, known[name]) for name, count in seen.items() if name != "scopes_seen"}
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
        f"select {columns} from {name_of} where rowid >= {before[f'{name}_seen']} and rowid < {seen[f'{name}_seen']} and source = $source and {rule}"
        for name, (name_of, columns, rule) in _GROWING.items()
    )
    new = query(connection, f"select distinct symbol, session from ({new_rows})", {"source": source})
    histories = new.group_by("symbol").agg(pl.col("session").min().alias("from_session"))
    scopes = query(
        connection,
        f"select changed_from as first, changed_to as last from ({SCOPE_CHANGES}) where place >= {before['scopes_seen']} and first <= last",
        {"source": source, "until": FOREVER},
    )
    told = f"select exists (select 1 from {_SCOPES} where source = ? and rowid < ?)"
    if scopes.height and not scalar(connection, told, [source, before["scopes_seen"]]):  # until now every symbol with a bar was in scope
        scopes = pl.DataFrame({"first": [BEGINNING], "last": [FOREVER.date()]})
    return Changes(rebuild, histories, new["session"].unique().to_list(), scopes, seen)


def clean_bars_of(
    connection: Connection, source: str, symbols: list[str] | None = None, first: date = BEGINNING, as_of: datetime = FOREVER
) -> pl.DataFrame:
    """The rows of `data_quality.clean_bars_as_of` of some symbols (None: all) from a session on, sorted by symbol and session.

    The versions are told apart here: DuckDB moves a choice of symbols below no window, and would number all there are.
    """
    chosen, given = _chosen(source, symbols, first, as_of)
    versions = query(
        connection,
        f"""
        select symbol, session, open, high, low, close, volume, basis, known_at from market_data.daily_bars
        where {chosen} and known_at <= $as_of order by symbol, session, known_at
        """,
        given,
    )
    follows = pl.col("symbol").eq_missing(pl.col("symbol").shift(-1)) & pl.col("session").eq_missing(pl.col("session").shift(-1))
    newest = versions.filter(~follows)
    held = query(connection, f"select symbol, session, known_at from data_quality.held_bars_as_of($as_of) where {chosen}", given)
    return newest.join(held, on=["symbol", "session", "known_at"], how="anti", maintain_order="left") if held.height else newest


def adjusted_bars(
    connection: Connection,
    source: str,
    symbols: list[str] | None = None,
    first: date = BEGINNING,
    carried: pl.DataFrame | None = None,
    as_of: datetime = FOREVER,
) -> pl.DataFrame:
    """Forward-adjusted clean bars of some symbols (None: all) from a session on, as known at an instant.

    `known_at` and `carried` as in `forward_adjusted`; an event without a bar (an action, a critical finding, a review)
    counts for the bars after it.
    """
    chosen, given = _chosen(source, symbols, first, as_of)
    actions = query(
        connection,
        f"""
        select symbol, session, kind, value, known_at from market_data.corporate_actions where {chosen} and known_at <= $as_of
        qualify row_number() over (partition by symbol, session, kind order by known_at desc) = 1
        """,
        given,
    )
    events = query(
        connection,
        f"""
        select symbol, session, known_at from data_quality.anomalies where severity = 'critical' and {chosen} and known_at <= $as_of
        union all select symbol, session, decided_at from data_quality.reviews where {chosen} and decided_at <= $as_of
        """,
        given,
    )
    bars = clean_bars_of(connection, source, symbols, first, as_of)
    events = pl.concat([events, actions.select(events.columns)])
    if events.height:
        met = events.sort("session").join_asof(
            bars.select("symbol", pl.col("session").alias("bar_session")).sort("bar_session"),
            left_on="session", right_on="bar_session", by="symbol", strategy="forward", check_sortedness=False,
        )  # fmt: skip
        latest = (
            met.drop_nulls("bar_session")
            .group_by("symbol", pl.col("bar_session").alias("session"))
            .agg(event_known_at=pl.col("known_at").max())
        )
        beside = bars.join(latest, on=["symbol", "session"], how="left", maintain_order="left")
        bars = beside.with_columns(pl.max_horizontal("known_at", "event_known_at").alias("known_at")).drop("event_known_at")
    return forward_adjusted(bars, actions, carried)


def _chosen(source: str, symbols: list[str] | None, first: date, as_of: datetime) -> tuple[str, dict[str, object]]:
    """The condition on rows of some symbols from a session on, and the parameters that it and `as_of` need."""
    of_symbols = "" if symbols is None else " and symbol in (select unnest($symbols))"
    given = {"source": source, "first": first, "as_of": as_of}
    return f"source = $source and session >= $first{of_symbols}", given if symbols is None else {**given, "symbols": symbols}
