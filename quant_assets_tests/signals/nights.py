"""Small evenings of a synthetic market: a warehouse grown session by session, and trainings that need no MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.quarantine import quarantine
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.store import refresh_labels, refresh_technical
from quant_assets.market_data.delivery import Delivery
from quant_assets.market_data.landing import land
from quant_assets.market_data.synthetic.market import SyntheticSource
from quant_assets.settings import Settings, load_settings
from quant_assets.signals import training_run
from quant_assets.signals.nightly import SignalRun, score_night
from quant_assets.signals.registry import tracking
from quant_assets.signals.registry.tracking import Version
from quant_assets.signals.signal_model import SignalModel
from quant_assets.signals.training import TrainingResult
from quant_assets.signals.training_run import Trained, train_and_register
from quant_assets.warehouse import Warehouse

START = date(2023, 1, 3)
NAMES = ("BRK.B", "O'NEIL", "NA", 'Ä "x", y', "A|B/C %d", "TRUE", "$1; --")
"""Symbols as awkward as vendors have them; the market's own names are replaced by these."""


@dataclass
class MemoryRegistry:
    """A registry that only counts: what a training asks of MLflow, without its seconds."""

    fingerprints: list[str] = field(default_factory=list)
    decisions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes | str]] = field(default_factory=dict)
    models: dict[str, tuple[SignalModel, FeatureContract]] = field(default_factory=dict)
    champion: str | None = None

    def find_version(self, fingerprint: str) -> Version | None:
        return self._version(fingerprint) if fingerprint in self.fingerprints else None

    def log_training(
        self, result: TrainingResult, contract: FeatureContract, run_id: str, asset_key: str, artifacts: Mapping[str, bytes | str]
    ) -> Version:
        self.fingerprints.append(result.fingerprint)
        version = self._version(result.fingerprint)
        self.models[version.version] = result.model, contract
        return version

    def model(self, version: str) -> tuple[SignalModel, FeatureContract]:
        return self.models[version]

    def set_decision(self, version: str, decision: str, evidence: Mapping[str, object]) -> None:
        self.decisions[version] = decision

    def keep_files(self, run_id: str, files: Mapping[str, bytes | str]) -> None:
        self.files[run_id] = dict(files)

    def sync_champion(self, version: str | None) -> None:
        self.champion = version

    def _version(self, fingerprint: str) -> Version:
        number = str(self.fingerprints.index(fingerprint) + 1)
        return Version(number, f"run-{number}", fingerprint, f"http://127.0.0.1/{number}")


@dataclass
class Desk:
    """One HOME: a warehouse on a synthetic market, its calendar and settings, and a registry in memory."""

    settings: Settings
    calendar: TradingCalendar
    warehouse: Warehouse
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)

    @classmethod
    def new(cls, home: Path, symbols: int, sessions: int, *, train_min_sessions: int = 120, delay_minutes: int = 30) -> Desk:
        """A HOME whose market reaches from its start over that many sessions."""
        settings = load_settings(
            home=home, synthetic_start=START, synthetic_symbols=symbols, train_min_sessions=train_min_sessions,
            vendor_delay_minutes=delay_minutes, mlflow_tracking_uri="", model_rounds=8, model_threads=1, promotion_confidence=0.0,
        )  # fmt: skip
        calendar = trading_calendar("XNYS", START, delay_minutes)
        desk = cls(settings, calendar, Warehouse(settings.warehouse_path, "synthetic"))
        desk.grow(sessions)
        return desk

    def copy(self, home: Path) -> Desk:
        """The same HOME elsewhere, to be changed by one test."""
        shutil.copytree(self.settings.home, home, dirs_exist_ok=True)
        settings = self.settings.model_copy(update={"home": home})
        return Desk(
            settings,
            self.calendar,
            Warehouse(settings.warehouse_path, "synthetic"),
            replace(self.registry, fingerprints=[*self.registry.fingerprints], models={**self.registry.models}),
        )

    def session(self, number: int) -> date:
        """The market's n-th session, from 1."""
        return self.calendar.sessions[number - 1]

    def evening(self, number: int) -> datetime:
        """The instant at which the n-th session's bars are known."""
        return self.calendar.known_at(self.session(number))

    def close(self, number: int) -> datetime:
        return self.calendar.close(self.session(number))

    def delivery(self, number: int, first: int = 1) -> Delivery:
        """What the market delivers up to its n-th session, under awkward names."""
        source = SyntheticSource(self.calendar, START, self.settings.synthetic_symbols, 7, 0.08, self.evening(number))
        whole = source.deliver(self.session(first), self.session(number))
        named = pl.col("symbol").replace({f"SYN{i:03d}": name for i, name in enumerate(NAMES, start=1)})
        return replace(whole, bars=whole.bars.with_columns(named), actions=whole.actions.with_columns(named), truth={})

    def grow(self, number: int) -> None:
        """The evening of the n-th session, up to its features and labels."""
        self.take(self.delivery(number), self.evening(number))

    def take(self, delivery: Delivery, as_of: datetime) -> None:
        """Land a delivery as of an instant, judge it, bring features and labels up to date."""
        land(self.warehouse, delivery, self.calendar, as_of, "grow")
        quarantine(self.warehouse, "synthetic", self.calendar, "grow")
        refresh_technical(self.warehouse, "grow")
        refresh_labels(self.warehouse, self.calendar, "grow")

    def train(self, as_of: datetime, **settings: object) -> Trained:
        """Train quickly and register in memory."""
        with in_memory(self.registry):
            return train_and_register(
                self.warehouse, self.calendar, self.settings.model_copy(update=settings), as_of, "training", "signals/model"
            )

    def score(
        self, number: int, first: int | None = None, as_of: datetime | None = None, run_id: str = "night", **settings: object
    ) -> SignalRun:
        """Score from a first session (else the last alone) to the n-th; `as_of` is that one's evening unless given."""
        instant = as_of or self.evening(number)
        sessions = self.calendar.between(self.session(first or number), self.session(number))
        tonight = self.calendar.last_known_session(instant)
        return score_night(self.warehouse, self.calendar, self.settings.model_copy(update=settings), instant, tonight, sessions, run_id)

    def signals(self, number: int | None = None, as_of: datetime | None = None) -> pl.DataFrame:
        """The newest signals (as of an instant), of all sessions or the n-th, by session and symbol."""
        table = "signals.latest_daily_signals" if as_of is None else "signals.daily_signals_as_of($as_of)"
        rows = self.warehouse.read(f"select * from {table}", None if as_of is None else {"as_of": as_of}).sort("session", "symbol")
        return rows if number is None else rows.filter(pl.col("session") == self.session(number))

    def features(self, number: int) -> pl.DataFrame:
        """The n-th session's rows of the feature table, by symbol."""
        sql = "select * from feature_store.technical_v1 where session = $session order by symbol"
        return self.warehouse.read(sql, {"session": self.session(number)})

    def restate(self, number: int, symbol: str, factor: float, as_of: datetime) -> None:
        """The vendor changes the prices of one bar, seen at an instant."""
        whole = self.delivery(number)
        changed = (pl.col("symbol") == symbol) & (pl.col("session") == self.session(number))
        prices = [pl.when(changed).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in ("open", "high", "low", "close")]
        self.take(replace(whole, bars=whole.bars.with_columns(prices), batch_id=f"restated-{symbol}-{factor}"), as_of)


@contextmanager
def in_memory(registry: MemoryRegistry) -> Iterator[None]:
    """Trainings that register there instead of in MLflow, and draw no pictures: these take longer than a small training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "files_of", lambda *_: {})
        patch.setattr(tracking.Registry, "open", lambda settings: registry)
        yield
