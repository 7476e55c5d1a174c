"""The doctor: one finding per thing a night needs, the remedy in words, nothing written and no secret said."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from quant_assets import doctor
from quant_assets.doctor import Finding, examine
from quant_assets.publishing.document_store import DocumentStore
from quant_assets.settings import load_settings
from quant_assets_tests import command, nights

NOTHING_TO_MEND = {"home", "calendar", "source", "vendor", "warehouse", "models", "mlflow", "document store", "webhook"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with nights.environment(tmp_path):
        yield tmp_path / "home"


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DocumentStore", partial(DocumentStore, timeout_seconds=0.3))


def examined(**settings: object) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(load_settings(**settings))}


def text(found: dict[str, Finding]) -> str:
    return "\n".join(finding.text for finding in found.values())


class TestRegression:
    def test_fresh_machine(self, home: Path) -> None:
        found = examined(home=home)
        assert set(found) == NOTHING_TO_MEND
        assert all(finding.ok for finding in found.values()), text(found)
        assert found["warehouse"].text == f"{home / 'quant.duckdb'} is made by the first run"
        assert found["calendar"].text.startswith("XNYS (America/New_York), last known session 2")
        assert found["webhook"].text == "none: set QUANT_WEBHOOK_URL to be told of failed checks and runs"
        assert not home.exists()

    def test_after_a_night(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        finished, _ = nights.finished(tmp_path_factory.getbasetemp())
        with nights.environment(tmp_path):
            found = examined(home=finished)
        assert found["warehouse"].text == "196 clean bars up to 2025-03-14"
        assert found["models"].text == "no champion: the heuristic scores until a training brings evidence; see `quant-assets model list`"

    def test_a_vendor_is_looked_at_without_a_call(self, home: Path, open_port: int) -> None:
        vendor = {"source": "alpha_vantage", "universe": "AAA", "alpha_vantage_url": f"http://127.0.0.1:{open_port}"}
        found = examined(home=home, alpha_vantage_api_key="planted-key", alpha_vantage_calls_per_day=25, **vendor)
        assert found["vendor"].ok
        assert "127.0.0.1, key present, 25 of 25 calls left today (" in found["vendor"].text
        assert "planted-key" not in text(found)
        assert not home.exists(), "looking writes nothing"
        assert not (missing := examined(home=home, **vendor)["vendor"]).ok
        assert "QUANT_ALPHA_VANTAGE_API_KEY" in missing.text

    def test_one_fault_does_not_hide_the_next(self, home: Path, closed_port: int) -> None:
        home.mkdir()
        (home / "quant.duckdb").write_text("no database at all, but long enough to look at")
        found = examined(
            home=home,
            source="files",
            files_path=str(home / "nowhere"),
            mongodb_uri=f"mongodb://127.0.0.1:{closed_port}",
            webhook_url="ftp://example.com",
            mlflow_tracking_uri=f"http://user:planted@127.0.0.1:{closed_port}/path",
        )
        assert {what for what, finding in found.items() if not finding.ok} == NOTHING_TO_MEND - {"home", "calendar", "vendor"}
        assert "nowhere" in found["source"].text
        assert str(home / "quant.duckdb") in found["warehouse"].text
        assert "check QUANT_MONGODB_URI" in found["document store"].text
        assert "QUANT_WEBHOOK_URL" in found["webhook"].text
        assert found["mlflow"].text.startswith("127.0.0.1 cannot be reached (")
        assert {finding.mark for finding in found.values()} == {"ok  ", "FAIL"}

    def test_unknown_and_outdated_calendars(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = examined(home=home, calendar="XNOWHERE")
        assert not found["calendar"].ok
        assert "QUANT_CALENDAR='XNOWHERE' is not a known exchange calendar" in found["calendar"].text
        assert found["home"].ok
        old = nights.CALENDAR
        cut = type(old)(old.name, old.timezone, old.sessions[:100], old.closes[:100], old.delay)
        monkeypatch.setattr(doctor, "calendar_of", lambda _: cut)
        assert (
            examined(home=home)["calendar"].text == f"XNYS is known up to {cut.sessions[-1]} only: update the package exchange_calendars."
        )
        assert cut.sessions[-1] < date(2025, 6, 1)

    def test_home_that_is_a_file_or_full(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 2**62)
        assert "make room or move QUANT_HOME" in examined(home=home)["home"].text
        home.write_text("")
        assert f"{home} is a file; choose a folder" in examined(home=home)["home"].text

    def test_database_that_another_process_holds(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home.mkdir()
        holder = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(home / "quant.duckdb")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setattr(doctor, "LOCK_SECONDS", 0.2)
        found = examined(home=home)
        process.communicate()
        assert not found["warehouse"].ok
        assert f"is held by process {process.pid}" in found["warehouse"].text

    def test_command_says_it_in_lines_and_by_its_exit_code(self, tmp_path: Path) -> None:
        well = command.run(tmp_path / "home", "doctor")
        assert well.returncode == 0, well.stdout + well.stderr
        assert len(well.stdout.splitlines()) == len(NOTHING_TO_MEND)
        ill = command.run(tmp_path / "home", "doctor", QUANT_SOURCE="files")
        assert ill.returncode == 1
        assert [line.split(":")[0] for line in ill.stdout.splitlines() if line.startswith("FAIL")] == ["FAIL  source"]
        assert not (tmp_path / "home").exists()


class TestProperties:
    def test_no_secret_is_said(self, home: Path, open_port: int, closed_port: int) -> None:
        for port in (open_port, closed_port):
            found = examined(
                home=home,
                mongodb_uri=f"mongodb://user:planted@127.0.0.1:{port}/?appName=planted" if port == closed_port else "",
                webhook_url=f"http://planted:planted@127.0.0.1:{port}/services/planted?token=planted",
                webhook_secret="planted",
                mlflow_tracking_uri=f"http://user:planted@127.0.0.1:{port}/planted",
            )
            assert "planted" not in text(found)
            assert {found[name].ok for name in ("webhook", "mlflow", "document store")} == {port == open_port}

    def test_every_finding_is_one_line(self, home: Path) -> None:
        for finding in examine(load_settings(home=home)):
            assert finding.text
            assert "\n" not in finding.text
