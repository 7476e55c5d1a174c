"""Ten random moments of a night, each killed on a fresh HOME, two at a time."""

from __future__ import annotations

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quant_assets_tests import crashes

MOMENTS = 10


@pytest.mark.drill
@pytest.mark.timeout(1800)
class TestProperties:
    def test_a_night_killed_at_any_moment_ends_as_an_undisturbed_one(self, tmp_path: Path) -> None:
        seed = secrets.randbits(32)
        draw = random.Random(seed)
        with ThreadPoolExecutor(2) as pool:
            undisturbed, control = pool.map(crashes.run_to_end, (tmp_path / "undisturbed", tmp_path / "control"))
            assert (undisturbed.tables, undisturbed.documents) == (control.tables, control.documents)
            seconds = min(undisturbed.seconds, control.seconds)
            delays = [draw.uniform(0.02, 1.0) * seconds for _ in range(MOMENTS)]
            print(f"seed {seed}: killed after {', '.join(f'{delay:.2f}' for delay in delays)} of {seconds:.1f} s")

            def survives(number: int) -> str:
                delay, tries = delays[number], 0
                try:
                    while not crashes.kill(home := tmp_path / f"killed_{number}_{tries}", crashes.after(delay)):
                        delay, tries = 0.8 * delay, tries + 1  # it had ended: the machine was quieter than before
                    crashes.check_recovered(home, undisturbed)
                except AssertionError as error:
                    return f"killed after {delay:.2f} s: {error}"
                return ""

            failures = [failure for failure in pool.map(survives, range(MOMENTS)) if failure]
        assert not failures, f"seed {seed}\n" + "\n".join(failures)
