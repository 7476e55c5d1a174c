"""dbt's tests find what is planted in the file, become checks, and let go of the database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_assets.feature_store.dbt import DbtError, Outcome, build
from quant_assets_tests import nights
from quant_assets_tests.nights import CALENDAR, EVENING, Desk

GRAIN = "insert into feature_store.technical_v1 select * from feature_store.technical_v1 where symbol = 'SYN002' and session = ?"
RANGE = "update feature_store.technical_v1 set rsi_14 = 101 where symbol = 'SYN001' and session = ?"
NO_BAR = "insert into feature_store.technical_v1 select * replace ('NOBODY' as symbol) from feature_store.technical_v1 where symbol = 'SYN001' and session = ?"
NO_FEATURES = "delete from feature_store.technical_v1 where symbol = 'SYN005' and session = ?"
TWO_LABELS = "insert into feature_store.labels select * from feature_store.labels where symbol = 'SYN001' and horizon = 1"


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


def outcomes(desk: Desk) -> dict[str, Outcome]:
    """What became of every model and test, by its short name."""
    return {outcome.unique_id.split(".")[2]: outcome for outcome in build(desk.warehouse, CALENDAR)}


def opened_here(path: Path) -> bool:
    """Whether this process has a file open."""
    return str(path) in {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}


def read_elsewhere(path: Path) -> str:
    """A number that another process reads from the database, or why it cannot."""
    program = f"import duckdb; print(duckdb.connect({str(path)!r}).sql('select count(*) from feature_store.labels').fetchall()[0][0])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or answer.stderr


class TestRegression:
    def test_planted_rows_are_found(self, desk: Desk) -> None:
        for sql in (GRAIN, RANGE, NO_BAR, NO_FEATURES):
            desk.change(sql, EVENING)
        desk.change(TWO_LABELS)
        found = outcomes(desk)
        failed = {name: outcome.failures for name, outcome in found.items() if not outcome.passed}
        assert failed == {
            "technical_v1_grain": 1,
            "technical_v1_ranges": 1 + 1,  # the row with 101, and its copy under a symbol without bars
            "technical_v1_has_clean_bar": 2,
            "labels_grain": len(desk.read("select distinct session from feature_store.labels where symbol = 'SYN001' and horizon = 1")),
        }
        assert "Got 1 result, configured to fail if != 0" in found["technical_v1_grain"].message

    def test_failing_tests_are_failing_checks(self, desk: Desk) -> None:
        desk.change(GRAIN, EVENING)
        desk.change(RANGE, EVENING)
        desk.change(NO_BAR, EVENING)
        result = desk.run(assets=["feature_store/technical_v1", "feature_store/stg_bars", "feature_store/market_sessions"])
        checks = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
        assert not result.success
        assert sorted(name for name, check in checks.items() if not check.passed) == ["technical_v1_grain", "technical_v1_ranges"]
        assert checks["technical_v1_has_clean_bar"].passed  # refreshing the features has removed the row without a bar
        assert checks["technical_v1_ranges"].metadata["offending_rows"].value == 1
        assert checks["technical_v1_grain"].description == "One row per symbol and session. Got 1 result, configured to fail if != 0"
        built = {event.asset_key.path[1] for event in result.all_events if event.is_step_materialization and event.asset_key}
        # dbt leaves out market_sessions, since what it reads is not sound; training_panel nobody asked for.
        assert built == {"technical_v1", "labels", "view_builds", "stg_bars"}

    def test_model_that_cannot_be_built(self, desk: Desk) -> None:
        desk.change("alter table feature_store.labels rename column up to down")
        with pytest.raises(DbtError, match=r"(?s)^model\.dbt_features\.training_panel: .*does not have a column named \"up\""):
            build(desk.warehouse, CALENDAR)
        assert not opened_here(desk.settings.warehouse_path)
        assert read_elsewhere(desk.settings.warehouse_path) == "484"


class TestProperties:
    def test_sound_tables_pass_and_the_file_is_let_go(self, desk: Desk) -> None:
        found = outcomes(desk)
        models = {"stg_bars", "training_panel", "market_sessions", "stg_adjusted_bars", "period_bars", "weekly_bars", "monthly_bars"}
        assert {name for name, outcome in found.items() if outcome.is_model} == models
        assert all(outcome.passed and outcome.failures == 0 for outcome in found.values())
        assert len(found) == 7 + 11
        assert not opened_here(desk.settings.warehouse_path)
        assert read_elsewhere(desk.settings.warehouse_path) == "484"

    def test_views_say_when_a_row_was_known(self, desk: Desk) -> None:
        panel = desk.read(
            """
            select count(*) as rows, bool_and(panel.known_at = greatest(feature.known_at, label.known_at)) as known,
                bool_and(panel.features_known_at = feature.known_at) as features_known,
                bool_and(panel.forward_return = label.forward_return and panel.rsi_14 is not distinct from feature.rsi_14) as same
            from feature_store.training_panel as panel
            join feature_store.technical_v1 as feature using (symbol, session) join feature_store.labels as label using (symbol, session, horizon)
            """
        )
        assert panel.row(0) == (484, True, True, True)
        section = desk.read(
            """
            select session, symbols, dispersion_1d, known_at,
                (select stddev_samp(price_change_1d) from feature_store.technical_v1 as t where t.session = s.session) as dispersion,
                (select max(known_at) from feature_store.technical_v1 as t where t.session = s.session) as known
            from feature_store.market_sessions as s order by session desc limit 1
            """
        ).row(0, named=True)
        assert (section["session"], section["symbols"]) == (EVENING, 4)
        assert section["dispersion_1d"] == pytest.approx(section["dispersion"], rel=1e-12)
        assert section["known_at"] == section["known"]
