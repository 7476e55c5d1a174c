"""The feature tables equal what the clean bars say, now and as of any instant, and only what changed is recomputed."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.quarantine import quarantine
from quant_assets.errors import FeaturesUnavailable
from quant_assets.feature_store import building, store
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.labels import labels
from quant_assets.feature_store.store import Refresh, refresh_labels, refresh_technical
from quant_assets.feature_store.training_sets import features_as_of, training_set
from quant_assets.market_data.landing import default_as_of, land
from quant_assets.schemas import LABELS, TECHNICAL_V1, VIEW_BUILDS
from quant_assets.warehouse import Warehouse, content_hash
from quant_assets_tests.conftest import FIRST, SOURCE, Row, action, bar, clean, delivery, review
from quant_assets_tests.market_data.test_universe import store_members

FEATURES = ["rsi_14", "bb_position", "price_change_5d", "volume_ratio"]
HISTORY = 30
HOUR = timedelta(hours=1)
FACTS_ONLY = (1e-15, 1e-3)
"""Rates at which a contradiction is critical and noise is not: these prices jump about."""
SHOWN = {
    name: [c for c in table.column_names if not c.endswith("_factor")]
    for name, table in (("technical_v1", TECHNICAL_V1), ("labels", LABELS))
}


class Desk:
    """A vendor's file, the nights that land it, and what the tables held after each."""

    def __init__(self, warehouse: Warehouse, calendar: TradingCalendar, history: int = HISTORY, first_night: bool = True) -> None:
        self.warehouse, self.calendar = warehouse, calendar
        self.random = np.random.default_rng(history)
        self.symbols = ["S0", "S1", "S2"]
        self.bars: dict[tuple[str, date], Row] = {}
        self.actions: list[Row] = []
        self.tonight = -1
        for _ in range(history):
            self.next_session()
        if first_night:
            self.night()

    def day(self, ago: int) -> date:
        """A session counted back from tonight's."""
        return self.calendar.sessions[self.tonight - ago]

    def next_session(self, without: tuple[str, ...] = ()) -> None:
        self.tonight += 1
        for symbol in self.symbols:
            if symbol not in without:
                self.set(symbol, 0, self.price(symbol, 0))

    def price(self, symbol: str, ago: int) -> float:
        return float(np.round(100.0 + 10 * np.sin(self.tonight - ago + len(self.bars)) + self.random.normal(), 2))

    def set(self, symbol: str, ago: int, close: float, **changed: float) -> None:
        values = {"volume": float(self.random.integers(100, 10_000))} | changed
        self.bars[symbol, self.day(ago)] = bar(symbol, self.day(ago), close, **values)

    def night(self) -> tuple[Refresh, Refresh]:
        batch = delivery(self.bars.values(), self.actions, batch_id=f"{len(self.bars)}")
        as_of = default_as_of(self.warehouse, SOURCE, self.calendar, self.day(0))
        land(self.warehouse, batch, self.calendar, as_of, "run")
        quarantine(self.warehouse, SOURCE, self.calendar, "run", FACTS_ONLY)
        return self.refresh()

    def refresh(self) -> tuple[Refresh, Refresh]:
        return refresh_technical(self.warehouse, "run"), refresh_labels(self.warehouse, self.calendar, "run")

    @property
    def now(self) -> datetime:
        return default_as_of(self.warehouse, SOURCE, self.calendar, self.day(0))

    def table(self, name: str) -> pl.DataFrame:
        columns = ", ".join(SHOWN[name])
        return self.warehouse.read(f"select {columns} from feature_store.{name} order by symbol, session{', horizon' * (name == 'labels')}")

    def as_of(self, instant: datetime) -> pl.DataFrame:
        """Features of all sessions as of an instant, read or recomputed."""
        rows = features_as_of(self.warehouse, self.calendar, "technical_v1", instant, FIRST, self.calendar.sessions[self.tonight])
        return rows.sort("symbol", "session")

    def training(self, instant: datetime, last: int = 0) -> pl.DataFrame:
        return training(self.warehouse, self.calendar, 5, instant, self.day(last))


def training(warehouse: Warehouse, calendar: TradingCalendar, horizon: int, instant: datetime, last: date) -> pl.DataFrame:
    rows = training_set(warehouse, calendar, "technical_v1", None, (FIRST, last), horizon, instant).frame
    return rows.select("symbol", "session", *FEATURES, "forward_return", "up", "known_at")


@pytest.fixture
def desk(open_warehouse: Warehouse, calendar: TradingCalendar) -> Desk:
    return Desk(open_warehouse, calendar)


def known_by_hand(warehouse: Warehouse) -> dict[tuple[str, date], datetime]:
    """Oracle: for every clean bar the latest instant of a bar, action, finding or review at or before it."""
    events = warehouse.read(
        """
        select symbol, session, known_at from data_quality.clean_bars
        union all select symbol, session, known_at from market_data.latest_corporate_actions
        union all select symbol, session, known_at from data_quality.anomalies where severity = 'critical'
        union all select symbol, session, decided_at from data_quality.reviews
        """
    ).rows()
    return {key: max(at for symbol, session, at in events if symbol == key[0] and session <= key[1]) for key in clean(warehouse)}


def assert_up_to_date(desk: Desk) -> None:
    """The stored tables equal one computed from the clean bars alone, and refreshing again finds nothing to do."""
    bars = desk.warehouse.read("select * exclude (adj_close) from data_quality.clean_bars")
    actions = desk.warehouse.read("select * from market_data.latest_corporate_actions")
    known = known_by_hand(desk.warehouse)
    stamps = pl.DataFrame(
        [(*key, at) for key, at in known.items()],
        schema={n: TECHNICAL_V1.polars_schema[n] for n in ("symbol", "session", "known_at")},
        orient="row",
    )
    adjusted = forward_adjusted(bars, actions)
    expected = technical_v1(adjusted).join(stamps, on=["symbol", "session"]).select(SHOWN["technical_v1"]).sort("symbol", "session")
    assert desk.table("technical_v1").equals(expected)
    sessions = desk.calendar.frame(FIRST, desk.day(0))
    outcomes = labels(adjusted.drop("known_at").join(stamps, on=["symbol", "session"]), sessions).select(SHOWN["labels"])
    assert desk.table("labels").equals(outcomes)
    assert [(again.symbols, again.written, again.removed) for again in desk.refresh()] == [(0, 0, 0), (0, 0, 0)]


class TestRegression:
    def test_the_first_refresh_builds_all_and_the_next_one_only_what_is_new(self, desk: Desk) -> None:
        assert desk.table("technical_v1").height == 3 * HISTORY
        desk.next_session()
        features, outcomes = desk.night()
        assert (features.symbols, features.written, features.removed) == (3, 3, 0)
        assert (outcomes.written, outcomes.removed) == (9, 0)  # one outcome each over 1, 5 and 20 sessions
        assert_up_to_date(desk)

    def test_nothing_new_writes_nothing_not_even_a_build(self, desk: Desk) -> None:
        builds = "select count(*) from feature_store.view_builds"
        assert desk.warehouse.read(builds).item() == 2
        desk.night()
        assert desk.warehouse.read(builds).item() == 2

    def test_a_restatement_recomputes_its_symbol_from_its_session_on(self, desk: Desk) -> None:
        before = desk.table("technical_v1")
        desk.set("S1", 7, 55.0)
        features, outcomes = desk.night()
        assert (features.symbols, features.written, features.removed) == (1, 8, 8)
        assert features.written == 8
        # Outcomes over 1 session: 8 as start or end; over 5: 5 ends after it and the 3 starts since; over 20: the 8 ends.
        assert (outcomes.symbols, outcomes.removed) == (1, outcomes.written)
        touched = (pl.col("symbol") == "S1") & (pl.col("session") >= desk.day(7))
        assert desk.table("technical_v1").filter(~touched).equals(before.filter(~touched))
        assert set(desk.table("technical_v1").filter(touched)["known_at"]) == {desk.now}
        assert_up_to_date(desk)

    def test_two_changes_in_one_evening_are_both_seen(self, desk: Desk) -> None:
        for ago, close in ((9, 55.0), (4, 66.0), (4, 67.0), (0, 68.0)):  # each behind the one before it
            desk.set("S1", ago, close)
            features, _ = desk.night()
            assert (features.symbols, features.written) == (1, ago + 1)
            assert_up_to_date(desk)

    def test_a_split_known_late_moves_rows_from_its_session_on(self, desk: Desk) -> None:
        before = desk.now
        held = desk.as_of(before)
        desk.actions = [action("S2", desk.day(3), 2.0)]
        features, _ = desk.night()
        assert (features.symbols, features.written, features.removed) == (1, 4, 4)
        assert_up_to_date(desk)
        moved = desk.table("technical_v1").filter(pl.col("symbol") == "S2", pl.col("session") == desk.day(3))
        assert moved["price_change_1d"].item() > 0.5  # twice as many shares at about the same price
        assert desk.as_of(before).equals(held)

    def test_a_quarantined_bar_leaves_and_a_release_brings_it_back(self, desk: Desk) -> None:
        before = desk.now
        held = desk.as_of(before)
        assert held.height == 3 * HISTORY
        desk.set("S0", 0, 90.0, high=1.0)  # the newest bar: no later row tells that something changed
        desk.night()
        assert desk.table("technical_v1").height == 3 * HISTORY - 1
        assert_up_to_date(desk)
        assert desk.as_of(before).equals(held)
        hidden = desk.now
        review(desk.warehouse, "S0", desk.day(0), "release", hidden + HOUR)
        features, _ = desk.refresh()
        assert (features.symbols, features.written) == (1, 1)
        assert desk.table("technical_v1")["known_at"].max() == hidden + HOUR
        assert_up_to_date(desk)
        assert [desk.as_of(instant).height for instant in (before, hidden, hidden + HOUR)] == [90, 89, 90]

    def test_a_bar_before_the_first_one_rebuilds_its_symbol(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        desk = Desk(open_warehouse, calendar, first_night=False)
        whole = desk.bars
        desk.bars = {key: row for key, row in whole.items() if key[0] != "S0" or key[1] >= desk.day(9)}
        desk.night()
        assert desk.table("technical_v1").filter(pl.col("symbol") == "S0").height == 10
        desk.bars = whole
        features, _ = desk.night()
        assert (features.symbols, features.written, features.removed) == (1, HISTORY, 10)
        assert_up_to_date(desk)

    def test_a_changed_definition_rebuilds_all_once(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "definition_hash", lambda _: "another definition")
        features, outcomes = desk.refresh()
        assert (features.symbols, features.written, outcomes.symbols) == (3, 0, 0)  # the values came out the same
        assert desk.refresh()[0].symbols == 0
        builds = desk.warehouse.read("select view, definition_hash from feature_store.view_builds order by recorded_at").rows()
        assert builds[-1] == ("technical_v1", "another definition")

    def test_a_label_is_known_when_its_outcome_is(self, desk: Desk) -> None:
        rows = desk.table("labels").filter(pl.col("symbol") == "S0", pl.col("horizon") == 5)
        assert rows.height == HISTORY - 5
        assert rows["known_at"].to_list() == [desk.calendar.known_at(desk.calendar.sessions[n + 5]) for n in range(HISTORY - 5)]

    def test_a_training_frame_holds_outcomes_known_by_then_only(self, desk: Desk) -> None:
        frame = desk.training(desk.now)
        assert frame.columns == ["symbol", "session", *FEATURES, "forward_return", "up", "known_at"]
        assert frame.height == 3 * (HISTORY - 5)
        assert frame["known_at"].max() == desk.now
        earlier = desk.calendar.known_at(desk.day(10))
        assert desk.training(earlier).height == 3 * (HISTORY - 15)
        assert desk.training(earlier).equals(frame.filter(pl.col("known_at") <= earlier))

    def test_a_training_frame_stays_when_an_outcome_after_its_last_session_is_restated(self, desk: Desk) -> None:
        before = desk.now
        held = desk.training(before, last=8)
        desk.next_session()
        desk.set("S0", 6, 50.0)  # the outcome of a row in the frame, but no row of it
        desk.night()
        assert training(desk.warehouse, desk.calendar, 5, before, desk.day(9)).equals(held)
        now = desk.training(desk.now, last=9)
        assert now.height == held.height
        assert not now.equals(held)

    def test_who_left_stays_in_the_training_past_and_who_joined_has_none(self, desk: Desk) -> None:
        members = [("S0", FIRST, None), ("S1", FIRST, desk.day(9)), ("S2", desk.day(12), None)]
        before, everyone, whole = desk.now, desk.training(desk.now), desk.table("technical_v1")
        store_members(desk.warehouse, members, before)
        s1, s2 = pl.col("symbol") == "S1", pl.col("symbol") == "S2"
        scope = (s1 & (pl.col("session") <= desk.day(9))) | (s2 & (pl.col("session") >= desk.day(12))) | ~(s1 | s2)
        frame, features = desk.training(before), desk.as_of(before)
        assert frame.equals(everyone.filter(scope))
        assert features.equals(whole.filter(scope))  # computed over all bars: a look-back may reach before the membership
        assert desk.table("technical_v1").equals(whole)
        desk.set("S0", 7, 55.0)  # from now on, what was known then is recomputed
        desk.night()
        assert desk.training(before).equals(frame)
        assert desk.as_of(before).equals(features)

    def test_a_scope_known_later_leaves_the_frame_of_before(self, desk: Desk) -> None:
        before = desk.now
        held = desk.training(before)
        store_members(desk.warehouse, [("S0", FIRST, None)], before + HOUR)
        assert desk.training(before).equals(held)
        assert desk.training(before + HOUR)["symbol"].unique().to_list() == ["S0"]

    def test_an_empty_warehouse_has_no_features(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        assert refresh_technical(warehouse, "run").symbols == 0
        assert refresh_labels(warehouse, calendar, "run").symbols == 0
        with pytest.raises(FeaturesUnavailable, match=r"Nothing was known as of 2020-06-01 .* no bar of files is stored at all"):
            training(warehouse, calendar, 1, datetime(2020, 6, 1), date(2020, 5, 1))

    def test_what_breaks_off_leaves_the_tables_as_they_were(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        desk.set("S1", 5, 50.0)
        with desk.warehouse.connect() as connection:
            before = content_hash(connection, TECHNICAL_V1), content_hash(connection, VIEW_BUILDS)

        def fail(*_: object) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(building, "append_ledger", fail)  # after the rows were replaced
            with pytest.raises(KeyboardInterrupt):
                desk.night()
        with desk.warehouse.connect() as connection:
            assert (content_hash(connection, TECHNICAL_V1), content_hash(connection, VIEW_BUILDS)) == before
        desk.refresh()
        assert_up_to_date(desk)


def random_night(desk: Desk, random: np.random.Generator) -> None:
    """One night, or a second run of the same evening, with a random mix of what vendors and analysts do."""
    symbol = str(random.choice(desk.symbols))
    if random.random() < 0.75:
        desk.next_session(without=(symbol,) if random.random() < 0.3 else ())
    ago = int(random.integers(0, 12))
    for happens in random.choice(["restate", "fill", "split", "dividend", "bad", "twins", "review", "nothing"], size=2):
        if happens == "restate":
            desk.set(symbol, ago, desk.price(symbol, ago))
        elif happens == "fill":
            for missing in [n for n in range(desk.tonight) if (symbol, desk.day(n)) not in desk.bars][:2]:
                desk.set(symbol, missing, desk.price(symbol, missing))
        elif happens in ("split", "dividend"):
            desk.actions = [old for old in desk.actions if (old["symbol"], old["session"], old["kind"]) != (symbol, desk.day(ago), happens)]
            desk.actions.append(action(symbol, desk.day(ago), float(random.integers(1, 4)) / (1 if happens == "split" else 2), happens))
        elif happens == "bad":
            desk.set(symbol, ago, desk.price(symbol, ago), high=1.0)
        elif happens == "twins":
            desk.bars |= {
                ("S0", day): {**row, "symbol": "S0"} for (name, day), row in desk.bars.items() if name == "S1" and day >= desk.day(5)
            }
        elif happens == "review":
            found = (
                desk.warehouse.read("select symbol, session from data_quality.anomalies order by all").unique(maintain_order=True).rows()
            )
            if found:
                chosen, session = found[int(random.integers(len(found)))]
                newest = desk.warehouse.read("select max(decided_at) as t from data_quality.reviews")["t"].item()
                decided_at = max(desk.now, newest or desk.now) + timedelta(seconds=1)
                review(desk.warehouse, chosen, session, str(random.choice(["release", "confirm"])), decided_at)


class TestProperties:
    @pytest.mark.parametrize("seed", range(2))
    def test_random_histories(self, open_warehouse: Warehouse, calendar: TradingCalendar, seed: int) -> None:
        random = np.random.default_rng(seed)
        warehouse = open_warehouse
        desk = Desk(warehouse, calendar, history=26)
        held: dict[datetime, tuple[pl.DataFrame, pl.DataFrame, date]] = {}
        for _ in range(5):
            random_night(desk, random)
            desk.night()
            assert_up_to_date(desk)  # incremental equals full
            reviewed = warehouse.read("select max(decided_at) as t from data_quality.reviews")["t"].item()
            instant = max(desk.now, reviewed or desk.now)
            held[instant] = desk.table("technical_v1"), desk.training(instant), desk.day(0)
        for instant, (features, known, last) in held.items():
            assert desk.as_of(instant).equals(features), "the table as of then is what it held then"
            assert training(warehouse, calendar, 5, instant, last).equals(known)
        stored = desk.table("technical_v1")
        outcomes = desk.table("labels").filter(pl.col("horizon") == 5)
        instants = stored["known_at"].unique().sort()[6:]  # a label over five sessions needs six
        for instant in [*instants.sample(6, seed=seed), instants[-1]]:
            # No look-ahead: a row known at k comes out the same from what was known as of k.
            rows = stored.filter(pl.col("known_at") == instant)
            assert desk.as_of(instant).join(rows.select("symbol", "session"), on=["symbol", "session"], how="semi").equals(rows)
            ends = outcomes.filter(pl.col("known_at") == instant).select("symbol", "session", "forward_return", "up", "known_at")
            frame = desk.training(instant).select(ends.columns).sort("symbol", "session")
            assert frame.join(ends.select("symbol", "session"), on=["symbol", "session"], how="semi").equals(ends)
