"""Ingestion of dated deliveries: `python -m benchmarks.ingestion`.

On the real deliveries where they are at hand (about 6,000 symbols each), else on made ones of the same shape. JSON lines:

- `ingest_range`: all deliveries as one range, seconds and peak memory, beside the limits they should keep;
- `ingest_one_more`: the cost of adding one delivery, as a night of its own, by how many there are already. `slope` is
  Theil and Sen's (the median of all pairwise slopes) in seconds per 100 deliveries, `interval` its 95 % bootstrap
  interval (seed 7), `ratio` the fitted cost at the last delivery over the one at the 20th;
- `parse_csv`: our reader (hash, faults and lines kept) against DuckDB's `read_csv`, which types the same columns, on the
  same files side by side: the medians of seven turns.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from time import perf_counter

import duckdb
import numpy as np

from benchmarks.made_deliveries import make_deliveries
from quant_assets.clock import trading_calendar
from quant_assets.market_data.files.archives import ArchivesSource, dated, find_archives
from quant_assets.market_data.files.reading import BarFile, find_files, read_files
from quant_assets.market_data.holdings import StoredHoldings
from quant_assets.market_data.landing import land
from quant_assets.warehouse import Warehouse

DELIVERIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "pystock_2015"
TYPES = {"symbol": "varchar", "date": "date", **dict.fromkeys(("open", "high", "low", "close", "volume", "adj_close"), "double")}
START = date(2010, 1, 1)


def nights(folder: Path, home: Path, last: date) -> Iterator[float]:
    """Land everything up to a date night by night; yields the seconds of each."""
    calendar = trading_calendar("XNYS", START)
    for archive in find_archives(str(folder)):
        day = dated(archive) or START
        if day > last:
            return
        started = perf_counter()
        source, warehouse = ArchivesSource(str(folder), calendar), Warehouse(home / "quant.duckdb", "files")
        at = source.delivered_at(day)
        for delivery in source.deliveries(START, calendar.session_on_or_before(day), at, StoredHoldings(warehouse, "files")):
            land(warehouse, delivery, calendar, at, "benchmark")
        yield perf_counter() - started


def ingest_range(folder: Path, home: Path) -> None:
    """Land all deliveries in one go, in this process."""
    calendar = trading_calendar("XNYS", START)
    source, warehouse = ArchivesSource(str(folder), calendar), Warehouse(home / "quant.duckdb", "files")
    at = source.delivered_at(dated(find_archives(str(folder))[-1]) or START)
    started, landings = perf_counter(), []
    for delivery in source.deliveries(START, source.last_session(), at, StoredHoldings(warehouse, "files")):
        landings.append(land(warehouse, delivery, calendar, at, "benchmark"))
    seconds = perf_counter() - started
    line = {
        "bench": "ingest_range", "ours": round(seconds, 1), "limit": 60, "deliveries": len(landings),
        "rows": sum(int(landing.receipts["rows"].sum()) for landing in landings), "bars": sum(landing.new for landing in landings),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "limit_mib": 2048,
    }  # fmt: skip
    print(json.dumps(line), flush=True)


def ingest_one_more(folder: Path, home: Path) -> None:
    """Print what one more delivery costs, by how many there are."""
    seconds = np.array(list(nights(folder, home, date.max)))[19:]
    held = np.arange(20, 20 + len(seconds))
    draw = np.random.default_rng(7)
    resampled = [theil_sen(held[rows], seconds[rows]) for rows in (np.sort(draw.integers(0, len(held), len(held))) for _ in range(500))]
    slope = theil_sen(held, seconds)
    at_20 = float(np.median(seconds - slope * (held - 20)))
    low, high = np.percentile(resampled, [2.5, 97.5])
    line = {
        "bench": "ingest_one_more", "ours": round(at_20 + slope * (held[-1] - 20), 3), "peer": round(at_20, 3),
        "ratio": round(1 + slope * (held[-1] - 20) / at_20, 3), "slope": round(100 * slope, 4), "interval": [round(100 * low, 4), round(100 * high, 4)],
    }  # fmt: skip
    print(json.dumps(line), flush=True)


def theil_sen(x: np.ndarray, y: np.ndarray) -> float:
    """The median of the slopes between all pairs of points."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] != x[first]
    return float(np.median((y[second] - y[first])[apart] / (x[second] - x[first])[apart]))


def parse_csv(folder: Path, files: Path) -> None:
    """Time our reader and DuckDB's on the same files."""
    for archive in find_archives(str(folder)):
        with tarfile.open(archive) as members:
            text = members.extractfile("prices.csv").read()  # type: ignore[union-attr]
        # Without inner header lines, which DuckDB would have to be told to pass over.
        header, _, body = text.partition(b"\n")
        if body:
            (files / f"{archive.name[:8]}.csv").write_bytes(header + b"\n" + body.replace(header + b"\n", b""))
    ours, peer = [], []
    for _ in range(7):
        started = perf_counter()
        rows, _ = read_files([BarFile(name, path) for name, path in find_files(str(files))])
        ours.append(perf_counter() - started)
        started = perf_counter()
        with duckdb.connect() as connection:
            table = connection.read_csv(f"{files}/*.csv", header=True, filename=True, columns=TYPES).pl()
        peer.append(perf_counter() - started)
        assert rows.height == table.height
    took, theirs = statistics.median(ours), statistics.median(peer)
    print(
        json.dumps({"bench": "parse_csv", "ours": round(took, 2), "peer": round(theirs, 2), "ratio": round(took / theirs, 2), "limit": 2}),
        flush=True,
    )


def main() -> None:
    """Each measurement in a process of its own, so that memory is its own too."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = DELIVERIES if DELIVERIES.is_dir() else make_deliveries(Path(scratch) / "deliveries")
        for name in ("ingest_range", "ingest_one_more", "parse_csv"):
            (home := Path(scratch) / name).mkdir()
            subprocess.run([sys.executable, "-m", "benchmarks.ingestion", name, str(folder), str(home)], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"ingest_range": ingest_range, "ingest_one_more": ingest_one_more, "parse_csv": parse_csv}[sys.argv[1]](
            Path(sys.argv[2]), Path(sys.argv[3])
        )
    else:
        main()
