"""Run dbt in this process, on our connection, and let go of the database afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass

from quant_assets.clock import TradingCalendar
from quant_assets.errors import QuantAssetsError
from quant_assets.settings import PROJECT_ROOT
from quant_assets.warehouse import Connection, Warehouse, scalar

PROJECT_PATH = PROJECT_ROOT / "dbt_features"
MANIFEST_PATH = PROJECT_PATH / "target" / "manifest.json"
PARSED_PATH = PROJECT_PATH / "target" / "partial_parse.msgpack"


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
    """Build all models and run all tests; raises `DbtError` when a model fails, a failing test is an outcome.

    Our connection is held meanwhile: dbt's own joins it in this process and no other process can come between. The
    calendar tells which weeks and months are over.
    """
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest

    target = warehouse.path.with_name("dbt")
    arguments = ["--project-dir", str(PROJECT_PATH), "--profiles-dir", str(PROJECT_PATH), "--target-path", str(target)]
    # The project as parsed at set-up: dbt would parse it anew for every other path of the database, which takes seconds.
    manifest = Manifest.from_msgpack(PARSED_PATH.read_bytes())
    with warehouse.connect() as connection:
        arguments += ["--vars", json.dumps({"next_session": _next_session(connection, calendar)})]
        try:
            run = dbtRunner(manifest=manifest).invoke(["build", *arguments, "--log-level", "none", "--log-level-file", "none"])
        finally:
            DuckDBConnectionManager.close_all_connections()
    if run.result is None:
        raise DbtError(f"dbt could not run: {run.exception}. Try `dbt parse` in {PROJECT_PATH.name}/ to see the whole message.")
    outcomes = [
        Outcome(
            unique_id=result.node.unique_id,
            is_model=result.node.resource_type == "model",
            passed=str(result.status) in {"success", "pass"},
            failures=int(result.failures or 0),
            message=result.message or "",
        )
        for result in run.result.results
        if str(result.status) != "skipped"
    ]
    broken = [outcome for outcome in outcomes if outcome.is_model and not outcome.passed]
    if broken:
        raise DbtError("; ".join(f"{outcome.unique_id}: {outcome.message}" for outcome in broken))
    return outcomes


def _next_session(connection: Connection, calendar: TradingCalendar) -> str | None:
    """The exchange's session after the newest clean bar, as dbt takes it; None where there is no bar, or the calendar ends."""
    newest = scalar(connection, "select max(session) from data_quality.clean_bars")
    later = calendar.session_after(newest) if newest else None
    return str(later) if later else None
