"""Fetching killed twice and run again: no call is repeated, nothing is lost. The drill in `drills/` tries random moments."""

from __future__ import annotations

from pathlib import Path

from quant_assets_tests.fetch_crashes import CALENDAR, FIRST, LAST, SECONDS_OF_A_REPLY, Desk
from quant_assets_tests.market_data.vendor import serving

SYMBOLS = tuple(f"S{n:02d}" for n in range(16))


class TestProperties:
    def test_fetching_killed_twice_ends_as_an_undisturbed_run(self, tmp_path: Path) -> None:
        with serving(CALENDAR.between(FIRST, LAST)) as vendor:
            vendor.seconds = SECONDS_OF_A_REPLY
            undisturbed = Desk(vendor, tmp_path / "undisturbed", SYMBOLS)
            seconds = undisturbed.run_to_end()
            vendor.calls.clear()
            desk = Desk(vendor, tmp_path / "killed", SYMBOLS)
            for delay in (0.35 * seconds, 0.3 * seconds):
                desk.kill(delay)
            desk.check_recovered(undisturbed.tables())

    def test_two_runs_beside_each_other_ask_for_nothing_twice(self, tmp_path: Path) -> None:
        with serving(CALENDAR.between(FIRST, LAST)) as vendor:
            vendor.seconds = SECONDS_OF_A_REPLY
            desk = Desk(vendor, tmp_path / "shared", SYMBOLS)
            desk.run_two_at_a_time()
            assert sorted(call["symbol"] for call in vendor.calls) == sorted(SYMBOLS)
            tables = desk.tables()
            desk.check_recovered(tables)
            assert len(vendor.calls) == len(SYMBOLS)
