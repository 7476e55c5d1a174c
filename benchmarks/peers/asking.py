"""How a benchmark asks a peer that runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

PYTHON = os.environ.get("QLIB_PYTHON", sys.executable)
"""The interpreter that has `pyqlib`."""


def peer(bars: pl.DataFrame, out: Path, *options: str) -> tuple[dict[str, Any] | None, str]:
    """Run qlib on bars; returns what it printed, or nothing and the reason why it did not run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.parquet"
        bars.select("symbol", "session", "open", "high", "low", "close", "volume").write_parquet(path)
        command = [PYTHON, "-m", "benchmarks.peers.qlib_alpha158", str(path), str(out), *options]
        # As our settings have it for our own fits: threads that spin while they wait hurt on a busy machine.
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    if ran.returncode:
        error = (ran.stderr.strip() or f"exit {ran.returncode}").splitlines()[-1]
        return None, f"{error}. The peer needs pyqlib in {PYTHON}; QLIB_PYTHON names another interpreter."
    return json.loads(ran.stdout.strip().splitlines()[-1]), ""
