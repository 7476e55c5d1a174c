"""Killed twice and run again: the night is as if nothing had happened. The drill in `drills/` tries random moments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quant_assets.warehouse import Warehouse
from quant_assets_tests import crashes

ATTEMPTS = 6
OPEN = "import sys; from pathlib import Path; from quant_assets.warehouse import Warehouse; Warehouse(Path(sys.argv[1]), 'files').read('select 1')"


class TestProperties:
    def test_a_night_killed_twice_ends_as_an_undisturbed_one(self, tmp_path: Path) -> None:
        undisturbed = crashes.run_to_end(tmp_path / "undisturbed")
        home = tmp_path / "killed"
        assert crashes.kill(home, crashes.appears("mlflow/mlflow.partial"))  # a process of its own has begun to train
        assert not (home / "models").exists(), "the training went on without the night that started it"
        assert crashes.kill(home, crashes.appears("models"))  # the model is registered and not yet promoted
        crashes.check_recovered(home, undisturbed)

    def test_a_database_is_there_whole_or_not_at_all(self, tmp_path: Path) -> None:
        for number in range(ATTEMPTS):
            path = tmp_path / f"{number}.duckdb"
            process = subprocess.Popen([sys.executable, "-c", OPEN, str(path)])
            while not path.exists():
                assert process.poll() is None
            process.kill()  # in the same millisecond: DuckDB's own making of a file takes longer
            process.wait()
            assert Warehouse(path, "files").read("select 1 as one")["one"].item() == 1
