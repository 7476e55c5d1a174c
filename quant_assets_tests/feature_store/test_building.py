"""What is computed night by night equals what is computed at once, bit by bit, and a change recomputes what depends on it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store import building, indicators
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.alpha import history
from quant_assets.feature_store.catalog import ALPHA_HISTORY, TECHNICAL_V1
from quant_assets.feature_store.store import (
    refresh_alpha_history,
    refresh_alpha_market,
    refresh_labels,
    refresh_market,
    refresh_technical,
)
from quant_assets.lookahead import described, differences
from quant_assets.warehouse import Warehouse
from quant_assets_tests.feature_store.market import Market
from quant_assets_tests.lookahead import random_history

VIEWS = ("technical_v1", "alpha_v1")
STEPS = 250


@pytest.fixture
def market(open_warehouse: Warehouse, calendar: TradingCalendar) -> Market:
    market = Market(open_warehouse, calendar, seed=5)
    market.refresh()
    return market


def assert_up_to_date(market: Market) -> None:
    """Both views equal what the bars alone give, exactly, and refreshing again writes nothing."""
    for view in VIEWS:
        offending = differences(market.stored(view), market.recomputed(view))
        assert offending.is_empty(), described(offending)
    assert set(market.refresh().values()) == {0}


class TestRegression:
    def test_a_new_session_writes_a_new_session(self, market: Market) -> None:
        assert_up_to_date(market)
        market.next_session()
        bars = market.warehouse.read(
            "select count(*) from data_quality.clean_bars where session = $s", {"s": market.sessions[market.tonight]}
        ).item()
        written = market.refresh()
        assert {name: written[name] for name in ("technical_v1", "alpha_history_v1", "alpha_market_v1")} == dict.fromkeys(
            ("technical_v1", "alpha_history_v1", "alpha_market_v1"), bars
        )
        assert written["market_v1"] == 1
        assert_up_to_date(market)

    def test_a_restatement_writes_its_symbol_from_its_session_on_and_the_market_where_it_is_looked_back_on(self, market: Market) -> None:
        symbol, session = market.restate(sessions_ago=280)
        before = {view: market.stored(view) for view in VIEWS}
        market.refresh()
        for view in ("technical_v1",):
            changed = differences(before[view], market.stored(view)).select("symbol", "session").unique()
            assert changed["symbol"].unique().to_list() == [symbol]
            assert changed["session"].min() == session
        market_rows = market.warehouse.read("select session from feature_store.market_v1 where known_at = $now", {"now": market.now})
        assert market_rows["session"].sort().to_list() == [session, market.calendar.session_after(session)]
        restamped = market.warehouse.read(
            "select symbol, count(*) as n from feature_store.alpha_market_v1 where known_at = $now and symbol <> $symbol group by symbol",
            {"now": market.now, "symbol": symbol},
        )
        assert restamped["n"].max() == 253  # two sessions changed, each looked back on over 252
        assert_up_to_date(market)

    def test_a_symbol_of_which_much_is_missing_is_computed_from_its_first_bar(self, market: Market) -> None:
        lost = market.warehouse.read(
            "select symbol, session from data_quality.clean_bars where symbol = 'S1' order by session desc limit 120"
        )
        for ago in range(20):
            market.hold(sessions_ago=ago)
        assert lost.height == 120
        market.refresh()
        market.next_session()
        market.refresh()
        assert_up_to_date(market)

    def test_a_rebuild_in_small_batches_gives_the_same(self, market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
        before = {view: market.stored(view) for view in VIEWS}
        with market.warehouse.transaction() as connection:
            connection.execute("delete from feature_store.view_builds; delete from feature_store.alpha_history_v1 where symbol = 'S2'")
        monkeypatch.setattr(building, "BATCH_ROWS", 1)
        market.refresh()
        for view in VIEWS:
            assert market.stored(view).equals(before[view])

    def test_another_preferred_source_rebuilds_from_its_bars(self, market: Market, calendar: TradingCalendar) -> None:
        other = Market.__new__(Market)
        other.__dict__ |= market.__dict__ | {"warehouse": Warehouse(market.warehouse.path, "another")}
        other.refresh()
        for table in ("technical_v1", "alpha_history_v1", "market_v1", "alpha_market_v1", "labels"):
            assert other.warehouse.read(f"select count(*) from feature_store.{table}").item() == 0

    def test_a_session_that_is_held_back_whole_leaves_the_market(self, market: Market) -> None:
        market.next_session()
        market.refresh()
        for _ in market.close:
            market.hold(sessions_ago=0)
        market.refresh()
        newest = market.sessions[market.tonight - 1]
        assert market.warehouse.read("select max(session) from feature_store.market_v1").item() == newest
        market.next_session()
        market.refresh()
        assert_up_to_date(market)

    def test_another_calendar_counts_the_market_anew(self, market: Market) -> None:
        closed = market.sessions[100]
        kept = [(day, close) for day, close in zip(market.calendar.sessions, market.calendar.closes, strict=True) if day != closed]
        market.calendar = replace(
            market.calendar, name="OTHER", sessions=tuple(day for day, _ in kept), closes=tuple(close for _, close in kept)
        )
        market.refresh()
        assert market.warehouse.read("select count(*) from feature_store.market_v1 where session = $day", {"day": closed}).item() == 0
        assert_up_to_date(market)

    def test_a_scope_that_begins_late_is_told_by_when_it_was_known(self, market: Market) -> None:
        told = market.now
        market.set_scope(dict.fromkeys(market.close, (market.sessions[150], None)))
        market.refresh()
        assert market.stored("alpha_v1")["known_at"].min() >= told  # before it was known, all were in scope on all sessions
        assert_up_to_date(market)

    def test_what_is_decided_between_two_tables_reaches_both(self, market: Market) -> None:
        market.hold(sessions_ago=30)
        market.refresh()
        market.next_session()
        refresh_technical(market.warehouse, "run")
        market.release()  # by a person, while the night is under way: technical_v1 has not seen it
        market.restate(sessions_ago=40)
        for refresh in (refresh_labels, refresh_market, refresh_alpha_market):
            refresh(market.warehouse, market.calendar, "run")
        refresh_alpha_history(market.warehouse, "run")
        market.refresh()
        assert_up_to_date(market)
        outcomes = market.warehouse.read("select * from feature_store.labels order by symbol, session, horizon")
        with market.warehouse.transaction() as connection:
            connection.execute("delete from feature_store.view_builds where view = 'labels'; delete from feature_store.labels")
        refresh_labels(market.warehouse, market.calendar, "run")
        assert market.warehouse.read("select * from feature_store.labels order by symbol, session, horizon").equals(outcomes)


class TestProperties:
    @pytest.mark.parametrize(("kernel", "features"), [(indicators, TECHNICAL_V1), (history, ALPHA_HISTORY)], ids=VIEWS)
    def test_single_sessions_one_after_the_other_equal_the_whole_history(self, kernel: object, features: tuple[object, ...]) -> None:
        with_states: Callable[..., pl.DataFrame] = kernel.with_states  # type: ignore[attr-defined]
        bars = forward_adjusted(**random_history(3, symbols=2, n=300 + STEPS))
        bars = bars.with_columns(
            (pl.col("close") * pl.col("price_step") / pl.col("close").shift(1).over("symbol") - 1).alias("price_change_1d")
        )
        whole = with_states(bars)
        lookback = max(feature.lookback for feature in features) + 1  # type: ignore[attr-defined]
        states = [f"state_{name}" for name in kernel.STATES]  # type: ignore[attr-defined]
        place = pl.int_range(pl.len()).over("symbol")
        sizes = bars.group_by("symbol").len()["len"].min()
        carried = whole.filter(place == sizes - STEPS - 1).select(
            "symbol", "session", *(pl.col(name).alias(name.removeprefix("state_")) for name in states)
        )  # type: ignore[operator]
        for row in range(sizes - STEPS, sizes):  # type: ignore[operator]
            window = bars.filter(place.is_between(row - lookback, row))
            new = with_states(window, carried).filter(pl.int_range(pl.len()).over("symbol") == lookback)
            offending = differences(whole.filter(place == row), new)
            assert offending.is_empty(), described(offending)
            carried = new.select("symbol", "session", *(pl.col(name).alias(name.removeprefix("state_")) for name in states))

    @pytest.mark.parametrize("seed", range(2))
    def test_restatements_holds_releases_and_scopes_in_random_order(
        self, open_warehouse: Warehouse, calendar: TradingCalendar, seed: int
    ) -> None:
        market = Market(open_warehouse, calendar, seed, history=270)
        market.refresh()
        events = (market.next_session, market.restate, market.hold, market.release, market.split_told_late, market.change_scope)
        for _ in range(3):
            for event in market.random.permutation(len(events))[:3]:
                events[event]()
            market.refresh()
            assert_up_to_date(market)
