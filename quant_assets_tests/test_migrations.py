"""Numbered schema changes: what is old is copied and brought up to date, what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from quant_assets.errors import WarehouseError
from quant_assets.migrations import MIGRATIONS, Migration, create_statement, migrate
from quant_assets.schemas import DAILY_BARS, TABLES, Kind
from quant_assets.warehouse import Warehouse

LAST = MIGRATIONS[-1].number
NEXT = Migration(LAST + 1, "the vendor's adjusted close", "alter table market_data.daily_bars add column adj_close double")
AFTER = Migration(LAST + 2, "no change", "")


def old_database(path: Path) -> None:
    """A database as it was before `NEXT`, with one bar in it."""
    Warehouse(path, "files").read("select 1")
    with duckdb.connect(path) as connection:
        connection.execute("alter table market_data.daily_bars drop column adj_close")
        connection.execute("update main.changes set views_hash = 'old'")
        connection.execute(
            """
            insert into market_data.daily_bars by name select 'AAA' as symbol, date '2020-01-02' as session, 'files' as source,
                timestamp '2020-01-02 21:30' as known_at, 1 as open, 2 as high, 1 as low, 2 as close, 9 as volume, 'raw' as basis,
                'assumed' as known_at_basis, 'b' as batch_id, timestamp '2020-01-02 22:00' as recorded_at
            """
        )


def columns(path: Path) -> set[str]:
    with duckdb.connect(path) as connection:
        return {
            name for (name,) in connection.execute("select column_name from duckdb_columns() where table_name = 'daily_bars'").fetchall()
        }


def applied(path: Path) -> list[tuple[int, str]]:
    with duckdb.connect(path) as connection:
        return connection.execute("select number, title from main.schema_migrations order by number").fetchall()


class TestRegression:
    def test_a_new_database_is_as_declared_and_stamped_with_every_number(self, warehouse: Warehouse) -> None:
        warehouse.read("select 1")
        assert applied(warehouse.path) == [(migration.number, migration.title) for migration in MIGRATIONS]
        comments = warehouse.read("select comment from duckdb_columns() where table_name = 'daily_bars' and column_name = 'volume'")
        assert comments["comment"].to_list() == ["Shares traded, null where the source has none [shares]"]
        tables = warehouse.read("select comment from duckdb_tables() where table_name = 'daily_bars'")
        assert "one version of one symbol's bar" in tables["comment"].item()

    def test_an_old_database_is_copied_then_changed_in_order(self, tmp_path: Path) -> None:
        path = tmp_path / "quant.duckdb"
        old_database(path)
        with duckdb.connect(path) as connection:
            migrate(connection, path, "files", (*MIGRATIONS, NEXT, AFTER))
            assert connection.execute("select symbol, close, adj_close from data_quality.clean_bars").fetchall() == [("AAA", 2.0, None)]
        assert "adj_close" in columns(path)
        assert applied(path)[-2:] == [(NEXT.number, NEXT.title), (AFTER.number, AFTER.title)]
        copy = tmp_path / f"quant.duckdb.before-{NEXT.number}"
        assert "adj_close" not in columns(copy)
        with duckdb.connect(copy) as connection:
            assert connection.execute("select close from market_data.daily_bars").fetchall() == [(2.0,)]

    def test_a_change_without_a_migration_is_reported_with_the_difference(self, tmp_path: Path) -> None:
        path = tmp_path / "quant.duckdb"
        old_database(path)
        with pytest.raises(
            WarehouseError, match=r"market_data.daily_bars is not as declared, .*'adj_close', 'DOUBLE'.* migration is missing"
        ):
            Warehouse(path, "files").read("select 1")
        assert "adj_close" not in columns(path)

    def test_a_changed_declaration_is_noticed_though_no_number_is_new(self, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
        columns = tuple(replace(column, dtype=pl.Int64) if column.name == "volume" else column for column in DAILY_BARS.columns)
        monkeypatch.setitem(TABLES, DAILY_BARS.full_name, replace(DAILY_BARS, columns=columns))
        with pytest.raises(WarehouseError, match=r"daily_bars .* differing in \[\('volume', 'BIGINT'\), \('volume', 'DOUBLE'\)\]"):
            warehouse.read("select 1")

    def test_a_changed_description_reaches_the_database(self, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(TABLES, DAILY_BARS.full_name, replace(DAILY_BARS, description="What a day's trading came to."))
        comment = warehouse.read("select comment from duckdb_tables() where table_name = 'daily_bars'").item()
        assert comment.startswith("What a day's trading came to. Grain: ")

    def test_a_database_of_a_newer_version_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "quant.duckdb"
        Warehouse(path, "files").read("select 1")
        with duckdb.connect(path) as connection:
            connection.execute("insert into main.schema_migrations values (99, 'from the future', now()::timestamp)")
        with pytest.raises(WarehouseError, match=rf"has schema 99, this version knows {LAST}: use the newer version"):
            Warehouse(path, "files").read("select 1")

    def test_a_migration_that_fails_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "quant.duckdb"
        old_database(path)
        broken = Migration(AFTER.number, "broken", "alter table market_data.nowhere add column x double")
        with duckdb.connect(path) as connection, pytest.raises(duckdb.CatalogException):
            migrate(connection, path, "files", (*MIGRATIONS, NEXT, broken))
        assert "adj_close" not in columns(path)
        assert applied(path)[-1][0] == LAST

    def test_another_preferred_source_changes_what_clean_bars_shows(self, tmp_path: Path) -> None:
        path = tmp_path / "quant.duckdb"
        Warehouse(path, "files").read("select 1")
        with duckdb.connect(path) as connection:
            for source, close in (("files", 1.0), ("o'hara", 2.0)):
                connection.execute(
                    """
                    insert into market_data.daily_bars
                    select 'AAA', date '2020-01-02', $1, timestamp '2020-01-02 21:30', $2, $2, $2, $2, 9, null, 'raw', 'assumed', 'b', now()::timestamp
                    """,
                    [source, close],
                )
        for source, close in (("files", 1.0), ("o'hara", 2.0), ("files", 1.0)):
            assert Warehouse(path, source).read("select close from data_quality.clean_bars")["close"].to_list() == [close]
            instant = {"t": datetime(2021, 1, 1)}
            assert Warehouse(path, source).read("select close from data_quality.clean_bars_as_of($t)", instant)["close"].to_list() == [
                close
            ]

    def test_opening_again_changes_nothing(self, warehouse: Warehouse) -> None:
        counter = "select counter from main.changes"
        before = warehouse.read(counter).item()
        assert Warehouse(warehouse.path, warehouse.preferred_source).read(counter).item() == before


class TestProperties:
    def test_every_versions_table_has_its_macro_and_view(self, warehouse: Warehouse) -> None:
        for table in TABLES.values():
            if table.kind is Kind.VERSIONS:
                assert warehouse.read(f"select * from {table.schema}.latest_{table.name}").columns == table.column_names
                as_of = warehouse.read(f"select * from {table.schema}.{table.name}_as_of($t)", {"t": datetime(2021, 1, 1)})
                assert as_of.schema == table.polars_schema

    def test_stored_tables_have_the_declared_columns_in_order(self, warehouse: Warehouse) -> None:
        for table in TABLES.values():
            assert warehouse.read(f"select * from {table.full_name}").schema == table.polars_schema

    def test_numbers_rise_one_by_one(self) -> None:
        assert [migration.number for migration in MIGRATIONS] == list(range(1, LAST + 1))

    def test_what_may_be_null_follows_the_declaration(self) -> None:
        assert '"volume" DOUBLE,' in create_statement(DAILY_BARS)
        assert '"close" DOUBLE not null' in create_statement(DAILY_BARS)
