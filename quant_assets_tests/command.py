"""The real command in a process of its own, and what it leaves behind: tables, documents, runs, models."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from pymongo import MongoClient

from quant_assets.publishing import embedded_store
from quant_assets.schemas import OUTBOX, TABLES, Table
from quant_assets.warehouse import Warehouse, content_hash

COMMAND = str(Path(sys.executable).with_name("quant-assets"))
WHAT_HAPPENED = {"market_data.fetch_ledger", "feature_store.view_builds"}
"""Ledgers that grow with every run, interrupted ones too, and so tell two histories of the same night apart."""
SMALL = {
    "QUANT_SYNTHETIC_SYMBOLS": "5",
    "QUANT_SYNTHETIC_START": "2024-06-03",
    "QUANT_TRAIN_MIN_SESSIONS": "120",
    "QUANT_PROMOTION_CONFIDENCE": "0",  # a market this small cannot bring evidence
}
EVENING = "2025-08-15"


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Our environment without anybody else's settings, and with these."""
    foreign = ("QUANT_", "MONGODB_", "WEBHOOK_", "MLFLOW_", "DAGSTER_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**own, "QUANT_HOME": str(home), "PYTHONUNBUFFERED": "1", **settings}


def run(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `quant-assets` to its end, away from any `.env`."""
    home.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [COMMAND, *arguments], env=environment(home, **settings), cwd=home.parent, capture_output=True, text=True, timeout=240, check=False
    )


def warehouse(home: Path, source: str) -> Warehouse:
    """The database that a run left."""
    assert (home / "quant.duckdb").exists(), f"{home} has no database"
    return Warehouse(home / "quant.duckdb", source)


def read(home: Path, source: str, sql: str, **parameters: object) -> list[dict[str, Any]]:
    """Rows of one query on the database that a run left."""
    return warehouse(home, source).read(sql, parameters).to_dicts()


def contents(home: Path, source: str) -> dict[str, str]:
    """A hash of each table's rows, without who wrote them when; a document's file is told by its counts, for it names its run."""
    with warehouse(home, source).connect() as connection:
        return {name: content_hash(connection, _comparable(table)) for name, table in TABLES.items() if name not in WHAT_HAPPENED}


def _comparable(table: Table) -> Table:
    if table is not OUTBOX:
        return table
    return replace(table, columns=tuple(column for column in table.columns if column.name != "sha256"))


def documents(home: Path) -> dict[str, dict[str, Any]]:
    """Every document of the embedded store over a real connection, by id, without the store's own `_id`."""
    with embedded_store.running(home) as uri, MongoClient[dict[str, Any]](uri) as client:
        database = client["quant_assets"]
        found = [document for name in sorted(database.list_collection_names()) for document in database[name].find({}, {"_id": 0})]
    assert len({document["document_id"] for document in found}) == len(found), "a document is stored twice"
    return {document["document_id"]: document for document in found}


def without_run(found: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Documents without the id of the run that made them."""
    return {
        name: {**document, "lineage": {field: value for field, value in document["lineage"].items() if field != "dagster_run_id"}}
        for name, document in found.items()
    }


def dagster_runs(home: Path) -> pl.DataFrame:
    """Every run of the Dagster instance under HOME, oldest first: `run_id`, `job`, `status`."""
    return _sqlite(home / "dagster" / "history" / "runs.db", "select run_id, pipeline_name as job, status from runs order by id")


def model_runs(home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """MLflow's runs (`status`) and the registered versions with their alias (`version`, `alias`)."""
    store = home / "mlflow" / "mlflow.db"
    versions = """
        select version.version, alias.alias from model_versions as version
        left join registered_model_aliases as alias on alias.name = version.name and alias.version = version.version
    """
    return _sqlite(store, "select status from runs order by start_time"), _sqlite(store, versions)


def _sqlite(file: Path, sql: str) -> pl.DataFrame:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return pl.read_database(sql, connection)
    finally:
        connection.close()
