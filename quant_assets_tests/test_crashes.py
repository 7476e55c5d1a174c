"""Killed twice and run again: the night is as if nothing had happened. The drill in `drills/` tries random moments."""

from __future__ import annotations

from pathlib import Path

from quant_assets_tests import crashes


class TestProperties:
    def test_a_night_killed_twice_ends_as_an_undisturbed_one(self, tmp_path: Path) -> None:
        undisturbed = crashes.run_to_end(tmp_path / "undisturbed")
        home = tmp_path / "killed"
        crashes.kill(home, crashes.appears("quant.duckdb"))  # the tables are being made
        crashes.kill(home, crashes.appears("models"))  # the training process registers its model
        crashes.check_recovered(home, undisturbed)
