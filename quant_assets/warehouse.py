"""The DuckDB warehouse: one lock for seconds, transactional idempotent writes, as-of reads, a copy for readers.

DuckDB lets one process in at a time, readers included, so a connection lives for one read or one write; nothing
trains and no network is awaited while it is open.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from quant_assets.errors import SchemaMismatch, WarehouseError, WarehouseLocked
from quant_assets.migrations import copy_database, migrate
from quant_assets.schemas import Kind, Table

Connection = duckdb.DuckDBPyConnection


class Warehouse:
    """One DuckDB file and how we use it; plain Python, shared by assets, commands and tests.

    `preferred_source` decides whose bars `data_quality.clean_bars` shows. A lock held by another process is waited
    for; after `lock_timeout_seconds` `WarehouseLocked` names the holder.
    """

    def __init__(self, path: Path, preferred_source: str, read_copy_path: Path | None = None, lock_timeout_seconds: float = 60.0) -> None:
        self.path = path
        self.preferred_source = preferred_source
        self.read_copy_path = read_copy_path
        self.lock_timeout_seconds = lock_timeout_seconds
        self._migrated = False

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Hold the database for one read or write; the first use creates or migrates it."""
        _ensure_file(self.path)
        connection = self._open()
        try:
            connection.execute("set timezone = 'UTC'; set preserve_insertion_order = false; set enable_progress_bar = false")
            if not self._migrated:
                migrate(connection, self.path, self.preferred_source)
                self._migrated = True
            yield connection
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Hold the database for one transaction: all of it lands, or none."""
        with self.connect() as connection, in_transaction(connection):
            yield connection

    def read(self, sql: str, parameters: Mapping[str, object] | None = None) -> pl.DataFrame:
        """Run one query and return its rows as a frame; parameters are `$name`."""
        with self.connect() as connection:
            return query(connection, sql, parameters)

    def refresh_read_copy(self) -> bool:
        """Build the readers' copy aside and swap it in, when the database has changed since; says whether it did."""
        if self.read_copy_path is None:
            return False
        with self.connect() as connection:
            if _counter_in(self.read_copy_path) == change_counter(connection):
                return False
            copy_database(connection, self.path, self.read_copy_path)
        return True

    def _open(self) -> Connection:
        deadline = time.monotonic() + self.lock_timeout_seconds
        while True:
            try:
                return duckdb.connect(self.path)
            except duckdb.IOException as error:
                if "could not set lock" not in str(error).lower():
                    raise WarehouseError(f"Cannot open {self.path}: {error}") from error
                if time.monotonic() >= deadline:
                    raise WarehouseLocked(
                        f"{self.path} is held by {_holder(str(error))} and was not released in {self.lock_timeout_seconds:g} s. "
                        f"Close that program; readers should open {self.read_copy_path or 'the read copy'} instead."
                    ) from None
                time.sleep(0.05)


@contextmanager
def in_transaction(connection: Connection) -> Iterator[None]:
    """One transaction on an open connection: all of it lands, or none."""
    connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _ensure_file(path: Path) -> None:
    """An empty database where there is none: made aside, since DuckDB cannot open one whose making was cut off by a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # who comes at the same moment waits, and finds it there
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
                duckdb.connect(Path(aside) / path.name).close()
                os.replace(Path(aside) / path.name, path)
    finally:
        os.close(folder)


def query(connection: Connection, sql: str, parameters: Mapping[str, object] | None = None) -> pl.DataFrame:
    """Run one query on an open connection and return its rows as a frame."""
    frame: pl.DataFrame = connection.sql(sql, params=dict(parameters) if parameters else None).pl()
    return frame


def scalar(connection: Connection, sql: str, parameters: Sequence[object] = ()) -> Any:
    """The one value of a query that gives one row, or None when it gives no row; parameters are `?`."""
    rows = connection.execute(sql, list(parameters)).fetchall()
    return rows[0][0] if rows else None


def append_versions(
    connection: Connection, table: Table, frame: pl.DataFrame, restated: Mapping[str, object] | None = None
) -> pl.DataFrame:
    """Append what is new or changed; returns the rows written, with a column `was_known` (a restatement).

    A row whose values equal the newest version of its entity writes nothing. A changed one is a new version and takes
    the column values of `restated` (when it was seen, say); should its `known_at` not lie after the version it
    replaces, it is moved one microsecond past it, for versions are never updated. A table whose key has no `known_at`
    takes each key once: a second, different row is refused.
    """
    _expect(table, frame, Kind.VERSIONS)
    if frame.is_empty():
        return frame.with_columns(was_known=pl.lit(False))
    # The sessions in question, where there are any: DuckDB then skips the parts of a large table that lie elsewhere.
    reach = ""
    if "session" in table.entity:
        first, last = frame.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        reach = f"t.session between date '{first}' and date '{last}' and "
    seen = {name: f"${name}" for name in restated or {}}
    known_at = seen.pop("known_at", "new.known_at")
    changes = "".join(f", case when old.known_at is null then new.{name} else {value} end as {name}" for name, value in seen.items())
    entity = _equal(table.entity, "new", "old")
    same = _same(table.values, "new", "old")
    connection.register("incoming", frame)
    changed = query(
        connection,
        f"""
        with old as (
            select * from {table.full_name} as t where {reach}exists (select 1 from incoming as new where {_equal(table.entity, "new", "t")})
            qualify row_number() over (partition by {", ".join(table.entity)} order by known_at desc) = 1
        )
        select new.* replace (
            case when old.known_at is null then new.known_at
                 else greatest({known_at}, old.known_at + interval 1 microsecond) end as known_at{changes}
        ), old.known_at is not null as was_known
        from incoming as new left join old on {entity}
        where old.known_at is null or not ({same})
        """,
        restated,
    )
    connection.unregister("incoming")
    if "known_at" not in table.key and changed["was_known"].any():
        first = changed.filter("was_known").select(table.key).row(0, named=True)
        raise SchemaMismatch(f"{table.full_name} already holds another row for {first}; versions are never updated.")
    _insert(connection, table, changed.drop("was_known"))
    return changed


def append_ledger(connection: Connection, table: Table, frame: pl.DataFrame) -> int:
    """Append what happened; a key that is there already writes nothing. Returns the rows written."""
    _expect(table, frame, Kind.LEDGER)
    if frame.is_empty():
        return 0
    connection.register("incoming", frame)
    fresh = query(connection, f"select * from incoming as new anti join {table.full_name} as old on {_equal(table.key, 'new', 'old')}")
    connection.unregister("incoming")
    return _insert(connection, table, fresh)


def rewrite_current(connection: Connection, table: Table, frame: pl.DataFrame, scope: pl.DataFrame) -> tuple[int, int]:
    """Make a current table equal to `frame` inside `scope`; returns rows written and rows removed.

    `scope` has some of the key's columns with an optional `from_session`: rows of those keys (from that session on)
    are replaced, all others stay. Rows that are equal already are not touched.
    """
    _expect(table, frame, Kind.CURRENT)
    keys = [name for name in scope.columns if name != "from_session"]
    inside = [_equal(keys, "t", "s") if keys else "true", *(["t.session >= s.from_session"] if "from_session" in scope.columns else [])]
    # Constants beside it, for DuckDB to skip what lies outside of all of them.
    bounds, given = ["true"], dict[str, object]()
    if "from_session" in scope.columns:
        bounds.append("t.session >= $first_session")
        given["first_session"] = scope.select(pl.col("from_session").min()).item()
    if "symbol" in keys:
        bounds.append("t.symbol between $first_symbol and $last_symbol")
        given |= scope.select(first_symbol=pl.col("symbol").min(), last_symbol=pl.col("symbol").max()).row(0, named=True)
    connection.register("scope", scope)
    within = f"{' and '.join(bounds)} and exists (select 1 from scope as s where {' and '.join(inside)})"
    stored = query(connection, f"select * from {table.full_name} as t where {within}", given)
    connection.unregister("scope")
    if stored.is_empty():
        return _insert(connection, table, frame), 0
    beside = frame.with_columns(here=pl.lit(1))
    changed = _differing(stored, beside, table).select(table.key)
    if changed.height:
        connection.register("changed", changed)
        bound = ""
        if "session" in table.key:
            first, last = changed.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
            bound = f"t.session between date '{first}' and date '{last}' and "
        connection.execute(
            f"delete from {table.full_name} as t where {bound}exists (select 1 from changed as c where {_equal(table.key, 't', 'c')})"
        )
        connection.unregister("changed")
    kept = stored.join(changed, on=table.key, how="anti").select(table.key)
    fresh = frame.join(kept, on=table.key, how="anti", maintain_order="left")
    if changed.height and not fresh.height:
        _count_change(connection)
    return _insert(connection, table, fresh), changed.height


def _differing(stored: pl.DataFrame, beside: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The stored rows that are not among the others (which have a column `here`) with equal values."""
    both = stored.join(beside, on=table.key, how="left", suffix="_new", maintain_order="left")
    values = [name for name in table.column_names if name not in table.key]
    return both.filter(
        pl.col("here").is_null() | pl.any_horizontal(pl.lit(False), *(pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in values))
    )


def change_counter(connection: Connection) -> int:
    """How many writes have changed the database since it was made."""
    return int(scalar(connection, "select counter from main.changes"))


def _counter_in(copy_path: Path) -> int | None:
    """The change counter in a readers' copy; None where there is no copy, or none that can be read (a reader locked it)."""
    if not copy_path.exists():
        return None
    try:
        with duckdb.connect(copy_path, read_only=True) as copy:
            return change_counter(copy)
    except duckdb.Error:
        return None


def content_hash(
    connection: Connection, table: Table, without: tuple[str, ...] = ("recorded_at", "landed_at", "run_id", "batch_id", "request_id")
) -> str:
    """A hash of a table's rows, independent of their order and of who wrote them when."""
    names = [f'"{name}"' for name in table.column_names if name not in (*without, "mlflow_run_id")]
    digest = f"count(*)::varchar || ':' || coalesce(sum(hash({', '.join(names)})::hugeint), 0)::varchar"
    return str(scalar(connection, f"select {digest} from {table.full_name}"))


def _insert(connection: Connection, table: Table, frame: pl.DataFrame) -> int:
    if frame.height:
        connection.register("outgoing", frame)
        order = "" if table.kind is Kind.CURRENT else " order by all"  # current tables are written in the order of their computation
        connection.execute(f"insert into {table.full_name} by name select * from outgoing{order}")
        connection.unregister("outgoing")
        _count_change(connection)
    return frame.height


def _count_change(connection: Connection) -> None:
    connection.execute("update main.changes set counter = counter + 1")


def _expect(table: Table, frame: pl.DataFrame, kind: Kind) -> None:
    """Refuse a frame that does not match its declaration, showing the difference."""
    if table.kind is not kind:
        raise SchemaMismatch(f"{table.full_name} is a {table.kind} table, not a {kind} table.")
    faults = [f"missing {name}" for name in table.column_names if name not in frame.columns]
    faults += [f"unknown {name}" for name in frame.columns if name not in table.column_names]
    faults += [
        f"{column.name} is {frame.schema[column.name]}, wanted {column.dtype}"
        for column in table.columns
        if column.name in frame.columns and frame.schema[column.name] != column.dtype
    ]
    if not faults:
        required = [column.name for column in table.columns if not column.nullable]
        nulls = frame.select(pl.col(required).null_count()).row(0, named=True) if frame.height else {}
        faults += [f"{name} has {count} nulls" for name, count in nulls.items() if count]
        # Two versions of one entity at once could not be told from two restatements: one a frame.
        key = table.entity if kind is Kind.VERSIONS else table.key
        doubled = 0 if _ascends(frame, key) else frame.height - frame.select(pl.struct(key).n_unique()).item()
        if doubled:
            example = frame.filter(pl.struct(key).is_duplicated()).select(table.key).row(0, named=True)
            faults.append(f"{doubled} rows repeat a key, such as {example}")
    if faults:
        raise SchemaMismatch(f"The frame does not match {table.full_name}: {'; '.join(faults)}.")


def _ascends(frame: pl.DataFrame, key: tuple[str, ...]) -> bool:
    """Whether each row's key lies after that of the row before, which is quicker to tell than that no two are equal."""
    after = pl.lit(False)
    for name in reversed(key):
        column = pl.col(name)
        after = (column > column.shift(1)) | ((column == column.shift(1)) & after)
    return bool(frame.select(after.slice(1).all(ignore_nulls=False)).item()) if frame.height else True


def _equal(names: tuple[str, ...] | list[str], left: str, right: str) -> str:
    return " and ".join(f'{left}."{name}" = {right}."{name}"' for name in names)


def _same(names: tuple[str, ...] | list[str], left: str, right: str) -> str:
    return " and ".join(f'{left}."{name}" is not distinct from {right}."{name}"' for name in names) or "true"


def _holder(message: str) -> str:
    found = re.search(r"held in (?:(.+?) \()?PID (\d+)", message)  # without the program's name when it is another user's
    if not found:
        return "another process"
    program, pid = found.groups()
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        command = ""
    return f"process {pid} ({command or program or 'unknown program'})"
