"""What a run works on, what it frees, and how runs, ranges and failing checks behave on a real instance."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from quant_assets.settings import PROJECT_ROOT, load_settings
from quant_assets.warehouse import Warehouse
from quant_assets_tests import nights
from quant_assets_tests.nights import BEFORE, CALENDAR, EVENING, Desk

MONDAY = date(2025, 3, 10)
SATURDAY_NOON = datetime(2025, 3, 15, 12)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dg.ExecuteInProcessResult]:
    return nights.finished(tmp_path_factory.getbasetemp())


@pytest.fixture
def desk(night: tuple[Path, dg.ExecuteInProcessResult], tmp_path: Path) -> Iterator[Desk]:
    """A desk of one's own on the evening after its night has run."""
    with nights.desk(nights.copied(night[0], tmp_path / "home")) as opened:
        yield opened


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with nights.desk(tmp_path / "home") as opened:
        yield opened.instance


@dg.op
def work() -> None: ...


@dg.job
def job() -> None:
    work()


def started(instance: dg.DagsterInstance, claimed_by: str | None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
    """An unfinished run, claimed by a process; `{run}` in the claim stands for the run's own id."""
    from quant_assets.resources import PROCESS_TAG

    run_id = instance.create_run_for_job(job, status=status).run_id
    if claimed_by:
        instance.add_run_tags(run_id, {PROCESS_TAG: claimed_by.replace("{run}", run_id)})
    return run_id


def status(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def failed_step(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """The first step that failed, and its innermost error."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return str(event.step_key), error.message if error else ""
    raise AssertionError("no step failed")


class TestRegression:
    def test_night_on_a_small_market(self, night: tuple[Path, dg.ExecuteInProcessResult]) -> None:
        home, result = night
        assert result.success
        steps = [event.step_key for event in result.all_events if event.is_step_success]
        assert steps == [
            "market_data", "daily_bars_checks", "data_quality", "restatements", "bar_rules", "feature_store", "dbt_features",
            "no_lookahead", "daily_signals", "drift", "blast_radius", "outbox", "feature_drift", "scorecard",
        ]  # fmt: skip
        assert all(evaluation.passed for evaluation in result.get_asset_check_evaluations())
        with nights.desk(home) as opened:
            listed = opened.read("select symbol from data_quality.clean_bars where session = $session order by symbol", session=EVENING)
            signals = opened.read("select symbol, session, scorer, mode from signals.daily_signals order by symbol")
            assert signals.rows() == [(symbol, EVENING, "heuristic", "live") for symbol in listed["symbol"]]
            assert len(signals) == 4  # the fifth is listed later
            (file,) = opened.settings.outbox_path.iterdir()
            assert file.name.startswith("2025-03-14-")
        assert {path.name for path in home.iterdir()} == {"dagster", "dbt", "outbox", "quant.duckdb", "quant.read.duckdb"}

    def test_range_is_one_run_with_rows_for_each_partition(self, desk: Desk) -> None:
        result = desk.run(MONDAY, EVENING)
        assert result.success
        week = [str(session) for session in CALENDAR.between(MONDAY, EVENING)]
        for name, rows in {
            "market_data/daily_bars": [4, 4, 4, 4, 4],
            "feature_store/technical_v1": [4, 4, 4, 4, 4],
            "feature_store/labels": [4, 4, 4, 4, 0],  # horizons of 5 and 20 sessions are still open, and so is tonight's of 1
            "publishing/outbox": [5, 5, 5, 5, 5],  # four signals and the summary of findings
        }.items():
            events = [event.materialization for event in result.all_events if event.is_step_materialization]
            events = [event for event in events if event.asset_key == dg.AssetKey.from_user_string(name)]
            assert [event.partition for event in events] == week, name
            assert [event.metadata["dagster/partition_row_count"].value for event in events] == rows, name
        assert len({run.run_id for run in desk.instance.get_runs()}) == 2
        modes = desk.read("select session, mode, count(*) as n from signals.daily_signals group by all order by session")
        assert modes.rows() == [(session, "replayed" if session < EVENING else "live", 4) for session in CALENDAR.between(MONDAY, EVENING)]
        assert len(list(desk.settings.outbox_path.iterdir())) == 5

    def test_session_that_has_not_closed_is_refused(self, desk: Desk) -> None:
        before = desk.read("select count(*) as n from market_data.daily_bars").item()
        result = desk.run(EVENING, as_of=CALENDAR.known_at(BEFORE))
        assert failed_step(result) == (
            "market_data",
            "quant_assets.errors.ConfigurationError: Session 2025-03-14 is not known as of 2025-03-13 20:30 UTC: its bars are known from "
            "2025-03-14 20:30 UTC. Run it after that, with data up to it, or choose 2025-03-13.\n",
        )
        assert desk.read("select count(*) as n from market_data.daily_bars").item() == before

    def test_failing_blocking_check_stops_downstream(self, desk: Desk) -> None:
        with desk.warehouse.transaction() as connection:
            connection.execute(
                "insert into market_data.daily_bars select * from market_data.daily_bars where session = ? limit 1", [EVENING]
            )
        result = desk.run(
            assets=["market_data/daily_bars", "data_quality/anomalies", "data_quality/clean_bars", "feature_store/technical_v1"]
        )
        assert not result.success
        failed = [evaluation for evaluation in result.get_asset_check_evaluations() if not evaluation.passed]
        assert [(evaluation.check_name, evaluation.description) for evaluation in failed] == [("key", "1 keys stand in more than one row.")]
        materialized = {event.asset_key.path[0] for event in result.all_events if event.is_step_materialization and event.asset_key}
        assert materialized == {"market_data"}

    def test_database_is_let_go_after_an_error(self, tmp_path: Path) -> None:
        from quant_assets.resources import WarehouseResource

        with nights.environment(tmp_path / "home"):
            path = load_settings().warehouse_path
            warehouse = WarehouseResource(database=str(path))
            with pytest.raises(duckdb.CatalogException), warehouse.get_connection() as connection:
                connection.execute("select * from nowhere")
            other = f"import duckdb; print(duckdb.connect({str(path)!r}).sql('select 42').fetchall()[0][0])"
            assert subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=True).stdout == "42\n"

    def test_readers_copy_is_renewed_by_a_run_that_changed_something(self, desk: Desk) -> None:
        copy = desk.settings.read_copy_path
        first = copy.stat()
        market = ["market_data/daily_bars"]
        assert desk.run(MONDAY, as_of=CALENDAR.known_at(EVENING), assets=market).success  # adds to the fetch ledger
        renewed = copy.stat()
        assert renewed.st_ino != first.st_ino
        with duckdb.connect(copy, read_only=True) as connection:
            assert connection.execute("select count(*) from market_data.fetch_ledger").fetchall() == [(2,)]
        assert desk.run(assets=["data_quality/anomalies", "data_quality/clean_bars"]).success  # finds nothing
        assert copy.stat().st_ino == renewed.st_ino

    def test_dead_runs_are_marked_and_living_ones_left_alone(self, instance: dg.DagsterInstance) -> None:
        from quant_assets.resources import claim_run, fail_dead_runs, process_identity

        node = socket.gethostname()
        child = subprocess.Popen([sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"], stdin=-1, stdout=-1)
        assert child.stdout is not None
        child.stdout.readline()
        child_identity = process_identity(child.pid)
        of_child = started(instance, child_identity + ":{run}")
        mine = started(instance, None)
        claim_run(instance, mine)
        alone = {
            "mine": mine,
            "another machine's": started(instance, "elsewhere:1:1:{run}"),
            "not claimed yet": started(instance, None),
            "copied from the run it repeats": started(instance, child_identity + ":some-other-run", dg.DagsterRunStatus.STARTING),
            "finished": started(instance, f"{node}:999999999:1" + ":{run}", dg.DagsterRunStatus.SUCCESS),
        }
        before = {name: status(instance, run_id) for name, run_id in alone.items()}
        dead = {
            "gone": started(instance, f"{node}:999999999:1" + ":{run}"),
            "its number is used again": started(instance, f"{node}:{os.getpid()}:1" + ":{run}"),
            "cancelling": started(instance, f"{node}:999999999:1" + ":{run}", dg.DagsterRunStatus.CANCELING),
        }
        assert sorted(fail_dead_runs(instance)) == sorted(dead.values())
        assert {status(instance, run_id) for run_id in dead.values()} == {"FAILURE"}
        assert {name: status(instance, run_id) for name, run_id in alone.items()} == before
        assert status(instance, of_child) == "STARTED"

        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how: a zombie
        assert fail_dead_runs(instance) == [of_child]
        child.communicate()
        assert fail_dead_runs(instance) == []
        (failure,) = instance.all_logs(of_child, of_type=dg.DagsterEventType.RUN_FAILURE)
        assert f"Its process ({child.pid}) is gone" in failure.message

    def test_next_run_frees_a_dead_one(self, desk: Desk) -> None:
        dead = started(desk.instance, f"{socket.gethostname()}:999999999:1" + ":{run}")
        result = desk.run(assets=["data_quality/anomalies", "data_quality/clean_bars"])
        assert result.success
        assert status(desk.instance, dead) == "FAILURE"
        assert status(desk.instance, result.run_id) == "SUCCESS"

    def test_home_is_prepared_whole_and_once(self, tmp_path: Path) -> None:
        with nights.desk(tmp_path / "home") as desk:
            folder = desk.settings.dagster_home
            assert (folder / "dagster.yaml").read_text() == (PROJECT_ROOT / "dagster.yaml").read_text()
            run_id = started(desk.instance, None)
            (folder / "dagster.yaml").write_text("telemetry:\n  enabled: true\n")
        with nights.desk(tmp_path / "home") as desk:  # of an older version, say
            assert (folder / "dagster.yaml").read_text() == (PROJECT_ROOT / "dagster.yaml").read_text()
            assert status(desk.instance, run_id) == "STARTED"
        assert [path.name for path in (tmp_path / "home").iterdir()] == ["dagster"]


class TestProperties:
    def test_night_follows_the_tag_else_the_data(self, desk: Desk) -> None:
        from quant_assets.resources import AS_OF_TAG, DeskResource, Night

        resource = DeskResource()
        evening = CALENDAR.known_at(EVENING)
        seen: list[Night] = []

        @dg.asset
        def observer(context: dg.AssetExecutionContext) -> None:
            seen.append(resource.night(context, desk.warehouse))

        for text, as_of, tonight in (
            ("2025-03-14T20:30:00", evening, EVENING),
            ("2025-03-14", evening, EVENING),
            ("2025-03-14T16:30:00-04:00", evening, EVENING),
            ("2025-03-14T20:29:59", datetime(2025, 3, 14, 20, 29, 59), BEFORE),
            ("2025-03-15T12:00:00", SATURDAY_NOON, EVENING),
            (None, evening, EVENING),  # the last stored session's
        ):
            seen.clear()
            tags = {AS_OF_TAG: text} if text else {}
            assert dg.materialize([observer], instance=desk.instance, tags=tags).success
            assert [(night.as_of, night.tonight, list(night.sessions)) for night in seen] == [(as_of, tonight, [tonight])]

    def test_rows_per_session_are_counted(self, desk: Desk) -> None:
        from quant_assets.resources import WarehouseResource

        sessions = CALENDAR.between(MONDAY, EVENING)
        counted = WarehouseResource(database=str(desk.settings.warehouse_path)).rows_per_session("data_quality.clean_bars", sessions)
        assert counted.rows() == [(session, 4) for session in sessions]
        empty = shutil.copyfile(desk.settings.warehouse_path, desk.home / "empty.duckdb")
        with Warehouse(empty, "synthetic").transaction() as connection:
            connection.execute("delete from market_data.daily_bars")
        assert WarehouseResource(database=str(empty)).rows_per_session("data_quality.clean_bars", sessions).is_empty()
