"""From a delivery to stored versions: when each row became known, and what was new, changed or refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.errors import SchemaMismatch
from quant_assets.market_data import landing as module
from quant_assets.market_data.landing import Landing, default_as_of, land
from quant_assets.schemas import DAILY_BARS, FETCH_LEDGER, TABLES, Kind
from quant_assets.warehouse import Warehouse, content_hash
from quant_assets_tests.conftest import Row, action, bar, delivery, review

TICK = timedelta(microseconds=1)
D1, D2, D3, D4, D5 = (date(2020, 3, day) for day in (2, 3, 4, 5, 6))
FAULT: Row = {"file": "a.csv", "line": 7, "column_name": "close", "value": "-", "reason": "close is missing"}


@pytest.fixture
def known(calendar: TradingCalendar) -> dict[date, datetime]:
    return {session: calendar.known_at(session) for session in (D1, D2, D3, D4, D5)}


class Desk:
    """A vendor's file that changes from night to night, and the nights that land it."""

    def __init__(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        self.warehouse, self.calendar = warehouse, calendar
        self.bars: dict[tuple[str, date], Row] = {}
        self.actions: list[Row] = []
        self.nights = 0

    def has(self, *bars: Row) -> None:
        self.bars |= {(str(row["symbol"]), row["session"]): row for row in bars}  # type: ignore[misc]

    def land(self, as_of: date | datetime, batch_id: str | None = None) -> Landing:
        self.nights += 1
        instant = as_of if isinstance(as_of, datetime) else self.calendar.known_at(as_of)
        delivered = [row for (_, session), row in self.bars.items() if session <= self.calendar.last_known_session(instant)]
        batch = delivery(delivered, self.actions, rejected=[FAULT], batch_id=batch_id or f"batch {self.nights}")
        return land(self.warehouse, batch, self.calendar, instant, f"run {self.nights}")

    def versions(self, symbol: str = "AAA") -> list[tuple[date, float, datetime, str]]:
        rows = self.warehouse.read(
            "select session, close, known_at, known_at_basis from market_data.daily_bars where symbol = $symbol order by session, known_at",
            {"symbol": symbol},
        )
        return rows.rows()


@pytest.fixture
def desk(open_warehouse: Warehouse, calendar: TradingCalendar) -> Desk:
    return Desk(open_warehouse, calendar)


def hashes(warehouse: Warehouse, ledgers: bool = True) -> dict[str, str]:
    with warehouse.connect() as connection:
        return {name: content_hash(connection, table) for name, table in TABLES.items() if ledgers or table.kind is not Kind.LEDGER}


class TestRegression:
    def test_history_is_assumed_and_tonight_observed(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D1, 10), bar("AAA", D2, 11), bar("BBB", D2, 20))
        landing = desk.land(D2)
        assert (landing.delivered, landing.new, landing.restated, landing.symbols, landing.rejected) == (3, 3, 0, 2, 1)
        assert landing.rows_per_session.rows() == [(D1, 1), (D2, 2)]
        assert desk.versions() == [(D1, 10, known[D1], "assumed"), (D2, 11, known[D2], "observed")]
        instruments = desk.warehouse.read("select symbol, valid_from, valid_to, known_at from market_data.instruments order by symbol")
        assert instruments.rows() == [("AAA", D1, None, known[D1]), ("BBB", D2, None, known[D2])]

    def test_a_changed_value_is_a_new_version_known_when_it_was_seen(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D1, 10), bar("AAA", D2, 11))
        desk.land(D2)
        desk.has(bar("AAA", D1, 9), bar("AAA", D3, 12))
        landing = desk.land(D3)
        assert (landing.new, landing.restated) == (1, 1)
        assert desk.versions() == [
            (D1, 10, known[D1], "assumed"),
            (D1, 9, known[D3], "observed"),
            (D2, 11, known[D2], "observed"),
            (D3, 12, known[D3], "observed"),
        ]

    def test_a_value_that_goes_back_is_a_third_version(self, desk: Desk, known: dict[date, datetime]) -> None:
        for close, night in ((10, D1), (9, D2), (10, D3)):
            desk.has(bar("AAA", D1, close))
            desk.land(night)
        assert desk.versions() == [(D1, 10, known[D1], "observed"), (D1, 9, known[D2], "observed"), (D1, 10, known[D3], "observed")]

    def test_the_vendors_adjusted_close_is_kept_but_makes_no_version(self, desk: Desk) -> None:
        desk.has(bar("AAA", D1, 10, adj_close=5.0))
        desk.land(D1)
        desk.has(bar("AAA", D1, 10, adj_close=4.0))
        assert (desk.land(D2).new, desk.land(D3).restated) == (0, 0)
        assert desk.warehouse.read("select adj_close from market_data.daily_bars")["adj_close"].to_list() == [5.0]

    def test_a_hole_filled_later_is_known_later(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D1), bar("AAA", D3), bar("BBB", D1))
        desk.land(D3)
        desk.has(bar("AAA", D2), bar("BBB", D2), bar("BBB", D3), bar("AAA", D4))  # BBB's last sessions were missing altogether
        desk.land(D4)
        assert [(session, at, basis) for session, _, at, basis in desk.versions()] == [
            (D1, known[D1], "assumed"),
            (D2, known[D4], "observed"),
            (D3, known[D3], "observed"),
            (D4, known[D4], "observed"),
        ]
        assert [at for *_, at, _ in desk.versions("BBB")] == [known[D1], known[D4], known[D4]]

    def test_history_that_reaches_further_back_or_a_new_symbol_is_assumed(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D2), bar("AAA", D3))
        desk.land(D3)
        desk.has(bar("AAA", D1), bar("CCC", D2), bar("CCC", D4))
        desk.land(D4)
        assert desk.versions()[0][2:] == (known[D1], "assumed")
        assert [row[2:] for row in desk.versions("CCC")] == [(known[D2], "assumed"), (known[D4], "observed")]
        instruments = desk.warehouse.read("select valid_from, known_at from market_data.instruments where symbol = 'AAA' order by known_at")
        assert instruments.rows() == [(D2, known[D2]), (D1, known[D4])]

    def test_sessions_missed_by_our_own_nights_are_assumed(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(*(bar("AAA", session) for session in (D1, D2, D3)))
        desk.land(D1)
        desk.land(D3)
        assert [row[2:] for row in desk.versions()] == [(known[D1], "observed"), (known[D2], "assumed"), (known[D3], "observed")]

    def test_changes_of_the_same_evening_come_after_all_that_was_known_that_evening(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D1, 10), bar("AAA", D2, 11))
        desk.land(D2)
        for number in (1, 2):
            desk.has(bar("AAA", D1, 10 + number), bar("AAA", D2, 11 + number))
            desk.land(D2)
        assert desk.versions() == [
            (D1, 10, known[D1], "assumed"),
            (D1, 11, known[D2] + TICK, "observed"),
            (D1, 12, known[D2] + 2 * TICK, "observed"),
            (D2, 11, known[D2], "observed"),
            (D2, 12, known[D2] + TICK, "observed"),
            (D2, 13, known[D2] + 2 * TICK, "observed"),
        ]

    def test_a_change_seen_in_a_run_as_of_the_past_does_not_alter_what_was_known_since(
        self, desk: Desk, known: dict[date, datetime]
    ) -> None:
        desk.has(bar("AAA", D1, 10), bar("AAA", D4, 11))
        desk.land(D4)
        desk.has(bar("AAA", D1, 9), bar("AAA", D2, 8))
        desk.land(D3)
        assert [(session, at) for session, _, at, _ in desk.versions()] == [
            (D1, known[D1]),
            (D1, known[D4] + TICK),
            (D2, known[D4] + TICK),
            (D4, known[D4]),
        ]

    def test_a_change_after_a_review_is_known_after_it(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D1, 10, high=1.0))
        desk.land(D1)
        decided_at = known[D1] + timedelta(hours=1)
        with desk.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into data_quality.anomalies
                select symbol, session, source, 'ohlc_order', 'rules', known_at, 1, 'critical', 'high', null, known_at, known_at from market_data.daily_bars
                """
            )
        review(desk.warehouse, "AAA", D1, "release", decided_at)
        desk.has(bar("AAA", D1, 10))
        desk.land(D1)
        assert [at for *_, at, _ in desk.versions()] == [known[D1], decided_at + TICK]

    def test_a_dated_delivery_that_changes_a_judged_bar_is_known_after_the_judgement(
        self, desk: Desk, known: dict[date, datetime], calendar: TradingCalendar
    ) -> None:
        def arrives(session: date, *bars: Row) -> None:
            sent = replace(delivery(bars, batch_id=str(session)), delivered_at=known[session])
            land(desk.warehouse, sent, calendar, known[session], "run")

        arrives(D1, bar("AAA", D1, 10), bar("BBB", D1, 20))
        decided_at = known[D2] + timedelta(hours=18)  # the next day, before the delivery of D2 has landed
        with desk.warehouse.transaction() as connection:
            connection.execute(
                """
                insert into data_quality.anomalies
                select symbol, session, source, 'ohlc_order', 'rules', known_at, 1, 'critical', 'high', null, known_at, known_at
                from market_data.daily_bars where symbol = 'AAA'
                """
            )
        review(desk.warehouse, "AAA", D1, "release", decided_at)
        arrives(D2, bar("AAA", D1, 11), bar("BBB", D1, 21), bar("AAA", D2, 12), bar("BBB", D2, 22))
        assert [(close, at) for _, close, at, _ in desk.versions("AAA")] == [(10, known[D1]), (11, decided_at + TICK), (12, known[D2])]
        assert [(close, at) for _, close, at, _ in desk.versions("BBB")] == [(20, known[D1]), (21, known[D2]), (22, known[D2])]

    def test_actions_are_versions_too(self, desk: Desk, known: dict[date, datetime]) -> None:
        desk.has(bar("AAA", D1), bar("AAA", D2), bar("AAA", D3))
        desk.actions = [action("AAA", D2, 2.0), action("AAA", D3, 0.5, "dividend")]
        assert desk.land(D3).actions == 2
        desk.has(bar("AAA", D4))
        desk.actions = [action("AAA", D2, 3.0), action("AAA", D3, 0.5, "dividend"), action("AAA", D3, 4.0)]
        assert desk.land(D4).actions == 2
        rows = desk.warehouse.read(
            "select session, kind, value, known_at from market_data.corporate_actions order by session, kind, known_at"
        )
        assert rows.rows() == [
            (D2, "split", 2.0, known[D2]),
            (D2, "split", 3.0, known[D4]),
            (D3, "dividend", 0.5, known[D3]),
            (D3, "split", 4.0, known[D4]),
        ]

    def test_payloads_as_received_before_share_one_ledger_row(self, desk: Desk) -> None:
        desk.has(bar("AAA", D1))
        desk.land(D1, "same")
        desk.land(D1, "same")
        desk.land(D1, "other")
        ledger = desk.warehouse.read("select status, rows, payload_sha256, batch_id, run_id from market_data.fetch_ledger order by run_id")
        assert ledger.rows() == [
            ("landed", 1, "same", "same", "run 1"),
            ("unchanged", 1, None, "same", "run 2"),
            ("landed", 1, "other", "other", "run 3"),
        ]

    def test_an_empty_delivery_lands_its_receipts(self, desk: Desk) -> None:
        landing = desk.land(D1)
        assert (landing.delivered, landing.new, landing.rows_per_session.height) == (0, 0, 0)
        assert desk.warehouse.read("select count(*) from market_data.fetch_ledger").item() == 1

    def test_a_session_outside_the_calendar_is_refused_with_the_table_named(self, desk: Desk) -> None:
        batch = delivery([bar("AAA", date(2020, 3, 1))])
        with pytest.raises(SchemaMismatch, match=r"market_data\.daily_bars: known_at has 1 nulls"):
            land(desk.warehouse, batch, desk.calendar, desk.calendar.known_at(D1), "run")

    def test_the_default_instant_is_the_last_session_or_a_later_change(self, desk: Desk, known: dict[date, datetime]) -> None:
        assert default_as_of(desk.warehouse, "files", desk.calendar, D2) == known[D2]
        desk.has(bar("AAA", D1), bar("AAA", D2))
        desk.land(D2)
        assert default_as_of(desk.warehouse, "files", desk.calendar, D2) == known[D2]
        desk.has(bar("AAA", D1, 9))
        desk.land(D2)
        assert default_as_of(desk.warehouse, "files", desk.calendar, D2) == known[D2] + TICK
        assert default_as_of(desk.warehouse, "files", desk.calendar, D3) == known[D3]
        assert default_as_of(desk.warehouse, "synthetic", desk.calendar, D2) == known[D2]


class TestProperties:
    def test_landing_again_writes_nothing_outside_the_fetch_ledger(self, desk: Desk) -> None:
        desk.has(bar("AAA", D1), bar("AAA", D2), bar("BBB", D2, volume=None), bar("AAA", D3))
        desk.actions = [action("AAA", D2, 2.0)]
        desk.land(D3, "same")
        before = hashes(desk.warehouse)
        for night in (D3, D2, D3):
            landing = desk.land(night, "same")
            assert (landing.new, landing.restated, landing.actions) == (0, 0, 0)
        after = hashes(desk.warehouse)
        assert {name for name in before if before[name] != after[name]} == {FETCH_LEDGER.full_name}

    def test_a_delivery_in_parts_equals_one_delivery_but_for_its_batches(self, desk: Desk, calendar: TradingCalendar) -> None:
        whole = Desk(Warehouse(desk.warehouse.path.with_name("whole.duckdb"), "files"), calendar)
        for vendor in (desk, whole):
            vendor.has(*(bar(symbol, session, n) for n, symbol in enumerate(("AAA", "BBB"), 10) for session in (D1, D2, D3, D4)))
        for night in (D1, D2, D3, D4):
            desk.land(night)
        whole.land(D4)
        columns = "symbol, session, source, known_at, close"
        rows = [vendor.warehouse.read(f"select {columns} from market_data.daily_bars order by all") for vendor in (desk, whole)]
        assert rows[0].equals(rows[1])
        assert rows[0].height == 8

    def test_what_breaks_off_leaves_nothing(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        desk.has(bar("AAA", D1))
        desk.land(D1)
        before = hashes(desk.warehouse)

        def fail(*_: object) -> pl.DataFrame:
            raise KeyboardInterrupt

        desk.has(bar("AAA", D1, 9), bar("AAA", D2))
        with monkeypatch.context() as patched:
            patched.setattr(module, "_requests", fail)  # the last thing written
            with pytest.raises(KeyboardInterrupt):
                desk.land(D2)
        assert hashes(desk.warehouse) == before
        assert (desk.land(D2).new, len(desk.versions())) == (1, 3)

    def test_what_was_known_then_stays_whatever_comes_later(self, desk: Desk, calendar: TradingCalendar) -> None:
        desk.has(bar("BBB", D1))
        seen: dict[datetime, pl.DataFrame] = {}
        as_of = "select * from market_data.daily_bars_as_of($t) order by symbol, session"
        nights = [D1, D2, D2, D3, D3, D3, D4, D2, D5, D5]
        for number, night in enumerate(nights):
            desk.has(
                *(bar("AAA", session, 10 + (number * 7 + n) % 3) for n, session in enumerate((D1, D2, D3, D4, D5)) if session <= night)
            )
            if number % 3:  # now and then another symbol: some of its bars fill holes
                desk.has(bar("BBB", (D1, D2, D4)[number % 3], number))
            desk.land(night)
            instant = default_as_of(desk.warehouse, "files", calendar, max(nights[: number + 1]))
            seen[instant] = desk.warehouse.read(as_of, {"t": instant})
        assert len(seen) == len(nights)
        for instant, rows in seen.items():
            assert desk.warehouse.read(as_of, {"t": instant}).equals(rows), instant
        assert desk.warehouse.read("select known_at from market_data.daily_bars")["known_at"].max() == max(seen)

    def test_no_two_versions_share_a_key(self, desk: Desk) -> None:
        for number in range(4):
            desk.has(bar("AAA", D1, number + 1), bar("AAA", D2, number + 1))
            desk.land(D2)
        rows = desk.warehouse.read("select * from market_data.daily_bars")
        assert rows.height == 8
        assert not rows.select(pl.struct(DAILY_BARS.key).is_duplicated().any()).item()
