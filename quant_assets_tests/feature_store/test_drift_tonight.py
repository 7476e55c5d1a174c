"""Tonight's drift: which sessions are the reference, what is stored, and what is known of it later."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

import duckdb
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.drift import WINDOW, drift
from quant_assets.feature_store.drift_tonight import DriftRun, judge_drift
from quant_assets.feature_store.training_sets import features_as_of
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import PROMOTIONS
from quant_assets.warehouse import Warehouse, append_ledger
from quant_assets_tests.conftest import FIRST
from quant_assets_tests.feature_store.market import Market, built_market

VIEW, HORIZON = "technical_v1", 5


@pytest.fixture
def market(tmp_path_factory: pytest.TempPathFactory, warehouse: Warehouse, calendar: TradingCalendar) -> Iterator[Market]:
    market = built_market(tmp_path_factory.getbasetemp(), warehouse, calendar)
    with duckdb.connect(warehouse.path):
        yield market


def judged(market: Market, ago: int = 0, as_of: datetime | None = None, floor: date = FIRST, view: str = VIEW) -> DriftRun:
    tonight = market.sessions[market.tonight - ago]
    return judge_drift(market.warehouse, market.calendar, view, HORIZON, as_of or market.calendar.known_at(tonight), tonight, floor)


def promote(market: Market, trained_until: datetime, promoted_at: datetime, horizon: int = HORIZON, version: str = "1") -> None:
    row = {column.name: "-" for column in PROMOTIONS.columns} | {
        "model_version": version, "promoted_at": promoted_at, "trained_until": trained_until, "horizon": horizon, "recorded_at": promoted_at,
        "model": "signal", "decision": "promoted", "label_threshold": 0.0, "feature_view": VIEW, "definition_hash": definition_hash(VIEW),
    }  # fmt: skip
    with market.warehouse.transaction() as connection:
        append_ledger(connection, PROMOTIONS, pl.DataFrame([row], schema=PROMOTIONS.polars_schema))


def stored(market: Market) -> pl.DataFrame:
    return market.warehouse.read("select * exclude (recorded_at) from feature_store.drift order by known_at, feature")


def reference(run: DriftRun) -> tuple[date, date]:
    (span,) = run.drift.select("reference_from", "reference_to").unique().rows()
    return span


class TestRegression:
    def test_without_a_champion_all_before_the_window_is_the_reference(self, market: Market) -> None:
        run = judged(market)
        tonight, names = market.sessions[market.tonight], list(model_columns(VIEW))
        assert run.note == ""
        assert reference(run) == (FIRST, market.sessions[market.tonight - WINDOW])
        assert run.drift["feature"].sort().to_list() == sorted(names)
        panel = features_as_of(market.warehouse, market.calendar, VIEW, market.now, FIRST, tonight)
        expected = drift(panel.select("symbol", "session", *names), reference(run), [tonight])
        assert run.drift.equals(expected)
        assert run.drift["p_value"].count() >= len(names) / 2
        kept = stored(market)
        assert kept.select("view", "known_at").unique().rows() == [(VIEW, market.now)]
        assert (
            kept.sort("feature")
            .select(expected.columns)
            .equals(expected.sort("feature").with_columns(pl.col("window_sessions").fill_null(0)))
        )

    def test_a_champion_of_long_ago_has_its_training_window_as_reference(self, market: Market) -> None:
        last = market.sessions[149]
        promote(market, market.calendar.known_at(last), market.calendar.known_at(market.sessions[155]))
        assert reference(judged(market)) == (FIRST, last)
        assert reference(judged(market, floor=market.sessions[20])) == (market.sessions[20], last)

    def test_a_champion_of_tonight_leaves_the_window_out(self, market: Market) -> None:
        promote(market, market.now, market.now)
        assert reference(judged(market)) == (FIRST, market.sessions[market.tonight - WINDOW])

    def test_the_newest_champion_of_the_horizon_counts(self, market: Market) -> None:
        for place, version, horizon in ((149, "1", HORIZON), (169, "2", HORIZON), (159, "3", 20)):
            at = market.calendar.known_at(market.sessions[place])
            promote(market, at, at + timedelta(minutes=5 if version != "3" else 500_000), horizon, version)
        assert reference(judged(market))[1] == market.sessions[169]
        assert reference(judged(market, ago=market.tonight - 169))[1] == market.sessions[169 - WINDOW]

    def test_nothing_from_before_the_champion_could_learn_is_told_so(self, market: Market) -> None:
        promote(market, market.calendar.known_at(FIRST) - timedelta(seconds=1), market.now)
        run = judged(market)
        assert run.note == f"270 sessions up to {market.sessions[market.tonight]} leave no reference before a window of 60"
        assert run.drift.is_empty()
        assert stored(market).is_empty()

    def test_too_few_sessions_are_told(self, market: Market) -> None:
        run = judged(market, ago=market.tonight - 59)
        assert run.note == f"60 sessions up to {market.sessions[59]} leave no reference before a window of 60"
        barely = judged(market, ago=market.tonight - 60)
        assert barely.note == ""
        assert set(barely.drift["verdict"]) == {"cannot be told"}
        assert barely.drift.filter(pl.col("reason").str.contains("fewer than 100|holds no values")).height == barely.drift.height

    def test_a_night_without_bars_is_told(self, market: Market) -> None:
        later = market.sessions[market.tonight + 1]
        run = judge_drift(market.warehouse, market.calendar, VIEW, HORIZON, market.calendar.known_at(later), later, FIRST)
        assert f"up to {later} leave no reference" in run.note
        assert stored(market).is_empty()

    def test_a_scope_without_anybody_tonight_is_told(self, market: Market) -> None:
        left = market.sessions[market.tonight - 1]
        market.set_scope(dict.fromkeys(market.close, (FIRST, left)))
        market.refresh()
        run = judged(market, as_of=market.now)
        assert run.note == f"no symbol in scope has features on {market.sessions[market.tonight]}"
        assert stored(market).is_empty()

    def test_alpha_v1_is_judged_on_its_model_features(self, market: Market) -> None:
        run = judged(market, view="alpha_v1")
        assert run.drift["feature"].sort().to_list() == sorted(model_columns("alpha_v1"))
        assert stored(market)["view"].unique().to_list() == ["alpha_v1"]


class TestProperties:
    def test_the_same_night_again_writes_nothing_and_a_later_one_that_finds_otherwise_a_version(self, market: Market) -> None:
        judged(market)
        first = stored(market)
        judged(market)
        assert stored(market).equals(first)
        market.restate(sessions_ago=30)
        market.refresh()
        judged(market, as_of=market.now)
        again = stored(market)
        assert again.filter(pl.col("known_at") < market.now).equals(first)
        versions = again.filter(known_at=market.now)
        assert 0 < versions.height <= first.height
        as_known = market.warehouse.read(
            "select * exclude (recorded_at) from feature_store.drift_as_of($as_of) order by known_at, feature",
            {"as_of": market.now - timedelta(seconds=1)},
        )
        assert as_known.equals(first)

    def test_a_past_night_judged_later_comes_out_as_it_did(self, market: Market) -> None:
        at_the_time = judged(market, as_of=market.now)
        then, ago = market.now, 0
        for event in (market.restate, market.hold, market.next_session):
            event()
            ago += event == market.next_session
        promote(market, market.calendar.known_at(market.sessions[149]), market.now)
        market.refresh()
        later = judged(market, ago=ago, as_of=then)
        assert later.drift.equals(at_the_time.drift)
        assert stored(market).height == at_the_time.drift.height
