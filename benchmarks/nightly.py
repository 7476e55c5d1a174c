"""Whole nights through the command: `python -m benchmarks.nightly`.

Prints one JSON line per night: seconds of wall clock of `quant-assets run` (imports included, set-up excluded), the
limit it should keep, the peak memory of its largest process, and the seconds of each step. The embedded market always;
the real panel where it is at hand: everything from nothing, then one session later without retraining.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import polars as pl

PANEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "sp500_2013_2018" / "all_stocks_5yr.csv"
STEP = re.compile(r"^(\w+) +done +([\d.]+) s$", re.MULTILINE)


def night(bench: str, limit_seconds: float, home: Path, **settings: str) -> None:
    """Run one night in a process of its own and print its line."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("QUANT_")}
    environment |= {"QUANT_HOME": str(home), **{f"QUANT_{name}": value for name, value in settings.items()}}
    started = perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "quant_assets.cli", "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    seconds = perf_counter() - started
    if status:
        raise SystemExit(f"{bench} failed:\n{output}")
    steps = {step: float(took) for step, took in STEP.findall(output)}
    line = {"bench": bench, "ours": round(seconds, 1), "limit": limit_seconds, "peak_mib": usage.ru_maxrss // 1024, "steps": steps}
    print(json.dumps(line), flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "embedded"
        night("embedded_market_from_nothing", 60, home)
        night("embedded_market_again", 60, home)
        if not PANEL.exists():
            return
        rows = pl.read_csv(PANEL, infer_schema=False)
        last = rows["date"].max()
        before, panel = Path(folder) / "before.csv", Path(folder) / "panel"
        rows.filter(pl.col("date") < last).write_csv(before)
        night("real_panel_from_nothing", 150, Path(folder) / "whole", SOURCE="files", FILES_PATH=str(PANEL))
        night("real_panel_until_the_day_before", 150, panel, SOURCE="files", FILES_PATH=str(before))
        night("real_panel_one_session_later", 40, panel, SOURCE="files", FILES_PATH=str(PANEL))


if __name__ == "__main__":
    main()
