"""A share and its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.data_quality.shares import Z_95, wilson


class TestRegression:
    def test_published_intervals(self) -> None:
        # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20.
        frame = pl.DataFrame({"hits": [81, 15, 0], "trials": [263, 148, 20]}).select(wilson(pl.col("hits"), pl.col("trials")))
        assert frame["low"].to_list() == pytest.approx([0.2553, 0.0624, 0.0], abs=1e-4)
        assert frame["high"].to_list() == pytest.approx([0.3662, 0.1605, 0.1611], abs=1e-4)


class TestProperties:
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=20))
    @settings(deadline=None)
    def test_wilsons_interval_holds_every_share_that_its_test_accepts(self, pairs: Iterable[tuple[int, int]]) -> None:
        rows = [(min(pair), max(pair)) for pair in pairs]
        frame = pl.DataFrame(rows, schema=["hits", "trials"], orient="row")
        for (_, trials), (share, low, high) in zip(rows, frame.select(wilson(pl.col("hits"), pl.col("trials"))).iter_rows(), strict=True):
            if trials == 0:
                assert (share, low, high) == (None, None, None)
                continue
            assert 0 <= low <= share <= high <= 1
            for bound in (low, high):  # the score test's statistic is 1.96 at its ends, where they are no certainty
                if 1e-9 < bound < 1 - 1e-9:
                    assert abs(share - bound) / math.sqrt(bound * (1 - bound) / trials) == pytest.approx(Z_95, rel=1e-6)
