"""Training in a process of its own: heard to its end, ended with its parent, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from quant_assets.signals import retraining
from quant_assets.signals.retraining import PARENT_PIPE, TrainingFailed, train_in_own_process

AS_OF = datetime(2024, 3, 5, 21, 30)
WAITING = """
import os, pathlib, sys, time
from quant_assets.signals.retraining import die_with_parent
die_with_parent()
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Every process that is started, to ask what became of it."""
    started: list[subprocess.Popen[str]] = []

    class Seen(subprocess.Popen[str]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Seen)
    return started


def train(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> str:
    """Run a script where the training would run."""
    monkeypatch.setattr(retraining, "COMMAND", (sys.executable, "-c", script, *arguments))
    return train_in_own_process(AS_OF)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked how does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def soon(what: object) -> bool:
    """Whether something becomes true within a generous time."""
    deadline = time.monotonic() + 30
    while not (true := what()) and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.02)
    return bool(true)


class TestRegression:
    def test_returns_what_was_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        script = "import sys; print('version 3'); print('a warning', file=sys.stderr); print(sys.argv[1:])"
        said = train(monkeypatch, script).splitlines()
        assert sorted(said) == sorted(["version 3", "a warning", "['--as-of', '2024-03-05T21:30:00']"])

    def test_a_failure_shows_the_end_of_what_was_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        script = "import sys; print('x' * 1_000_000); print('MLflow at http://127.0.0.1:9 failed', file=sys.stderr); sys.exit(3)"
        with pytest.raises(TrainingFailed, match=r"^Training ended with exit code 3: x+\s+MLflow at http://127.0.0.1:9 failed$") as failure:
            train(monkeypatch, script)
        assert len(str(failure.value)) < 2100

    def test_silence_and_a_kill_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(TrainingFailed, match=r"^Training was killed by signal 9: it said nothing$"):
            train(monkeypatch, "import os; os.kill(os.getpid(), 9)")

    def test_bytes_that_are_no_text_do_not_hide_the_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(TrainingFailed, match="exit code 1: caf\ufffd Zürich"):
            train(monkeypatch, r"import sys; sys.stdout.buffer.write(b'caf\xe9 Z\xc3\xbcrich\n'); sys.exit(1)")

    def test_it_is_the_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The real one, with a setting that stops it before anything is written."""
        monkeypatch.setenv("QUANT_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("QUANT_CALENDAR", "NOWHERE")
        with pytest.raises(
            TrainingFailed, match="exit code 2: Configuration error: QUANT_CALENDAR='NOWHERE' is not a known exchange calendar"
        ):
            train_in_own_process(AS_OF)
        assert not (tmp_path / "home").exists()


class TestNoneLeftBehind:
    @pytest.mark.parametrize("script", ["print('done')", "raise SystemExit(1)"])
    def test_the_child_is_reaped_and_its_pipes_closed(
        self, script: str, children: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        try:
            train(monkeypatch, script)
        except TrainingFailed:
            assert script != "print('done')"
        (child,) = children
        assert not Path(f"/proc/{child.pid}").exists()
        assert child.stdin is not None
        assert child.stdout is not None
        assert (child.stdin.closed, child.stdout.closed) == (True, True)

    def test_an_interrupted_wait_ends_the_child(
        self, children: list[subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = tmp_path / "pid"

        def interrupt() -> None:
            if soon(note.exists):
                os.kill(os.getpid(), signal.SIGUSR1)

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, stop)
        try:
            threading.Thread(target=interrupt, daemon=True).start()
            with pytest.raises(KeyboardInterrupt):
                train(monkeypatch, WAITING, str(note))
        finally:
            signal.signal(signal.SIGUSR1, before)
        (child,) = children
        assert child.returncode == -signal.SIGKILL
        assert not Path(f"/proc/{child.pid}").exists()

    def test_the_child_ends_with_a_parent_that_is_killed(self, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        script = f"""
import sys
from datetime import datetime
from quant_assets.signals import retraining
retraining.COMMAND = (sys.executable, "-c", {WAITING!r}, {str(note)!r})
retraining.train_in_own_process(datetime(2024, 3, 5))
"""
        with subprocess.Popen([sys.executable, "-c", script]) as parent:
            try:
                assert soon(lambda: note.exists() and note.read_text())
                child = int(note.read_text())
                assert is_alive(child)
            finally:
                parent.kill()
        assert soon(lambda: not is_alive(child)), f"process {child} outlived its parent"

    def test_only_a_child_of_ours_watches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The command on its own reads no standard input, and what the child starts itself is not told to watch."""
        script = "import threading; from quant_assets.signals.retraining import die_with_parent; die_with_parent(); print(threading.active_count())"
        monkeypatch.delenv(PARENT_PIPE, raising=False)
        alone = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        assert alone.stdout.split() == ["1"]
        assert train(monkeypatch, f"{script}\nimport os; print(os.environ.get('{PARENT_PIPE}'))").split() == ["2", "None"]
