"""Twenty random moments of fetching, on five HOMEs killed four times each."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import pytest

from quant_assets_tests.fetch_crashes import CALENDAR, FIRST, LAST, SECONDS_OF_A_REPLY, Desk, delays
from quant_assets_tests.market_data.vendor import serving

HOMES, KILLS = 5, 4
SYMBOLS = tuple(f"S{n:02d}" for n in range(40))


@pytest.mark.drill
@pytest.mark.timeout(900)
class TestProperties:
    def test_fetching_killed_at_any_moment_repeats_no_call_and_loses_nothing(self, tmp_path: Path) -> None:
        seed = secrets.randbits(32)
        draw = random.Random(seed)
        with serving(CALENDAR.between(FIRST, LAST)) as vendor:
            vendor.seconds = SECONDS_OF_A_REPLY
            undisturbed = Desk(vendor, tmp_path / "undisturbed", SYMBOLS)
            seconds = undisturbed.run_to_end()
            assert len(vendor.calls) == len(SYMBOLS)
            tables = undisturbed.tables()
            print(f"seed {seed}: an undisturbed run takes {seconds:.2f} s")
            for number in range(HOMES):
                vendor.calls.clear()
                desk = Desk(vendor, tmp_path / f"killed_{number}", SYMBOLS)
                moments = delays(draw, KILLS, seconds)
                try:
                    for delay in moments:
                        desk.kill(delay)
                    desk.check_recovered(tables)
                except AssertionError as error:
                    raise AssertionError(f"seed {seed}, HOME {number}, killed after {moments}: {error}") from error
                print(
                    f"killed after {', '.join(f'{delay:.2f}' for delay in moments)} s: {len(vendor.calls)} calls, {desk.in_flight} in flight at the kills"
                )
