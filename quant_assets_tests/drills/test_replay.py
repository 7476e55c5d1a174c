"""All real deliveries: in one range and in a shuffled order of nights, and against what another vendor says two years later."""

from __future__ import annotations

import random
import secrets
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant_assets.clock import trading_calendar
from quant_assets.feature_store.adjustment import forward_adjusted, unusable_actions
from quant_assets.market_data.files.archives import dated, find_archives
from quant_assets.market_data.files.source import FilesSource
from quant_assets.warehouse import Warehouse
from quant_assets_tests.market_data.deliveries import Nights, another

DATA = Path(__file__).parents[3] / "shared" / "data"
CALENDAR = trading_calendar("XNYS", date(2012, 1, 3))
ODD = {
    "20150406": "tripled",
    "20150610": "empty",
    "20150703": "stale",
    "20150706": "partial",
    "20150925": "partial",
    "20151117": "stale",
    "20151210": "partial",
}
FAR = 1e-6


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DATA.is_dir(), reason="the real deliveries are not beside this checkout")
class TestRegression:
    def test_all_real_deliveries(self, open_warehouse: Warehouse, empty_database: Path) -> None:
        folder = DATA / "pystock_2015"
        days = [day for path in find_archives(str(folder)) if (day := dated(path))]
        whole = Nights(folder, CALENDAR, open_warehouse)
        assert len(whole.night(days[-1])) == len(days) == 199
        assert {name: status for name, status in whole.statuses().items() if status != "landed"} == ODD

        seed = secrets.randbits(32)
        print(f"seed {seed}")
        nights = random.Random(seed).sample(days, 12)
        shuffled = Nights(folder, CALENDAR, another(open_warehouse, empty_database, "shuffled"))
        for day in [*nights, days[-1], *nights[:3]]:
            shuffled.night(day)
        assert shuffled.hashes() == whole.hashes(), f"seed {seed}"

        share, compared = agreement(open_warehouse)
        print(f"{share:.4%} of {compared:,} adjusted daily returns agree with the later vendor's to {FAR}")
        assert compared > 16_000
        assert share >= 0.99


def agreement(warehouse: Warehouse) -> tuple[float, int]:
    """The share of symbol-days on which our adjusted log return is the later vendor's, and of how many."""
    bars = warehouse.read("select * exclude (adj_close) from market_data.latest_daily_bars")
    actions = warehouse.read("select * from market_data.latest_corporate_actions")
    later = FilesSource(str(DATA / "stocknet_88"), CALENDAR).deliver(date(2012, 1, 1), date(2018, 1, 1)).bars
    symbols = later["symbol"].unique()
    ours = forward_adjusted(bars.filter(pl.col("symbol").is_in(symbols.implode())), actions)
    assert unusable_actions(bars, actions).height <= 5
    both = (
        ours.select("symbol", "session", ours=pl.col("adj_close").log())
        .join(later.select("symbol", "session", theirs=pl.col("adj_close").log()), on=["symbol", "session"])
        .sort("symbol", "session")
        .with_columns(pl.col("ours", "theirs").diff().over("symbol"))
        .drop_nulls()
    )
    return both.select(((pl.col("ours") - pl.col("theirs")).abs() <= FAR).mean()).item(), both.height
