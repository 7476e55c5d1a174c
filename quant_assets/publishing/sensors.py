"""Two thin sensors: deliver the outbox to the document store, and tell people what failed.

Both keep their cursor in the instance under their own name, so that the daemon and `quant-assets run` continue one
another, and move it only after the delivery: at least once, never lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from quant_assets.publishing import outbox
from quant_assets.publishing.alerts import Alert, check_alert, run_failure_alert
from quant_assets.publishing.assets import FILE_METADATA, OUTBOX_KEY
from quant_assets.publishing.document_store import DocumentStore, StoreUnavailable
from quant_assets.publishing.embedded_store import address
from quant_assets.publishing.webhook import Webhook, WebhookError
from quant_assets.resources import fail_dead_runs
from quant_assets.settings import load_settings

BATCH = 50
PUBLISH_CURSOR = "quant_assets/publish_documents"
ALERT_CURSOR = "quant_assets/send_alerts"
WAITING = "Waiting: "
FINISHED: list[Any] = [dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED]


@dg.sensor(
    name="publish_documents",
    description="Delivers the outbox to the document store, in order; when it is down, nothing is lost and the next tick goes on.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def publish_documents(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Upsert the files of every new outbox materialization, oldest first; the cursor moves after the write."""
    settings = load_settings()
    cursor = read_cursor(context.instance, PUBLISH_CURSOR)
    waiting = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=OUTBOX_KEY, after_storage_id=cursor), limit=BATCH, ascending=True
    ).records
    if not waiting:
        return dg.SkipReason("Nothing new in the outbox.")
    uri = settings.mongodb_uri.get_secret_value() or address(settings.home)
    if not uri:
        remedy = "Set QUANT_MONGODB_URI, or start the embedded one with `make ui`."
        return dg.SkipReason(f"{WAITING}{len(waiting)} outbox files, for there is no document store. {remedy}")
    events: list[dg.AssetMaterialization] = []
    try:
        with DocumentStore(uri, settings.mongodb_database) as store:
            for record in waiting:
                materialization = record.asset_materialization
                if materialization is not None:
                    events += _deliver(settings.outbox_path / str(materialization.metadata[FILE_METADATA].value), store)
                write_cursor(context.instance, PUBLISH_CURSOR, record.storage_id)
    except StoreUnavailable as error:
        if not events:
            return dg.SkipReason(f"{WAITING}{len(waiting)} outbox files. {error}")
    return dg.SensorResult(asset_events=events, skip_reason=f"Delivered, by collection and file: {len(events)}.")


def _deliver(file: Path, store: DocumentStore) -> list[dg.AssetMaterialization]:
    """Publish one outbox file; what became of each collection, as events of the collection's asset."""
    return [
        dg.AssetMaterialization(
            ["mongodb", collection],
            metadata={"file": file.name, "store": store.describe(), **asdict(published)},
        )
        for collection, published in store.publish(outbox.read(file)).items()
    ]


@dg.sensor(
    name="send_alerts",
    description="Marks runs whose process is gone as failed; posts failed checks and runs to the webhook, in order, at least once.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def send_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Walk finished runs in order; the cursor moves past a run only after all its alerts were accepted."""
    fail_dead_runs(context.instance)  # here too, for dead runs that fill the queue keep every later one from starting
    settings = load_settings()
    finished = _finished_runs(context.instance, read_cursor(context.instance, ALERT_CURSOR))
    url = settings.webhook_url.get_secret_value()
    if not url:
        for storage_id, _ in finished:  # passed over: a webhook that is set later tells what comes, not an old story
            write_cursor(context.instance, ALERT_CURSOR, storage_id)
        return dg.SkipReason("No webhook: set QUANT_WEBHOOK_URL to be told of failed checks and runs.")
    sent = 0
    with Webhook(url, settings.webhook_secret.get_secret_value()) as webhook:
        for storage_id, run in finished:
            try:
                for alert in alerts_of(context.instance, run) if run else []:
                    webhook.post(alert)
                    sent += 1
            except WebhookError as error:
                return dg.SkipReason(f"{WAITING}{sent} alerts were sent, the rest not. {error}")
            write_cursor(context.instance, ALERT_CURSOR, storage_id)
    return dg.SkipReason(f"{sent} alerts sent.")


def alerts_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[Alert]:
    """The alerts of one finished run: itself if it failed, and each check of it that did not pass."""
    alerts = []
    session = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_end")
    if run.status is dg.DagsterRunStatus.FAILURE:
        failures = instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE})
        steps = [entry for entry in failures if entry.step_key]
        first = (steps or failures)[0]
        alerts.append(
            run_failure_alert(
                run_id=run.run_id, job=run.job_name, error=_error_text(first), asset=first.step_key, session=_date(session), at=_at(first)
            )
        )
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        evaluation = entry.dagster_event.asset_check_evaluation_data if entry.dagster_event else None
        if evaluation is not None and not evaluation.passed:
            alerts.append(
                check_alert(
                    run_id=run.run_id,
                    asset=evaluation.asset_key.to_user_string(),
                    check=evaluation.check_name,
                    severity="warning" if evaluation.severity is dg.AssetCheckSeverity.WARN else "critical",
                    description=evaluation.description or "The check did not pass.",
                    numbers={name: value.value for name, value in evaluation.metadata.items() if isinstance(value.value, int | float)},
                    session=_date(session),
                    at=_at(entry),
                )
            )
    return alerts


def _finished_runs(instance: dg.DagsterInstance, cursor: int | None) -> Iterator[tuple[int, dg.DagsterRun | None]]:
    """Finished runs after the cursor, oldest first, with the storage id of the event that finished each; None: deleted since."""
    found: list[tuple[int, str]] = []
    complete_until = float("inf")
    for event_type in FINISHED:
        page = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(event_type, after_storage_id=cursor), limit=BATCH, ascending=True
        ).records
        found += [(record.storage_id, record.run_id) for record in page]
        if len(page) == BATCH:  # there may be more of this kind: what lies behind its last one waits for the next tick
            complete_until = min(complete_until, page[-1].storage_id)
    for storage_id, run_id in sorted(found):
        if storage_id <= complete_until:
            yield storage_id, instance.get_run_by_id(run_id)


def _error_text(entry: dg.EventLogEntry) -> str:
    event = entry.dagster_event
    data = event.event_specific_data if event else None
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return (error.message if error else "") or (event.message if event else "") or "The run failed."


def _at(entry: dg.EventLogEntry) -> datetime:
    return datetime.fromtimestamp(entry.timestamp, UTC)


def _date(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def read_cursor(instance: dg.DagsterInstance, name: str) -> int | None:
    """Where a sensor stands: the storage id of the last event it has dealt with."""
    value = instance.daemon_cursor_storage.get_cursor_values({name}).get(name)
    return int(value) if value else None


def write_cursor(instance: dg.DagsterInstance, name: str, storage_id: int) -> None:
    """Move a sensor past an event."""
    instance.daemon_cursor_storage.set_cursor_values({name: str(storage_id)})
