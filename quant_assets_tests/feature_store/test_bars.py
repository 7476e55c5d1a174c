"""Weekly and monthly bars: the adjustment in SQL is that of `forward_adjusted`, and both are what a holder got, share by share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.dbt import build
from quant_assets.schemas import ANOMALIES, CORPORATE_ACTIONS, DAILY_BARS, REVIEWS, Table
from quant_assets_tests import nights
from quant_assets_tests.nights import CALENDAR, EVENING

SOURCE = "synthetic"
COMPILED = Path("dbt") / "compiled" / "dbt_features"
FEATURE_TABLES = ("technical_v1", "alpha_history_v1", "alpha_market_v1", "market_v1", "labels")
TESTS = ("models/bars/bars.yml/period_bars_grain", "tests/period_bars_prices_in_order", "tests/period_bars_hold_every_clean_bar")
NEXT_SESSION = "2025-03-17"  # after EVENING, a Friday
WEEK = [date(2025, 3, day) for day in (3, 4, 5, 6, 7)]
ADJUSTED = ["adj_open", "adj_high", "adj_low", "adj_close", "adj_volume", "price_factor", "share_factor"]

Rows = Sequence[Mapping[str, object]]


def known(session: date) -> datetime:
    return datetime(session.year, session.month, session.day, 21, 30)


def bar(symbol: str, session: date, close: float, **changed: object) -> dict[str, object]:
    values = {
        "open": close,
        "high": close + 1,
        "low": close - 1,
        "close": close,
        "volume": 600.0,
        "basis": "raw",
        "known_at": known(session),
    }
    return {"symbol": symbol, "session": session, **values, **changed}


def action(symbol: str, session: date, kind: str, value: float, **changed: object) -> dict[str, object]:
    return {"symbol": symbol, "session": session, "kind": kind, "value": value, "known_at": known(session), **changed}


@dataclass
class Models:
    """The models' own SQL, as dbt compiled it, over bars and actions of one's choice."""

    connection: duckdb.DuckDBPyConnection
    folder: Path

    def fill(self, bars: Rows, actions: Rows = ()) -> None:
        for table, rows in ((DAILY_BARS, bars), (CORPORATE_ACTIONS, actions), (ANOMALIES, []), (REVIEWS, [])):
            self.connection.execute(f"delete from {table.full_name}")
            self.add(table, rows)

    def add(self, table: Table, rows: Rows) -> None:
        """Insert rows; what they leave out is filled with something of the column's type."""
        filled = {"source": SOURCE, "batch_id": "b", "recorded_at": datetime(2030, 1, 1), "known_at_basis": "assumed", "adj_close": None}
        frame = pl.DataFrame([filled | dict(row) for row in rows], schema=table.polars_schema)
        self.connection.register("rows", frame)
        self.connection.execute(f"insert into {table.full_name} by name select * from rows")
        self.connection.unregister("rows")

    def adjusted(self) -> pl.DataFrame:
        frame: pl.DataFrame = self.connection.sql("select * from feature_store.stg_adjusted_bars order by symbol, session").pl()
        return frame

    def build(self, next_session: str = NEXT_SESSION) -> None:
        """Build the weeks and months anew, as of the evening before a session of the exchange."""
        sql = (self.folder / "models" / "bars" / "period_bars.sql").read_text()
        assert NEXT_SESSION in sql
        self.connection.execute("create or replace table feature_store.period_bars as " + sql.replace(NEXT_SESSION, next_session))

    def periods(self, period: str) -> pl.DataFrame:
        """Weekly or monthly bars as they were last built."""
        frame: pl.DataFrame = self.connection.sql(f"select * from feature_store.{period}ly_bars order by symbol, {period}_start").pl()
        return frame

    def offending(self) -> list[int]:
        """How many rows each test finds in the tables as they stand."""
        return [len(self.connection.sql((self.folder / f"{name}.sql").read_text()).fetchall()) for name in TESTS]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """A warehouse in which a night has built the models, its file held open by this process."""
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    copy = nights.copied(home, tmp_path_factory.mktemp("bars") / "home")
    with duckdb.connect(copy / "quant.duckdb") as connection:
        connection.execute("set timezone = 'UTC'")
        yield Models(connection, copy / COMPILED)


def by_hand(bars: Rows, actions: Rows) -> dict[tuple[str, date], tuple[float, float, datetime]]:
    """Oracle: `price_factor`, `share_factor` and `known_at` per bar, walking along the sessions in plain Python.

    Histories in which a dividend is within a thousandth of the previous close are passed over: there no two ways of
    calculating agree to twelve digits.
    """
    found: dict[tuple[str, date], tuple[float, float, datetime]] = {}
    for symbol in {str(row["symbol"]) for row in bars}:
        price, shares, instant, previous = 1.0, 1.0, datetime(1900, 1, 1), None
        own = [row for row in actions if row["symbol"] == symbol]
        for row in sorted((row for row in bars if row["symbol"] == symbol), key=lambda row: str(row["session"])):
            since = previous["session"] if previous else date.min
            due = [one for one in own if since < one["session"] <= row["session"]]
            ratio, taken, kept = 1.0, 0.0, 0.0
            for one in sorted(due, key=lambda one: (one["session"], one["kind"] == "dividend", one["value"])):
                value = float(one["value"])
                instant = max(instant, one["known_at"])
                if previous is None or row["basis"] != "raw" or not (math.isfinite(value) and value > 0):
                    continue
                if one["kind"] == "split":
                    ratio *= value
                elif one["kind"] == "dividend":
                    share = value * ratio / float(previous["close"])
                    taken += share
                    assume(abs(1 - taken) > 1e-3)
                    kept += share if taken < 1 else 0.0
            price, shares = price * ratio / (1 - kept), shares * ratio
            instant = max(instant, row["known_at"])
            found[symbol, row["session"]] = price, shares, instant
            previous = row
    return found


class TestRegression:
    def test_a_split_and_a_dividend_inside_a_week_make_no_jump(self, models: Models) -> None:
        """100 and 102, then two for one (51), then a dividend of 1 a share before the last close of 50."""
        closes = [100.0, 102.0, 51.0, 50.0, 50.0]
        bars = [bar("A", day, close, high=close + 2, low=close - 1) for day, close in zip(WEEK, closes, strict=True)]
        split, dividend = action("A", WEEK[2], "split", 2.0), action("A", WEEK[3], "dividend", 1.0)
        models.fill([*bars, bar("A", date(2025, 3, 10), 50.0)], [split, dividend])
        models.build()
        factor = 2 / (1 - 1 / 51)  # 2.04: the holder of a share of 100 has two, and their dividend reinvested at 50
        week = models.periods("week").row(0, named=True)
        assert week == {
            "symbol": "A", "week_start": date(2025, 3, 3), "last_session": date(2025, 3, 7), "sessions": 5,
            "adj_open": 100.0, "adj_high": pytest.approx(52 * factor), "adj_low": 99.0, "adj_close": pytest.approx(50 * factor),
            "adj_volume": 600 + 600 + 300 * 3, "close": 50.0, "is_complete": True, "known_at": known(date(2025, 3, 7)),
        }  # fmt: skip
        assert factor == pytest.approx(2.04)
        month = models.periods("month").row(0, named=True)
        assert (month["month_start"], month["sessions"], month["adj_close"]) == (date(2025, 3, 1), 6, pytest.approx(50 * factor))

    def test_a_week_across_a_years_end_is_one_week_and_two_months(self, models: Models) -> None:
        days = [date(2024, 12, 30), date(2024, 12, 31), date(2025, 1, 2), date(2025, 1, 3), date(2025, 1, 6)]
        models.fill([bar("A", day, 10.0 + n) for n, day in enumerate(days)])
        models.build()
        weeks, months = models.periods("week"), models.periods("month")
        assert weeks.select("week_start", "sessions", "adj_open", "adj_close").rows() == [
            (date(2024, 12, 30), 4, 10.0, 13.0),
            (date(2025, 1, 6), 1, 14.0, 14.0),
        ]
        assert months.select("month_start", "sessions", "close").rows() == [(date(2024, 12, 1), 2, 11.0), (date(2025, 1, 1), 3, 14.0)]

    @pytest.mark.parametrize(
        ("last", "following", "week", "month"),
        [
            (date(2025, 4, 16), "2025-04-17", False, False),
            (date(2025, 4, 17), "2025-04-21", True, False),  # Good Friday: the week ends on a Thursday
            (date(2025, 5, 30), "2025-06-02", True, True),  # a Friday, and the month's last session
            (date(2025, 12, 31), "2026-01-02", False, True),  # New Year's Day
        ],
    )
    def test_a_period_is_over_when_the_exchange_has_no_session_left_in_it(
        self, models: Models, last: date, following: str, week: bool, month: bool
    ) -> None:
        models.fill([bar("A", last, 10.0), bar("A", last - timedelta(days=70), 10.0), bar("GONE", last - timedelta(days=69), 10.0)])
        models.build(following)
        for period, over in (("week", week), ("month", month)):
            rows = models.periods(period).rows(named=True)
            assert [row["is_complete"] for row in rows if row["symbol"] == "A"] == [True, over]
            assert [row["is_complete"] for row in rows if row["symbol"] == "GONE"] == [True]

    def test_a_missing_volume_leaves_its_week_without_one(self, models: Models) -> None:
        models.fill([bar("A", WEEK[0], 10.0), bar("A", WEEK[1], 10.0, volume=None), bar("A", date(2025, 3, 10), 10.0)])
        models.build()
        assert models.periods("week")["adj_volume"].to_list() == [None, 600.0]

    def test_another_sources_action_is_none_of_ours(self, models: Models) -> None:
        models.fill([bar("A", day, 10.0) for day in WEEK], [action("A", WEEK[2], "split", 2.0, source="yahoo")])
        assert models.adjusted()["price_factor"].to_list() == [1.0] * 5

    def test_a_held_back_bar_is_in_no_week_and_a_release_makes_its_week_known_later(self, models: Models) -> None:
        models.fill([bar("A", day, 10.0) for day in WEEK])
        finding = {
            "symbol": "A", "session": WEEK[4], "source": SOURCE, "rule": "ohlc_order", "detector": "rules", "bar_known_at": known(WEEK[4]),
            "score": 1.0, "severity": "critical", "detail": "", "known_at": known(WEEK[4]),
        }  # fmt: skip
        models.add(ANOMALIES, [{name: value for name, value in finding.items() if name in ANOMALIES.column_names}])
        models.build()
        assert models.periods("week").select("sessions", "last_session").row(0) == (4, WEEK[3])
        released = datetime(2025, 3, 12, 9)
        models.add(REVIEWS, [finding | {"decided_at": released, "decision": "release", "decided_by": "analyst", "reason": "seen"}])
        models.build()
        assert models.periods("week").select("sessions", "known_at").row(0) == (5, released)

    def test_the_tests_find_what_is_wrong(self, models: Models) -> None:
        models.fill([bar(symbol, day, 10.0) for symbol in ("A", "B") for day in WEEK])
        models.build()
        assert models.offending() == [0, 0, 0]
        table = "feature_store.period_bars"
        models.connection.execute(f"insert into {table} select * from {table} where symbol = 'A' and period = 'week'")
        models.connection.execute(f"update {table} set adj_low = adj_open + 1e-6, sessions = sessions + 1 where symbol = 'B'")
        assert models.offending() == [1, 2, 2]
        models.connection.execute(f"delete from {table}")
        assert models.offending() == [0, 0, 4]

    def test_out_of_order_is_no_fault_where_a_person_released_it(self, models: Models) -> None:
        models.fill([bar("A", day, 10.0, low=11.0) for day in WEEK])
        models.build()
        assert models.offending() == [0, 2, 0]
        decision = {"rule": "ohlc_order", "decided_at": known(EVENING), "bar_known_at": known(EVENING), "decision": "release"}
        models.add(REVIEWS, [{"symbol": "A", "session": WEEK[1], "decided_by": "analyst", "reason": "seen", **decision}])
        assert models.offending() == [0, 0, 0]

    def test_the_build_tells_which_periods_are_over(self, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
        """The evening is a Friday in March; without Friday's bars it is a Thursday."""
        home, _ = nights.finished(tmp_path_factory.getbasetemp())
        sql = "select bool_and(is_complete) as over from feature_store.{} where last_session = (select max(last_session) from feature_store.{})"
        with nights.desk(nights.copied(home, tmp_path / "home")) as desk:
            over = [desk.read(sql.format(name, name))["over"].item() for name in ("weekly_bars", "monthly_bars")]
            assert over == [True, False]
            tables = ["market_data.daily_bars", *(f"feature_store.{name}" for name in FEATURE_TABLES)]
            for table in tables:
                desk.change(f"delete from {table} where session = ?", EVENING)
            assert all(outcome.passed for outcome in build(desk.warehouse, CALENDAR))
            assert desk.read(sql.format("weekly_bars", "weekly_bars"))["over"].to_list() == [False]
            for table in tables:
                desk.change(f"delete from {table}")
            assert all(outcome.passed for outcome in build(desk.warehouse, CALENDAR))
            assert desk.read("select * from feature_store.weekly_bars").is_empty()


FIRST_DAY = date(2024, 12, 23)
SYMBOLS = ("AAA", "O'NEIL", 'Ä "x", y')


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Bars with gaps and mixed bases, known in any order, and actions on any day, usable or not, several on one bar."""
    days = [FIRST_DAY + timedelta(days=n) for n in range(24)]
    late = st.sampled_from([timedelta(0), timedelta(0), timedelta(days=3), timedelta(days=40)])
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), min_size=1, unique=True))
    bars, actions = [], []
    for symbol in symbols:
        for day in sorted(draw(st.sets(st.sampled_from(days), min_size=1))):
            close = draw(st.floats(5, 200))
            values = {
                "open": close * draw(st.floats(0.9, 1.1)),
                "volume": draw(st.sampled_from([600.0, 0.0, None])),
                "low": 4.0,
                "high": 300.0,
            }
            basis = draw(st.sampled_from(["raw", "raw", "raw", "restated"]))
            bars.append(bar(symbol, day, close, **values, basis=basis, known_at=known(day) + draw(late)))
        keys = st.tuples(st.sampled_from(days), st.sampled_from(["split", "dividend", "dividend", "merger"]))
        for day, kind in sorted(draw(st.sets(keys, max_size=10))):
            splits, dividends = [2.0, 0.1, 1.5, 3.0, 0.0, -1.0, math.nan, math.inf], [0.01, 0.5, 1.0, 3.7, 500.0, 0.0, -1.0, math.nan]
            value = draw(st.sampled_from(splits if kind == "split" else dividends))
            actions.append(action(symbol, day, kind, value, known_at=known(day) + draw(late)))
    return bars, actions


class TestProperties:
    @given(history=histories())
    @settings(max_examples=60, deadline=None)
    def test_sql_python_and_a_walk_by_hand_agree(
        self, models: Models, history: tuple[list[dict[str, object]], list[dict[str, object]]]
    ) -> None:
        bars, actions = history
        expected = by_hand(bars, actions)
        models.fill(bars, actions)
        found = models.adjusted()
        for row in found.rows(named=True):
            price, shares, _ = expected[row["symbol"], row["session"]]
            assert (row["price_factor"], row["share_factor"]) == (pytest.approx(price, rel=1e-12), pytest.approx(shares, rel=1e-12))
        assert {(row["symbol"], row["session"]): row["known_at"] for row in found.rows(named=True)} == {
            key: instant for key, (_, _, instant) in expected.items()
        }
        raw = pl.DataFrame(bars, schema={name: DAILY_BARS.polars_schema[name] for name in bars[0]})
        theirs = pl.DataFrame(actions, schema={name: CORPORATE_ACTIONS.polars_schema[name] for name in action("", date.min, "", 0.0)})
        python = forward_adjusted(raw, theirs)
        assert found.select("symbol", "session").equals(python.select("symbol", "session"))
        gaps = [((found[name] - python[name]).abs() / python[name].abs().clip(lower_bound=1e-300)).max() or 0.0 for name in ADJUSTED]
        assert max(gaps) <= 1e-12
        assert found["adj_volume"].is_null().equals(python["adj_volume"].is_null())

    @given(history=histories())
    @settings(max_examples=30, deadline=None)
    def test_periods_are_their_days(self, models: Models, history: tuple[list[dict[str, object]], list[dict[str, object]]]) -> None:
        bars, actions = history
        by_hand(bars, actions)
        models.fill(bars, actions)
        models.build()
        assert models.offending()[::2] == [0, 0]
        daily = models.adjusted().rows(named=True)
        for period in ("week", "month"):
            grouped: dict[tuple[str, date], list[dict[str, object]]] = {}
            for row in daily:
                day = row["session"]
                start = date.fromisocalendar(*day.isocalendar()[:2], 1) if period == "week" else day.replace(day=1)
                grouped.setdefault((row["symbol"], start), []).append(row)
            found = models.periods(period)
            assert [(row["symbol"], row[f"{period}_start"]) for row in found.rows(named=True)] == sorted(grouped, key=lambda key: key)
            for row in found.rows(named=True):
                days = grouped[row["symbol"], row[f"{period}_start"]]
                volumes = [day["adj_volume"] for day in days]
                assert row == row | {
                    "last_session": days[-1]["session"], "sessions": len(days), "adj_open": days[0]["adj_open"],
                    "adj_high": max(day["adj_high"] for day in days),
                    "adj_low": min(day["adj_low"] for day in days),
                    "adj_close": days[-1]["adj_close"], "close": days[-1]["close"], "known_at": days[-1]["known_at"],
                    "adj_volume": None if None in volumes else pytest.approx(sum(volumes)),
                }  # fmt: skip
