"""Thin Dagster resources around plain clients, and what every run does first and last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
from dagster_duckdb import DuckDBResource
from pydantic import PrivateAttr

from quant_assets.clock import TradingCalendar, calendar_of, utc_now
from quant_assets.errors import ConfigurationError
from quant_assets.home import appear_whole
from quant_assets.market_data.delivery import Source
from quant_assets.market_data.files.archives import ArchivesSource
from quant_assets.market_data.landing import default_as_of
from quant_assets.market_data.sources import make_source
from quant_assets.processes import is_alive, process_identity
from quant_assets.settings import PROJECT_ROOT, Settings, load_settings
from quant_assets.warehouse import Warehouse

AS_OF_TAG = "quant/as_of"
PROCESS_TAG = "quant/process"
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,  # of a command, which claims its run as it makes it
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


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

    def rows_per_session(self, name: str, sessions: Sequence[date]) -> pl.DataFrame:
        """How many rows of a table or view stand in each of these sessions (`session`, `rows`); none where there are none."""
        return self.client.read(
            f"select session, count(*) as rows from {name} where session between $first and $last group by session order by session",
            {"first": sessions[0], "last": sessions[-1]},
        )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[WarehouseResource]:
        if context.instance and context.run:
            claim_run(context.instance, context.run.run_id)
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

    def night(
        self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, warehouse: Warehouse, last_session: date | None = None
    ) -> Night:
        """The night of a run: as of its tag `quant/as_of`, else of now for a live vendor, else of the last session in the data.

        Now is when the run was made, so that all its steps agree.

        `last_session` is what the source can deliver, where it has been asked; otherwise the stored bars tell, and of dated
        deliveries, which may bring no bars, the last one.
        Raises `ConfigurationError` for a partition whose session was not known yet at that instant.
        """
        tagged = context.run.tags.get(AS_OF_TAG)
        is_partitioned = context.has_partition_key_range or context.has_partition_key
        asked = [date.fromisoformat(key) for key in context.partition_keys] if is_partitioned else []
        if tagged:
            as_of = self.calendar.as_of(tagged)
        elif self.source.live:
            record = context.instance.get_run_record_by_id(context.run.run_id)
            as_of = utc_now() if record is None else record.create_timestamp.astimezone(UTC).replace(tzinfo=None)
        else:
            last = last_session or self._last_stored(warehouse)
            if asked and asked[-1] > last and isinstance(self.source, ArchivesSource):
                last = min(asked[-1], self.source.last_session())
            as_of = default_as_of(warehouse, self.settings.source, self.calendar, last)
        tonight = self.calendar.last_known_session(as_of)
        sessions = asked or [tonight]
        if sessions[-1] > tonight:
            ends = "" if tagged else f" (the {self.settings.source} source ends there)"
            raise ConfigurationError(
                f"Session {sessions[-1]} is not known as of {as_of:%Y-%m-%d %H:%M} UTC{ends}: its bars are known from "
                f"{self.calendar.known_at(sessions[-1]):%Y-%m-%d %H:%M} UTC. Run it after that, with data up to it, or choose {tonight}."
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


def claim(run_id: str) -> dict[str, str]:
    """The tag that tells which process works on a run. It names the run too, for a run that repeats another gets its tags."""
    return {PROCESS_TAG: f"{process_identity(os.getpid())}:{run_id}"}


def claim_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note on a run that is there already that this process works on it."""
    instance.add_run_tags(run_id, claim(run_id))


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark unfinished runs of this machine whose process is gone as failed and free what they hold; returns their ids.

    A killed run would otherwise count as running for ever and block the next one.
    """
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        identity, _, claimed = run.tags.get(PROCESS_TAG, "").rpartition(":")
        if claimed != run.run_id or identity.split(":")[0] != os.uname().nodename or is_alive(identity):
            continue
        pid = identity.split(":")[1]
        instance.report_run_failed(run, f"Its process ({pid}) is gone: killed, or the machine went down. Run the same again.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        dead.append(run.run_id)
    return dead
