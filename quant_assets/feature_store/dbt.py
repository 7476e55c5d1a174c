"""Run dbt in this process, on our connection, and let go of the database afterwards."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from quant_assets.clock import TradingCalendar
from quant_assets.errors import QuantAssetsError
from quant_assets.settings import PROJECT_ROOT
from quant_assets.warehouse import Connection, Warehouse, scalar

PROJECT_PATH = PROJECT_ROOT / "dbt_features"
MANIFEST_PATH = PROJECT_PATH / "target" / "manifest.json"
PARSED_PATH = PROJECT_PATH / "target" / "partial_parse.msgpack"
NO_DOCS = """<!doctype html><meta charset="utf-8"><title>dbt docs</title>
<p>There are no dbt docs yet: the nightly run writes them. Run <code>quant-assets run</code>, then load this page again.</p>
"""


class DbtError(QuantAssetsError):
    """dbt could not run at all, or a model failed to build; the text is dbt's."""


@dataclass(frozen=True)
class Outcome:
    """What became of one dbt node: a model was built, or a test found `failures` offending rows."""

    unique_id: str
    is_model: bool
    passed: bool
    failures: int
    message: str


def build(warehouse: Warehouse, calendar: TradingCalendar) -> list[Outcome]:
    """Build all models, run all tests and write the docs; raises `DbtError` when a model fails, a failing test is an outcome.

    Our connection is held meanwhile: dbt's own joins it in this process and no other process can come between. The
    calendar tells which weeks and months are over.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest

    target = warehouse.path.with_name("dbt")
    arguments = ["--project-dir", str(PROJECT_PATH), "--profiles-dir", str(PROJECT_PATH), "--target-path", str(target)]
    arguments += ["--log-level", "none", "--log-level-file", "none"]
    # The project as parsed at set-up: dbt would parse it anew for every other path of the database, which takes seconds.
    manifest = Manifest.from_msgpack(PARSED_PATH.read_bytes())
    manifest.build_flat_graph()  # which dbt does only for what it parsed itself, and tests of ranges read
    with warehouse.connect() as connection:
        arguments += ["--vars", json.dumps({"next_session": _next_session(connection, calendar)})]
        dbt = dbtRunner(manifest=manifest)
        try:
            run = dbt.invoke(["build", *arguments])
            docs = dbt.invoke(["docs", "generate", "--static", "--no-compile", *arguments]) if run.result is not None else None
        finally:
            DuckDBConnectionManager.close_all_connections()
    if docs is None or not docs.success:
        raise DbtError(f"dbt could not run: {(docs or run).exception}. Try `dbt parse` in {PROJECT_PATH.name}/ to see the whole message.")
    os.replace(target / "static_index.html", docs_folder(warehouse.path.parent) / "index.html")
    outcomes = [
        Outcome(
            unique_id=result.node.unique_id,
            is_model=result.node.resource_type == "model",
            passed=str(result.status) in {"success", "pass"},
            failures=int(result.failures or 0),
            message=result.message or "",
        )
        for result in run.result.results
        if result.node.resource_type in ("model", "test") and str(result.status) != "skipped"
    ]
    broken = [outcome for outcome in outcomes if outcome.is_model and not outcome.passed]
    if broken:
        raise DbtError("; ".join(f"{outcome.unique_id}: {outcome.message}" for outcome in broken))
    return outcomes


def docs_folder(home: Path) -> Path:
    """The folder of dbt's docs under a HOME, one page; until a night has written them, the page says so."""
    folder = home / "dbt" / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "index.html").exists():
        (folder / "index.html").write_text(NO_DOCS)
    return folder


def _next_session(connection: Connection, calendar: TradingCalendar) -> str | None:
    """The exchange's session after the newest clean bar, as dbt takes it; None where there is no bar, or the calendar ends."""
    newest = scalar(connection, "select max(session) from data_quality.clean_bars")
    later = calendar.session_after(newest) if newest else None
    return str(later) if later else None
