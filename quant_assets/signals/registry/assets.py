"""People's decisions about model versions as jobs, from the run's configuration: what `quant-assets model` does, in Dagster."""

from collections.abc import Callable
from datetime import datetime

import dagster as dg
from pydantic import Field

from quant_assets.assets import markdown_table
from quant_assets.data_quality.reviews import desk_clock
from quant_assets.resources import AS_OF_TAG, DeskResource, WarehouseResource
from quant_assets.signals.registry.actions import Outcome, delete, promote, rollback, this_person
from quant_assets.signals.registry.desk import ModelDesk, list_versions, show_version


class VersionDecision(dg.Config):
    """A decision about one version."""

    version: str = Field(description="Version in the registry.")
    reason: str = Field(description="Why; kept in the ledger.")
    by: str = Field("", description="Who decides; empty: the user that Dagster runs as.")


class Rollback(dg.Config):
    """Back to the champion before the present one."""

    reason: str = Field(description="Why; kept in the ledger.")
    champion: str = Field("", description="Refuse unless this version is the champion, so that a repeated run does not go back twice.")
    by: str = Field("", description="Who decides; empty: the user that Dagster runs as.")


class TwoVersions(dg.Config):
    """Two versions to hold against one another."""

    a: str = Field(description="A version.")
    b: str = Field(description="Another one.")
    metrics: list[str] = Field([], description="Only these metrics; empty: all.")


class OneVersion(dg.Config):
    """A version to look at."""

    version: str = Field("", description="Version in the registry; empty: the list of all of them.")


@dg.op
def promote_version(context: dg.OpExecutionContext, config: VersionDecision, warehouse: WarehouseResource, desk: DeskResource) -> None:
    """Make a version champion, whatever its evidence says."""
    by = config.by or this_person()
    _decide(context, warehouse, desk, lambda models, at: promote(models, config.version, config.reason, by, at, context.run_id))


@dg.op
def rollback_version(context: dg.OpExecutionContext, config: Rollback, warehouse: WarehouseResource, desk: DeskResource) -> None:
    """Go back to the champion before the present one."""
    by, expected = config.by or this_person(), config.champion or None
    _decide(context, warehouse, desk, lambda models, at: rollback(models, config.reason, by, at, expected, context.run_id))


@dg.op
def delete_version(context: dg.OpExecutionContext, config: VersionDecision, warehouse: WarehouseResource, desk: DeskResource) -> None:
    """Remove a version from the registry, with its local copy; its predictions and decisions stay."""
    by = config.by or this_person()
    _decide(context, warehouse, desk, lambda models, at: delete(models, config.version, config.reason, by, at, context.run_id))


@dg.op
def compare_versions(context: dg.OpExecutionContext, config: TwoVersions, warehouse: WarehouseResource, desk: DeskResource) -> None:
    """Hold two versions against one another: as each was judged, and paired on what both predicted."""
    from quant_assets.signals.registry import comparison

    found = comparison.compare_versions(ModelDesk.open(warehouse.client, desk.settings), config.a, config.b, config.metrics)
    context.add_output_metadata(
        {
            "judged": markdown_table(found.judged),
            "paired": markdown_table(found.paired),
            "sessions": found.sessions,
            "notes": "; ".join(found.notes) or "none",
        }
    )


@dg.op
def show_versions(context: dg.OpExecutionContext, config: OneVersion, warehouse: WarehouseResource, desk: DeskResource) -> None:
    """Show a version's card and the decisions about it, or the list of all versions."""
    models = ModelDesk.open(warehouse.client, desk.settings)
    if not config.version:
        context.add_output_metadata({"versions": markdown_table(list_versions(models))})
        return
    card, decisions = show_version(models, config.version)
    context.add_output_metadata({"card": dg.MetadataValue.md(card or "no card is kept"), "decisions": markdown_table(decisions)})


def _decide(
    context: dg.OpExecutionContext, warehouse: WarehouseResource, desk: DeskResource, action: Callable[[ModelDesk, datetime], Outcome]
) -> None:
    as_of = desk_clock(warehouse.client, desk.calendar, desk.source.live, context.run.tags.get(AS_OF_TAG))
    outcome = action(ModelDesk.open(warehouse.client, desk.settings), as_of)
    context.add_output_metadata({"outcome": dg.MetadataValue.md(outcome.markdown)})
    for warning in outcome.warnings:
        context.log.warning(warning)


@dg.job(executor_def=dg.in_process_executor, description="Make a version champion by hand, whatever its evidence says.")
def promote_model() -> None:
    """One decision."""
    promote_version()


@dg.job(executor_def=dg.in_process_executor, description="Go back to the champion before the present one.")
def rollback_model() -> None:
    """One decision."""
    rollback_version()


@dg.job(executor_def=dg.in_process_executor, description="Remove a version from the registry, with its local copy.")
def delete_model() -> None:
    """One decision."""
    delete_version()


@dg.job(executor_def=dg.in_process_executor, description="Hold two versions against one another; reads only.")
def compare_models() -> None:
    """One look."""
    compare_versions()


@dg.job(executor_def=dg.in_process_executor, description="A version's card and the decisions about it, or the list of all; reads only.")
def show_models() -> None:
    """One look."""
    show_versions()


JOBS = [promote_model, rollback_model, delete_model, compare_models, show_models]
