"""Numbered schema changes, and the views and macros that every versions table comes with.

A new database is created from the declarations in `schemas.py` and stamped with the last number. An old one gets the
migrations it lacks, in order, in one transaction, after a copy of the file; then it is compared with the declarations.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from quant_assets.errors import WarehouseError
from quant_assets.schemas import TABLES, Kind, Table


@dataclass(frozen=True)
class Migration:
    """One numbered change: SQL that turns the schema before it into the schema after it."""

    number: int
    title: str
    sql: str


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "the tables as first declared", ""),
    Migration(
        2,
        "classes of replies; the universe by date",
        """
        alter table market_data.fetch_ledger add column reply_class varchar;
        create table market_data.universe (
            symbol varchar not null, valid_from date not null, source varchar not null, known_at timestamp not null,
            valid_to date, batch_id varchar not null, recorded_at timestamp not null
        )
        """,
    ),
    Migration(
        3,
        "suggested repairs; which deliveries were judged; what a bar reached",
        """
        alter table data_quality.anomalies add column suggestion varchar;
        alter table data_quality.anomalies add column source varchar;
        alter table data_quality.reviews add column source varchar;
        update data_quality.anomalies as anomaly set source = bar.source from market_data.daily_bars as bar
            where bar.symbol = anomaly.symbol and bar.session = anomaly.session and bar.known_at = anomaly.bar_known_at;
        update data_quality.reviews as review set source = bar.source from market_data.daily_bars as bar
            where bar.symbol = review.symbol and bar.session = review.session and bar.known_at = review.bar_known_at;
        alter table data_quality.anomalies alter column source set not null;
        alter table data_quality.reviews alter column source set not null;
        alter table data_quality.reviews add column recorded_at timestamp;
        update data_quality.reviews set recorded_at = decided_at;
        alter table data_quality.reviews alter column recorded_at set not null;
        create table data_quality.judged_batches (
            batch_id varchar not null, landed_at timestamp not null, source varchar not null, bars bigint not null, first_session date not null,
            last_session date not null, not_judged varchar, run_id varchar not null, recorded_at timestamp not null
        );
        create table data_quality.blast_radius (
            symbol varchar not null, session date not null, bar_known_at timestamp not null, measured_at timestamp not null,
            edge varchar not null, item varchar not null, item_session date, value_with double, value_without double,
            detail varchar not null, recorded_at timestamp not null
        )
        """,
    ),
    Migration(
        4,
        "what a feature table had seen when it was built; drift of features",
        """
        create table feature_store.drift (
            view varchar not null, feature varchar not null, session date not null, known_at timestamp not null, reference_from date not null,
            reference_to date not null, symbols bigint, window_sessions bigint not null, effective_sessions double, shift double, statistic double,
            p_value double, p_adjusted double, spread_ratio double, spread_statistic double, spread_p_value double, spread_p_adjusted double, verdict
            varchar not null, severity varchar, reason varchar, recorded_at timestamp not null
        );
        alter table feature_store.view_builds add column source varchar default '';
        alter table feature_store.view_builds alter column source set not null;
        """
        + "".join(
            f"alter table feature_store.view_builds add column {name}_seen bigint default 0;"
            f" alter table feature_store.view_builds alter column {name}_seen set not null;"
            for name in ("bars", "actions", "findings", "reviews", "scopes")
        ),
    ),
    Migration(
        5,
        "decisions about models; thresholds of labels; calibrations of the heuristic; what came of signals",
        """
        alter table signals.predictions add column uncalibrated_probability double;
        create table signals.heuristic_calibrations (
            horizon integer not null, label_threshold double not null, valid_from date not null, known_at timestamp not null,
            intercept double not null, slope double not null, rows bigint not null, run_id varchar not null, recorded_at timestamp not null
        );
        create table signals.scorecard (
            mode varchar not null, horizon integer not null, symbol varchar not null, session date not null,
            signal_known_at timestamp not null, label_threshold double not null, probability double not null,
            recommendation varchar not null, scorer varchar not null, model_version varchar, forward_return double not null,
            up boolean not null, known_at timestamp not null, run_id varchar not null, recorded_at timestamp not null
        );
        alter table signals.promotions add column incumbent_version varchar;
        alter table signals.daily_signals add column centre double;
        alter table signals.daily_signals add column regime varchar;
        alter table signals.daily_signals add column confidence double;
        update signals.daily_signals set confidence = abs(2 * probability - 1);
        alter table signals.daily_signals alter column confidence set not null;
        """
        + "".join(
            f"alter table signals.{table} add column {column} default {value}; alter table signals.{table} alter column {column.split()[0]} set not null;"
            for table, column, value in (
                ("promotions", "decision varchar", "'promoted'"),
                ("promotions", "decided_by varchar", "'the rule of the time'"),
                ("promotions", "reason varchar", "'trained'"),
                ("promotions", "label_threshold double", "0.0"),
                ("daily_signals", "label_threshold double", "0.0"),
            )
        ),
    ),
)

_TYPES = {
    pl.List(pl.Float64): "DOUBLE[]",
    pl.String: "VARCHAR",
    pl.Float64: "DOUBLE",
    pl.Int64: "BIGINT",
    pl.Int32: "INTEGER",
    pl.Boolean: "BOOLEAN",
    pl.Date: "DATE",
}


def migrate(
    connection: duckdb.DuckDBPyConnection, path: Path, preferred_source: str, migrations: tuple[Migration, ...] = MIGRATIONS
) -> None:
    """Bring an open database to the declared schema; raises `WarehouseError` when it cannot be."""
    latest = migrations[-1].number
    applied = _applied(connection)
    if applied > latest:
        raise WarehouseError(f"{path} has schema {applied}, this version knows {latest}: use the newer version that wrote it.")
    derived = [*_comment_statements(), *_view_statements(preferred_source)]
    declared = [create_statement(table) for table in TABLES.values()]
    declared_hash = hashlib.sha256("\n".join(declared + derived).encode()).hexdigest()
    if applied == latest and _views_hash(connection) == declared_hash:
        return
    if 0 < applied < latest:
        copy_database(connection, path, path.with_name(f"{path.name}.before-{applied + 1}"))
    connection.begin()
    try:
        if applied == 0:
            _create(connection)
        pending = [migration for migration in migrations if migration.number > applied]
        for migration in pending:
            if applied and migration.sql:
                connection.execute(migration.sql)
            connection.execute("insert into main.schema_migrations values (?, ?, now()::timestamp)", [migration.number, migration.title])
        _make_derived_anew(connection)
        _compare_with_declarations(connection, path)
        for statement in derived:
            connection.execute(statement)
        connection.execute("update main.changes set views_hash = ?, counter = counter + 1", [declared_hash])
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def copy_database(connection: duckdb.DuckDBPyConnection, path: Path, target: Path) -> None:
    """Copy an open database's file, so that `target` is there whole or as it was before.

    A child process reads the file: closing it here would release the lock that DuckDB holds on it (POSIX locks belong
    to the process), and another process could write while we do.
    """
    connection.execute("checkpoint")
    aside = target.with_name(f".{target.name}.tmp")
    copy = [sys.executable, "-ISc", "import shutil, sys; shutil.copyfile(*sys.argv[1:])", str(path), str(aside)]
    done = subprocess.run(copy, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise WarehouseError(f"{path} could not be copied to {target}: {reason}. Make room there, or grant access.")
    target.with_name(f"{target.name}.wal").unlink(missing_ok=True)  # of a program that wrote to the file this one replaces
    os.replace(aside, target)


def create_statement(table: Table) -> str:
    """The DDL of one declared table; uniqueness of the key is kept by the writers, which is much faster than an index."""
    columns = ", ".join(f'"{c.name}" {sql_type(c.dtype)}{"" if c.nullable else " not null"}' for c in table.columns)
    return f"create table {table.full_name} ({columns})"


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("create table main.schema_migrations (number integer, title varchar, applied_at timestamp)")
    connection.execute("create table main.changes (counter bigint, views_hash varchar)")
    connection.execute("insert into main.changes values (0, '')")
    for schema in dict.fromkeys(table.schema for table in TABLES.values()):
        connection.execute(f"create schema {schema}")
    for table in TABLES.values():
        connection.execute(create_statement(table))


def _make_derived_anew(connection: duckdb.DuckDBPyConnection) -> None:
    """Replace derived tables that are not as declared by empty ones: the next refresh fills them."""
    found = _columns(connection)
    for name, table in TABLES.items():
        if table.derived and found.get(name) != _declared_columns(table):
            connection.execute(create_statement(table).replace("create table", "create or replace table", 1))


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    rows = connection.execute("select schema_name || '.' || table_name, column_name, data_type from duckdb_columns() where not internal")
    for table_name, column_name, data_type in rows.fetchall():
        found.setdefault(table_name, {})[column_name] = data_type
    return found


def _declared_columns(table: Table) -> dict[str, str]:
    return {column.name: sql_type(column.dtype) for column in table.columns}


def _compare_with_declarations(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    found = _columns(connection)
    for name, table in TABLES.items():
        wanted = _declared_columns(table)
        if found.get(name) != wanted:
            difference = sorted(set(wanted.items()) ^ set(found.get(name, {}).items()))
            raise WarehouseError(f"{path}: {name} is not as declared, differing in {difference}; a numbered migration is missing.")


def _comment_statements() -> list[str]:
    statements = []
    for table in TABLES.values():
        text = f"{table.description} Grain: {table.grain}. Kind: {table.kind}."
        statements.append(f"comment on table {table.full_name} is '{_quoted(text)}'")
        for column in table.columns:
            unit = f" [{column.unit}]" if column.unit else ""
            statements.append(f"comment on column {table.full_name}.\"{column.name}\" is '{_quoted(column.description + unit)}'")
    return statements


def _view_statements(preferred_source: str) -> list[str]:
    statements = []
    for table in TABLES.values():
        if table.kind is Kind.VERSIONS:
            newest = ""
            if "known_at" in table.key:
                newest = f" qualify row_number() over (partition by {', '.join(table.entity)} order by known_at desc) = 1"
            statements += [
                f"create or replace macro {table.schema}.{table.name}_as_of(t) as table select * from {table.full_name} where known_at <= t{newest}",
                f"create or replace view {table.schema}.latest_{table.name} as select * from {table.full_name}{newest}",
            ]
    # Versions of bars that a critical finding covers and nobody released.
    held = (
        "select anomaly.symbol, anomaly.session, anomaly.source, anomaly.bar_known_at as known_at from data_quality.anomalies as anomaly left join ("
        "select symbol, session, source, rule, bar_known_at, arg_max(decision, decided_at) as decision from data_quality.reviews"
        " where decided_at <= {t} group by all"
        ") as review using (symbol, session, source, rule, bar_known_at)"
        " where anomaly.severity = 'critical' and anomaly.known_at <= {t} and coalesce(review.decision, '') <> 'release'"
    )
    clean = (
        "select bar.* from {bars} as bar where bar.source = '" + _quoted(preferred_source) + "'"
        " and not exists (select 1 from ({held}) as held where held.symbol = bar.symbol and held.session = bar.session"
        " and held.source = bar.source and held.known_at = bar.known_at)"
    )
    forever = "timestamp '9999-12-31'"
    return [
        *statements,
        *_scope_statements(preferred_source),
        *_restatement_statements(),
        "create or replace macro data_quality.held_bars_as_of(t) as table " + held.format(t="t"),
        "create or replace view data_quality.held_bars as " + held.format(t=forever),
        "create or replace macro data_quality.clean_bars_as_of(t) as table "
        + clean.format(bars="market_data.daily_bars_as_of(t)", held=held.format(t="t")),
        "create or replace view data_quality.clean_bars as "
        + clean.format(bars="market_data.latest_daily_bars", held="select * from data_quality.held_bars"),
    ]


def _scope_statements(preferred_source: str) -> list[str]:
    """Who is in scope: stretches of time as of an instant, and the symbols on a session; without a universe, every symbol with a bar.

    A stretch that ends before it begins is one taken back: versions are never deleted. `since` is the instant from which
    there is a universe at all: until then every symbol with a bar was in scope, and from then on who has no stretch is not.
    """
    source = f"source = '{_quoted(preferred_source)}'"
    stretches = (
        "select symbol, valid_from, valid_to, (select min(known_at) from market_data.universe where "
        + source
        + " and known_at <= {t}) as since"
        " from {universe} where " + source + " union all"
        " select symbol, min(session), null, null from market_data.daily_bars where " + source + " and known_at <= {t}"
        " and not exists (select 1 from market_data.universe where " + source + " and known_at <= {t}) group by symbol"
    )
    on = "select distinct symbol from market_data.{scope} where day between valid_from and coalesce(valid_to, date '9999-12-31')"
    return [
        "create or replace macro market_data.scope_as_of(t) as table " + stretches.format(universe="market_data.universe_as_of(t)", t="t"),
        "create or replace view market_data.scope as "
        + stretches.format(universe="market_data.latest_universe", t="timestamp '9999-12-31'"),
        "create or replace macro market_data.universe_on_as_of(day, t) as table " + on.format(scope="scope_as_of(t)"),
        "create or replace macro market_data.universe_on(day) as table " + on.format(scope="scope"),
    ]


def _restatement_statements() -> list[str]:
    """Bar versions beside the one they replaced, of all time or known in a stretch of it: only bars with such a version are looked at."""
    versions = (
        "select bar.*, lag(bar) over (partition by symbol, session, source order by known_at) as old from market_data.daily_bars as bar"
        " semi join (select symbol, session, source from market_data.daily_bars {which}) using (symbol, session, source)"
    )
    columns = ("open", "high", "low", "close", "volume", "basis")
    changed = ", ".join(f"case when {name} is distinct from old.{name} then '{name}' end" for name in columns)
    moves = ", ".join(f"abs({name} / nullif(old.{name}, 0) - 1)" for name in columns[:4])
    shown = (
        "select symbol, session, source, known_at, old.known_at as previous_known_at, old.close as old_close, close as new_close,"
        f" close / nullif(old.close, 0) - 1 as close_change, greatest({moves}) as price_change, concat_ws(', ', {changed}) as changed,"
        " batch_id from (" + versions + ") where old is not null"
    )
    within = "known_at >= since and known_at < until"
    return [
        "create or replace view market_data.restatements as " + shown.format(which="group by all having count(*) > 1"),
        "create or replace macro market_data.restatements_between(since, until) as table "
        + shown.format(which=f"where {within}")
        + f" and {within}",
    ]


def _applied(connection: duckdb.DuckDBPyConnection) -> int:
    tables = connection.execute("select table_name from duckdb_tables() where schema_name = 'main'").fetchall()
    if ("schema_migrations",) not in tables:
        return 0
    return int(connection.execute("select max(number) from main.schema_migrations").fetchall()[0][0])


def _views_hash(connection: duckdb.DuckDBPyConnection) -> str:
    return str(connection.execute("select views_hash from main.changes").fetchall()[0][0])


def sql_type(dtype: object) -> str:
    """DuckDB's name of a declared dtype."""
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMP"
    return _TYPES[dtype]  # type: ignore[index]


def _quoted(text: str) -> str:
    return text.replace("'", "''")
