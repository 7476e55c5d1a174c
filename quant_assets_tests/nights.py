"""Nights in this process, on a real instance under a HOME of their own: a small market that is too young for a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.clock import trading_calendar
from quant_assets.settings import Settings, load_settings
from quant_assets.warehouse import Warehouse
from quant_assets_tests import command

MARKET = {"QUANT_SYNTHETIC_SYMBOLS": "5", "QUANT_SYNTHETIC_START": "2025-01-02", "QUANT_PROMOTION_CONFIDENCE": "0"}
BEFORE, EVENING = date(2025, 3, 13), date(2025, 3, 14)
CALENDAR = trading_calendar("XNYS", date(2025, 1, 2))


@dataclass(frozen=True)
class Desk:
    """One HOME with its settings and its open instance."""

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.settings.warehouse_path, self.settings.source, lock_timeout_seconds=10)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The code location's, bound to this desk's warehouse."""
        from quant_assets import definitions
        from quant_assets.data_quality.checks import bar_rules
        from quant_assets.market_data.checks import daily_bars_checks
        from quant_assets.resources import DeskResource, WarehouseResource

        checks = dg.define_asset_job("checks", dg.AssetSelection.checks(daily_bars_checks, bar_rules), executor_def=dg.in_process_executor)
        return dg.Definitions(
            assets=definitions.defs.assets,
            asset_checks=definitions.defs.asset_checks,
            jobs=[definitions.nightly, definitions.retrain, checks],
            resources={"warehouse": WarehouseResource(database=str(self.settings.warehouse_path)), "desk": DeskResource()},
        )

    def read(self, sql: str, **parameters: object) -> pl.DataFrame:
        return self.warehouse.read(sql, parameters)

    def run(
        self,
        first: date = EVENING,
        last: date | None = None,
        *,
        as_of: datetime | None = None,
        assets: Sequence[str] = (),
        job: str = "nightly",
    ) -> dg.ExecuteInProcessResult:
        """Run the nightly job for a session, or for a range as one run; a failing step is in the result, not raised."""
        selected = dg.AssetSelection.assets(*assets).required_multi_asset_neighbors()
        tags = {"quant/as_of": (as_of or CALENDAR.known_at(last or first)).isoformat()}
        if last:
            tags |= {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
        partition: dict[str, Any] = {} if last or job != "nightly" else {"partition_key": str(first)}
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=sorted(selected.resolve(self.definitions.resolve_asset_graph())) if assets else None,
            raise_on_error=False,
            **partition,
        )

    def checks(self, as_of: datetime | None = None) -> dict[str, dg.AssetCheckEvaluation]:
        """What the checks on bars say of the tables as they stand, by name."""
        result = self.run(as_of=as_of, job="checks")
        return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}

    def change(self, sql: str, *parameters: object) -> None:
        """Write straight into the database, past everything that keeps it sound."""
        with self.warehouse.transaction() as connection:
            connection.execute(sql, list(parameters))


@contextmanager
def environment(home: Path, **settings: str) -> Iterator[None]:
    """The process's environment with these settings alone, and away from any `.env`, for the length of a block."""
    home.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    own = command.environment(home, **MARKET | settings)
    with chdir(home):
        try:
            os.environ.clear()
            os.environ.update(own)
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def desk(home: Path, **settings: str) -> Iterator[Desk]:
    """A desk at work: its settings are the environment, and its instance is open, for the length of a block."""
    with environment(home, **settings):
        from quant_assets.resources import prepare_home

        loaded = load_settings()
        prepare_home(loaded)
        with dg.DagsterInstance.from_config(str(loaded.dagster_home)) as instance:
            yield Desk(loaded, instance)


@cache
def finished(folder: Path) -> tuple[Path, dg.ExecuteInProcessResult]:
    """The HOME of a night that has run, once for all tests, and what came of it; copy it before changing anything."""
    home = folder / "night"
    with desk(home) as opened:
        return home, opened.run()


def copied(home: Path, target: Path) -> Path:
    """A HOME like another, to change; its embedded document store is left behind."""
    shutil.copytree(home, target, ignore=shutil.ignore_patterns("documents"))
    return target
