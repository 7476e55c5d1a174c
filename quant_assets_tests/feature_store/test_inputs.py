"""What is new is exactly what was appended since a build, and the bars of now and of then are those of the views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.building import note_build
from quant_assets.feature_store.inputs import Changes, adjusted_bars, changes_since_build, clean_bars_of
from quant_assets.feature_store.views import build_hash, definition_hash
from quant_assets.schemas import ANOMALIES, CORPORATE_ACTIONS, DAILY_BARS, MARKET_V1, REVIEWS, TECHNICAL_V1, UNIVERSE, Table
from quant_assets.warehouse import Warehouse, query
from quant_assets_tests.conftest import FIRST, SOURCE
from quant_assets_tests.feature_store.market import Market, built_market

GROWING = (DAILY_BARS, CORPORATE_ACTIONS, ANOMALIES, REVIEWS, UNIVERSE)
END = date(9999, 12, 31)


@pytest.fixture
def market(tmp_path_factory: pytest.TempPathFactory, warehouse: Warehouse, calendar: TradingCalendar) -> Iterator[Market]:
    market = built_market(tmp_path_factory.getbasetemp(), warehouse, calendar, history=60)
    with duckdb.connect(warehouse.path):
        yield market


def changes(market: Market, definition: str | None = None, source: str = SOURCE, table: Table = TECHNICAL_V1) -> Changes:
    view = "technical_v1" if table is TECHNICAL_V1 else "alpha_v1"
    with market.warehouse.connect() as connection:
        return changes_since_build(connection, table, definition or build_hash(table.name, view, market.calendar), source)


def histories(market: Market) -> dict[str, date]:
    return dict(changes(market).histories.iter_rows())


def append(market: Market, table: Table, copied: str, **changed: object) -> None:
    """One more row like one that is there."""
    values = ", ".join(f"${name} as {name}" for name in changed)
    with market.warehouse.transaction() as connection:
        connection.execute(f"insert into {table.full_name} select * replace ({values}) from {copied} limit 1", changed)


def scope_changes(market: Market, stretches: dict[str, tuple[date, date | None]]) -> set[tuple[date, date]]:
    """The stretches of sessions whose scope a new version of the universe changes; then they are seen."""
    market.set_scope(stretches)
    found = changes(market)
    with market.warehouse.transaction() as connection:
        note_build(connection, TECHNICAL_V1, definition_hash("technical_v1"), SOURCE, found, 1, "run")
    return set(found.scopes.rows())


class TestRegression:
    def test_a_new_session_is_new_and_nothing_else(self, market: Market) -> None:
        assert changes(market).nothing
        market.next_session()
        session = market.sessions[market.tonight]
        symbols = market.warehouse.read("select symbol from market_data.daily_bars where session = $s", {"s": session})["symbol"]
        found = changes(market)
        assert dict(found.histories.iter_rows()) == dict.fromkeys(symbols, session)
        assert (found.sessions, found.scopes.height, found.rebuild, found.nothing) == ([session], 0, False, False)
        assert not changes(market).nothing  # looking is not building
        market.refresh()
        assert changes(market).nothing

    def test_a_restatement_a_finding_a_review_and_an_action_reach_from_their_session_on(self, market: Market) -> None:
        for event in (market.restate, market.hold, market.release):
            symbol, session = event()  # type: ignore[misc]
            found = changes(market)
            assert (dict(found.histories.iter_rows()), found.sessions) == ({symbol: session}, [session])
            market.refresh()
        market.split_told_late()
        ((symbol, session),) = market.warehouse.read(
            "select symbol, session from market_data.corporate_actions where known_at = $now", {"now": market.now}
        ).rows()
        assert histories(market) == {symbol: session}

    def test_several_events_count_from_the_first(self, market: Market) -> None:
        days = [market.restate(sessions_ago=ago) for ago in (3, 20, 11)]
        first = {symbol: min(day for name, day in days if name == symbol) for symbol, _ in days}
        assert histories(market) == first
        assert sorted(changes(market).sessions) == sorted({day for _, day in days})

    def test_what_does_not_decide_is_not_new(self, market: Market) -> None:
        """Another source's rows, and findings that hold nothing back."""
        market.hold()
        market.refresh()
        before = changes(market).seen
        append(market, DAILY_BARS, "market_data.daily_bars", source="another", close=1.0)
        append(market, CORPORATE_ACTIONS, "market_data.corporate_actions", source="another")
        append(market, ANOMALIES, "data_quality.anomalies", severity="warning", rule="another")
        append(market, ANOMALIES, "data_quality.anomalies", source="another", rule="another")
        found = changes(market)
        assert found.nothing
        assert {name: found.seen[name] - count for name, count in before.items()} == {
            "bars_seen": 1, "actions_seen": 1, "findings_seen": 2, "reviews_seen": 0, "scopes_seen": 0,
        }  # fmt: skip

    def test_what_makes_all_of_it_anew(self, market: Market) -> None:
        assert changes(market, definition="another").rebuild
        assert changes(market, source="another").rebuild
        assert not changes(market).rebuild
        for sql in (
            "delete from feature_store.technical_v1",
            "delete from feature_store.view_builds",
            "delete from market_data.daily_bars where symbol = 'S0'",
            "delete from market_data.corporate_actions",
        ):
            with market.warehouse.connect() as connection:
                connection.begin()
                connection.execute(sql)
                assert changes_since_build(connection, TECHNICAL_V1, definition_hash("technical_v1"), SOURCE).rebuild, sql
                connection.rollback()
        assert changes(market).nothing

    def test_the_newest_build_counts(self, market: Market) -> None:
        with market.warehouse.transaction() as connection:
            seen = changes_since_build(connection, TECHNICAL_V1, "another", SOURCE)
            note_build(connection, TECHNICAL_V1, "another", SOURCE, seen, 1, "run")
        assert changes(market).rebuild
        assert changes(market, definition="another").nothing

    def test_stretches_of_scope_that_changed(self, market: Market) -> None:
        day = market.sessions
        everyone = dict.fromkeys(sorted(market.close), (FIRST, None))
        assert scope_changes(market, everyone) == {(date(1, 1, 1), END)}  # until now all were in scope, wherever they had bars
        assert scope_changes(market, everyone) == set()
        assert scope_changes(market, {"S1": (FIRST, day[20])}) == {(day[20] + timedelta(days=1), END)}
        assert scope_changes(market, {"S1": (FIRST, day[30])}) == {(day[20] + timedelta(days=1), day[30])}
        assert scope_changes(market, {"S1": (day[40], None), "S0": (FIRST, None)}) == {(day[40], END)}
        assert scope_changes(market, {"S1": (day[40], day[39])}) == {(day[40], END)}  # taken back: it ends before it begins
        assert scope_changes(market, {"S1": (day[40], day[45])}) == {(day[40], day[45])}

    def test_the_scope_of_another_source_is_not_ours(self, market: Market) -> None:
        with market.warehouse.transaction() as connection:
            connection.execute(
                f"insert into market_data.universe values ('S1', date '{FIRST}', 'another', ?, null, 'b', ?)", [market.now] * 2
            )
        assert changes(market, table=MARKET_V1).nothing
        market.next_session()
        market.refresh()  # it has seen the other source's
        market.set_scope({"S0": (market.sessions[30], None)})
        found = changes(market, table=MARKET_V1)
        assert found.scopes.rows() == [(date(1, 1, 1), END)]  # the first of ours: until now all were in scope
        assert not found.rebuild
        market.refresh()
        assert changes(market, table=MARKET_V1).nothing
        assert market.stored("alpha_v1").equals(market.recomputed("alpha_v1"))


class TestProperties:
    @given(st.lists(st.sampled_from(["append", "roll back", "fail", "checkpoint", "reopen", "many"]), min_size=3, max_size=9))
    @settings(max_examples=8, deadline=None)
    def test_a_row_s_place_is_its_number_in_a_table_that_only_grows(
        self, tmp_path_factory: pytest.TempPathFactory, steps: list[str]
    ) -> None:
        """DuckDB's rowid counts from 0 without a gap, in the order of writing: what finding new rows by their place rests on."""
        path = tmp_path_factory.mktemp("places") / "places.duckdb"
        connection, written = duckdb.connect(path), 0
        connection.execute("set preserve_insertion_order = false; create table grown (n bigint, filler varchar)")
        insert = "insert into grown select {} + range, repeat('x', range % 9) from range({})"
        for step in steps:
            count = 200_000 if step == "many" else 1_000
            if step in ("append", "many"):
                connection.execute(insert.format(written, count))
                written += count
            elif step == "roll back":
                connection.begin()
                connection.execute(insert.format(-10_000_000, 150_000))
                connection.rollback()
            elif step == "fail":
                with suppress(duckdb.Error):
                    connection.execute(
                        f"insert into grown select case when range < {count - 1} then range else error('no') end, '' from range({count})"
                    )
            elif step == "checkpoint":
                connection.execute("checkpoint")
            else:
                connection.close()
                connection = duckdb.connect(path)
                connection.execute("set preserve_insertion_order = false")
            ((rows, places, first, last),) = connection.execute(
                "select count(*), count(distinct rowid), min(rowid), max(rowid) from grown"
            ).fetchall()
            assert (rows, places) == (written, written)
            assert (first, last) == ((0, written - 1) if written else (None, None))
            if step in ("append", "many"):
                newest = connection.execute("select min(n), count(*) from grown where rowid >= ?", [written - count]).fetchall()
                assert newest == [(written - count, count)]
        connection.close()

    def test_places_in_the_real_tables_are_counts(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        """Through the platform's own writes, a write that dies, and a file that is opened anew for each."""
        market = Market(warehouse, calendar, seed=4, symbols=3, history=5)
        market.hold()
        for event in (market.release, market.next_session, market.split_told_late, market.change_scope):
            counts = {table.name: len(places) for table, places in _places(warehouse).items()}
            with suppress(RuntimeError), warehouse.transaction() as connection:
                connection.execute("insert into market_data.daily_bars select * from market_data.daily_bars")
                raise RuntimeError("the night died")
            event()
            found = _places(warehouse)
            for table, places in found.items():
                assert places == list(range(len(places))), table.name
            assert sum(len(places) - counts[table.name] for table, places in found.items()) > 0

    @pytest.mark.parametrize("seed", range(2))
    def test_the_bars_are_those_of_the_views(self, market: Market, seed: int) -> None:
        market.random = np.random.default_rng(seed)
        instants = []
        for _ in range(8):
            events = (market.restate, market.hold, market.release, market.next_session, market.split_told_late, market.change_scope)
            events[int(market.random.integers(len(events)))]()
            instants.append(market.now)
        view = "select symbol, session, open, high, low, close, volume, basis, known_at from data_quality.{} order by symbol, session"
        with market.warehouse.connect() as connection:
            newest = query(connection, view.format("clean_bars"))
            assert clean_bars_of(connection, SOURCE).equals(newest)
            some = (pl.col("symbol") != "S1") & (pl.col("session") >= market.sessions[20])
            assert clean_bars_of(connection, SOURCE, ["S0", "S2"], market.sessions[20]).equals(newest.filter(some))
            whole = adjusted_bars(connection, SOURCE)
            assert adjusted_bars(connection, SOURCE, ["S0", "S2"]).equals(whole.filter(pl.col("symbol") != "S1"))
            for instant in (*instants, market.calendar.known_at(market.sessions[30])):
                then = query(connection, view.format("clean_bars_as_of($t)"), {"t": instant})
                assert clean_bars_of(connection, SOURCE, as_of=instant).equals(then)
                known = adjusted_bars(connection, SOURCE, as_of=instant)
                assert known.select("symbol", "session").equals(then.select("symbol", "session"))
                assert known["known_at"].max() <= instant
            assert adjusted_bars(connection, SOURCE, as_of=instants[-1]).equals(whole)


def _places(warehouse: Warehouse) -> dict[Table, list[int]]:
    return {table: warehouse.read(f"select rowid as place from {table.full_name} order by place")["place"].to_list() for table in GROWING}
