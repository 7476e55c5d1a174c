"""Ten random moments of a night, each killed once on a fresh HOME."""

from __future__ import annotations

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quant_assets_tests import crashes

MOMENTS = 10


@pytest.mark.drill
@pytest.mark.timeout(1200)
class TestProperties:
    def test_a_night_killed_at_any_moment_ends_as_an_undisturbed_one(self, tmp_path: Path) -> None:
        seed = secrets.randbits(32)
        undisturbed = crashes.run_to_end(tmp_path / "undisturbed")
        draw = random.Random(seed)
        delays = [draw.uniform(0.02, 0.98) * undisturbed.seconds for _ in range(MOMENTS)]

        def survives(number: int) -> str:
            home = tmp_path / f"killed_{number}"
            try:
                crashes.kill(home, crashes.after(delays[number]))
                crashes.check_recovered(home, undisturbed)
            except AssertionError as error:
                return f"killed after {delays[number]:.2f} s: {error}"
            return ""

        print(f"seed {seed}, killed after " + ", ".join(f"{delay:.2f}" for delay in delays) + f" of {undisturbed.seconds:.1f} s")
        with ThreadPoolExecutor(1) as pool:
            failures = [failure for failure in pool.map(survives, range(MOMENTS)) if failure]
        assert not failures, f"seed {seed}\n" + "\n".join(failures)
