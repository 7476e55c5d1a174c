"""The embedded store as processes see it: one server per HOME, data that stays, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from pymongo import MongoClient

from quant_assets.publishing import embedded_store
from quant_assets.publishing.document_store import DocumentStore, StoreUnavailable
from quant_assets.publishing.documents import Document, instant_text

DOCUMENT = {"document_id": "a", "as_of": instant_text(datetime(2018, 2, 7)), "schema_version": 1}
USER = """
import sys, time
from pathlib import Path
from quant_assets.publishing.embedded_store import running
with running(Path(sys.argv[1])) as uri:
    print(uri, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process with pipes; whatever still runs in the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen([sys.executable, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def pid_of(home: Path) -> int:
    return int(json.loads((home / "documents" / "address.json").read_text())["pid"])


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ids(uri: str) -> list[str]:
    with MongoClient[Document](uri) as client:
        return [found["document_id"] for found in client["quant"]["signals"].find()]


class TestRegression:
    def test_documents_outlive_the_server_and_its_violent_end(self, tmp_path: Path) -> None:
        with embedded_store.running(tmp_path) as uri:
            with DocumentStore(uri, "quant") as store:
                store.publish({"signals": [DOCUMENT]})
            os.kill(pid_of(tmp_path), signal.SIGKILL)
            wait_until(lambda: embedded_store.address(tmp_path) is None)
        assert (tmp_path / "documents" / "address.json").exists()  # stale, and not believed
        with embedded_store.running(tmp_path) as uri, DocumentStore(uri, "quant") as store:
            assert ids(uri) == ["a"]
            assert store.publish({"signals": [DOCUMENT]})["signals"].unchanged == 1
            with MongoClient[Document](uri) as client:
                assert client["quant"]["signals"].index_information()["idx_signals_document_id"]["unique"]

    def test_ends_with_its_last_user(self, tmp_path: Path) -> None:
        with embedded_store.running(tmp_path) as first:
            with embedded_store.running(tmp_path) as second:
                assert second == first
            assert embedded_store.address(tmp_path) == first
        wait_until(lambda: embedded_store.address(tmp_path) is None)
        assert not (tmp_path / "documents" / "address.json").exists()

    def test_does_not_outlive_a_killed_command(self, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
        command = start("-c", USER, str(tmp_path))
        uri = line(command)
        assert embedded_store.address(tmp_path) == uri
        command.kill()
        wait_until(lambda: embedded_store.address(tmp_path) is None)

    def test_two_commands_at_once_share_one_server(self, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
        first, second = (start("-c", USER, str(tmp_path)) for _ in range(2))
        uri = line(first)
        assert uri.startswith("mongodb://127.0.0.1:")
        assert line(second) == uri
        first.communicate()  # ends its input: it leaves, perhaps as the one that started the server
        assert embedded_store.address(tmp_path) == uri
        second.communicate()
        wait_until(lambda: embedded_store.address(tmp_path) is None)

    def test_foreground_serves_on_the_port_given_until_told(self, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = start("-m", "quant_assets.publishing.embedded_store", str(tmp_path), str(port))
        assert line(server) == f"The embedded document store listens at mongodb://127.0.0.1:{port}"
        with embedded_store.running(tmp_path) as uri:
            assert uri == f"mongodb://127.0.0.1:{port}"
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(("127.0.0.2", port), timeout=2)  # loopback too, and not bound
        taken = start("-m", "quant_assets.publishing.embedded_store", str(tmp_path / "other"), str(port))
        assert re.search(f"Port {port} .* is taken", taken.communicate()[1])
        assert taken.returncode == 2
        assert embedded_store.stop(tmp_path)
        assert server.wait(20) == 0
        assert embedded_store.address(tmp_path) is None
        assert not embedded_store.stop(tmp_path)

    def test_foreground_takes_over_from_a_server_that_dies(self, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
        with embedded_store.running(tmp_path) as uri:
            server = start("-m", "quant_assets.publishing.embedded_store", str(tmp_path))
            assert line(server) == f"The embedded document store is served already, at {uri}; standing by."
            os.kill(pid_of(tmp_path), signal.SIGKILL)
            assert line(server).startswith("The embedded document store listens at mongodb://127.0.0.1:")
            assert pid_of(tmp_path) == server.pid
        assert embedded_store.address(tmp_path) is not None

    def test_one_that_cannot_start_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "documents" / "admin.db").mkdir(parents=True)  # no database there
        with pytest.raises(StoreUnavailable, match="unable to open database"), embedded_store.running(tmp_path):
            pass


class TestProperties:
    def test_homes_are_apart(self, tmp_path: Path) -> None:
        homes = [tmp_path / name for name in ("a", 'it\'s $a "b"', "c")]
        with embedded_store.running(homes[0]) as first, embedded_store.running(homes[1]) as second:
            assert first != second
            with DocumentStore(first, "quant") as store:
                store.publish({"signals": [DOCUMENT]})
            assert (ids(first), ids(second)) == (["a"], [])

            # An address is believed only when the process it names answers there.
            entry = homes[2] / "documents" / "address.json"
            entry.parent.mkdir(parents=True)
            for text in (json.dumps({"port": int(first.rpartition(":")[2]), "pid": os.getpid()}), '{"port": 27'):
                entry.write_text(text)
                assert embedded_store.address(homes[2]) is None
                assert not embedded_store.stop(homes[2])
