"""The heuristic of each month: what it was held against, that it saw no later outcome, and that it is stored once."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from quant_assets.feature_store.labels import exceeds
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.rules_of_thumb import heuristics
from quant_assets_tests.signals.nights import NAMES, Desk

LAST = 150


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.new(tmp_path_factory.mktemp("market"), len(NAMES), LAST)


@pytest.fixture
def desk(market: Desk, tmp_path: Path) -> Desk:
    return market.copy(tmp_path)


def told(desk: Desk, *numbers: int, threshold: float = 0.0, horizon: int = 1) -> list[Heuristic]:
    sessions = [desk.session(number) for number in numbers]
    made = heuristics(desk.warehouse, desk.calendar, horizon, threshold, desk.evening(LAST), sessions, "run")
    return [made[session] for session in sessions]


class TestRegression:
    def test_it_is_calibrated_on_the_outcomes_known_before_its_months_first_close(self, desk: Desk) -> None:
        first = desk.calendar.session_on_or_after(desk.session(LAST).replace(day=1))
        assert first is not None
        known = desk.warehouse.read(
            """
            select * from feature_store.technical_v1 join feature_store.labels as label using (symbol, session)
            where horizon = 1 and label.known_at < $close order by session, symbol
            """,
            {"close": desk.calendar.close(first)},
        )
        assert told(desk, LAST) == [Heuristic.calibrated(known)]
        assert told(desk, LAST, threshold=0.01) == [Heuristic.calibrated(known.with_columns(up=exceeds(0.01)))]
        rows = desk.warehouse.read("select * from signals.heuristic_calibrations order by label_threshold")
        assert rows.select("valid_from", "label_threshold", "rows", "known_at").rows() == [
            (first, threshold, known.height, desk.evening(LAST)) for threshold in (0.0, 0.01)
        ]

    def test_a_short_history_leaves_the_rules_as_written(self, desk: Desk) -> None:
        assert told(desk, 30) == [Heuristic()]
        assert desk.warehouse.read("select intercept, slope, rows from signals.heuristic_calibrations").rows() == [(0.0, 1.0, 0)]

    def test_no_session_asks_for_nothing(self, desk: Desk) -> None:
        assert heuristics(desk.warehouse, desk.calendar, 1, 0.0, desk.evening(LAST), [], "run") == {}


class TestProperties:
    def test_a_month_has_one_calibration_whoever_asks(self, desk: Desk) -> None:
        alone = told(desk, 140)
        assert told(desk, 110, 139, 140, 141)[2:3] == alone
        stored = desk.warehouse.read("select * from signals.heuristic_calibrations")
        assert stored["valid_from"].n_unique() == stored.height
        told(desk, 140)
        assert desk.warehouse.read("select * from signals.heuristic_calibrations").equals(stored)

    def test_what_came_later_changes_no_month_before(self, market: Desk, desk: Desk) -> None:
        before = told(desk, 100, 120)
        desk.grow(LAST + 20)
        assert told(desk, 100, 120) == before
        assert all(isinstance(heuristic.calibration.slope, float) and heuristic.calibration.slope > 0 for heuristic in before)


def test_the_setting_scores_with_it_and_says_so(desk: Desk) -> None:
    desk.train(desk.evening(LAST))
    run = desk.score(LAST, scorer="heuristic")
    assert run.notes == ("the heuristic scores, as QUANT_SCORER says",)
    assert run.faults == ()
    signals = desk.signals()
    assert signals["scorer"].unique().to_list() == ["heuristic"]
    features = desk.features(LAST).sort("symbol")
    assert signals["probability"].to_list() == told(desk, LAST)[0].predict(features).to_list()
    assert signals.select(pl.col("confidence") - (2 * pl.col("probability") - 1).abs()).to_series().abs().max() == 0
