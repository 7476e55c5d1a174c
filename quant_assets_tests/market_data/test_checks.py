"""Checks on landed bars: what must never pass, and whether the session that is due has come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from quant_assets_tests import nights
from quant_assets_tests.market_data.test_universe import store_members
from quant_assets_tests.nights import BEFORE, CALENDAR, EVENING, Desk


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


class TestRegression:
    def test_another_column_or_type(self, desk: Desk) -> None:
        desk.change("alter table market_data.daily_bars add column extra integer")
        check = desk.checks()["schema"]
        assert not check.passed
        assert check.severity is dg.AssetCheckSeverity.ERROR
        assert check.description == "Stored and declared columns differ in: [('extra', 'INTEGER')]."
        desk.change("alter table market_data.daily_bars drop column extra")
        desk.change("alter table market_data.daily_bars alter basis type integer using 1")
        assert desk.checks()["schema"].description == "Stored and declared columns differ in: [('basis', 'INTEGER'), ('basis', 'VARCHAR')]."

    def test_key_that_stands_twice(self, desk: Desk) -> None:
        desk.change(
            "insert into market_data.daily_bars select * from market_data.daily_bars where symbol in ('SYN001', 'SYN002') and session = ?",
            EVENING,
        )
        check = desk.checks()["key"]
        assert (check.passed, check.severity, check.metadata["offending_rows"].value) == (False, dg.AssetCheckSeverity.ERROR, 2)
        assert "| SYN001 | 2025-03-14 |" in str(check.metadata["doubled"].value)

    def test_symbol_that_is_late(self, desk: Desk) -> None:
        desk.change("delete from market_data.daily_bars where symbol = 'SYN001' and session = ?", EVENING)
        check = desk.checks()["fresh"]
        assert (check.passed, check.severity, check.metadata["late_symbols"].value) == (False, dg.AssetCheckSeverity.WARN, 1)
        assert check.description == "Last session stored: 2025-03-14, due: 2025-03-14; 1 symbols end in the 30 days before it."
        assert "| SYN001 | 2025-03-13 |" in str(check.metadata["symbols"].value)
        desk.change("delete from market_data.daily_bars where symbol = 'SYN001' and session >= ?", date(2025, 2, 12))
        assert desk.checks()["fresh"].passed  # it ended more than 30 days ago: delisted rather than late

    def test_symbol_that_left_is_not_late(self, desk: Desk) -> None:
        desk.change("delete from market_data.daily_bars where symbol = 'SYN001' and session = ?", EVENING)
        members = [(symbol, date(2025, 1, 2), None) for symbol in ("SYN002", "SYN004", "SYN005")]
        store_members(desk.warehouse, [("SYN001", date(2025, 1, 2), BEFORE), *members], CALENDAR.known_at(EVENING), "synthetic")
        assert desk.checks()["fresh"].passed

    def test_session_that_has_not_come(self, desk: Desk) -> None:
        desk.change("delete from market_data.daily_bars where session = ?", EVENING)
        check = desk.checks()["fresh"]
        assert not check.passed
        assert check.description == "Last session stored: 2025-03-13, due: 2025-03-14; 4 symbols end in the 30 days before it."
        desk.change("delete from market_data.daily_bars")
        assert desk.checks()["fresh"].description == "Last session stored: none, due: 2025-03-14; 0 symbols end in the 30 days before it."

    def test_a_faulty_delivery_warns_until_its_session_is_whole(self, desk: Desk) -> None:
        desk.change(
            """
            insert into market_data.fetch_ledger by name
            select 'request' as request_id, 'synthetic' as source, now()::timestamp as requested_at, 'empty' as status, 0 as rows,
                '20250313.tar.gz: empty: it holds no rows' as detail, '20250313.tar.gz-0123' as batch_id, 'run' as run_id
            """
        )
        assert desk.checks()["deliveries"].passed  # its bars came with a later delivery
        desk.change("delete from market_data.daily_bars where session = ? and symbol <> 'SYN002'", BEFORE)
        check = desk.checks()["deliveries"]
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert check.description == "1 deliveries were not as they should be, 1 of them not healed: 20250313.tar.gz (empty)."
        assert "20250313.tar.gz: empty: it holds no rows" in str(check.metadata["deliveries"].value)

    def test_a_split_that_may_have_been_lost_with_a_delivery(self, desk: Desk) -> None:
        split = "update market_data.daily_bars set basis = 'raw', close = close / 7 where symbol in ('SYN001', 'SYN002') and session >= ?"
        desk.change(split, BEFORE)
        desk.change("update market_data.daily_bars set basis = 'raw', batch_id = '20250313.tar.gz-01' where session <= ?", BEFORE)
        desk.change(
            """
            insert into market_data.fetch_ledger by name
            select batch_id as request_id, 'synthetic' as source, now()::timestamp as requested_at, 'landed' as status, 2 as rows,
                '' as detail, batch_id, 'run' as run_id
            from (values ('20250313.tar.gz-01'), ('20250314.tar.gz-02')) as batches (batch_id)
            """
        )
        assert desk.checks()["deliveries"].passed  # their own delivery tells what happened, or that nothing did
        desk.change("update market_data.daily_bars set batch_id = '20250314.tar.gz-02' where session = ?", BEFORE)
        desk.change(
            """
            insert into market_data.corporate_actions by name
            select 'SYN002' as symbol, ? as session, 'split' as kind, 'synthetic' as source, now()::timestamp as known_at, 7 as value,
                '20250314.tar.gz-02' as batch_id, now()::timestamp as recorded_at
            """,
            BEFORE,
        )
        check = desk.checks()["deliveries"]
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
        said = "1 closes move as by a split on a session without a good delivery of its own: SYN001 on 2025-03-13 (6.9)"
        assert said in str(check.description)
        assert str(check.description).endswith("Fetch that delivery again.")


class TestProperties:
    def test_each_evening_looks_at_what_was_due_then(self, desk: Desk) -> None:
        """An earlier evening is fresh though later sessions are stored, and late symbols are late as of then."""
        for session in (date(2025, 2, 3), BEFORE, EVENING):
            check = desk.checks(CALENDAR.known_at(session))["fresh"]
            assert check.passed
            assert check.metadata["due"].value == check.metadata["last_session"].value == str(session)
        desk.change("delete from market_data.daily_bars where symbol = 'SYN001' and session = ?", BEFORE)
        assert not desk.checks(CALENDAR.known_at(BEFORE))["fresh"].passed
        assert desk.checks(CALENDAR.known_at(EVENING))["fresh"].passed  # it traded again

    def test_versions_are_no_duplicates(self, desk: Desk) -> None:
        desk.change(
            "insert into market_data.daily_bars select * replace (known_at + interval 1 hour as known_at) from market_data.daily_bars"
        )
        checks = desk.checks()
        assert checks["key"].passed
        assert checks["schema"].passed
