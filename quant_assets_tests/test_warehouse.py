"""The warehouse: one lock, transactional writes idempotent by key, as-of reads, a copy for readers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from quant_assets import warehouse as module
from quant_assets.errors import SchemaMismatch, WarehouseError, WarehouseLocked
from quant_assets.migrations import copy_database
from quant_assets.schemas import ANOMALIES, CORPORATE_ACTIONS, LABELS, OUTBOX, Table
from quant_assets.warehouse import Warehouse, append_ledger, append_versions, change_counter, content_hash, rewrite_current, scalar

T1, T2, T3 = (datetime(2020, 1, day, 21, 30) for day in (2, 3, 6))
TICK = timedelta(microseconds=1)
EX = date(2020, 1, 2)


def action(value: float, known_at: datetime, symbol: str = "AAA", batch_id: str = "b") -> pl.DataFrame:
    row = [symbol, EX, "split", "files", known_at, value, batch_id, datetime(2030, 1, 1)]
    return pl.DataFrame([row], schema=CORPORATE_ACTIONS.polars_schema, orient="row")


def label(symbol: str, session: date, value: float, horizon: int = 1) -> list[object]:
    return [symbol, session, horizon, value, value > 0, T3]


def labels(*rows: list[object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=LABELS.polars_schema, orient="row")


def outbox(sha256: str, session: date = EX, recorded_at: datetime = T1) -> pl.DataFrame:
    return pl.DataFrame([[session, sha256, 5, "{}", "run", recorded_at]], schema=OUTBOX.polars_schema, orient="row")


def append(warehouse: Warehouse, frame: pl.DataFrame, **restated: object) -> pl.DataFrame:
    with warehouse.transaction() as connection:
        return append_versions(connection, CORPORATE_ACTIONS, frame, restated or None)


def versions(warehouse: Warehouse) -> list[tuple[float, datetime]]:
    return warehouse.read("select value, known_at from market_data.corporate_actions order by known_at").rows()


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that has said `ready`; killed at the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


HOLDER = "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()"


def opens(path: Path) -> str:
    """What another process gets that opens the database."""
    code = "import duckdb, sys\ntry:\n    duckdb.connect(sys.argv[1])\n    print('opened')\nexcept duckdb.IOException:\n    print('locked')"
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout.strip()


class TestRegression:
    def test_a_frame_that_does_not_match_is_refused_with_every_difference(self, warehouse: Warehouse) -> None:
        frame = action(2.0, T1).drop("batch_id").with_columns(pl.col("value").cast(pl.Int64), colour=pl.lit("red"))
        with pytest.raises(SchemaMismatch) as error:
            append(warehouse, frame)
        for part in ("market_data.corporate_actions", "missing batch_id", "unknown colour", "value is Int64, wanted Float64"):
            assert part in str(error.value)

    def test_nulls_and_repeated_keys_are_refused_with_counts_and_an_example(self, warehouse: Warehouse) -> None:
        with pytest.raises(SchemaMismatch, match="value has 1 nulls"):
            append(warehouse, action(2.0, T1).with_columns(value=pl.lit(None, pl.Float64)))
        with pytest.raises(SchemaMismatch, match=r"1 rows repeat a key, such as .*'symbol': 'AAA'"):
            append(warehouse, pl.concat([action(2.0, T1), action(3.0, T2)]))  # two versions at once
        assert versions(warehouse) == []

    @pytest.mark.parametrize(("table", "kind"), [(LABELS, "current"), (OUTBOX, "ledger")])
    def test_a_table_is_written_in_the_way_of_its_kind_only(self, warehouse: Warehouse, table: Table, kind: str) -> None:
        empty = pl.DataFrame(schema=table.polars_schema)
        with (
            pytest.raises(SchemaMismatch, match=rf"{table.full_name} is a {kind} table, not a versions table"),
            warehouse.connect() as connection,
        ):
            append_versions(connection, table, empty)

    def test_versions(self, warehouse: Warehouse) -> None:
        assert append(warehouse, action(2.0, T1))["was_known"].to_list() == [False]
        assert append(warehouse, action(2.0, T3, batch_id="other"), known_at=T3).is_empty()  # same value: the same row
        assert append(warehouse, action(3.0, T1, batch_id="b2"), known_at=T2, batch_id="seen")["was_known"].to_list() == [True]
        assert append(warehouse, action(2.0, T1), known_at=T2).height == 1  # back again, seen at the same instant
        assert append(warehouse, action(5.0, T1), known_at=T1).height == 1  # seen before what it replaces
        assert versions(warehouse) == [(2.0, T1), (3.0, T2), (2.0, T2 + TICK), (5.0, T2 + 2 * TICK)]
        assert warehouse.read("select batch_id from market_data.corporate_actions where value = 3")["batch_id"].to_list() == ["seen"]
        seen = {}
        for instant in (T1 - TICK, T1, T2 - TICK, T2, T2 + TICK, T3):
            as_of = warehouse.read("select value from market_data.corporate_actions_as_of($t)", {"t": instant})
            seen[instant] = as_of["value"].to_list()
        assert list(seen.values()) == [[], [2.0], [2.0], [3.0], [2.0], [5.0]]
        assert warehouse.read("select value from market_data.latest_corporate_actions")["value"].to_list() == [5.0]

    def test_a_versions_table_without_known_at_in_its_key_takes_each_key_once(self, warehouse: Warehouse) -> None:
        row = ["AAA", EX, "files", "ohlc_order", "rules", T1, 1.0, "critical", "high below low", None, T1, T1]
        finding = pl.DataFrame([row], schema=ANOMALIES.polars_schema, orient="row")
        with warehouse.transaction() as connection:
            assert append_versions(connection, ANOMALIES, finding).height == 1
            assert append_versions(connection, ANOMALIES, finding.with_columns(recorded_at=pl.lit(T3, pl.Datetime("us")))).is_empty()
            with pytest.raises(SchemaMismatch, match=r"already holds another row for .*'ohlc_order'.*never updated"):
                append_versions(connection, ANOMALIES, finding.with_columns(score=pl.lit(0.5)))
        assert warehouse.read("select score from data_quality.anomalies")["score"].to_list() == [1.0]

    def test_a_ledger_keeps_the_first_row_of_a_key(self, warehouse: Warehouse) -> None:
        with warehouse.transaction() as connection:
            assert append_ledger(connection, OUTBOX, outbox("a")) == 1
            assert append_ledger(connection, OUTBOX, pl.concat([outbox("a", recorded_at=T3), outbox("b")])) == 1
        assert sorted(warehouse.read("select sha256, recorded_at from publishing.outbox").rows()) == [("a", T1), ("b", T1)]

    def test_a_current_table_is_rewritten_inside_its_scope_only(self, warehouse: Warehouse) -> None:
        first, second = date(2020, 1, 2), date(2020, 1, 3)
        before = [label(symbol, session, 0.1) for symbol in ("AAA", "BBB") for session in (first, second)]
        everything = pl.DataFrame({"symbol": ["AAA", "BBB"]})
        with warehouse.transaction() as connection:
            assert rewrite_current(connection, LABELS, labels(*before), everything) == (4, 0)
            counter = change_counter(connection)
            assert rewrite_current(connection, LABELS, labels(*before), everything) == (0, 0)
            assert change_counter(connection) == counter
            scope = pl.DataFrame({"symbol": ["AAA"], "from_session": [second]})
            assert rewrite_current(connection, LABELS, labels(label("AAA", second, 0.2)), scope) == (1, 1)
            assert rewrite_current(connection, LABELS, labels(), scope) == (0, 1)
            assert change_counter(connection) == counter + 2
        rows = warehouse.read("select symbol, session, forward_return from feature_store.labels order by all").rows()
        assert rows == [("AAA", first, 0.1), ("BBB", first, 0.1), ("BBB", second, 0.1)]

    def test_a_lock_is_waited_for(self, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
        append(warehouse, action(2.0, T1))
        with process(HOLDER, warehouse.path) as holder:
            waits = []

            def release(seconds: float) -> None:  # the warehouse found the lock and is about to wait
                waits.append(seconds)
                holder.communicate("done\n")

            monkeypatch.setattr(module.time, "sleep", release)
            assert versions(warehouse) == [(2.0, T1)]
        assert len(waits) == 1

    def test_a_lock_that_is_not_released_names_its_holder(self, warehouse: Warehouse) -> None:
        with process(HOLDER, warehouse.path) as holder:
            impatient = Warehouse(warehouse.path, "files", warehouse.read_copy_path, lock_timeout_seconds=0.1)
            with pytest.raises(WarehouseLocked) as error:
                impatient.read("select 1")
        text = str(error.value)
        assert f"process {holder.pid} (" in text
        assert "import duckdb, sys" in text  # its command line
        assert str(warehouse.read_copy_path) in text
        assert "0.1 s" in text

    @pytest.mark.parametrize(
        ("message", "holder"),
        [
            ("Conflicting lock is held in /usr/bin/duckdb (PID 4194999). See", "process 4194999 (/usr/bin/duckdb)"),
            ("Conflicting lock is held in PID 4194999 by user root", "process 4194999 (unknown program)"),
            ("something new", "another process"),
        ],
    )
    def test_the_holder_is_read_from_what_duckdb_says(self, message: str, holder: str) -> None:
        assert module._holder(message) == holder

    def test_a_file_that_is_no_database_is_refused_at_once_even_where_its_path_says_lock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "lock" / "quant.duckdb"
        path.parent.mkdir()
        path.write_bytes(b"no database" * 1000)
        monkeypatch.setattr(module.time, "sleep", lambda _: pytest.fail("nothing to wait for"))
        with pytest.raises(WarehouseError, match=f"Cannot open {path}") as error:
            Warehouse(path, "files").read("select 1")
        assert not isinstance(error.value, WarehouseLocked)

    def test_copying_the_database_keeps_its_lock(self, warehouse: Warehouse, tmp_path: Path) -> None:
        with warehouse.connect() as connection:
            copy_database(connection, warehouse.path, tmp_path / "copy.duckdb")
            assert opens(warehouse.path) == "locked"
        assert opens(warehouse.path) == "opened"

    def test_a_copy_that_cannot_be_made_says_why(self, warehouse: Warehouse, tmp_path: Path) -> None:
        with warehouse.connect() as connection, pytest.raises(WarehouseError, match=r"could not be copied to .*No such file or directory"):
            copy_database(connection, warehouse.path, tmp_path / "missing" / "copy.duckdb")


class TestReadCopy:
    def test_it_holds_what_the_database_holds_and_is_renewed_only_after_a_change(self, warehouse: Warehouse) -> None:
        copy = warehouse.read_copy_path
        assert copy is not None
        append(warehouse, action(2.0, T1))
        assert warehouse.refresh_read_copy()
        made = copy.stat().st_ino
        assert not warehouse.refresh_read_copy()
        append(warehouse, action(2.0, T3))  # the same row: nothing changed
        assert not warehouse.refresh_read_copy()
        assert not Warehouse(warehouse.path, "files", copy).refresh_read_copy()
        assert copy.stat().st_ino == made
        append(warehouse, action(3.0, T2))
        assert warehouse.refresh_read_copy()
        with duckdb.connect(copy, read_only=True) as reader:
            assert reader.sql("select value from market_data.latest_corporate_actions").fetchall() == [(3.0,)]
        assert sorted(path.name for path in copy.parent.iterdir()) == ["quant.duckdb", "quant.read.duckdb"]

    def test_who_reads_keeps_a_whole_file_while_it_is_swapped(self, warehouse: Warehouse) -> None:
        append(warehouse, action(2.0, T1))
        warehouse.refresh_read_copy()
        code = (
            "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print('ready', flush=True); sys.stdin.readline(); "
            "print(c.sql('select value from market_data.latest_corporate_actions').fetchall())"
        )
        with process(code, warehouse.read_copy_path) as reader:
            append(warehouse, action(3.0, T2))
            assert warehouse.refresh_read_copy()
            assert reader.communicate("read\n")[0] == "[(2.0,)]\n"

    def test_a_reader_that_locks_its_copy_stops_nothing(self, warehouse: Warehouse) -> None:
        append(warehouse, action(2.0, T1))
        warehouse.refresh_read_copy()
        copy = warehouse.read_copy_path
        assert copy is not None
        with process(HOLDER, copy):
            append(warehouse, action(3.0, T2))
            assert warehouse.refresh_read_copy()
        with duckdb.connect(copy, read_only=True) as reader:
            assert reader.sql("select value from market_data.latest_corporate_actions").fetchall() == [(3.0,)]

    def test_none_is_made_where_none_is_wanted(self, tmp_path: Path) -> None:
        assert not Warehouse(tmp_path / "quant.duckdb", "files").refresh_read_copy()


class TestProperties:
    @pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
    def test_what_breaks_off_leaves_nothing(self, warehouse: Warehouse, interruption: type[BaseException]) -> None:
        append(warehouse, action(2.0, T1))

        def write() -> None:
            with warehouse.transaction() as connection:
                append_versions(connection, CORPORATE_ACTIONS, action(3.0, T2))
                append_ledger(connection, OUTBOX, outbox("a"))
                rewrite_current(connection, LABELS, labels(label("AAA", EX, 0.1)), pl.DataFrame({"symbol": ["AAA"]}))
                raise interruption

        with pytest.raises(interruption):
            write()
        assert versions(warehouse) == [(2.0, T1)]
        counts = "select (select count(*) from publishing.outbox), (select count(*) from feature_store.labels)"
        assert warehouse.read(counts).row(0) == (0, 0)
        assert opens(warehouse.path) == "opened"

    def test_a_process_killed_in_a_transaction_leaves_nothing_and_blocks_nobody(self, warehouse: Warehouse) -> None:
        append(warehouse, action(2.0, T1))
        code = (
            "import sys, pathlib; from quant_assets.warehouse import *\n"
            "with Warehouse(pathlib.Path(sys.argv[1]), 'files').transaction() as connection:\n"
            "    connection.execute('update market_data.corporate_actions set value = 9')\n"
            "    print('ready', flush=True); sys.stdin.readline()"
        )
        with process(code, warehouse.path) as victim:
            assert opens(warehouse.path) == "locked"
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            assert versions(warehouse) == [(2.0, T1)]

    def test_the_content_hash_tells_values_apart_but_not_order_nor_who_wrote_when(self, tmp_path: Path) -> None:
        rows = [action(2.0, T1, "AAA"), action(3.0, T2, "BBB")]
        late = [row.with_columns(batch_id=pl.lit("later"), recorded_at=pl.lit(T3, pl.Datetime("us"))) for row in rows]
        other = [action(2.0, T1, "AAA"), action(3.5, T2, "BBB")]
        hashes = []
        for number, parts in enumerate((rows, late[::-1], other, rows[:1], [])):
            warehouse = Warehouse(tmp_path / f"{number}.duckdb", "files")
            for part in parts:
                append(warehouse, part)
            with warehouse.connect() as connection:
                hashes.append(content_hash(connection, CORPORATE_ACTIONS))
        assert hashes[0] == hashes[1]
        assert len(set(hashes)) == 4

    def test_every_write_counts_as_a_change(self, warehouse: Warehouse) -> None:
        with warehouse.connect() as connection:
            before = change_counter(connection)
        append(warehouse, action(2.0, T1))
        append(warehouse, action(2.0, T1))
        with warehouse.connect() as connection:
            assert change_counter(connection) == before + 1
            assert scalar(connection, "select 1 where false") is None
