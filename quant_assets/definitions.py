"""Table of contents: the stages in the order of the data, then jobs, schedule, sensors and resources.

Loads with no secret, no network and no ML library.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from quant_assets.clock import calendar_of
from quant_assets.data_quality import assets as data_quality
from quant_assets.data_quality import checks as data_quality_checks
from quant_assets.feature_store import assets as feature_store
from quant_assets.feature_store import checks as feature_store_checks
from quant_assets.market_data import assets as market_data
from quant_assets.market_data import checks as market_data_checks
from quant_assets.partitions import nightly_cron
from quant_assets.publishing import assets as publishing
from quant_assets.publishing import sensors
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.settings import load_settings
from quant_assets.signals import assets as signals
from quant_assets.signals.registry import assets as model_registry
from quant_assets.signals.sensors import ask_for_retraining

SETTINGS = load_settings()
SETTINGS.export()

TRAINING = dg.AssetSelection.assets(signals.signals_model)
REVIEWS = dg.AssetSelection.assets(data_quality.reviews)

nightly = dg.define_asset_job(
    "nightly",
    selection=dg.AssetSelection.all() - TRAINING - REVIEWS,
    executor_def=dg.in_process_executor,
    description="Everything a night does: fetch, judge, compute, score, hand over. It scores but does not train.",
)
retrain = dg.define_asset_job(
    "retrain",
    selection=TRAINING,
    executor_def=dg.in_process_executor,
    description="Walk-forward training and registration of the signal model; training on the same data again returns the registered version.",
)
review = dg.define_asset_job(
    "review",
    selection=REVIEWS,
    executor_def=dg.in_process_executor,
    description="People's decisions about held bars, from the run's configuration; the next night computes again what rests on them.",
)


@dg.schedule(
    job=nightly,
    name="nightly_after_close",
    cron_schedule=nightly_cron(calendar_of(SETTINGS)),
    execution_timezone=calendar_of(SETTINGS).timezone,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="After the close of the calendar's exchange plus the vendor's delay, in the exchange's time zone; skips closed days.",
)
def nightly_after_close(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Request the session that became known since the last tick."""
    calendar = calendar_of(SETTINGS)
    local = context.scheduled_execution_time.astimezone(ZoneInfo(calendar.timezone))
    # A day earlier on the exchange's clock, which is 23 or 25 hours where that clock was changed.
    before, tick = ((local - timedelta(days=days)).astimezone(UTC).replace(tzinfo=None) for days in (1, 0))
    session = calendar.last_known_session(tick)
    if calendar.known_at(session) <= before:
        return dg.SkipReason(f"No session of {calendar.name} closed in the day before {tick} UTC; the last was {session}.")
    return dg.RunRequest(run_key=str(session), partition_key=str(session))


defs = dg.Definitions(
    assets=[
        market_data.market_data,
        market_data.restatements,
        data_quality.data_quality,
        data_quality.blast_radius,
        data_quality.reviews,
        feature_store.feature_store,
        feature_store.dbt_features,
        feature_store.drift,
        signals.signals_model,
        signals.daily_signals,
        signals.scorecard,
        publishing.outbox,
        publishing.SIGNALS_COLLECTION,
        publishing.ANOMALIES_COLLECTION,
    ],
    asset_checks=[
        market_data_checks.daily_bars_checks,
        data_quality_checks.bar_rules,
        feature_store_checks.no_lookahead,
        feature_store_checks.feature_drift,
    ],
    jobs=[nightly, retrain, review, *model_registry.JOBS],
    schedules=[nightly_after_close],
    sensors=[ask_for_retraining, sensors.publish_documents, sensors.send_alerts],
    resources={"warehouse": WarehouseResource(database=str(SETTINGS.warehouse_path)), "desk": DeskResource()},
)
