"""A training frame with unknown values and overlapping labels' weights, small enough for every family."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from quant_assets_tests.signals.worlds import world


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    known = world(1, rank_ic=0.3, sessions=100).with_row_index()
    return known.with_columns(
        pl.when(pl.col("index") % 7 != 0).then(pl.col("first")).alias("first"),
        weight=pl.Series(np.random.default_rng(5).uniform(0.2, 1, len(known))),
    )
