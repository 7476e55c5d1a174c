"""A small market in a warehouse whose bars come, are restated, held back and released, so that feature tables have to follow."""

from __future__ import annotations

import shutil
from copy import deepcopy
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.inputs import FOREVER
from quant_assets.feature_store.store import (
    refresh_alpha_history,
    refresh_alpha_market,
    refresh_labels,
    refresh_market,
    refresh_technical,
)
from quant_assets.feature_store.training_sets import ALPHA_SQL, features_as_of
from quant_assets.feature_store.views import features_of, model_sql
from quant_assets.schemas import ANOMALIES, CORPORATE_ACTIONS, DAILY_BARS, REVIEWS, UNIVERSE, Table
from quant_assets.warehouse import Warehouse, append_ledger, append_versions
from quant_assets_tests.conftest import FIRST, SOURCE

WRITTEN = datetime(2030, 1, 1)


class Market:
    """Random walks with splits, dividends, gaps and missing volumes, from the calendar's first session on."""

    def __init__(self, warehouse: Warehouse, calendar: TradingCalendar, seed: int, symbols: int = 4, history: int = 300) -> None:
        self.warehouse, self.calendar, self.random = warehouse, calendar, np.random.default_rng(seed)
        self.sessions = calendar.sessions[calendar.sessions.index(calendar.session_on_or_after(FIRST)) :]  # type: ignore[arg-type]
        self.close = {f"S{n}": 50.0 * (n + 1) for n in range(symbols)}
        self.tonight = -1
        self.now = calendar.known_at(self.sessions[0])
        self.next_session(history)

    def moved(self, warehouse: Warehouse) -> Market:
        """The same market at the same point over a copy of its warehouse, to go on from."""
        moved: Market = Market.__new__(Market)
        moved.__dict__ |= self.__dict__ | {"warehouse": warehouse, "random": deepcopy(self.random), "close": dict(self.close)}
        return moved

    def next_session(self, count: int = 1) -> None:
        """One more session, or many at once: most symbols get a bar."""
        bars, actions = [], []
        for _ in range(count):
            new_bars, new_actions = self._evening()
            bars += new_bars
            actions += new_actions
        self._append(DAILY_BARS, bars)
        self._append(CORPORATE_ACTIONS, actions)

    def restate(self, sessions_ago: int | None = None) -> tuple[str, date]:
        """Another close for a random bar, known an hour later."""
        bar = self._random_bar(sessions_ago)
        close = bar["close"] * float(self.random.choice([0.9, 1.02, 1.1]))
        self._later()
        changed = {"close": close, "high": max(bar["high"], close), "low": min(bar["low"], close), "known_at": self.now}
        self._append(DAILY_BARS, [{**bar, **changed}])
        return bar["symbol"], bar["session"]

    def hold(self, sessions_ago: int | None = None) -> tuple[str, date]:
        """A critical finding about the newest version of a random bar."""
        bar = self._random_bar(sessions_ago)
        self._later()
        finding = {name: bar[name] for name in ("symbol", "session", "source")} | {
            "rule": "planted", "detector": "rules", "bar_known_at": bar["known_at"], "score": 1.0, "severity": "critical", "detail": "planted",
            "suggestion": None, "known_at": self.now,
        }  # fmt: skip
        self._append(ANOMALIES, [finding])
        return bar["symbol"], bar["session"]

    def release(self) -> tuple[str, date] | None:
        """A person's release of one bar that is held back, if any is."""
        held = self.warehouse.read("select * from data_quality.held_bars order by symbol, session, known_at")
        if held.is_empty():
            return None
        bar = held.row(int(self.random.integers(held.height)), named=True)
        self._later()
        review = {name: bar[name] for name in ("symbol", "session", "source")} | {
            "rule": "planted", "decided_at": self.now, "bar_known_at": bar["known_at"], "decision": "release", "decided_by": "a", "reason": "b",
        }  # fmt: skip
        self._append(REVIEWS, [review])
        return bar["symbol"], bar["session"]

    def split_told_late(self) -> None:
        """A split of some weeks ago that becomes known now."""
        self._later()
        session = self.sessions[self.tonight - int(self.random.integers(5, 30))]
        symbol = str(self.random.choice(sorted(self.close)))
        self._append(CORPORATE_ACTIONS, [self._action(symbol, session, "split", 2.0, self.now)])

    def change_scope(self) -> None:
        """From now on it is known that one symbol left some sessions ago."""
        symbols = sorted(self.close)
        left = str(self.random.choice(symbols))
        self.set_scope({symbol: (FIRST, self.sessions[self.tonight - 3] if symbol == left else None) for symbol in symbols})

    def set_scope(self, stretches: dict[str, tuple[date, date | None]]) -> None:
        """From now on it is known from when to when symbols are in scope."""
        self._later()
        shared = {"source": SOURCE, "known_at": self.now, "batch_id": "b"}
        rows = [{"symbol": symbol, "valid_from": first, "valid_to": last, **shared} for symbol, (first, last) in stretches.items()]
        self._append(UNIVERSE, rows)

    def refresh(self) -> dict[str, int]:
        """Bring all tables up to date; returns the rows written, by table."""
        return {
            "technical_v1": refresh_technical(self.warehouse, "run").written,
            "labels": refresh_labels(self.warehouse, self.calendar, "run").written,
            "market_v1": refresh_market(self.warehouse, self.calendar, "run").written,
            "alpha_history_v1": refresh_alpha_history(self.warehouse, "run").written,
            "alpha_market_v1": refresh_alpha_market(self.warehouse, self.calendar, "run").written,
        }

    def stored(self, view: str) -> pl.DataFrame:
        """All rows of a view as they are stored, sorted."""
        columns = ", ".join(["symbol", "session", *(feature.name for feature in features_of(view)), "known_at"])
        rows = "feature_store.technical_v1" if view == "technical_v1" else f"({model_sql(ALPHA_SQL, {})})"
        return self.warehouse.read(f"select {columns} from {rows} order by symbol, session")

    def recomputed(self, view: str, as_of: datetime = FOREVER) -> pl.DataFrame:
        """All rows of a view computed from the bars alone, sorted."""
        rows = features_as_of(
            self.warehouse, self.calendar, view, as_of, FIRST, self.sessions[self.tonight], sorted(self.close), recompute=True
        )
        return rows.sort("symbol", "session")

    def _evening(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        self.tonight += 1
        session = self.sessions[self.tonight]
        self.now = max(self.now, self.calendar.known_at(session))
        bars, actions = [], []
        shock = self.random.normal(0, 0.01)
        for number, symbol in enumerate(self.close):
            self.close[symbol] *= float(np.exp(shock * (0.5 + number / 4) + self.random.normal(0, 0.012)))
            if self.random.random() < 0.01:
                self.close[symbol] /= 2
                actions.append(self._action(symbol, session, "split", 2.0, self.now))
            if self.random.random() < 0.02:
                actions.append(self._action(symbol, session, "dividend", self.close[symbol] / 100, self.now))
            if self.random.random() < 0.03 and number:
                continue  # no bar: the symbol was not delivered
            close = self.close[symbol]
            opened = close * float(1 + self.random.normal(0, 0.004))
            bars.append({
                "symbol": symbol, "session": session, "source": SOURCE, "known_at": self.calendar.known_at(session), "open": opened,
                "high": max(opened, close) * 1.005, "low": min(opened, close) * 0.995, "close": close,
                "volume": None if self.random.random() < 0.01 else float(self.random.integers(100, 10_000)),
                "adj_close": None, "basis": "raw", "known_at_basis": "observed", "batch_id": "b",
            })  # fmt: skip
        return bars, actions

    def _action(self, symbol: str, session: date, kind: str, value: float, known_at: datetime) -> dict[str, object]:
        return {
            "symbol": symbol, "session": session, "kind": kind, "source": SOURCE, "known_at": known_at, "value": value, "batch_id": "b",
        }  # fmt: skip

    def _later(self) -> None:
        self.now += timedelta(minutes=7)

    def _random_bar(self, sessions_ago: int | None) -> dict[str, object]:
        bars = self.warehouse.read("select * from data_quality.clean_bars order by symbol, session")
        if sessions_ago is not None:
            bars = bars.filter(pl.col("session") <= self.sessions[self.tonight - sessions_ago])
            bars = bars.filter(pl.col("session") == bars["session"].max())
        return bars.row(int(self.random.integers(bars.height)), named=True)

    def _append(self, table: Table, rows: list[dict[str, object]]) -> None:
        if not rows:
            return
        blank = {column.name: None for column in table.columns if column.nullable} | {"recorded_at": WRITTEN, "basis": "declared"}
        frame = pl.DataFrame([{name: {**blank, **row}[name] for name in table.column_names} for row in rows], schema=table.polars_schema)
        append = append_ledger if table is REVIEWS else append_versions
        with self.warehouse.transaction() as connection:
            append(connection, table, frame)


@cache
def _built(folder: Path, calendar: TradingCalendar, seed: int, history: int) -> Market:
    warehouse = Warehouse(folder / f"market_{seed}_{history}.duckdb", SOURCE)
    market = Market(warehouse, calendar, seed, symbols=3, history=history)
    market.refresh()
    return market


def built_market(folder: Path, warehouse: Warehouse, calendar: TradingCalendar, seed: int = 9, history: int = 270) -> Market:
    """A market of three symbols whose tables are built, made once per folder; its file replaces the warehouse's, which must not be open."""
    market = _built(folder, calendar, seed, history)
    shutil.copyfile(market.warehouse.path, warehouse.path)
    return market.moved(warehouse)
