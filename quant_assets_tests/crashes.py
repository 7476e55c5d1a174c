"""`kill -9` at a moment of `quant-assets run`, then run again: the harness of the crash tests and drills.

Only the command itself is killed. What it started (the training, the embedded document store) has to end by itself.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_assets_tests import command

POLL_SECONDS = 0.002
PATIENCE_SECONDS = 15.0
UNFINISHED = {"NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
NIGHT = ("run", "--as-of", command.EVENING)

Moment = Callable[[Path, str, float], bool]
"""Whether it has come: told by HOME, by what the command has said so far, and by the seconds since its start."""


def appears(path: str) -> Moment:
    """When a file or folder is there under HOME."""
    return lambda home, said, seconds: (home / path).exists()


def says(text: str) -> Moment:
    """When the command has printed a text."""
    return lambda home, said, seconds: text in said


def after(delay: float) -> Moment:
    """So many seconds after its start."""
    return lambda home, said, seconds: seconds >= delay


@dataclass(frozen=True)
class Outcome:
    """What a HOME holds in the end: hashes of its tables, its documents without their run ids, and how long the run took."""

    tables: dict[str, str]
    documents: dict[str, dict[str, Any]]
    seconds: float


def run_to_end(home: Path) -> Outcome:
    """Run the night to its end, and read what is there."""
    started = time.monotonic()
    finished = command.run(home, *NIGHT, **command.SMALL)
    seconds = time.monotonic() - started
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
    return Outcome(command.contents(home, "synthetic"), command.without_run(command.documents(home)), seconds)


def kill(home: Path, moment: Moment) -> bool:
    """Start the night, kill it when the moment has come, and see everything it started end; False when it ended before."""
    said = home.with_suffix(".log")
    environment = command.environment(home, **command.SMALL)
    with said.open("wb") as log:
        process = subprocess.Popen(
            [command.COMMAND, *NIGHT], env=environment, cwd=home.parent, stdout=log, stderr=log, start_new_session=True
        )
        started = time.monotonic()
        while process.poll() is None and not moment(home, said.read_text(errors="replace"), time.monotonic() - started):
            time.sleep(POLL_SECONDS)
        process.kill()
        code = process.wait(timeout=PATIENCE_SECONDS)
    assert code in {0, -signal.SIGKILL}, f"the run failed with {code} before it was killed:\n{said.read_text()}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while still := _processes_of(home):
        assert time.monotonic() < deadline, f"the run is dead, but these of its processes work on: {still}"
        time.sleep(0.05)
    return code == -signal.SIGKILL


def check_recovered(home: Path, undisturbed: Outcome) -> None:
    """Run the night again to its end: everything is as if nothing had happened, and nothing of the dead is left open."""
    recovered = run_to_end(home)
    differing = {name for name, content in undisturbed.tables.items() if recovered.tables[name] != content}
    assert not differing, f"tables that differ from an undisturbed run: {sorted(differing)}"
    assert recovered.documents == undisturbed.documents
    runs = command.dagster_runs(home)
    assert runs.filter(pl.col("status").is_in(list(UNFINISHED))).is_empty(), f"dead runs still count as running:\n{runs}"
    assert runs.filter(pl.col("job") == "nightly")["status"].to_list()[-1] == "SUCCESS"
    statuses, versions = command.model_runs(home)
    assert "RUNNING" not in statuses["status"].to_list(), f"MLflow runs of the dead are left open: {statuses}"
    assert versions.rows() == [(1, "champion")], f"one version was to be registered: {versions}"


def _processes_of(home: Path) -> dict[int, str]:
    """The processes that were started for a HOME, by their environment; skips where the system does not show it."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc to see whether processes were left behind")
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"QUANT_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found
