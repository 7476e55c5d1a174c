"""Thin Dagster resources around plain clients, and what every run does first and last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import PrivateAttr

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import ConfigurationError
from quant_assets.home import appear_whole
from quant_assets.market_data.delivery import Source
from quant_assets.market_data.landing import default_as_of
from quant_assets.market_data.sources import make_source
from quant_assets.partitions import calendar_of
from quant_assets.settings import PROJECT_ROOT, Settings, load_settings
from quant_assets.warehouse import Warehouse

AS_OF_TAG = "quant/as_of"
PROCESS_TAG = "quant/process"
UNFINISHED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]


class WarehouseResource(DuckDBResource):
    """dagster-duckdb's resource by our rules: the lock is waited for and named, and always released.

    After a run that changed something, the readers' copy is renewed.
    """

    _client: Warehouse | None = PrivateAttr(default=None)

    @property
    def client(self) -> Warehouse:
        """The plain warehouse that everything below the seam works with."""
        if self._client is None:
            settings = load_settings()
            copy = settings.read_copy_path if settings.read_copy else None
            self._client = Warehouse(Path(self.database), settings.source, copy, settings.lock_timeout_seconds)
        return self._client

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:  # type: ignore[override]
        with self.client.connect() as connection:
            yield connection

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[WarehouseResource]:
        if context.instance and context.run:
            context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: process_identity(os.getpid())})
            fail_dead_runs(context.instance)
        try:
            yield self
        finally:
            self.client.refresh_read_copy()


@dataclass(frozen=True)
class Night:
    """What one run works on: the instant it pretends it is, the last session known then, and its partitions."""

    as_of: datetime
    tonight: date
    sessions: Sequence[date]


class DeskResource(dg.ConfigurableResource[None]):
    """The desk's settings, calendar and source, and the night a run works on; holds no secret as configuration."""

    _settings: Settings | None = PrivateAttr(default=None)
    _source: Source | None = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """The settings, read once."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @property
    def calendar(self) -> TradingCalendar:
        """The exchange's sessions."""
        return calendar_of(self.settings)

    @property
    def source(self) -> Source:
        """Where bars come from."""
        if self._source is None:
            self._source = make_source(self.settings, self.calendar, utc_now())
        return self._source

    def night(self, context: dg.AssetExecutionContext, warehouse: Warehouse, last_session: date | None = None) -> Night:
        """The night of a run: as of its tag `quant/as_of`, else of the last session in the data.

        `last_session` is what the source can deliver, where it has been asked; otherwise the stored bars tell.
        Raises `ConfigurationError` for a partition whose session was not known yet at that instant.
        """
        tagged = context.run.tags.get(AS_OF_TAG)
        if tagged:
            as_of = datetime.fromisoformat(tagged)
        else:
            last = last_session or self._last_stored(warehouse)
            as_of = default_as_of(warehouse, self.settings.source, self.calendar, last)
        tonight = self.calendar.last_known_session(as_of)
        sessions = (
            [date.fromisoformat(key) for key in context.partition_keys]
            if context.has_partition_key_range or context.has_partition_key
            else [tonight]
        )
        if sessions[-1] > tonight:
            raise ConfigurationError(
                f"Session {sessions[-1]} was not known at {as_of} UTC: its bars are known from {self.calendar.known_at(sessions[-1])} UTC. "
                f"Run it then, or choose {tonight}, the last one known."
            )
        return Night(as_of, tonight, sessions)

    def _last_stored(self, warehouse: Warehouse) -> date:
        stored = warehouse.read(
            "select max(session) as session from market_data.daily_bars where source = $source", {"source": self.settings.source}
        )
        last: date | None = stored["session"].item()
        if last is None:
            raise ConfigurationError("No bars are stored yet: materialize market_data/daily_bars first, or run `quant-assets run`.")
        return last


def prepare_home(settings: Settings) -> None:
    """Make HOME with its Dagster store, and renew DAGSTER_HOME's copy of `dagster.yaml`."""
    settings.export()
    appear_whole(settings.dagster_home, _new_dagster_home)
    wanted = (PROJECT_ROOT / "dagster.yaml").read_text()
    copy = settings.dagster_home / "dagster.yaml"
    if copy.read_text() != wanted:
        aside = copy.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(wanted)
        os.replace(aside, copy)


def _new_dagster_home(folder: Path) -> None:
    """An instance's sqlite files with their schema: made aside, since a kill in their migrations would block every later run."""
    shutil.copy(PROJECT_ROOT / "dagster.yaml", folder / "dagster.yaml")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
        instance.get_asset_keys()


def process_identity(pid: int) -> str:
    """Tell one process from a later one with the same number: pid and start time, where the system shows it."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        started = ""
    return f"{os.uname().nodename}:{pid}:{started}"


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark unfinished runs of this machine whose process is gone as failed and free what they hold; returns their ids.

    A killed run would otherwise count as running for ever and block the next one.
    """
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        identity = run.tags.get(PROCESS_TAG, "")
        node, _, rest = identity.partition(":")
        if node != os.uname().nodename or _is_alive(identity, rest):
            continue
        instance.report_run_failed(run, f"Its process ({rest.split(':')[0]}) is gone; the run was marked as failed by the next one.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        dead.append(run.run_id)
    return dead


def _is_alive(identity: str, rest: str) -> bool:
    pid = int(rest.split(":", maxsplit=1)[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_identity(pid) == identity
