"""Checks on judged bars: they warn of what became known tonight, and stop a broken bar that slipped through."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from quant_assets.data_quality.quarantine import quarantine
from quant_assets_tests import nights
from quant_assets_tests.conftest import review
from quant_assets_tests.nights import BEFORE, CALENDAR, EVENING, Desk

AS_OF = CALENDAR.known_at(EVENING)
RULES = ("ohlc_order", "non_positive_price", "identical_series")


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Desk]:
    home, _ = nights.finished(tmp_path_factory.getbasetemp())
    with nights.desk(nights.copied(home, tmp_path / "home")) as opened:
        yield opened


def break_bar(desk: Desk, session: date, changes: str, known_at: datetime | None = None) -> None:
    """Make SYN001's bar of a session another one: in place, or as a version that became known later; then judge."""
    if known_at is None:
        desk.change(
            f"update market_data.daily_bars set {changes}, recorded_at = now()::timestamp where symbol = 'SYN001' and session = ?", session
        )
    else:
        desk.change(
            "insert into market_data.daily_bars select * replace (? as known_at) from market_data.daily_bars where symbol = 'SYN001' and session = ?",
            known_at,
            session,
        )
        desk.change(
            f"update market_data.daily_bars set {changes}, recorded_at = now()::timestamp where symbol = 'SYN001' and known_at = ? and session = ?",
            known_at,
            session,
        )
    quarantine(desk.warehouse, "synthetic", CALENDAR, "run")


def found(desk: Desk, as_of: datetime = AS_OF) -> dict[str, tuple[bool, object, object]]:
    """Per rule: whether its check passes, what it found tonight, and what in all history."""
    checks = desk.checks(as_of)
    return {
        rule: (checks[rule].passed, checks[rule].metadata["critical_tonight"].value, checks[rule].metadata["critical_open"].value)
        for rule in RULES
    }


class TestRegression:
    def test_broken_bar_of_tonight(self, desk: Desk) -> None:
        break_bar(desk, EVENING, "high = low - 1")
        checks = desk.checks()
        assert [name for name, check in checks.items() if not check.passed] == ["ohlc_order"]  # not no_critical: the bar is held back
        assert checks["ohlc_order"].severity is dg.AssetCheckSeverity.WARN
        assert checks["ohlc_order"].description == (
            "Tonight 1 critical and 0 warnings, in all history 1 critical ones open, held back until released. "
            "Looked for: High is not the highest of the four prices, or low not the lowest."
        )
        assert "| SYN001 | 2025-03-14 | critical | rules |" in str(checks["ohlc_order"].metadata["worst_tonight"].value)

        review(desk.warehouse, "SYN001", EVENING, "confirm", AS_OF)
        assert found(desk)["ohlc_order"] == (False, 1, 1)
        review(desk.warehouse, "SYN001", EVENING, "release", AS_OF + timedelta(hours=1))
        assert all(check.passed for check in desk.checks().values())  # somebody takes responsibility for it

    def test_fault_of_long_ago_is_no_news_unless_it_is_new(self, desk: Desk) -> None:
        old, other = date(2025, 2, 3), date(2025, 2, 4)
        break_bar(desk, old, "low = -1")
        assert found(desk)["non_positive_price"] == (True, 0, 1)
        break_bar(desk, other, "close = 0, low = 0", known_at=AS_OF)  # restated tonight
        assert found(desk)["non_positive_price"] == (False, 1, 2)
        break_bar(desk, other, "close = open, low = least(open, high)", known_at=AS_OF + timedelta(seconds=1))  # and mended
        assert found(desk)["non_positive_price"] == (True, 0, 1)

    def test_series_under_two_symbols_is_found_late_and_told_then(self, desk: Desk) -> None:
        copied = ", ".join(f"{name} = other.{name}" for name in ("open", "high", "low", "close", "volume"))
        week = CALENDAR.between(date(2025, 3, 10), EVENING)
        desk.change(
            f"""
            update market_data.daily_bars as bar set {copied}, recorded_at = now()::timestamp from market_data.daily_bars as other
            where bar.symbol = 'SYN001' and other.symbol = 'SYN002' and bar.session = other.session and bar.session >= ?
            """,
            week[0],
        )
        quarantine(desk.warehouse, "synthetic", CALENDAR, "run")
        assert found(desk)["identical_series"] == (False, 10, 10)  # the four earlier sessions too: alone they were chance

    def test_broken_bar_that_slipped_stops_what_follows(self, desk: Desk) -> None:
        break_bar(desk, EVENING, "high = low - 1")
        desk.change("update data_quality.anomalies set severity = 'info'")
        review(desk.warehouse, "SYN001", EVENING, "confirm", AS_OF)
        result = desk.run(assets=["data_quality/clean_bars", "feature_store/technical_v1"])
        assert not result.success
        (check,) = [evaluation for evaluation in result.get_asset_check_evaluations() if not evaluation.passed]
        assert (check.check_name, check.severity) == ("no_critical", dg.AssetCheckSeverity.ERROR)
        assert check.description == "1 clean bars break the order of their prices or are not positive, and nobody released them."
        assert "| SYN001 | 2025-03-14 |" in str(check.metadata["offenders"].value)
        assert {event.asset_key.path[0] for event in result.all_events if event.is_step_materialization and event.asset_key} == {
            "data_quality"
        }


class TestProperties:
    def test_each_evening_tells_its_own_findings(self, desk: Desk) -> None:
        """Whichever of two evenings is looked at, what was found on the other one is history or not there yet."""
        break_bar(desk, BEFORE, "high = low - 1")
        break_bar(desk, EVENING, "low = -1")
        assert found(desk) == {"ohlc_order": (True, 0, 1), "non_positive_price": (False, 1, 1), "identical_series": (True, 0, 0)}
        earlier = found(desk, CALENDAR.known_at(BEFORE))
        assert earlier["ohlc_order"] == (False, 1, 1)
        assert earlier["non_positive_price"][:2] == (True, 0)

    def test_bars_of_another_source_are_not_our_business(self, desk: Desk) -> None:
        desk.change("update market_data.daily_bars set high = low - 1 where symbol = 'SYN001' and session = ?", EVENING)
        quarantine(desk.warehouse, "synthetic", CALENDAR, "run")
        desk.change("update market_data.daily_bars set source = 'files' where symbol = 'SYN001' and session = ?", EVENING)
        assert found(desk)["ohlc_order"] == (True, 0, 0)
