"""What tests share: a calendar, a warehouse of their own, and deliveries made from a few words."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.market_data.delivery import ACTIONS, BARS, RECEIPTS, REJECTED, Delivery
from quant_assets.warehouse import Warehouse

SOURCE = "files"
FIRST = date(2020, 1, 2)

Row = Mapping[str, object]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole nights first: the files at the top are the long ones, and side by side nobody waits for them at the end."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session")
def calendar() -> TradingCalendar:
    """New York's sessions from 2020 on; a bar is known 30 minutes after the close."""
    return trading_calendar("XNYS", FIRST)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a new database, made once."""
    path = tmp_path_factory.mktemp("empty") / "quant.duckdb"
    Warehouse(path, SOURCE).read("select 1")
    return path


@pytest.fixture
def warehouse(tmp_path: Path, empty_database: Path) -> Warehouse:
    """An empty warehouse of one's own that shows the bars of `SOURCE`."""
    shutil.copyfile(empty_database, tmp_path / "quant.duckdb")
    return Warehouse(tmp_path / "quant.duckdb", SOURCE, tmp_path / "quant.read.duckdb", lock_timeout_seconds=10)


@pytest.fixture
def open_warehouse(warehouse: Warehouse) -> Iterator[Warehouse]:
    """The same, its file held open by this process between the calls: for tests with many of them, and ten times as fast."""
    with duckdb.connect(warehouse.path):
        yield warehouse


def bar(symbol: str, session: date, close: float = 100.0, **changed: float | None) -> dict[str, object]:
    """A sound bar around a close; single values can be given by name."""
    values = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 1000.0, "adj_close": None}
    return {"symbol": symbol, "session": session, **values, **changed}


def delivery(
    bars: Iterable[Row], actions: Iterable[Row] = (), *, rejected: Iterable[Row] = (), batch_id: str = "batch", basis: str = "raw"
) -> Delivery:
    """A delivery of raw bars, with one receipt whose content hash is the batch's id."""
    frame = pl.DataFrame(list(bars), schema=BARS)
    receipt = {"symbol": None, "status": "landed", "rows": frame.height, "payload_sha256": batch_id, "detail": "one file"}
    return Delivery(
        source=SOURCE,
        basis=basis,
        batch_id=batch_id,
        bars=frame,
        actions=pl.DataFrame(list(actions), schema=ACTIONS),
        rejected=pl.DataFrame(list(rejected), schema=REJECTED),
        receipts=pl.DataFrame([receipt], schema=RECEIPTS),
    )


def action(symbol: str, session: date, value: float, kind: str = "split") -> dict[str, object]:
    """A corporate action: new shares per old one, or an amount per share."""
    return {"symbol": symbol, "session": session, "kind": kind, "value": value}


def review(warehouse: Warehouse, symbol: str, session: date, decision: str, decided_at: datetime) -> None:
    """Decide about every finding on the newest version of a bar."""
    with warehouse.transaction() as connection:
        connection.execute(
            """
            insert into data_quality.reviews by name
            select symbol, session, source, rule, $at as decided_at, bar_known_at, $decision as decision, 'analyst' as decided_by, 'seen' as reason,
                now()::timestamp as recorded_at
            from data_quality.anomalies where symbol = $symbol and session = $session
            qualify bar_known_at = max(bar_known_at) over ()
            """,
            {"at": decided_at, "decision": decision, "symbol": symbol, "session": session},
        )


def clean(warehouse: Warehouse, as_of: datetime | None = None) -> dict[tuple[str, date], float]:
    """The closes that stand in `clean_bars`, or stood there as of an instant, by symbol and session."""
    bars = "data_quality.clean_bars" if as_of is None else "data_quality.clean_bars_as_of($as_of)"
    rows = warehouse.read(f"select symbol, session, close from {bars}", None if as_of is None else {"as_of": as_of})
    return {(symbol, session): close for symbol, session, close in rows.iter_rows()}
