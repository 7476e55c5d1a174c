"""One thin sensor: ask for retraining when the scorecard gives a reason, and not again before a cool-down is over.

It never opens DuckDB. The night's asset `signals/scorecard` has judged drift and decay and says so in its metadata.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import dagster as dg

from quant_assets.clock import TradingCalendar, calendar_of
from quant_assets.resources import AS_OF_TAG
from quant_assets.settings import load_settings

SCORECARD_KEY = dg.AssetKey(["signals", "scorecard"])
RETRAIN_JOB = "retrain"
REASON_METADATA, AS_OF_METADATA = "retraining_reason", "as_of"
REASON_TAG = "quant/retraining_reason"


@dg.sensor(
    name="ask_for_retraining",
    job_name=RETRAIN_JOB,
    description="Starts the job `retrain` when the night's scorecard names drift or decay, at most once per cool-down.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)
def ask_for_retraining(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Read the newest night's reason; request one run as of that night, tagged with it, unless the cool-down lasts.

    The cool-down counts trading sessions on the desk's clock, from the last training requested or run by whomever, which the
    cursor remembers when the run is deleted. A failed one counts too: it raises an alert, and is not tried at every tick.
    """
    record = context.instance.get_latest_materialization_event(SCORECARD_KEY)
    night = record.asset_materialization if record else None
    if night is None:
        return dg.SkipReason("No night has filled signals/scorecard yet.")
    missing = [name for name in (REASON_METADATA, AS_OF_METADATA) if name not in night.metadata]
    if missing:
        return dg.SkipReason(f"The newest signals/scorecard does not say its {' and '.join(missing)}; the next night does.")
    reason, as_of = (str(night.metadata[name].value) for name in (REASON_METADATA, AS_OF_METADATA))
    now = datetime.fromisoformat(as_of)
    run_id, trained = _last_training(context, now)
    context.update_cursor(json.dumps({"run_id": run_id, "as_of": trained.isoformat() if trained else None}))
    if not reason:
        return dg.SkipReason(f"Neither drift nor decay as of {now:%Y-%m-%d %H:%M} UTC.")
    settings = load_settings()
    if trained is not None:
        passed = _sessions_between(calendar_of(settings), trained, now)
        if passed < settings.retrain_cooldown_sessions:
            return dg.SkipReason(
                f"Cooling down: {passed} of {settings.retrain_cooldown_sessions} sessions have passed since the last training "
                f"(as of {trained:%Y-%m-%d %H:%M} UTC). The reason to train again: {reason}."
            )
    # The run that this makes is what the next tick sees. A reason names the look or the session that it rests on, so that
    # one event, which may stand for many nights, asks once.
    return dg.RunRequest(run_key=hashlib.sha256(reason.encode()).hexdigest()[:16], tags={AS_OF_TAG: now.isoformat(), REASON_TAG: reason})


def _last_training(context: dg.SensorEvaluationContext, now: datetime) -> tuple[str | None, datetime | None]:
    """The newest run of the job, and as of when a training was last requested or run, as far as is known; None: never.

    A run says it by its tag. One without it trained as of when it was made, or, where the desk's clock lies behind that
    (recorded data), as of the night in which it was first seen.
    """
    seen = json.loads(context.cursor) if context.cursor else {}
    run_id, known = seen.get("run_id"), seen.get("as_of")
    instants = [datetime.fromisoformat(known)] if known else []
    for record in context.instance.get_run_records(dg.RunsFilter(job_name=RETRAIN_JOB), limit=1):
        if record.dagster_run.run_id != run_id:
            run_id = record.dagster_run.run_id
            tagged = record.dagster_run.tags.get(AS_OF_TAG)
            made = record.create_timestamp.astimezone(UTC).replace(tzinfo=None)
            instants.append(calendar_of(load_settings()).as_of(tagged) if tagged else min(made, now))
    return run_id, max(instants, default=None)


def _sessions_between(calendar: TradingCalendar, earlier: datetime, later: datetime) -> int:
    """How many sessions became known after one instant and by another; 0 where the other lies before it."""
    first, last = calendar.last_known_session(earlier), calendar.last_known_session(later)
    return max(len(calendar.between(first, last)) - 1, 0)
