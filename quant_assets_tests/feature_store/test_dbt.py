"""dbt's tests find what is planted in the file, become checks, and let go of the database."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_assets.feature_store.catalog import ALPHA_V1
from quant_assets.feature_store.dbt import PROJECT_PATH, DbtError, Outcome, build, docs_folder
from quant_assets.feature_store.documentation import description
from quant_assets_tests import nights
from quant_assets_tests.nights import CALENDAR, EVENING, Desk

GRAIN = "insert into feature_store.technical_v1 select * from feature_store.technical_v1 where symbol = 'SYN002' and session = ?"
RANGE = "update feature_store.technical_v1 set rsi_14 = 101 where symbol = 'SYN001' and session = ?"
NO_BAR = "insert into feature_store.technical_v1 select * replace ('NOBODY' as symbol) from feature_store.technical_v1 where symbol = 'SYN001' and session = ?"
NO_FEATURES = "delete from feature_store.technical_v1 where symbol = 'SYN005' and session = ?"
TWO_LABELS = "insert into feature_store.labels select * from feature_store.labels where symbol = 'SYN001' and horizon = 1"
LABEL = (
    "insert into feature_store.labels select * replace ({} as {}) from feature_store.labels where symbol = 'SYN002' and horizon = 1 limit 1"
)
MORE = (
    LABEL.format("'GONE'", "symbol"),
    LABEL.format("date '2025-01-04'", "session"),  # a Saturday
    "insert into feature_store.alpha_history_v1 from feature_store.alpha_history_v1 where symbol = 'SYN001' limit 1",
    "update feature_store.alpha_history_v1 set return_2d = 'nan' where symbol = 'SYN002' and session = '2025-03-03'",
    "update feature_store.alpha_history_v1 set close_location = 1.001 where symbol = 'SYN004' and session >= '2025-03-13'",
    "delete from feature_store.alpha_history_v1 where symbol = 'SYN004' and session = '2025-02-03'",
    "insert into feature_store.alpha_market_v1 from feature_store.alpha_market_v1 where symbol = 'SYN001' limit 1",
    "update feature_store.alpha_market_v1 set excess_return_1 = '-inf' where symbol = 'SYN002' and session = '2025-03-03'",
    "update feature_store.alpha_market_v1 set symbol = 'NOBODY' where symbol = 'SYN004' and session = '2025-02-03'",
    "insert into feature_store.market_v1 from feature_store.market_v1 where session = '2025-02-03'",
    "update feature_store.market_v1 set market_breadth_1d = -0.1 where session = '2025-02-04'",
    "update feature_store.market_v1 set symbols = 6 where session = '2025-02-05'",
    "update feature_store.market_v1 set session = '2025-02-08' where session = '2025-02-06'",
)
OUTSIDE = (
    LABEL.format("date '1850-01-03'", "session"),
    LABEL.format("date '2300-01-02'", "session"),
    LABEL.format("date '2300-01-02'", "session"),
    "insert into feature_store.technical_v1 select * replace (date '1850-01-02' as session) from feature_store.technical_v1 where symbol = 'SYN002' limit 1",
    "update feature_store.alpha_history_v1 set session = '2300-01-02' where symbol = 'SYN002' and session = '2025-02-03'",
)
"""Sessions for which the sets of bits have no place."""


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


def outcomes(desk: Desk) -> dict[str, Outcome]:
    """What became of every model and test, by its short name."""
    return {outcome.unique_id.split(".")[2]: outcome for outcome in build(desk.warehouse, CALENDAR)}


def failures_of(desk: Desk, model: str) -> dict[str, int]:
    """How many rows each test of a model finds in what the database holds now; nothing is built."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    folders = ["--project-dir", str(PROJECT_PATH), "--profiles-dir", str(PROJECT_PATH), "--target-path", str(desk.home / "dbt")]
    try:
        run = dbtRunner().invoke(["test", "--select", model, *folders, "--log-level", "none", "--log-level-file", "none"])
    finally:
        DuckDBConnectionManager.close_all_connections()
    assert run.result is not None, run.exception
    return {result.node.name: result.failures for result in run.result.results}


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
        for sql in (TWO_LABELS, *MORE, *OUTSIDE):
            desk.change(sql)
        found = outcomes(desk)
        failed = {name: outcome.failures for name, outcome in found.items() if not outcome.passed}
        assert failed == {
            "technical_v1_grain": 1,
            "technical_v1_ranges": 1 + 1,  # the row with 101, and its copy under a symbol without bars
            "technical_v1_has_clean_bar": 2 + 1,
            "labels_grain": len(desk.read("select distinct session from feature_store.labels where symbol = 'SYN001' and horizon = 1")) + 1,
            "labels_have_features": 2 + 3,
            "alpha_history_v1_grain": 1,
            "alpha_history_v1_ranges": 1 + 2,
            "alpha_history_v1_has_clean_bar": 2 + 1 + 3,  # what technical_v1 has too much and too little, what was deleted, what is outside
            "alpha_market_v1_grain": 1,
            "alpha_market_v1_ranges": 1,
            "alpha_market_v1_has_clean_bar": 2 + 2 + 1,
            "market_v1_grain": 1,
            "market_v1_ranges": 1,
            "market_v1_has_clean_bars": 2,
        }
        assert "Got 1 result, configured to fail if != 0" in found["technical_v1_grain"].message

    def test_planted_rows_are_found_in_a_view_that_is_computed(self, desk: Desk) -> None:
        desk.change("create table feature_store.planted as from feature_store.alpha_v1")
        desk.change("drop view feature_store.alpha_v1; alter table feature_store.planted rename to alpha_v1")
        assert failures_of(desk, "alpha_v1") == {"alpha_v1_grain": 0, "alpha_v1_ranges": 0, "alpha_v1_has_clean_bar": 0}
        desk.change("update feature_store.alpha_v1 set rank_rsi_14 = 1.5, month = 0 where symbol = 'SYN001' and session = ?", EVENING)
        desk.change("insert into feature_store.alpha_v1 from feature_store.alpha_v1 where symbol = 'SYN002' and session = ?", EVENING)
        desk.change("delete from feature_store.alpha_v1 where symbol = 'SYN004' and session = ?", EVENING)
        desk.change("update feature_store.alpha_v1 set rank_rsi_14 = 1.5 where session < '2025-03-07'")  # looked at when it was new
        assert failures_of(desk, "alpha_v1") == {"alpha_v1_grain": 1, "alpha_v1_ranges": 1, "alpha_v1_has_clean_bar": 1}

    def test_what_a_released_bar_reaches_may_lie_outside(self, desk: Desk) -> None:
        desk.change("update feature_store.technical_v1 set high_low_range = -0.1 where symbol = 'SYN001' and session >= '2025-03-10'")
        assert outcomes(desk)["technical_v1_ranges"].failures == 5
        desk.change(
            """
            insert into data_quality.reviews by name
            select symbol, session, source, 'order' as rule, known_at as decided_at, known_at as bar_known_at, 'release' as decision,
                'analyst' as decided_by, 'seen' as reason, known_at as recorded_at
            from market_data.daily_bars where symbol = 'SYN001' and session = '2025-03-12'
            """
        )
        assert outcomes(desk)["technical_v1_ranges"].failures == 2

    def test_failing_tests_are_failing_checks(self, desk: Desk) -> None:
        desk.change(GRAIN, EVENING)
        desk.change(RANGE, EVENING)
        desk.change(NO_BAR, EVENING)
        result = desk.run(assets=["feature_store/technical_v1", "feature_store/stg_bars", "feature_store/market_sessions"])
        checks = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
        assert not result.success
        failed = {name: check.metadata["offending_rows"].value for name, check in checks.items() if not check.passed}
        assert failed == {"technical_v1_grain": 1, "technical_v1_ranges": 1 + 1, "technical_v1_has_clean_bar": 1}
        assert checks["technical_v1_grain"].description == "One row per symbol and session. Got 1 result, configured to fail if != 0"
        built = {event.asset_key.path[1] for event in result.all_events if event.is_step_materialization and event.asset_key}
        # dbt leaves out market_sessions, since what it reads is not sound; training_panel nobody asked for.
        assert built & {"stg_bars", "market_sessions", "training_panel", "alpha_v1"} == {"stg_bars"}

    def test_model_that_cannot_be_built(self, desk: Desk) -> None:
        warehouse = desk.warehouse
        warehouse.read("select 1")  # it has compared the tables with their declarations, and will not again
        desk.change("alter table feature_store.labels rename column up to down")
        with pytest.raises(DbtError, match=r"(?s)^model\.dbt_features\.training_panel: .*does not have a column named \"up\""):
            build(warehouse, CALENDAR)
        assert not opened_here(desk.settings.warehouse_path)
        assert read_elsewhere(desk.settings.warehouse_path) == "484"


class TestProperties:
    def test_sound_tables_pass_and_the_file_is_let_go(self, desk: Desk) -> None:
        found = outcomes(desk)
        models = {
            "alpha_v1",
            "stg_bars",
            "training_panel",
            "market_sessions",
            "stg_adjusted_bars",
            "period_bars",
            "weekly_bars",
            "monthly_bars",
        }
        assert {name for name, outcome in found.items() if outcome.is_model} == models
        assert all(outcome.passed and outcome.failures == 0 for outcome in found.values())
        assert len(found) == 8 + 23
        assert not opened_here(desk.settings.warehouse_path)
        assert read_elsewhere(desk.settings.warehouse_path) == "484"

    def test_docs_are_one_page_that_says_what_the_catalog_says(self, desk: Desk, tmp_path: Path) -> None:
        page = docs_folder(tmp_path) / "index.html"
        assert "There are no dbt docs yet" in page.read_text()
        build(desk.warehouse, CALENDAR)
        page = docs_folder(desk.home) / "index.html"
        assert [path.name for path in page.parent.iterdir()] == ["index.html"]
        assert json.dumps(description(ALPHA_V1[-1])) in page.read_text()
        assert set(re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(https?:[^\"' >]*)", page.read_text())) == set()

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
