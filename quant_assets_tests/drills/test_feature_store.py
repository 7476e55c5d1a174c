"""Ten restatements and ten releases in random order, through the nightly job: after each night the tables are a rebuild's, bit by bit."""

from __future__ import annotations

import random
import secrets
import shutil
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quant_assets.clock import trading_calendar
from quant_assets.data_quality.reviews import EVERY_RULE, Decision, desk_clock, review
from quant_assets.feature_store.store import refresh_alpha_history, refresh_alpha_market, refresh_labels, refresh_market, refresh_technical
from quant_assets.feature_store.training_sets import ALPHA_SQL
from quant_assets.feature_store.views import model_sql
from quant_assets.lookahead import described, differences
from quant_assets.schemas import ALPHA_HISTORY_V1, ALPHA_MARKET_V1, CARRIED_STATES, LABELS, MARKET_V1, TECHNICAL_V1, VIEW_BUILDS
from quant_assets.warehouse import Warehouse
from quant_assets_tests import market as files
from quant_assets_tests import nights
from quant_assets_tests.nights import Desk

HISTORY, EVENTS, A_NIGHT = 290, 10, 4
SYMBOLS = files.SYMBOLS[:4]
FIRST = date(2022, 1, 3)  # within the partitions that other tests of the same process may have fixed
CALENDAR = trading_calendar("XNYS", FIRST)
TABLES = (TECHNICAL_V1, LABELS, MARKET_V1, ALPHA_HISTORY_V1, ALPHA_MARKET_V1, CARRIED_STATES)
ASSETS = ("market_data/daily_bars", "data_quality/clean_bars", "feature_store/technical_v1")
LONGEST_HORIZON, LONGEST_WINDOW = 20, 252


@dataclass
class Vendor:
    """Files that a session is added to each night, and whose past changes; every broken bar among them is held back."""

    folder: Path
    draw: random.Random
    bars: pl.DataFrame = field(default_factory=lambda: files.bars(files.LONGEST, SYMBOLS, first=FIRST))

    def write(self, count: int) -> None:
        files.write(self.folder, self.bars.filter(pl.col("Date") <= SESSIONS[count - 1]))

    def change(self, symbol: str, session: date, **cells: pl.Expr) -> None:
        there = (pl.col("symbol") == symbol) & (pl.col("Date") == session)
        self.bars = self.bars.with_columns(pl.when(there).then(value).otherwise(name).alias(name) for name, value in cells.items())

    def restate(self, symbol: str, session: date) -> None:
        close = pl.col("Close") * self.draw.choice([0.99, 1.005, 1.02])
        self.change(
            symbol, session, Close=close, **{"Adj Close": close},
            High=pl.max_horizontal("High", close), Low=pl.min_horizontal("Low", close),
        )  # fmt: skip

    def spoil(self, symbol: str, session: date) -> None:
        self.change(symbol, session, High=pl.col("Low") * 0.999)


SESSIONS = files.sessions(files.LONGEST, FIRST)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with nights.desk(tmp_path / "home", QUANT_SOURCE="files", QUANT_FILES_PATH=str(tmp_path / "vendor"), QUANT_START=str(FIRST)) as opened:
        yield opened


def stored(warehouse: Warehouse) -> dict[str, pl.DataFrame]:
    """All rows of the feature tables and of alpha_v1, by name."""
    tables = {table.name: warehouse.read(f"select * from {table.full_name}") for table in TABLES}
    return tables | {"alpha_v1": warehouse.read(model_sql(ALPHA_SQL, {}))}


def keys(name: str) -> list[str]:
    return next((list(table.key) for table in TABLES if table.name == name), ["symbol", "session"])


def rebuilt(warehouse: Warehouse, copy: Path) -> dict[str, pl.DataFrame]:
    """The same, computed from nothing in a copy of the database."""
    shutil.copyfile(warehouse.path, copy)
    other = Warehouse(copy, warehouse.preferred_source)
    with other.transaction() as connection:
        for table in (*TABLES, VIEW_BUILDS):
            connection.execute(f"delete from {table.full_name}")
    refresh_technical(other, "rebuild")
    refresh_labels(other, CALENDAR, "rebuild")
    refresh_market(other, CALENDAR, "rebuild")
    refresh_alpha_history(other, "rebuild")
    refresh_alpha_market(other, CALENDAR, "rebuild")
    return stored(other)


def written(result: dg.ExecuteInProcessResult) -> dict[str, int]:
    """Rows that the night wrote, by table."""
    events = [event.step_materialization_data.materialization for event in result.all_events if event.is_step_materialization]
    return {
        event.asset_key.path[-1]: int(event.metadata["rows_written"].value)  # type: ignore[arg-type]
        for event in events
        if "rows_written" in event.metadata and event.asset_key.path[0] == "feature_store"
    }


def depends(name: str, symbol: str | None, session: date, touched: set[tuple[str, date]], slack: int) -> bool:
    """Whether a row may change when these bars did."""
    place = {bar: bisect_left(SESSIONS, day) for bar in touched for day in [bar[1]]}
    at = bisect_left(SESSIONS, session)
    own = [start for (of, _), start in place.items() if of == symbol]
    if name == "market_v1":
        return any(start <= at <= start + 1 for start in place.values())
    if name == "labels":
        return any(start - LONGEST_HORIZON <= at for start in own)
    if name == "alpha_market_v1":
        return any(start <= at for start in own) or any(start <= at <= start + LONGEST_WINDOW + 1 + slack for start in place.values())
    return any(start <= at for start in own)


def night_of(desk: Desk, count: int, *assets: str) -> dg.ExecuteInProcessResult:
    """The nightly job on the evening of the last of so many sessions."""
    evening = SESSIONS[count - 1]
    return desk.run(evening, as_of=CALENDAR.known_at(evening), assets=(*ASSETS, *assets))


def released(desk: Desk, symbol: str, session: date) -> None:
    """A person's release of all that is found on a bar."""
    decision = Decision(symbol, session, EVERY_RULE, "release", "kim", "seen")
    review(desk.warehouse, CALENDAR, [decision], desk_clock(desk.warehouse, CALENDAR, False, None))


@pytest.mark.drill
@pytest.mark.timeout(1800)
class TestProperties:
    def test_restatements_and_releases_in_random_order(self, desk: Desk, tmp_path: Path) -> None:
        seed = secrets.randbits(31)
        print(f"seed {seed}")
        draw = random.Random(seed)
        vendor = Vendor(tmp_path / "vendor", draw)
        broken = draw.sample([(symbol, session) for symbol in SYMBOLS for session in SESSIONS[:HISTORY]], EVENTS + 2)
        for bar in broken:
            vendor.spoil(*bar)
        vendor.write(HISTORY)
        assert night_of(desk, HISTORY).success
        held = dict.fromkeys(desk.read("select symbol, session from data_quality.held_bars").unique().sort("symbol", "session").rows())
        assert set(broken) <= set(held)

        events = draw.sample(["restate"] * EVENTS + ["release"] * EVENTS, 2 * EVENTS)
        for night, place in enumerate(range(0, len(events), A_NIGHT)):
            count = HISTORY + 1 + night
            tonight = SESSIONS[count - 1]
            before = stored(desk.warehouse)
            touched = {(symbol, tonight) for symbol in SYMBOLS}
            for event in events[place : place + A_NIGHT]:
                if event == "release":
                    bar = draw.choice(list(held))
                    del held[bar]
                    released(desk, *bar)
                else:
                    clean = desk.read("select symbol, session from data_quality.clean_bars order by all").rows()
                    bar = draw.choice([bar for bar in clean if bar not in touched])
                    vendor.restate(*bar)
                touched.add(bar)
            vendor.write(count)
            result = night_of(desk, count, *(["feature_store/alpha_v1"] if place + A_NIGHT >= len(events) else []))
            assert result.success, f"seed {seed}, night {night}"
            assert all(check.passed for check in result.get_asset_check_evaluations() if check.asset_key.path[0] == "feature_store")

            after, anew = stored(desk.warehouse), rebuilt(desk.warehouse, tmp_path / "anew.duckdb")
            newly_held = set(desk.read("select symbol, session from data_quality.held_bars").rows()) - set(held)
            touched |= newly_held  # a restatement that somebody has to look at
            held |= dict.fromkeys(sorted(newly_held))
            for name, rows in after.items():
                offending = differences(rows, anew[name], key=keys(name))
                assert offending.is_empty(), f"seed {seed}, night {night}, {name}: {described(offending)}"
            for name, rows in written(result).items():
                changed = differences(before[name], after[name], key=keys(name)).filter(pl.col("recomputed") != "absent")
                changed = changed.select(keys(name)).unique()
                assert rows == changed.height, f"seed {seed}, night {night}, {name}"
                foreign = [
                    row
                    for row in changed.iter_rows(named=True)
                    if not depends(name, row.get("symbol"), row["session"], touched, len(broken) * 2)
                ]
                assert not foreign, f"seed {seed}, night {night}, {name}: {foreign[:3]}"
        assert desk.read("select count(*) as n from data_quality.reviews where decision = 'release'")["n"].item() >= EVENTS
        assert desk.read("select count(*) as n from market_data.restatements")["n"].item() >= EVENTS
