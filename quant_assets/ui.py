"""Everything `make ui` opens: one code server for webserver and daemon, MLflow's UI, dbt's docs, the embedded document store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import click

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.dbt import docs_folder
from quant_assets.settings import PROJECT_ROOT, Settings

LOOPBACK = "127.0.0.1"
START_SECONDS = 90.0
STOP_SECONDS = 15.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(settings: Settings) -> None:
    """Start the processes, say their addresses, and wait; Ctrl-C, SIGTERM or the end of any of them ends all.

    A run at work gets some seconds to finish then; one that takes longer is ended, and the next marks it as failed.
    """
    from quant_assets.signals.registry.mlflow_store import initialise

    code_port = _free_port()
    # MLflow's server would otherwise start a runner of jobs that nobody submits, as large as itself.
    environment = {**os.environ, "QUANT_CODE_SERVER_PORT": str(code_port), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    scripts = Path(sys.executable).parent
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    commands = {
        "code server": [
            str(scripts / "dagster"),
            "code-server",
            "start",
            "-h",
            LOOPBACK,
            "-p",
            str(code_port),
            "-m",
            "quant_assets.definitions",
        ],
        "webserver": [str(scripts / "dagster-webserver"), "-h", LOOPBACK, "-p", str(settings.dagster_port), "-w", workspace],
        "daemon": [str(scripts / "dagster-daemon"), "run", "-w", workspace],
    }
    if settings.mlflow_uri.startswith("sqlite"):
        commands["mlflow"] = [
            str(scripts / "mlflow"), "server", "--host", LOOPBACK, "--port", str(settings.mlflow_port), "--workers", "1",
            "--backend-store-uri", settings.mlflow_uri, "--artifacts-destination", str(settings.home / "mlflow" / "artifacts"),
        ]  # fmt: skip
    if not settings.mongodb_uri.get_secret_value():
        commands["document store"] = [sys.executable, "-m", "quant_assets.publishing.embedded_store", str(settings.home)]
    ports = {
        "QUANT_DAGSTER_PORT": settings.dagster_port,
        "QUANT_MLFLOW_PORT": settings.mlflow_port,
        "QUANT_DBT_DOCS_PORT": settings.dbt_docs_port,
    }
    for name, port in ports.items():
        _require_free(name, port)
    commands["dbt docs"] = [
        sys.executable, "-m", "http.server", str(settings.dbt_docs_port), "--bind", LOOPBACK, "--directory", str(docs_folder(settings.home)),
    ]  # fmt: skip
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    initialise(settings.mlflow_uri, settings.home)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for ending in ENDINGS:
            if ending is not signal.SIGHUP or signal.getsignal(ending) is not signal.SIG_IGN:  # nohup means it
                signal.signal(ending, signal.default_int_handler)
        for name, command in commands.items():
            with open(logs / f"{name.replace(' ', '-')}.log", "ab") as log:
                processes[name] = subprocess.Popen(
                    command,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # a group of its own, so that what it starts can be ended with it
                )
            if name == "code server":
                _wait_for_port(code_port, processes[name], logs)
        docs = f"http://{LOOPBACK}:{settings.dbt_docs_port}"
        pages = {
            "webserver": f"{settings.dagster_url}/server_info",
            "mlflow": f"http://{LOOPBACK}:{settings.mlflow_port}/health",
            "dbt docs": docs,
        }
        for name in pages.keys() & processes.keys():
            _wait_for_page(pages[name], name, processes[name], logs)
        click.echo(f"Dagster         {settings.dagster_url}")
        click.echo(f"MLflow          {settings.mlflow_url}")
        click.echo(f"dbt docs        {docs}")
        click.echo(f"documents       {_documents(settings)}")
        click.echo(f"logs            {logs}\nCtrl-C ends them all.")
        while all(process.poll() is None for process in processes.values()):
            time.sleep(0.5)
        ended = [name for name, process in processes.items() if process.poll() is not None]
        raise QuantAssetsError(f"{', '.join(ended)} ended; see the logs under {logs}.")
    except KeyboardInterrupt:
        click.echo("Stopping.")
    finally:
        _end(processes.values())


def _end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """Ask every process to end, wait, then kill what is left of it and of what it started."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)  # a second Ctrl-C would leave some of them behind
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _documents(settings: Settings) -> str:
    from quant_assets.publishing.document_store import DocumentStore
    from quant_assets.publishing.embedded_store import address

    uri = settings.mongodb_uri.get_secret_value()
    deadline = time.monotonic() + START_SECONDS
    while not uri and time.monotonic() < deadline:
        uri = address(settings.home) or ""
        time.sleep(0 if uri else 0.2)
    if not uri:
        raise QuantAssetsError(f"The embedded document store did not come up; see {settings.home / 'logs' / 'document-store.log'}.")
    with DocumentStore(uri, settings.mongodb_database) as store:
        return store.describe()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise QuantAssetsError(f"Port {port} is taken: end what uses it, or set {name} to another.") from None


def _wait_for_port(port: int, process: subprocess.Popen[bytes], logs: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.2)
    raise QuantAssetsError(f"The code server did not come up; see {logs / 'code-server.log'}.")


def _wait_for_page(url: str, name: str, process: subprocess.Popen[bytes], logs: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise QuantAssetsError(f"The {name} did not come up; see {logs / f'{name}.log'}.")
