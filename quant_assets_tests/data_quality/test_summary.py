"""What a desk steers by, counted by hand on a few bars."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.summary import Steering, Summary
from quant_assets.market_data.landing import land
from quant_assets.schemas import ANOMALIES, JUDGED_BATCHES, REVIEWS
from quant_assets.warehouse import Warehouse, append_ledger, append_versions
from quant_assets_tests.conftest import SOURCE, Row, bar, delivery

DAYS = [date(2020, 3, day) for day in (2, 3, 4, 5, 6, 9, 10)]
RECORDED = datetime(2026, 1, 1)


class Book:
    """A small warehouse: bars landed by evenings, findings and decisions written as the sentinel and the desk write them."""

    def __init__(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        self.warehouse, self.calendar = warehouse, calendar

    def known(self, session: date, **later: float) -> datetime:
        return self.calendar.known_at(session) + timedelta(**later)

    def evening(self, session: date, *bars: Row) -> None:
        """Land bars as of a session, as the delivery `b<session>`, judged by the run `r<session>`."""
        land(self.warehouse, delivery(bars, batch_id=f"b{session}"), self.calendar, self.known(session), f"r{session}")
        judged = {
            "batch_id": f"b{session}", "landed_at": RECORDED, "source": SOURCE, "bars": len(bars), "first_session": session,
            "last_session": session, "not_judged": None, "run_id": f"r{session}", "recorded_at": RECORDED,
        }  # fmt: skip
        with self.warehouse.transaction() as connection:
            append_ledger(connection, JUDGED_BATCHES, pl.DataFrame([judged], schema=JUDGED_BATCHES.polars_schema))

    def found(self, symbol: str, session: date, severity: str = "critical", **changed: Any) -> None:
        """A finding of the rule `jump` on the version known at the session's evening, unless said otherwise."""
        row = {
            "symbol": symbol, "session": session, "source": SOURCE, "rule": "jump", "detector": "rules", "bar_known_at": self.known(session),
            "score": {"critical": 1.0, "warning": 0.9995, "info": 0.995}[severity], "severity": severity, "detail": "8 sigmas",
            "suggestion": None, "known_at": changed.get("bar_known_at", self.known(session)), "recorded_at": RECORDED,
        }  # fmt: skip
        with self.warehouse.transaction() as connection:
            append_versions(connection, ANOMALIES, pl.DataFrame([{**row, **changed}], schema=ANOMALIES.polars_schema))

    def decided(self, symbol: str, session: date, decision: str, at: datetime, **changed: Any) -> None:
        row = {
            "symbol": symbol, "session": session, "source": SOURCE, "rule": "jump", "decided_at": at, "bar_known_at": self.known(session),
            "decision": decision, "decided_by": "kim", "reason": "looked", "recorded_at": RECORDED,
        }  # fmt: skip
        with self.warehouse.transaction() as connection:
            append_ledger(connection, REVIEWS, pl.DataFrame([{**row, **changed}], schema=REVIEWS.polars_schema))

    def ask(self, figure: Callable[..., Any], as_of: datetime | None = None, source: str = SOURCE, **more: Any) -> Any:
        """One figure of the summary as of an instant, else of an hour after the last evening."""
        with self.warehouse.connect() as connection:
            return figure(Summary(connection, source, as_of or self.known(DAYS[-1], hours=1)), **more)

    def states(self, as_of: datetime | None = None) -> list[tuple[str, date, str, datetime]]:
        """Every finding of warning or worse with its status and the instant of its last change."""
        found = self.ask(Summary.published, as_of, first=DAYS[0], last=DAYS[-1], since=RECORDED, until=RECORDED)
        return list(found.select("symbol", "session", "status", "changed_at").sort("symbol", "session").iter_rows())


def seven_evenings(folder: Path, empty_database: Path, calendar: TradingCalendar) -> Path:
    """The file of a warehouse with seven evenings of two symbols, one delivery each."""
    path = Path(shutil.copy(empty_database, folder))
    with duckdb.connect(path):
        book = Book(Warehouse(path, SOURCE), calendar)
        for number, day in enumerate(DAYS):
            book.evening(day, bar("AAA", day, 100 + number), bar("BBB", day, 50 + number))
    return path


@pytest.fixture(scope="module")
def evenings(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, calendar: TradingCalendar) -> Path:
    return seven_evenings(tmp_path_factory.mktemp("evenings"), empty_database, calendar)


@pytest.fixture
def book(tmp_path: Path, evenings: Path, calendar: TradingCalendar) -> Iterator[Book]:
    path = Path(shutil.copy(evenings, tmp_path))
    with duckdb.connect(path):
        yield Book(Warehouse(path, SOURCE), calendar)


def symbols(frame: pl.DataFrame) -> list[tuple[str, date]]:
    return list(frame.select("symbol", "session").iter_rows())


class TestRegression:
    def test_counts_have_every_session_and_every_severity(self, book: Book) -> None:
        book.found("AAA", DAYS[1])
        book.found("BBB", DAYS[1])
        book.found("BBB", DAYS[1], "info", rule="volume")
        book.found("BBB", DAYS[3], "warning")
        assert book.ask(Summary.counts, sessions=4, until=DAYS[4]).rows() == [
            (DAYS[1], "jump", "critical", 2),
            (DAYS[1], "volume", "info", 1),
            (DAYS[2], None, None, 0),
            (DAYS[3], "jump", "warning", 1),
            (DAYS[4], None, None, 0),
        ]

    def test_the_state_of_a_finding_is_that_of_the_instant(self, book: Book) -> None:
        book.found("AAA", DAYS[0])
        book.found("BBB", DAYS[0])
        released, confirmed = book.known(DAYS[0], hours=2), book.known(DAYS[1], hours=3)
        book.decided("AAA", DAYS[0], "release", released)
        book.decided("AAA", DAYS[0], "confirm", confirmed)
        book.evening(DAYS[2], bar("BBB", DAYS[0], 51))  # a corrected version, known from that evening
        (corrected,) = book.warehouse.read("select max(known_at) from market_data.daily_bars where session = $day", {"day": DAYS[0]}).row(0)
        assert corrected >= book.known(DAYS[2])
        found = book.known(DAYS[0])
        assert book.states(found) == [("AAA", DAYS[0], "open", found), ("BBB", DAYS[0], "open", found)]
        assert book.states(released)[0] == ("AAA", DAYS[0], "released", released)
        assert book.states(confirmed)[0] == ("AAA", DAYS[0], "confirmed", confirmed)
        assert book.states()[1] == ("BBB", DAYS[0], "superseded", corrected)

    def test_the_worst_are_open_current_and_told_once_per_symbol_and_rule_before_any_repeats(self, book: Book) -> None:
        for day in DAYS[:5]:
            book.found("AAA", day)
        book.found("BBB", DAYS[0])
        book.found("BBB", DAYS[1], "warning")
        book.found("BBB", DAYS[2], "info")
        book.decided("AAA", DAYS[4], "confirm", book.known(DAYS[4], hours=1))
        book.evening(DAYS[5], bar("AAA", DAYS[2], 77))
        wanted = [("AAA", DAYS[3]), ("BBB", DAYS[0]), ("AAA", DAYS[1]), ("AAA", DAYS[0]), ("BBB", DAYS[1])]
        assert symbols(book.ask(Summary.worst)) == wanted
        assert symbols(book.ask(Summary.worst, count=2)) == wanted[:2]
        assert symbols(book.ask(Summary.worst, book.known(DAYS[0]))) == [("AAA", DAYS[0]), ("BBB", DAYS[0])]

    def test_the_bars_around_one(self, book: Book) -> None:
        marked = pl.DataFrame({"symbol": ["AAA", "BBB"], "session": [DAYS[3], date(2020, 3, 7)]})
        found = book.ask(Summary.around, marked=marked, reach=2)
        assert found.filter(pl.col("symbol") == "AAA").select("marked", "session", "close").rows() == [
            (DAYS[3], DAYS[number], 100.0 + number) for number in range(1, 6)
        ]
        # A Saturday without a bar: the two before and the two after it.
        assert found.filter(pl.col("symbol") == "BBB")["session"].to_list() == DAYS[3:7]
        early = book.ask(Summary.around, book.known(DAYS[3]), marked=marked, reach=2)
        assert early.filter(pl.col("symbol") == "AAA")["session"].to_list() == DAYS[1:4]

    def test_deliveries_count_the_findings_on_their_bars(self, book: Book) -> None:
        book.found("AAA", DAYS[5])
        book.found("AAA", DAYS[5], "warning", detector="later", known_at=book.known(DAYS[6]))
        book.found("BBB", DAYS[6], "info")
        newest, before = book.ask(Summary.deliveries, count=2).rows(named=True)
        assert (newest["batch_id"], newest["bars"], newest["critical"], newest["warning"], newest["info"]) == (f"b{DAYS[6]}", 2, 0, 0, 1)
        assert (before["batch_id"], before["bars"], before["critical"], before["warning"], before["info"]) == (f"b{DAYS[5]}", 2, 1, 1, 0)
        assert (before["source"], before["first_session"], before["last_session"]) == (SOURCE, DAYS[5], DAYS[5])
        assert before["requested_at"] is not None

    def test_steering_by_hand(self, book: Book) -> None:
        for number, (decision, hours) in enumerate((("release", 12), ("release", 24), ("confirm", 48), ("release", 96))):
            book.found("AAA", DAYS[number])
            book.found("AAA", DAYS[number], detector="isolation_forest")  # decided with the first: one version, one rule
            book.decided("AAA", DAYS[number], decision, book.known(DAYS[number], hours=hours))
        book.decided("AAA", DAYS[0], "confirm", book.known(DAYS[0], hours=90))  # another opinion: later, and it stands
        book.found("BBB", DAYS[4])
        book.found("BBB", DAYS[5], "warning")
        figures = book.ask(Summary.steering)
        assert (figures.open_critical, figures.open_warning) == (1, 1)
        assert (figures.deliveries, figures.anomalies_per_delivery) == (7, pytest.approx(10 / 7))
        assert figures.anomalies_per_1000_bars == pytest.approx(10_000 / 14)
        assert (figures.decided, figures.released, figures.false_alarm_share) == (4, 2, 0.5)
        assert (figures.days_to_resolution_median, figures.days_to_resolution_p90) == (1.5, pytest.approx(2 + 0.7 * 2))
        assert (figures.false_alarm_low, figures.false_alarm_high) == (pytest.approx(0.15004, abs=1e-5), pytest.approx(0.84996, abs=1e-5))

    def test_each_rule_has_its_share_of_false_alarms(self, book: Book) -> None:
        book.found("AAA", DAYS[0])
        book.found("AAA", DAYS[1])
        book.found("AAA", DAYS[0], "warning", rule="volume")
        book.decided("AAA", DAYS[0], "release", book.known(DAYS[1]))
        jump, volume = book.ask(Summary.by_rule).rows(named=True)
        assert [jump[name] for name in ("rule", "critical", "open", "decided", "released")] == ["jump", 2, 1, 1, 1]
        assert (jump["false_alarm_share"], jump["false_alarm_high"]) == (1.0, 1.0)
        assert jump["false_alarm_low"] == pytest.approx(0.20655, abs=1e-5)
        assert [volume[name] for name in ("rule", "warning", "open", "decided", "false_alarm_share")] == ["volume", 1, 1, 0, None]

    def test_an_empty_warehouse_has_nothing_to_steer_by(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        book = Book(open_warehouse, calendar)
        assert book.ask(Summary.steering) == Steering(0, 0, 0, None, None, 0, 0, None, None, None, None, None)
        assert book.ask(Summary.changed_at) is None
        for figure in (Summary.counts, Summary.worst, Summary.deliveries, Summary.by_rule):
            assert book.ask(figure).is_empty()

    def test_a_missing_session_belongs_to_the_delivery_of_the_bar_that_showed_it(self, book: Book) -> None:
        book.evening(DAYS[0], bar("CCC", DAYS[0]))
        book.evening(DAYS[2], bar("CCC", DAYS[2]))
        (seen,) = book.warehouse.read("select known_at from market_data.daily_bars where symbol = 'CCC' order by session desc limit 1").row(
            0
        )
        book.found("CCC", DAYS[1], rule="missing_session", bar_known_at=seen)
        (worst,) = book.ask(Summary.worst).rows(named=True)
        assert (worst["symbol"], worst["batch_id"], worst["status"]) == ("CCC", f"b{DAYS[2]}", "open")
        book.evening(DAYS[4], bar("CCC", DAYS[1]))  # it comes after all
        assert book.states()[0][2] == "superseded"


class TestProperties:
    def test_another_source_has_its_own_figures(self, book: Book) -> None:
        book.found("AAA", DAYS[0])
        assert book.ask(Summary.worst, source="yahoo").is_empty()
        assert book.ask(Summary.steering, source="yahoo").open_critical == 0

    def test_what_comes_later_changes_nothing_that_was_read_as_of_before(self, book: Book) -> None:
        book.found("AAA", DAYS[0])
        instant = book.known(DAYS[1])
        figures = (Summary.steering, Summary.counts, Summary.worst, Summary.by_rule, Summary.changed_at)
        before = [book.ask(figure, instant) for figure in figures]
        book.decided("AAA", DAYS[0], "release", book.known(DAYS[1], microseconds=1))
        book.found("BBB", DAYS[0], known_at=book.known(DAYS[1], microseconds=1))
        book.evening(DAYS[3], bar("AAA", DAYS[0], 99))
        for old, figure in zip(before, figures, strict=True):
            new = book.ask(figure, instant)
            assert new.equals(old) if isinstance(new, pl.DataFrame) else new == old
