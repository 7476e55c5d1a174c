"""`quant-assets ui` for real: one code server, webserver, daemon, MLflow and the document store, driven as a person would."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from pymongo import MongoClient

from quant_assets import ui
from quant_assets.errors import QuantAssetsError
from quant_assets.publishing import embedded_store
from quant_assets.settings import load_settings
from quant_assets_tests import command, nights
from quant_assets_tests.crashes import _processes_of as processes_of

SNAPSHOT = json.loads(Path(__file__).with_name("test_definitions.json").read_text())
NEXT = "2025-03-17"
CODE = {"repositoryLocationName": "quant_assets", "repositoryName": "__repository__"}
ASSETS = "{assetNodes {assetKey {path} groupName description kinds owners {... on TeamAssetOwner {team}} hasMaterializePermission}}"
LAUNCH = """
mutation ($parameters: ExecutionParams!) {
    launchRun(executionParams: $parameters) {
        __typename
        ... on LaunchRunSuccess {run {runId}}
        ... on PythonError {message}
        ... on RunConfigValidationInvalid {errors {message}}
    }
}
"""
STATUS = "query ($run: ID!) {runOrError(runId: $run) {... on Run {status}}}"
INSTIGATORS = """
query ($code: RepositorySelector!) {
    sensorsOrError(repositorySelector: $code) {... on Sensors {results {name sensorState {status ticks {status error {message}}}}}}
    schedulesOrError(repositorySelector: $code) {... on Schedules {results {name scheduleState {status}}}}
    instance {daemonHealth {allDaemonStatuses {daemonType required healthy}}}
}
"""
EVENTS = """
query ($key: AssetKeyInput!) {assetOrError(assetKey: $key) {... on Asset {assetMaterializations(limit: 1) {metadataEntries {label}}}}}
"""
Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], what: str, seconds: float = 90) -> Found:
    """What `look` finds at last."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    return found


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked how does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.fixture
def handlers() -> Iterator[None]:
    """Our own signal handlers, put back afterwards."""
    before = {number: signal.getsignal(number) for number in ui.ENDINGS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class TestRegression:
    @pytest.mark.drill
    def test_a_night_through_the_ui(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        finished, _ = nights.finished(tmp_path_factory.getbasetemp())
        home = nights.copied(finished, tmp_path / "home")
        web, mlflow, docs = free_ports(3)
        ports = {"QUANT_DAGSTER_PORT": str(web), "QUANT_MLFLOW_PORT": str(mlflow), "QUANT_DBT_DOCS_PORT": str(docs)}
        environment = command.environment(home, **nights.MARKET, **ports)
        said = tmp_path / "said.txt"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [command.COMMAND, "ui"], env=environment, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True
            )

        def logs() -> str:
            return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in [said, *(home / "logs").glob("*.log")])

        def started() -> bool | None:
            assert process.poll() is None, logs()
            return "Ctrl-C ends them all." in said.read_text() or None

        try:
            wait_for(started, "the addresses")
            assert f"http://127.0.0.1:{web}" in said.read_text()
            assert f"http://127.0.0.1:{mlflow}" in said.read_text()
            assert f"http://127.0.0.1:{docs}" in said.read_text()
            with httpx.Client(timeout=60) as client:

                def ask(query: str, **variables: Any) -> dict[str, Any]:
                    answer = client.post(f"http://127.0.0.1:{web}/graphql", json={"query": query, "variables": variables}).json()
                    assert "errors" not in answer, answer
                    return dict(answer["data"])

                parameters = {
                    "selector": {**CODE, "jobName": "nightly"},
                    "executionMetadata": {"tags": [{"key": "dagster/partition", "value": NEXT}]},
                }
                launched = ask(LAUNCH, parameters=parameters)["launchRun"]
                assert launched["__typename"] == "LaunchRunSuccess", launched
                run_id = launched["run"]["runId"]

                nodes = {"/".join(node["assetKey"]["path"]): node for node in ask(ASSETS)["assetNodes"]}
                assert set(nodes) == set(SNAPSHOT["assets"])
                for key, node in nodes.items():
                    wanted = SNAPSHOT["assets"][key]
                    assert node["description"]
                    assert (node["groupName"], sorted(node["kinds"])) == (wanted["group"], wanted["kinds"])
                    assert [f"team:{owner['team']}" for owner in node["owners"]] == wanted["owners"]

                assert client.get(f"http://127.0.0.1:{mlflow}/health").text == "OK"
                page = client.get(f"http://127.0.0.1:{docs}")
                assert "rsi_14" in page.text  # the night before has written them
                assert client.get(f"http://127.0.0.1:{docs}/..%2f..%2fquant.duckdb").status_code == 404
                experiments = client.post(f"http://127.0.0.1:{mlflow}/api/2.0/mlflow/experiments/search", json={"max_results": 5})
                assert experiments.status_code == 200, experiments.text

                def ended() -> str | None:
                    status = str(ask(STATUS, run=run_id)["runOrError"]["status"])
                    return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

                assert wait_for(ended, "the end of the run") == "SUCCESS", logs()

                def delivered() -> list[str] | None:
                    uri = embedded_store.address(home)
                    assert uri is not None, logs()
                    with MongoClient[dict[str, Any]](uri) as store:
                        found = list(store["quant_assets"]["signals"].find({"session": NEXT}))
                    assert all(document["lineage"]["dagster_run_id"] == run_id for document in found)
                    return sorted(document["symbol"] for document in found) or None

                # The daemon's sensor ticks every 15 seconds.
                assert wait_for(delivered, "documents of the launched run") == ["SYN001", "SYN002", "SYN004", "SYN005"]

                def reported() -> list[str] | None:
                    events = ask(EVENTS, key={"path": ["mongodb", "signals"]})["assetOrError"]["assetMaterializations"]
                    return [entry["label"] for entry in events[0]["metadataEntries"]] if events else None

                assert "inserted" in wait_for(reported, "the collection's own event")
                instigators = ask(INSTIGATORS, code=CODE)
                sensors = {sensor["name"]: sensor["sensorState"] for sensor in instigators["sensorsOrError"]["results"]}
                assert set(sensors) == set(SNAPSHOT["sensors"])
                for state in sensors.values():
                    assert state["status"] == "RUNNING"
                    assert state["ticks"]
                    assert [tick["error"] for tick in state["ticks"] if tick["error"]] == []
                schedules = {each["name"]: each["scheduleState"]["status"] for each in instigators["schedulesOrError"]["results"]}
                assert schedules == dict.fromkeys(SNAPSHOT["schedules"], "RUNNING")
                daemons = instigators["instance"]["daemonHealth"]["allDaemonStatuses"]
                assert [daemon["daemonType"] for daemon in daemons if daemon["required"] and not daemon["healthy"]] == []
        finally:
            family = processes_of(home)
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)  # impatience leaves nobody behind
            code = process.wait(timeout=60)
        assert len(family) >= 5
        assert code == 0, logs()
        assert processes_of(home) == {}
        assert said.read_text().endswith("Stopping.\n")
        assert embedded_store.address(home) is None

    def test_taken_port_is_named_before_anything_starts(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, nights.environment(tmp_path):
            port = taken.getsockname()[1]
            with pytest.raises(QuantAssetsError, match=f"Port {port} is taken: end what uses it, or set QUANT_DAGSTER_PORT to another"):
                ui.serve(load_settings(home=tmp_path / "home", dagster_port=port))
            assert not (tmp_path / "home").exists()

    @pytest.mark.usefixtures("handlers")
    def test_what_does_not_end_is_killed_with_its_children(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ui, "STOP_SECONDS", 0.2)
        stubborn = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        parent = (
            stubborn
            + "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(child.pid, flush=True); child.wait()"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True),
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.PIPE, start_new_session=True),
        ]
        assert processes[0].stdout is not None
        child = int(processes[0].stdout.readline())
        ui._end(processes)
        assert [process.returncode for process in processes] == [-signal.SIGKILL, -signal.SIGTERM]
        wait_for(lambda: None if is_running(child) else True, "the end of the grandchild", seconds=10)
        for process in processes:
            process.communicate()
