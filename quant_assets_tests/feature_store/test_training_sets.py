"""The door for models: what was known at an instant, the same for ever, and clear words for what cannot be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import duckdb
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.errors import FeaturesUnavailable
from quant_assets.feature_store.fingerprints import fingerprint
from quant_assets.feature_store.inputs import adjusted_bars
from quant_assets.feature_store.labels import labels
from quant_assets.feature_store.training_sets import TrainingSet, features_as_of, training_set
from quant_assets.feature_store.views import definition_hash, features_of
from quant_assets.lookahead import described, differences
from quant_assets.warehouse import Warehouse
from quant_assets_tests.conftest import FIRST, SOURCE
from quant_assets_tests.feature_store.market import Market, built_market

VIEWS = ("technical_v1", "alpha_v1")
HISTORY = 270


@pytest.fixture
def market(tmp_path_factory: pytest.TempPathFactory, warehouse: Warehouse, calendar: TradingCalendar) -> Iterator[Market]:
    market = built_market(tmp_path_factory.getbasetemp(), warehouse, calendar, history=HISTORY)
    with duckdb.connect(warehouse.path):
        yield market


@dataclass(frozen=True)
class Asked:
    """Arguments of a training set, and what was given for them."""

    view: str
    universe: tuple[str, ...] | None
    sessions: tuple[date, date]
    horizon: int
    as_of: datetime

    def of(self, market: Market) -> TrainingSet:
        return training_set(market.warehouse, market.calendar, self.view, self.universe, self.sessions, self.horizon, self.as_of)


def asked(market: Market, view: str = "technical_v1", horizon: int = 5, universe: Sequence[str] | None = None, ago: int = 0) -> Asked:
    """All sessions so far, as of now; or without the newest of them."""
    symbols = None if universe is None else tuple(universe)
    return Asked(view, symbols, (FIRST, market.sessions[market.tonight - ago]), horizon, market.now)


def stored_value(market: Market, value: float) -> None:
    """Write another value straight into a stored row, by which one sees who reads it."""
    with market.warehouse.transaction() as connection:
        connection.execute(
            "update feature_store.technical_v1 set rsi_14 = ? where symbol = 'S0' and session = ?", [value, market.sessions[200]]
        )


def value_in(rows: pl.DataFrame, market: Market) -> float:
    return float(rows.filter(symbol="S0", session=market.sessions[200])["rsi_14"].item())


class TestRegression:
    def test_one_row_by_hand(self, market: Market) -> None:
        found = asked(market, horizon=5).of(market)
        session, later = market.sessions[100], market.sessions[105]
        row = found.frame.filter(symbol="S0", session=session).row(0, named=True)
        closes = adjusted(market, market.now).filter(symbol="S0")
        before, after = (closes.filter(session=day)["adj_close"].item() for day in (session, later))
        assert row["forward_return"] == pytest.approx(after / before - 1, rel=1e-14)
        assert row["up"] == (after > before)
        assert row["known_at"] == market.calendar.known_at(later)
        assert row["weight"] == pytest.approx(1 / 5)  # S0 has a bar in every session: five labels span each
        stored = market.warehouse.read(
            "select * from feature_store.technical_v1 where symbol = 'S0' and session = $session", {"session": session}
        ).row(0, named=True)
        names = [feature.name for feature in features_of("technical_v1")]
        assert {name: row[name] for name in names} == {name: stored[name] for name in names}
        assert found.frame.columns == ["symbol", "session", *names, "forward_return", "up", "weight", "known_at"]
        assert (found.view, found.horizon, found.as_of, found.definition_hash) == (
            "technical_v1",
            5,
            market.now,
            definition_hash("technical_v1"),
        )

    def test_the_fingerprint_is_of_the_frame_and_its_definition(self, market: Market) -> None:
        found = asked(market).of(market)
        assert found.fingerprint == fingerprint(found.frame, view=found.view, definition=found.definition_hash, horizon=5)
        assert asked(market, horizon=4).of(market).fingerprint != found.fingerprint
        assert asked(market, ago=30).of(market).fingerprint != found.fingerprint

    def test_the_first_labels_share_less(self, market: Market) -> None:
        weights = asked(market, horizon=5, universe=["S0"]).of(market).frame["weight"]
        assert weights[0] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)
        assert weights[4:-4].to_list() == pytest.approx([1 / 5] * (len(weights) - 8))
        assert asked(market, horizon=1).of(market).frame["weight"].unique().to_list() == [1.0]

    @pytest.mark.parametrize("horizon", [1, 3, 5, 20, 60])
    def test_outcomes_are_the_labels_of_any_horizon(self, market: Market, horizon: int) -> None:
        """Those of 3 and 60 sessions are in no table."""
        expected = labels(adjusted(market, market.now), market.calendar.frame(FIRST, market.sessions[market.tonight]), [horizon]).drop(
            "horizon"
        )
        asking = asked(market, horizon=horizon)
        for restated in (False, True):  # from the tables, and computed again
            if restated:
                market.restate(sessions_ago=30)
                market.refresh()
            assert asking.of(market).frame.select(expected.columns).sort("symbol", "session").equals(expected)

    def test_the_tables_are_read_where_they_hold_what_was_known(self, market: Market) -> None:
        then = asked(market)
        honest = value_in(then.of(market).frame, market)
        stored_value(market, 1e6)
        assert value_in(then.of(market).frame, market) == 1e6
        market.next_session()  # after what is asked about: the bars to compute from would be the same
        market.refresh()
        assert value_in(replace(then, sessions=(FIRST, market.sessions[210])).of(market).frame, market) == 1e6
        market.restate(sessions_ago=150)
        market.refresh()
        assert value_in(then.of(market).frame, market) == honest

    @pytest.mark.parametrize("view", VIEWS)
    def test_what_no_table_has_seen_yet_counts(self, market: Market, view: str) -> None:
        """Bars landed, were held, or left the scope, and the night died before the features."""

        def leave() -> None:
            market.set_scope({"S0": (FIRST, None), "S2": (FIRST, market.sessions[150])})

        for event in (market.next_session, market.hold) if view == "technical_v1" else (leave,):
            event()
            before = asked(market, view).of(market)
            market.refresh()
            after = asked(market, view).of(market)
            assert before.frame.height == after.frame.height > 0
            assert before.fingerprint == after.fingerprint, event.__name__

    def test_a_warehouse_whose_tables_were_never_built_is_computed(self, market: Market) -> None:
        built = asked(market).of(market)
        with market.warehouse.transaction() as connection:
            connection.execute(
                "delete from feature_store.view_builds; delete from feature_store.technical_v1; delete from feature_store.labels"
            )
        assert asked(market).of(market).fingerprint == built.fingerprint

    def test_who_left_stays_and_who_came_later_is_no_part_of_the_time_before(self, market: Market) -> None:
        left, came = market.sessions[100], market.sessions[150]
        market.set_scope({"S0": (FIRST, None), "S1": (FIRST, left), "S2": (came, None)})
        market.refresh()
        for view in VIEWS:
            sessions = (
                asked(market, view).of(market).frame.group_by("symbol").agg(first=pl.col("session").min(), last=pl.col("session").max())
            )
            spans = {symbol: (first, last) for symbol, first, last in sessions.iter_rows()}
            assert spans["S1"] == (FIRST, left)
            assert spans["S2"][0] >= came
            assert spans["S0"] == (FIRST, market.sessions[HISTORY - 6])

    def test_a_universe_by_name_is_that_whatever_the_scope(self, market: Market) -> None:
        everyone = {view: asked(market, view).of(market).frame for view in VIEWS}
        for view in VIEWS:
            one = asked(market, view, universe=["S1", "S1"]).of(market).frame
            offending = differences(everyone[view].filter(symbol="S1"), one)
            assert offending.is_empty(), described(offending)
        market.set_scope({"S0": (FIRST, None)})
        market.refresh()
        assert asked(market).of(market).frame["symbol"].unique().to_list() == ["S0"]
        named = asked(market, universe=["S1"]).of(market).frame
        assert differences(everyone["technical_v1"].filter(symbol="S1"), named).is_empty()

    def test_sessions_without_bars_are_refused_and_those_without_outcomes_give_no_rows(self, market: Market) -> None:
        later = market.sessions[market.tonight + 1]
        with pytest.raises(FeaturesUnavailable, match=rf"No bar lies in {later} to {later}: files was known from {FIRST} to "):
            training_set(market.warehouse, market.calendar, "alpha_v1", None, (later, later), 5, market.now)
        tonight = market.sessions[market.tonight]
        frame = training_set(market.warehouse, market.calendar, "alpha_v1", None, (tonight, tonight), 5, market.now).frame
        assert frame.is_empty()
        assert dict(frame.schema) == dict(asked(market, "alpha_v1").of(market).frame.schema)

    def test_a_universe_that_is_first_known_later_leaves_the_set_as_it_was(self, market: Market) -> None:
        asking = asked(market, "alpha_v1")
        before = asking.of(market)
        market.set_scope({"S0": (market.sessions[200], None)})
        market.refresh()
        assert asking.of(market).fingerprint == before.fingerprint
        assert market.stored("alpha_v1").equals(market.recomputed("alpha_v1"))

    @pytest.mark.parametrize(
        ("argument", "value", "message"),
        [
            ("as_of", date(2021, 1, 4), "as_of is datetime.date"),
            ("as_of", "2021-01-04", "as_of is '2021-01-04'; give an instant"),
            ("sessions", ("2020-01-02", "2021-01-04"), "give two dates"),
            ("sessions", (datetime(2020, 1, 2), datetime(2021, 1, 4)), "give two dates"),
            ("horizon", 2.5, "A horizon of 2.5 is no number of sessions"),
            ("universe", "S0", "The universe is 'S0'; give a list"),
            ("universe", [1], r"The universe is \[1\]; give a list"),
        ],
    )
    def test_an_argument_of_the_wrong_kind_is_named(self, market: Market, argument: str, value: object, message: str) -> None:
        with pytest.raises(FeaturesUnavailable, match=message):
            replace(asked(market), **{argument: value}).of(market)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"view": "technical_v2"}, "no feature view 'technical_v2'; there are technical_v1, alpha_v1"),
            ({"universe": ("S1", "S7", "T9")}, r"2 of 3 symbols have no bars known as of .*: S7, T9\. There are 3 symbols, such as S"),
            ({"universe": ()}, "universe is empty; name symbols, or give None"),
            (
                {"sessions": (date(2020, 6, 2), date(2020, 6, 1))},
                "first session 2020-06-02 lies after the last one 2020-06-01; give them in order",
            ),
            ({"horizon": 0}, "horizon of 0 sessions looks at nothing; give at least 1"),
            ({"horizon": -5}, "horizon of -5 sessions looks at nothing"),
            (
                {"horizon": HISTORY},
                "horizon of 270 sessions is longer than the history known as of .*: 270 sessions from 2020-01-02 to 2021-01-27",
            ),
            (
                {"as_of": datetime(2019, 12, 31)},
                "Nothing was known as of 2019-12-31 .*first bar of files was known at 2020-01-02 21:30:00 UTC",
            ),
            (
                {"as_of": datetime(2020, 12, 1, tzinfo=UTC)},
                "carries an offset; instants are in UTC and carry none: give 2020-12-01 00:00:00",
            ),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_what_cannot_be_given_is_refused_by_name(self, market: Market, changed: dict[str, object], message: str) -> None:
        with pytest.raises(FeaturesUnavailable, match=message):
            replace(asked(market), **changed).of(market)  # type: ignore[arg-type]

    def test_a_symbol_that_was_not_known_yet_is_refused(self, market: Market) -> None:
        first = market.warehouse.read("select min(known_at) from market_data.daily_bars where symbol = 'S2'").item()
        with pytest.raises(FeaturesUnavailable, match=r"1 of 1 symbols have no bars known as of .*: S9"):
            replace(asked(market), universe=("S9",), as_of=first + timedelta(days=9), sessions=(FIRST, FIRST)).of(market)

    def test_an_empty_warehouse_is_told_so(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        with pytest.raises(FeaturesUnavailable, match=r"no bar of files is stored at all\. Give a later as_of, or load history first"):
            training_set(open_warehouse, calendar, "alpha_v1", None, (FIRST, FIRST), 1, datetime(2024, 1, 2))

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (("XKRX", FIRST), r"calendar XKRX does not match the bars of files: \d+ of 270 sessions .*2020-01-24.*Set QUANT_CALENDAR"),
            (
                ("XNYS", date(2020, 6, 1)),
                "calendar XNYS does not match .* are none of its sessions, such as 2020-01-02, 2020-01-03, 2020-01-06.* QUANT_START",
            ),
            (
                ("24/7", FIRST),
                r"calendar 24/7 does not match the bars of files: \d+ of its \d+ sessions have no bar of any symbol, such as 2020-01-04",
            ),
            (("XNYS", FIRST, 30, (date(2020, 7, 3),)), r"feature_store.labels was built with definition \w{12}, .* \(calendar XNYS\)"),
            (("XNYS", FIRST, 60), r"feature_store.labels was built with definition \w{12}, the code now defines \w{12}"),
        ],
        ids=["Seoul", "starts late", "every day", "special session", "delay"],
    )
    def test_a_calendar_that_does_not_match_is_refused(self, market: Market, other: tuple[object, ...], message: str) -> None:
        asking = asked(market)
        market.restate()
        market.calendar = trading_calendar(*other)  # type: ignore[arg-type]
        for each in (asking, asked(market)):  # computed from what was known then, or read but for what is new
            with pytest.raises(FeaturesUnavailable, match=message):
                each.of(market)

    @pytest.mark.parametrize("table", ["technical_v1", "alpha_history_v1", "alpha_market_v1", "market_v1", "labels"])
    def test_a_table_built_with_another_definition_is_refused(self, market: Market, table: str) -> None:
        with market.warehouse.transaction() as connection:
            connection.execute("update feature_store.view_builds set definition_hash = '0123456789abcdef' where view = ?", [table])
        message = f"feature_store.{table} was built with definition 0123456789ab, the code now defines .* run the nightly job"
        with pytest.raises(FeaturesUnavailable, match=message):
            asked(market, "alpha_v1").of(market)
        if table in ("technical_v1", "labels"):
            with pytest.raises(FeaturesUnavailable, match=message):
                asked(market).of(market)
        else:
            assert asked(market).of(market).frame.height


def adjusted(market: Market, as_of: datetime) -> pl.DataFrame:
    with market.warehouse.connect() as connection:
        return adjusted_bars(connection, SOURCE, as_of=as_of)


class TestProperties:
    @pytest.mark.parametrize("view", ["technical_v1", pytest.param("alpha_v1", marks=pytest.mark.drill)])
    def test_the_same_arguments_give_the_same_set_for_ever(self, market: Market, view: str) -> None:
        """Through restatements, holds, releases, late splits, a changed scope and a year of sessions."""
        asking = [asked(market, view, horizon) for horizon in ((1, 20, 3) if view == "technical_v1" else (3,))]
        asking += [asked(market, view, universe=["S1", "S2"], ago=20)]
        given = {each: each.of(market) for each in asking}
        scope = {"S0": (FIRST, None), "S1": (FIRST, market.sessions[150])}
        events: list[Callable[[], object]] = [
            market.hold, market.release, market.restate, market.split_told_late, lambda: market.set_scope(scope),
            lambda: market.next_session(250),
        ]  # fmt: skip
        for event in events if view == "technical_v1" else (events[0], *events[-2:]):
            now = asked(market, view)
            given[now] = now.of(market)
            event()
            market.refresh()
            assert now.of(market).fingerprint == given[now].fingerprint  # by itself, for the next may hide that it was not seen
        given[asked(market, view)] = asked(market, view).of(market)
        for each, found in given.items():
            again = each.of(market)
            assert again.fingerprint == found.fingerprint, f"{each}: {described(differences(found.frame, again.frame))}"
            assert again.frame.equals(found.frame)
        assert len({found.fingerprint for found in given.values()}) == len(given)  # each event changed what is known

    @pytest.mark.parametrize("view", VIEWS)
    def test_what_is_read_is_what_is_computed(self, market: Market, view: str) -> None:
        for event in (market.restate, market.hold, market.split_told_late, market.change_scope):
            event()
        market.refresh()
        read, computed = (
            features_as_of(market.warehouse, market.calendar, view, market.now, FIRST, market.sessions[market.tonight], recompute=again)
            for again in (False, True)
        )
        offending = differences(read, computed)
        assert offending.is_empty(), described(offending)
        assert read.height

    @pytest.mark.parametrize("view", VIEWS)
    def test_nothing_in_it_was_known_later(self, market: Market, view: str) -> None:
        for number, horizon in enumerate((1, 5, 20, 7) if view == "technical_v1" else (5, 20)):
            if number == 1:
                market.restate()
            newest = market.sessions[200 + number * 20]
            as_of = market.calendar.known_at(newest)
            frame = replace(asked(market, view, horizon), as_of=as_of).of(market).frame
            assert frame["known_at"].max() == as_of
            places = frame.join(market.calendar.frame(FIRST, newest), on="session")["ordinal"]
            assert places.max() == market.calendar.sessions.index(newest) - horizon
            assert frame.null_count().select("forward_return", "up", "weight", "known_at").sum_horizontal().item() == 0
            assert frame.equals(frame.unique(["symbol", "session"]).sort("session", "symbol"))
