"""`quant-assets model` as a quant meets it; the group is called as cli.py adds it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quant_assets.signals.registry.commands import model
from quant_assets.signals.registry.desk import ModelDesk
from quant_assets.signals.registry.local_copies import local_copy
from quant_assets_tests import nights
from quant_assets_tests.conftest import bar
from quant_assets_tests.data_quality.test_reviews import landed
from quant_assets_tests.signals import trained as shelf

SETTINGS = {"QUANT_SOURCE": "files", "QUANT_FILES_PATH": "vendor", "QUANT_START": "2020-01-02", "COLUMNS": "180"}
EVENING = "2020-06-01T20:30:00"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ModelDesk]:
    """Versions 1, 2 and 3, of which 3 is champion, and a bar of 1 June 2020; the settings are the environment."""
    with nights.environment(tmp_path, **SETTINGS), shelf.desk(tmp_path) as opened:
        landed(opened.warehouse, date(2020, 6, 1), bar("AAA", date(2020, 6, 1)))
        yield opened


@pytest.fixture
def command(desk: ModelDesk) -> Callable[..., Result]:
    """The command in this process."""
    return lambda *arguments: CliRunner().invoke(model, list(arguments), catch_exceptions=False)


class TestRegression:
    def test_list_marks_the_champion(self, command: Callable[..., Result]) -> None:
        lines = command("list").stdout.splitlines()
        (marked,) = [line for line in lines if line.strip().startswith("*")]
        for word in (
            "3",
            "2020-04-30 21:30",
            "lightgbm",
            "1 session, > 0",
            "promoted 2020-05-04, the rule",
            "0.3750 [0.0500, 0.2000]",
            "verified",
        ):
            assert word in marked
        assert len([line for line in lines if "lightgbm" in line]) == 3

    def test_show_prints_card_and_decisions(self, command: Callable[..., Result]) -> None:
        shown = command("show", "2")
        assert "# Version 2, here" in shown.stdout
        assert "a gain in both" in shown.stdout
        unknown = command("show", "9")
        assert (unknown.exit_code, unknown.stderr) == (
            1,
            "DecisionRefused: There is no model version '9': see `quant-assets model list`.\n",
        )

    def test_compare_shows_both(self, command: Callable[..., Result]) -> None:
        shown = command("compare", "1", "3", "--metric", "rank_ic").stdout
        assert "0.12500 [0.05000, 0.20000]" in shown
        assert "0.37500 [0.05000, 0.20000]" in shown
        assert "log_loss" not in shown
        assert "nothing is paired" in shown

    def test_promote_and_rollback_on_the_desks_clock(self, command: Callable[..., Result], desk: ModelDesk) -> None:
        done = command("promote", "1", "--reason", "calmer")
        assert done.stdout == "Version 1 is champion for horizon 1 and label threshold 0 instead of version 3.\n"
        row = desk.decisions().row(-1, named=True)
        assert (row["decided_by"], row["promoted_at"].isoformat()) == (getpass.getuser(), EVENING)
        assert "champion again" in command("rollback", "--reason", "not calmer", "--by", "Ada", "--from", "1").stdout
        assert desk.decisions()["decided_by"][-1] == "Ada"
        assert command("rollback", "--reason", "again", "--from", "1").exit_code == 1
        found = desk.in_use()
        assert found is not None
        assert found.model_version == "3"

    def test_delete(self, command: Callable[..., Result], desk: ModelDesk) -> None:
        refused = command("delete", "3", "--reason", "old")
        assert (refused.exit_code, refused.stderr.partition(":")[0]) == (1, "DecisionRefused")
        assert command("delete", "1", "--reason", "old").exit_code == 0
        assert not local_copy(desk.settings.models_path, "1").exists()
        assert "deleted" not in command("list").stdout
        assert "deleted 2020-06-01" in command("list", "--all").stdout

    def test_without_mlflow_reading_works_and_says_so(
        self, command: Callable[..., Result], desk: ModelDesk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUANT_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        for arguments in (("list",), ("show", "2"), ("compare", "1", "2")):
            shown = command(*arguments)
            assert shown.exit_code == 0
            assert "without the registry. MLflow at http://127.0.0.1:9 failed" in shown.stderr
        promoted = command("promote", "1", "--reason", "calmer")
        assert promoted.exit_code == 0
        assert "alias champion does not yet" in promoted.stderr
        monkeypatch.delenv("QUANT_MLFLOW_TRACKING_URI")
        assert "alias champion does not follow the ledger at version 1" in command("list").stdout
        command("promote", "1", "--reason", "calmer")
        assert "does not follow" not in command("list").stdout

    def test_a_reason_is_asked_for_and_a_home_without_a_run_is_told(self, command: Callable[..., Result], tmp_path: Path) -> None:
        assert "Missing option '--reason'" in command("promote", "1").stderr
        with nights.environment(tmp_path / "empty", **SETTINGS):
            fresh = command("list")
        assert (fresh.exit_code, fresh.stderr.partition(".")[0]) == (
            2,
            f"Configuration error: There is no database at {tmp_path}/empty/quant",
        )
