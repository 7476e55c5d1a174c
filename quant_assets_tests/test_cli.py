"""The command as a person meets it: exit codes, one clear line where a setting is wrong, warnings where the night goes on.

One HOME lives through four runs on a small market, and everybody looks at what they left.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from quant_assets.cli import main
from quant_assets.clock import trading_calendar
from quant_assets.publishing.sensors import PUBLISH_CURSOR, write_cursor
from quant_assets_tests import command, market

COUNT = 100
SYMBOLS = ("AAA", "BBB", "CCC")
SESSIONS = market.sessions(COUNT)
EARLIER, FIRST, LAST = SESSIONS[59], SESSIONS[94], SESSIONS[99]
RANGE = SESSIONS[94:]
PASSWORD, TOKEN, SECRET = "pa55-w0rd-of-the-store", "t0ken-in-the-address", "s1gning-secret"
CLOSED_PORT = "127.0.0.1:9"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with size and time of change."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


class TestConfigurationErrors:
    """Exit code 2, one line that names the setting and the remedy, and nothing written."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with sound files, where nobody's settings reach."""
        for name in os.environ:
            if name.startswith(("QUANT_", "MONGODB_", "WEBHOOK_", "MLFLOW_")):
                monkeypatch.delenv(name)
        market.write(tmp_path / "sound", market.bars(COUNT, SYMBOLS))
        (tmp_path / "empty").mkdir()
        (tmp_path / "binary").mkdir()
        (tmp_path / "binary" / "AAA.csv").write_bytes(b"\x7fELF\x00\x01\x02\xff\xfe\x00")
        (tmp_path / "people").mkdir()
        (tmp_path / "people" / "AAA.csv").write_text("name,age\nAda,36\n")
        (tmp_path / "a_file").write_text("")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("QUANT_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("QUANT_SOURCE", "files")
        monkeypatch.setenv("QUANT_FILES_PATH", str(tmp_path / "sound"))
        return tmp_path

    @pytest.mark.parametrize(
        ("setting", "value", "words"),
        [
            ("FILES_PATH", "nowhere", ("QUANT_FILES_PATH", "nowhere", "does not exist")),
            ("FILES_PATH", "empty", ("QUANT_FILES_PATH", "empty", "no file to read")),
            ("FILES_PATH", "binary", ("QUANT_FILES_PATH", "AAA.csv", "not a text file")),
            ("FILES_PATH", "people", ("QUANT_FILES_PATH", "AAA.csv", "name", "age", "close")),
            ("FILES_PATH", "", ("QUANT_FILES_PATH",)),
            ("CALENDAR", "XNYC", ("QUANT_CALENDAR", "XNYC", "XNYS")),
            ("HOME", "a_file", ("QUANT_HOME", "a_file", "choose a folder")),
            ("HOME", "a_file/home", ("QUANT_HOME", "a_file", "choose a folder")),
            ("SOURCE", "bloomberg", ("QUANT_SOURCE", "synthetic", "files")),
            ("HORIZON", "3", ("QUANT_HORIZON",)),
            ("START", "yesterday", ("QUANT_START",)),
            ("START", "2018-01-01", ("QUANT_START", "2018-01-01")),
        ],
    )
    def test_a_wrong_setting(self, place: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, words: tuple[str, ...]) -> None:
        monkeypatch.setenv(f"QUANT_{setting}", value)
        self.check(place, ("run",), words)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--as-of", "tonight"), ("--as-of", "tonight", "2018-02-07")),
            (("--as-of", "2018-13-01"), ("--as-of", "2018-13-01")),
            (("--from", "soon"), ("--from", "soon", "2018-02-07")),
            (("--to", "late", "--from", str(FIRST)), ("--to", "late", "2018-02-07")),
            (("--from", str(LAST), "--to", str(FIRST)), (f"--from {LAST}", str(FIRST))),
            (("--from", "1999-01-04"), ("--from 1999-01-04", "QUANT_START", "2000-01-01")),
        ],
    )
    def test_a_wrong_option(self, place: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
        self.check(place, ("run", *arguments), words)

    @pytest.mark.parametrize(
        ("setting", "value"), [("QUANT_MONGODB_URI", "https://mongo.example.org"), ("QUANT_WEBHOOK_URL", "ftp://example.org/x")]
    )
    def test_an_address_that_cannot_be_one(self, place: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
        monkeypatch.setenv(setting, value)
        self.check(place, ("run",), (setting,))

    def test_a_selection_that_matches_nothing(self, place: Path) -> None:
        finished = command.run(
            place / "home", "run", "--select", "group:weather", QUANT_SOURCE="files", QUANT_FILES_PATH=str(place / "sound")
        )
        assert finished.returncode == 2, finished.stderr
        assert "--select 'group:weather'" in finished.stderr
        assert not (place / "home").exists()

    def test_in_a_process_of_its_own(self, place: Path) -> None:
        finished = command.run(place / "home", "run", QUANT_SOURCE="files", QUANT_FILES_PATH=str(place / "nowhere"))
        assert finished.returncode == 2
        assert finished.stdout == ""
        assert finished.stderr.startswith("Configuration error: QUANT_FILES_PATH=")
        assert len(finished.stderr.splitlines()) == 1
        assert not (place / "home").exists()

    @staticmethod
    def check(place: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
        before = tree(place)
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        assert result.stdout == ""
        assert result.stderr.startswith("Configuration error: ")
        assert len(result.stderr.splitlines()) == 1
        assert all(word in result.stderr for word in words), result.stderr
        assert "Traceback" not in result.stderr
        assert tree(place) == before


@dataclass(frozen=True)
class Life:
    """One HOME and what its runs said."""

    home: Path
    settings: dict[str, str]
    doctor_before: subprocess.CompletedProcess[str]
    untouched: bool
    earlier: subprocess.CompletedProcess[str]
    known_earlier: list[dict[str, Any]]
    ranged: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    contents: tuple[dict[str, str], dict[str, str]]
    documents: dict[str, dict[str, Any]]


KNOWN = """
    select 'bars' as what, max(session) as session, max(known_at) as known_at from market_data.daily_bars
    union all select 'instruments', max(valid_from), max(known_at) from market_data.instruments
    union all select 'features', max(session), max(known_at) from feature_store.technical_v1
    union all select 'labels', max(session) + 1, max(known_at) from feature_store.labels
    union all select 'signals', max(session), max(known_at) from signals.daily_signals
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """An evening in the past; a range up to the last session, with every secret set and nobody answering; the same again with a store."""
    root = tmp_path_factory.mktemp("life")
    home, files = root / "home", root / "vendor"
    rows = market.bars(COUNT, SYMBOLS)
    market.write(files, rows.filter(~((rows["symbol"] == "BBB") & (rows["Date"] == LAST))))
    market.set_cell(files / "CCC.csv", SESSIONS[70], "Volume", "many")
    settings = {"QUANT_SOURCE": "files", "QUANT_FILES_PATH": str(files), "QUANT_UNIVERSE": "AAA,BBB,CCC,NOPE"}
    secrets = {
        "QUANT_MONGODB_URI": f"mongodb://desk:{PASSWORD}@{CLOSED_PORT}/",
        "QUANT_WEBHOOK_URL": f"http://{CLOSED_PORT}/services/{TOKEN}",
        "QUANT_WEBHOOK_SECRET": SECRET,
    }
    doctor_before = command.run(home, "doctor", **settings)
    untouched = not home.exists()
    earlier = command.run(home, "run", "--as-of", str(EARLIER), **settings)
    known_earlier = command.read(home, "files", KNOWN)
    ranged = command.run(home, "run", "--from", str(FIRST), "--to", str(LAST), **settings, **secrets)
    after_range = command.contents(home, "files")
    again = command.run(home, "run", **settings)
    contents = after_range, command.contents(home, "files")
    return Life(home, settings, doctor_before, untouched, earlier, known_earlier, ranged, again, contents, command.documents(home))


@pytest.fixture
def holder(life: Life) -> Iterator[int]:
    """Another process that holds the database; its id."""
    code = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code, str(life.home / "quant.duckdb")], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process.pid
    process.communicate()


def known_at(session: date) -> datetime:
    return trading_calendar("XNYS", market.FIRST).close(session) + timedelta(minutes=30)


class TestNights:
    """What goes on with a warning, and what each option works on."""

    def test_a_past_evening_reads_nothing_newer(self, life: Life) -> None:
        assert life.earlier.returncode == 0, life.earlier.stderr
        for table in life.known_earlier:
            assert table["known_at"] <= known_at(EARLIER), table
            assert table["session"] <= EARLIER, table
        known = {table["what"]: table["session"] for table in life.known_earlier}
        assert known["bars"] == known["features"] == known["signals"] == EARLIER
        assert f"Session {EARLIER}" in life.earlier.stdout

    def test_a_range_gives_each_session_its_signals_and_only_the_last_is_live(self, life: Life) -> None:
        assert life.ranged.returncode == 0, life.ranged.stderr
        rows = command.read(
            life.home,
            "files",
            "select session, mode, list(symbol order by symbol) as symbols from signals.daily_signals group by all order by session",
        )
        wanted = [{"session": EARLIER, "mode": "live", "symbols": list(SYMBOLS)}]
        wanted += [{"session": session, "mode": "replayed", "symbols": list(SYMBOLS)} for session in RANGE[:-1]]
        wanted += [{"session": LAST, "mode": "live", "symbols": ["AAA", "CCC"]}]
        assert rows == wanted

    def test_each_session_of_a_range_has_its_documents(self, life: Life) -> None:
        signals = command.read(life.home, "files", "select symbol, session from signals.daily_signals")
        documents = [document for name, document in life.documents.items() if name.startswith("signals/")]
        assert {(document["symbol"], document["session"]) for document in documents} == {
            (row["symbol"], row["session"].isoformat()) for row in signals
        }
        assert len(documents) == len(signals)
        summaries = {name for name in life.documents if name.startswith("anomalies/summary/")}
        assert summaries == {f"anomalies/summary/{session}" for session in (EARLIER, *RANGE)}

    def test_an_unknown_symbol_a_missing_session_and_a_bad_row_are_recorded_and_told(self, life: Life) -> None:
        ledger = command.read(life.home, "files", "select symbol, status, detail from market_data.fetch_ledger where symbol = 'NOPE'")
        assert ledger
        assert {(row["symbol"], row["status"]) for row in ledger} == {("NOPE", "failed")}
        (rejected,) = command.read(life.home, "files", "select distinct file, line, column_name, value from market_data.rejected_rows")
        assert rejected == {"file": "CCC.csv", "line": 72, "column_name": "Volume", "value": "many"}
        warnings = [line for line in life.ranged.stdout.splitlines() if line.startswith("Warning: ")]
        assert "Warning: 1 files or requests gave no bars: see market_data.fetch_ledger." in warnings
        assert "Warning: 1 rows were no bars: see market_data.rejected_rows." in warnings
        assert any("fresh did not pass" in line and "1 symbols end in the 30 days before it" in line for line in warnings), warnings

    def test_the_same_again_changes_nothing_and_says_so(self, life: Life) -> None:
        assert life.again.returncode == 0, life.again.stderr
        before, after = life.contents
        assert before == after
        assert "Nothing had changed since the last run" in life.again.stdout

    def test_no_secret_is_anywhere(self, life: Life) -> None:
        assert "publish_documents: Waiting" in life.ranged.stdout  # both were used
        assert "send_alerts: Waiting" in life.ranged.stdout
        output = life.ranged.stdout + life.ranged.stderr
        files = {path: path.read_bytes() for path in life.home.rglob("*") if path.is_file()}
        assert len(files) > 10
        opened = {path: gzip.decompress(content) for path, content in files.items() if path.suffix == ".gz"}
        for secret in (PASSWORD, TOKEN, SECRET):
            assert secret not in output
            assert not [path for path, content in (files | opened).items() if secret.encode() in content]

    def test_the_doctor_finds_all_well_before_and_after_and_writes_nothing(self, life: Life) -> None:
        after = command.run(life.home, "doctor", **life.settings)
        assert (life.doctor_before.returncode, after.returncode) == (0, 0), life.doctor_before.stdout + after.stdout
        assert life.untouched
        assert "made by the first run" in life.doctor_before.stdout
        bars = command.read(life.home, "files", "select count(*) as n from data_quality.clean_bars")[0]["n"]
        assert f"{bars} clean bars up to {LAST}" in after.stdout
        assert "FAIL" not in life.doctor_before.stdout + after.stdout

    def test_a_selection_runs_the_steps_that_make_and_check_it_and_no_other(self, life: Life) -> None:
        selected = command.run(life.home, "run", "--select", "feature_store/technical_v1", **life.settings)
        assert selected.returncode == 0, selected.stderr
        assert [line.split()[0] for line in selected.stdout.splitlines() if " done " in line] == [
            "feature_store",
            "dbt_features",
            "no_lookahead",
        ]

    def test_what_cannot_be_delivered_is_named_and_the_summary_stands(self, life: Life, tmp_path: Path) -> None:
        shutil.copytree(life.home, tmp_path / "home")
        spoilt = next((tmp_path / "home" / "outbox").rglob("*.jsonl.gz"))
        spoilt.write_bytes(b"")
        with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
            write_cursor(instance, PUBLISH_CURSOR, 0)
        finished = command.run(tmp_path / "home", "run", "--select", "feature_store/technical_v1", **life.settings)
        assert finished.returncode == 1
        warnings = [line for line in finished.stdout.splitlines() if line.startswith("Warning: publish_documents: ")]
        assert len(warnings) == 1
        assert spoilt.name in warnings[0]
        assert "Strongest signals" in finished.stdout

    @pytest.mark.parametrize("arguments", [("run",), ("run", "--as-of", str(LAST))])
    def test_a_locked_database_is_waited_for_and_its_holder_named(self, life: Life, holder: int, arguments: tuple[str, ...]) -> None:
        finished = command.run(life.home, *arguments, **life.settings, QUANT_LOCK_TIMEOUT_SECONDS="2")
        assert finished.returncode == 1
        assert f"process {holder}" in finished.stdout + finished.stderr
        assert "not released in 2 s" in finished.stdout + finished.stderr
        assert "Traceback" not in finished.stdout + finished.stderr
