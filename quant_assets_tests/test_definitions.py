"""What the code location holds, told by a snapshot beside this file; renew it with `python -m quant_assets_tests.test_definitions`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest

from quant_assets.clock import trading_calendar
from quant_assets.migrations import sql_type
from quant_assets.schemas import DAILY_BARS, TABLES
from quant_assets.settings import load_settings
from quant_assets_tests import command, nights

SNAPSHOT = Path(__file__).with_suffix(".json")
RENEW = "If that is meant: python -m quant_assets_tests.test_definitions"
ALONE = """
import json, os, socket, sys
calls = []
def refuse(*arguments, **_):
    calls.append(repr(arguments[1:]))
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from quant_assets.definitions import defs, nightly_after_close
heavy = {"lightgbm", "catboost", "mlflow", "sklearn", "gluonts", "torch", "optuna", "hmmlearn", "matplotlib", "shap"}
print(json.dumps({
    "heavy": sorted(heavy & set(sys.modules)),
    "calls": calls,
    "cron": nightly_after_close.cron_schedule,
    "timezone": nightly_after_close.execution_timezone,
    "assets": len(defs.resolve_asset_graph().get_all_asset_keys()),
}))
"""


def load() -> dg.Definitions:
    from quant_assets.definitions import defs

    return defs


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.Definitions]:
    with nights.environment(tmp_path_factory.mktemp("definitions")):
        yield load()


def snapshot(defs: dg.Definitions) -> dict[str, Any]:
    """Everything that others build on, as plain values in a fixed order."""
    graph = defs.resolve_asset_graph()
    checks = [graph.get(key) for key in graph.asset_check_keys]
    return {
        "assets": {
            key.to_user_string(): {
                "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
                "group": node.group_name,
                "kinds": sorted(node.kinds),
                "owners": list(node.owners),
                "partitioned": node.partitions_def is not None,
                "checks": {
                    check.key.name: "blocks" if check.blocking else "warns"
                    for check in sorted(checks, key=lambda check: check.key.name)
                    if check.key.asset_key == key
                },
            }
            for key in sorted(graph.get_all_asset_keys())
            for node in [graph.get(key)]
        },
        "jobs": {
            job.name: {
                "assets": sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys),
                "partitioned": job.partitions_def is not None,
                "executor": job.executor_def.name,
            }
            for job in sorted(defs.resolve_all_job_defs(), key=lambda job: job.name)
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: {
                "job": schedule.job_name,
                "cron": schedule.cron_schedule,
                "timezone": schedule.execution_timezone,
                "default": schedule.default_status.value,
            }
            for schedule in defs.schedules or []
            if isinstance(schedule, dg.ScheduleDefinition)
        },
        "sensors": {
            sensor.name: {"seconds": sensor.minimum_interval_seconds, "default": sensor.default_status.value}
            for sensor in defs.sensors or []
        },
    }


def tick(calendar: str, zone: str, day: date, hour: int, minute: int) -> dg.RunRequest | dg.SkipReason:
    """What the schedule says at a moment of the exchange's clock, with the calendar given by setting."""
    from quant_assets import definitions

    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(zone))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(definitions, "SETTINGS", load_settings(calendar=calendar))
        outcome = definitions.nightly_after_close(context)
    assert isinstance(outcome, dg.RunRequest | dg.SkipReason)
    return outcome


class TestRegression:
    def test_snapshot(self, defs: dg.Definitions) -> None:
        assert snapshot(defs) == json.loads(SNAPSHOT.read_text()), RENEW

    def test_loads_without_secrets_network_files_and_heavy_libraries(self, tmp_path: Path) -> None:
        """Another exchange by setting, at the same time: the schedule follows its clock."""
        environment = {**command.environment(tmp_path / "home", QUANT_CALENDAR="XTKS"), "HOME": str(tmp_path)}
        answer = subprocess.run([sys.executable, "-c", ALONE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        found = json.loads(answer.stdout)
        assert found.pop("assets") >= len(TABLES)
        # Tokyo closes at 15:30 since November 2024; half an hour of delay, a quarter in hand.
        assert found == {"heavy": [], "calls": [], "cron": "15 16 * * *", "timezone": "Asia/Tokyo"}
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("day", "wanted"),
        [
            (date(2025, 3, 13), date(2025, 3, 13)),
            (date(2025, 3, 8), None),  # Saturday
            (date(2025, 3, 9), None),  # Sunday, and the clocks go forward
            (date(2025, 3, 10), date(2025, 3, 10)),
            (date(2025, 11, 3), date(2025, 11, 3)),  # the Monday after they went back
            (date(2025, 7, 3), date(2025, 7, 3)),  # closes at 13:00
            (date(2025, 7, 4), None),
            (date(2025, 11, 28), date(2025, 11, 28)),  # the half day after Thanksgiving,
            (date(2025, 11, 29), None),  # and its Saturday, more than a day later
        ],
    )
    def test_evenings_of_new_york(self, defs: dg.Definitions, day: date, wanted: date | None) -> None:
        schedule = defs.resolve_schedule_def("nightly_after_close")
        evening = datetime(day.year, day.month, day.day, 16, 45, tzinfo=ZoneInfo("America/New_York"))
        data = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=evening, repository_def=defs.get_repository_def()))
        requests = data.run_requests or []
        assert [request.tags["dagster/partition"] for request in requests] == ([str(wanted)] if wanted else [])
        assert [request.run_key for request in requests] == ([str(wanted)] if wanted else [])
        if wanted is None:
            assert "No session of XNYS closed in the day before" in str(data.skip_message)
        else:
            partitions = defs.resolve_job_def("nightly").partitions_def
            assert isinstance(partitions, dg.DailyPartitionsDefinition)
            assert partitions.get_partition_keys(current_time=evening)[-1] == str(wanted)

    def test_other_exchanges_by_setting(self, defs: dg.Definitions) -> None:
        golden_week, boxing_day = date(2025, 5, 5), date(2025, 12, 26)
        assert isinstance(tick("XTKS", "Asia/Tokyo", golden_week, 16, 15), dg.SkipReason)
        assert isinstance(tick("XLON", "Europe/London", boxing_day, 17, 15), dg.SkipReason)
        after = tick("XTKS", "Asia/Tokyo", date(2025, 5, 7), 16, 15)
        assert isinstance(after, dg.RunRequest)
        assert after.partition_key == "2025-05-07"
        half_day = tick("XLON", "Europe/London", date(2025, 12, 24), 17, 15)
        assert isinstance(half_day, dg.RunRequest)
        assert half_day.partition_key == "2025-12-24"

    def test_documents_are_described_as_they_are(self, defs: dg.Definitions) -> None:
        from quant_assets.publishing.documents import signal_documents
        from quant_assets_tests.publishing.test_documents import frame, signal

        node = defs.resolve_asset_graph().get(dg.AssetKey(["mongodb", "signals"]))
        (document,) = signal_documents(frame(signal()), datetime(2100, 1, 1))
        assert [column.name for column in node.metadata["dagster/column_schema"].columns] == list(document)


class TestProperties:
    def test_every_table_is_an_asset_of_its_name(self, defs: dg.Definitions) -> None:
        graph = defs.resolve_asset_graph()
        for name in TABLES:
            node = graph.get(dg.AssetKey(name.split(".")))
            assert node.metadata["dagster/table_name"] == name
            assert node.group_name == TABLES[name].schema

    def test_every_asset_is_described(self, defs: dg.Definitions) -> None:
        graph = defs.resolve_asset_graph()
        for key in graph.get_all_asset_keys():
            node = graph.get(key)
            assert node.description, key
            assert node.group_name, key
            assert node.owners, key
            assert node.kinds, key
        for check in graph.asset_check_keys:
            assert graph.get(check).description, check

    def test_column_schemas_are_the_declarations(self, defs: dg.Definitions) -> None:
        graph = defs.resolve_asset_graph()
        declared = TABLES | {"data_quality.clean_bars": DAILY_BARS}
        for name, table in declared.items():
            node = graph.get(dg.AssetKey(name.split(".")))
            shown = node.metadata["dagster/column_schema"].columns
            assert [(column.name, column.type, column.constraints.nullable) for column in shown] == [
                (column.name, sql_type(column.dtype), column.nullable) for column in table.columns
            ]
            assert all(column.description for column in shown)
            assert node.metadata["dagster/table_name"] == name

    def test_views_are_described_as_they_are(self, defs: dg.Definitions, tmp_path_factory: pytest.TempPathFactory) -> None:
        home, _ = nights.finished(tmp_path_factory.getbasetemp())
        graph = defs.resolve_asset_graph()
        with nights.desk(home) as desk:
            for name in (
                "stg_bars",
                "training_panel",
                "market_sessions",
                "stg_adjusted_bars",
                "period_bars",
                "weekly_bars",
                "monthly_bars",
            ):
                shown = graph.get(dg.AssetKey(["feature_store", name])).metadata["dagster/column_schema"].columns
                stored = desk.read(
                    "select column_name, data_type from duckdb_columns() where table_name = $name order by column_index", name=name
                ).rows()
                assert [(column.name, column.type) for column in shown] == stored
                assert all(column.description for column in shown)

    @pytest.mark.parametrize("name", ["XNYS", "XLON", "XTKS"])
    def test_each_session_is_asked_for_once_on_its_own_evening(self, defs: dg.Definitions, name: str) -> None:
        from quant_assets.clock import calendar_of
        from quant_assets.partitions import daily_sessions, nightly_cron

        settings = load_settings(calendar=name)
        calendar = calendar_of(settings)
        minute, hour = (int(field) for field in nightly_cron(calendar).split()[:2])
        partitions = daily_sessions(settings)
        first, last = date(2025, 1, 13), date(2025, 12, 31)
        asked = []
        for day in pl.date_range(first, last, eager=True):
            outcome = tick(name, calendar.timezone, day, hour, minute)
            if isinstance(outcome, dg.RunRequest):
                assert outcome.partition_key == str(day)
                asked.append(day)
                moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(calendar.timezone))
                assert partitions.get_partition_keys(current_time=moment)[-1] == str(day)
        assert asked == list(calendar.between(first, last))

    @pytest.mark.parametrize("name", ["XNYS", "XTKS"])
    def test_partitions_are_the_sessions(self, defs: dg.Definitions, name: str) -> None:
        from quant_assets.partitions import daily_sessions

        partitions = daily_sessions(load_settings(calendar=name))
        calendar = trading_calendar(name, date(2025, 1, 2))
        noon = datetime(2025, 10, 8, 12, tzinfo=ZoneInfo(calendar.timezone))
        for days in range(10):
            today = (noon + timedelta(days=days)).date()
            keys = partitions.get_partition_keys(current_time=noon + timedelta(days=days))
            sessions = [str(session) for session in calendar.between(date(2025, 1, 2), today)]
            # On a closed day Dagster offers the next session already; a run for it is refused until it is known.
            assert keys[: len(sessions)] == sessions
            assert len(keys) - len(sessions) <= (0 if calendar.is_session(today) else 1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, nights.environment(Path(folder)):
        SNAPSHOT.write_text(json.dumps(snapshot(load()), indent=2) + "\n")
    print(f"Renewed {SNAPSHOT.name}; read the difference before you commit it.")
