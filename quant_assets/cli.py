"""The `quant-assets` command: the nightly job without the UI, training, the doctor, and the UI itself.

Dagster is imported inside the functions that run it, so that help and configuration errors answer at once.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import click

from quant_assets.clock import TradingCalendar, calendar_of, utc_now
from quant_assets.data_quality.quality_commands import quality
from quant_assets.data_quality.quarantine_commands import quarantine
from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.settings import Settings, load_settings
from quant_assets.signals.registry.commands import model

if TYPE_CHECKING:
    import dagster as dg

    from quant_assets.report import Progress

STAGE_FAILED, CONFIGURATION_ERROR = 1, 2
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Plan:
    """What a run works on, decided before anything is written: the instant, and the first and last session.

    An instant that was asked for is kept to the microsecond (`explicit`); otherwise a restatement that lands during
    the run moves it, so that the night already works with what it has just learned.
    """

    as_of: datetime
    first: date
    last: date
    explicit: bool


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn our errors into one line and an exit code: 2 for a wrong setting, 1 for anything else of ours."""
    try:
        yield
    except ConfigurationError as error:
        click.echo(f"Configuration error: {error}", err=True)
        sys.exit(CONFIGURATION_ERROR)
    except QuantAssetsError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(STAGE_FAILED)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A nightly data and ML asset platform for a small quant desk."""
    from quant_assets.signals.retraining import die_with_parent

    die_with_parent()


@main.command()
@click.option("--as-of", "as_of", metavar="DATE", help="Pretend it is the evening of this date, or this instant (UTC).")
@click.option("--from", "first", metavar="DATE", help="First session of a range, run as one run.")
@click.option("--to", "last", metavar="DATE", help="Last session of the range; as of its evening, unless --as-of says otherwise.")
@click.option("--select", metavar="ASSETS", help="Only these assets, in Dagster's selection syntax, such as 'group:signals'.")
def run(as_of: str | None, first: str | None, last: str | None, select: str | None) -> None:
    """Run the nightly job once and hand its results over.

    Exit code 0: done (recorded faults are warnings), 1: a stage failed, 2: a setting is wrong and nothing was written.
    """
    started = time.monotonic()
    with exit_codes():
        settings = load_settings()
        plan = make_plan(settings, as_of, first, last)
        succeeded = run_nightly(settings, plan, select, started)
    sys.exit(0 if succeeded else STAGE_FAILED)


@model.command()
@click.option("--as-of", "as_of", metavar="DATE", help="Train as of the evening of this date, or this instant (UTC).")
@click.option("--symbols", metavar="A,B,C", help="Train on these symbols; the universe without it.")
@click.option("--family", "model_family", help="lightgbm, catboost, logistic, xgboost, average or small (QUANT_MODEL_FAMILY).")
@click.option("--look-back", "look_back_sessions", type=int, help="Sessions of history to train on, 0 for all (QUANT_LOOK_BACK_SESSIONS).")
@click.option("--rounds", "model_rounds", type=int, help="Boosting rounds at most (QUANT_MODEL_ROUNDS).")
@click.option("--threshold", "label_threshold", type=float, help="The return to be exceeded, 0.02 for 2 % (QUANT_LABEL_THRESHOLD).")
@click.option("--test-sessions", type=int, help="Last sessions to test on, 0 for all that can be (QUANT_TEST_SESSIONS).")
@click.option("--tuning-trials", type=int, help="Trials of the study that tunes on the first training (QUANT_TUNING_TRIALS).")
def train(as_of: str | None, symbols: str | None, **asked: str | float | None) -> None:
    """Train, evaluate, register and decide; the same data and settings give the registered version again."""
    options: dict[str, object] = {name: value for name, value in asked.items() if value is not None}
    if symbols:
        options["symbols"] = [symbol.strip() for symbol in symbols.split(",") if symbol.strip()]
    import dagster as dg

    with exit_codes():
        settings = load_settings()
        settings.overridden(**asked)
        plan = make_plan(settings, as_of, None, None)
        result = execute_job(settings, "retrain", plan, config={"ops": {"signals_model": {"config": options}}})
        if not result.success:
            raise QuantAssetsError(f"Training failed: {failure_text(result)}")
        for event in result.all_events:
            if event.is_step_materialization and event.asset_key and event.asset_key.path[-1] == "model":
                for name, value in event.materialization.metadata.items():
                    if isinstance(value.value, str | int | float) and not isinstance(value, dg.MarkdownMetadataValue):
                        click.echo(f"{name}: {value.value}")


main.add_command(model)
main.add_command(quarantine)
main.add_command(quality)


@main.command()
def doctor() -> None:
    """Check settings, stores, source and webhook: one line each, with the remedy. Exit code 1 when something is broken."""
    from quant_assets.doctor import examine

    with exit_codes():
        findings = examine(load_settings())
    for finding in findings:
        click.echo(f"{finding.mark}  {finding.what}: {finding.text}")
    sys.exit(0 if all(finding.ok for finding in findings) else STAGE_FAILED)


@main.command()
def ui() -> None:
    """Start Dagster's webserver and daemon, MLflow's UI and the embedded document store, and say where they are."""
    from quant_assets.resources import prepare_home
    from quant_assets.ui import serve

    with exit_codes():
        settings = load_settings()
        require_usable(settings)
        prepare_home(settings)
        serve(settings)


def require_usable(settings: Settings) -> TradingCalendar:
    """Raise `ConfigurationError` unless calendar, HOME and the addresses can be used; writes nothing and calls nobody."""
    from quant_assets.home import require_writable
    from quant_assets.publishing.document_store import DocumentStore
    from quant_assets.publishing.webhook import Webhook

    calendar = calendar_of(settings)
    require_writable(settings.home)
    if uri := settings.mongodb_uri.get_secret_value():
        DocumentStore(uri, settings.mongodb_database).close()
    if url := settings.webhook_url.get_secret_value():
        Webhook(url).close()
    return calendar


def make_plan(settings: Settings, as_of: str | None, first: str | None, last: str | None) -> Plan:
    """Decide what to work on; every setting is tried first, and `ConfigurationError` names the one that is wrong."""
    from quant_assets.market_data.landing import default_as_of
    from quant_assets.market_data.sources import make_source
    from quant_assets.warehouse import Warehouse

    calendar = require_usable(settings)
    now = utc_now()
    source = make_source(settings, calendar, now)
    last_in_source = source.last_session()
    if as_of:
        instant = calendar.as_of(as_of)
    elif last:
        instant = calendar.as_of(str(_day("--to", last)))
    elif source.live:
        instant = now
    elif settings.warehouse_path.exists():
        warehouse = Warehouse(settings.warehouse_path, settings.source, lock_timeout_seconds=settings.lock_timeout_seconds)
        instant = default_as_of(warehouse, settings.source, calendar, last_in_source)
    else:
        instant = calendar.known_at(last_in_source)
    tonight = calendar.last_known_session(instant)
    end = min(calendar.session_on_or_before(_day("--to", last)), tonight) if last else tonight
    begin = end
    if first:
        if _day("--from", first) < settings.first_session_floor:
            raise ConfigurationError(
                f"--from {first} lies before QUANT_START={settings.first_session_floor}; set QUANT_START to it or earlier."
            )
        within = calendar.between(_day("--from", first), end)
        if not within:
            raise ConfigurationError(f"--from {first} lies after the last session {end}; give an earlier date.")
        begin = within[0]
    if begin < settings.first_session_floor:
        raise ConfigurationError(f"{begin} lies before QUANT_START={settings.first_session_floor}; set QUANT_START to it or earlier.")
    return Plan(instant, begin, end, explicit=bool(as_of or last or source.live))


def run_nightly(settings: Settings, plan: Plan, select: str | None, started: float) -> bool:
    """Run the job, deliver what waits in the outbox, print what came out; says whether every stage succeeded."""
    from quant_assets.publishing.embedded_store import running
    from quant_assets.report import Progress, summary

    with Progress() as progress:
        result = execute_job(settings, "nightly", plan, select=select, progress=progress)
        external = settings.mongodb_uri.get_secret_value()
        with nullcontext(external) if external else running(settings.home):
            waiting, refused = evaluate_sensors(progress)
    stages = dict(materializations(result))
    as_of = datetime.fromisoformat(stages.get("signals/daily_signals", {}).get("as_of", plan.as_of.isoformat()))
    warnings = [f"{key}: {name} did not pass. {text}" for key, name, text in failed_checks(result)]
    failure = "" if result.success else failure_text(result)
    summary(settings, as_of, plan.last, stages, warnings + waiting + refused, failure, time.monotonic() - started)
    return bool(result.success) and not refused


def execute_job(
    settings: Settings,
    name: str,
    plan: Plan,
    select: str | None = None,
    progress: Progress | None = None,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run a job in this process on the instance under HOME; a failing step is in the result, not raised."""
    import dagster as dg

    from quant_assets.definitions import defs
    from quant_assets.resources import AS_OF_TAG, claim, prepare_home

    job = defs.resolve_job_def(name)
    run_id = str(uuid.uuid4())
    partition: dict[str, Any] = {}
    tags = claim(run_id) | ({AS_OF_TAG: plan.as_of.isoformat()} if plan.explicit else {})
    if name == "nightly" and plan.first == plan.last:
        partition = {"partition_key": str(plan.last)}
    elif name == "nightly":
        tags |= {"dagster/asset_partition_range_start": str(plan.first), "dagster/asset_partition_range_end": str(plan.last)}
    selection: list[dg.AssetKey] | None = None
    if select:
        graph = defs.resolve_asset_graph()
        warnings.simplefilter("ignore", dg.BetaWarning)  # of the selection syntax itself, which is Dagster's own
        try:
            selected = dg.AssetSelection.from_string(select).required_multi_asset_neighbors().resolve(graph)  # a step works whole
        except dg.DagsterError as error:
            raise ConfigurationError(f"--select {select!r} cannot be read: {error}") from None
        selection = sorted(selected & frozenset(job.asset_layer.executable_asset_keys))
        if not selection:
            raise ConfigurationError(f"--select {select!r} matches no asset of the job {name}; see the names in `make ui`.")
    try:
        prepare_home(settings)
    except OSError as error:
        raise ConfigurationError(f"QUANT_HOME={settings.home} cannot be written: {error.strerror}. Choose another folder.") from None
    with dg.DagsterInstance.get() as instance:
        if progress is not None:
            instance.add_event_listener(run_id, _listener(progress))
        return job.execute_in_process(
            instance=instance,
            run_id=run_id,
            tags=tags,
            run_config={**QUIET, **(config or {})},
            raise_on_error=False,
            asset_selection=selection,
            **partition,
        )


def evaluate_sensors(progress: Progress) -> tuple[list[str], list[str]]:
    """Tick our sensors in this process until they have nothing left: the same code as the daemon's.

    Returns what waits and heals by itself, and what was refused and needs a person.
    """
    import dagster as dg

    from quant_assets.publishing.sensors import WAITING, publish_documents, send_alerts

    waiting, refused = list[str](), list[str]()
    with dg.DagsterInstance.get() as instance:
        for sensor in (publish_documents, send_alerts):
            try:
                while isinstance(outcome := sensor(dg.build_sensor_context(instance=instance)), dg.SensorResult):
                    for event in outcome.asset_events:
                        instance.report_runless_asset_event(event)
                        progress.line(f"{event.asset_key.to_user_string()}: {_numbers(event.metadata)}")
            except QuantAssetsError as error:
                refused.append(f"{sensor.name}: {error}")
                continue
            if isinstance(outcome, dg.SkipReason) and (outcome.skip_message or "").startswith(WAITING):
                waiting.append(f"{sensor.name}: {outcome.skip_message}")
    return waiting, refused


def materializations(result: dg.ExecuteInProcessResult) -> Iterator[tuple[str, dict[str, Any]]]:
    """Asset key and metadata of everything that a run materialized; the last partition's where there were several."""
    last = {}
    for event in result.all_events:
        if event.is_step_materialization and event.asset_key:
            last[event.asset_key.to_user_string()] = {name: value.value for name, value in event.materialization.metadata.items()}
    yield from last.items()


def failed_checks(result: dg.ExecuteInProcessResult) -> Iterator[tuple[str, str, str]]:
    """Asset, check and description of every check that did not pass."""
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed:
            yield evaluation.asset_key.to_user_string(), evaluation.check_name, evaluation.description or ""


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """The innermost error of the first step that failed, with the step's name."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return f"{event.step_key}: {error.message.strip() if error else event.message}"
    return "the run failed before its first step; see it in Dagster"


def _listener(progress: Progress) -> Callable[[dg.EventLogEntry], None]:
    import dagster as dg

    def listen(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None or event.step_key is None:
            if event is None and int(entry.level) >= logging.INFO:
                progress.line(entry.user_message)
        elif event.event_type is dg.DagsterEventType.STEP_START:
            progress.start(event.step_key)
        elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
            progress.done(event.step_key, event.step_success_data.duration_ms / 1000)
        elif event.event_type is dg.DagsterEventType.STEP_FAILURE:
            progress.failed(event.step_key)

    return listen


def _numbers(metadata: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value.value}" for name, value in metadata.items())


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{option} {text!r} is no date; write it as 2018-02-07.") from None


if __name__ == "__main__":
    main()
