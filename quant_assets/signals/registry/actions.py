"""What people decide about model versions: promote one by hand, roll back, delete.

The ledger `signals.promotions` is the truth and the verified local copy is what scores; MLflow's aliases follow. So a
promotion or a rollback stands while MLflow is down, and the next action or training moves the alias after it.
"""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from quant_assets.clock import utc_now
from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import PROMOTIONS
from quant_assets.signals.champions import DELETED, MODEL, PROMOTED, ROLLED_BACK, Champion
from quant_assets.signals.registry.desk import DecisionRefused, ModelDesk, champions_in_order, copy_state, facts_of, last_decision
from quant_assets.signals.registry.local_copies import load_local_copy, local_copy, model_card_path, save_local_copy
from quant_assets.signals.registry.tracking import CHAMPION
from quant_assets.warehouse import append_ledger, scalar


@dataclass(frozen=True)
class Outcome:
    """What an action did to a version, in words; `warnings` need a person's eye. `written`: a row of the ledger is new."""

    version: str
    written: bool
    done: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def markdown(self) -> str:
        """The same as a list."""
        return "\n".join([*(f"- {line}" for line in self.done), *(f"- **Warning:** {line}" for line in self.warnings)])


def promote(desk: ModelDesk, version: str, reason: str, by: str, instant: datetime, run_id: str = "by hand") -> Outcome:
    """Make a version champion of its label, whatever its evidence says; the decision holds from the instant, after all before it.

    The registry must have it, and its local copy must be the one that the ledger knows, else that is written again from the
    registry. While MLflow is down the ledger and the local copy do. A version that may not score is promoted with a
    warning. One that is champion already writes nothing. Raises `DecisionRefused`.
    """
    _require(reason, by)
    ledger, facts = desk.decisions(), _facts(desk, version)
    before = desk.in_use(facts["horizon"], facts["label_threshold"])
    sha256, rewritten = verified_copy(desk, version, facts["model_sha256"])
    done = [f"The local copy of version {version} was written again from the registry."] if rewritten else []
    again = champions_in_order(ledger, facts["horizon"], facts["label_threshold"])[-1:] == [version]
    if again:
        done.append(f"Version {version} is champion already.")
    else:
        _append(desk, ledger, facts | {"model_sha256": sha256}, PROMOTED, reason, by, before, instant, run_id)
        instead = f" instead of version {before.model_version}" if before and before.model_version != version else ""
        done.append(f"Version {version} is champion for {_label(facts)}{instead}.")
    warnings = [*_may_not_score(desk, facts | {"model_sha256": sha256}), *_tell_registry(desk, version, PROMOTED, reason, by)]
    return Outcome(version, not again, tuple(done), tuple(warnings))


def rollback(desk: ModelDesk, reason: str, by: str, instant: datetime, expected: str | None = None, run_id: str = "by hand") -> Outcome:
    """Go back to the champion before the present one, of the horizon and threshold that the settings ask for.

    Versions that may not score the view as it is defined now are passed over; rolling back again goes further back.
    `expected`: refuse unless this is the champion, so that a repeated command does not go back twice. Raises
    `DecisionRefused`, also where there is no earlier champion.
    """
    _require(reason, by)
    horizon, threshold, view = desk.settings.horizon, desk.settings.label_threshold, desk.settings.feature_view
    ledger, present = desk.decisions(), desk.in_use()
    if present is None:
        raise DecisionRefused(
            f"There is no champion for {_label({'horizon': horizon, 'label_threshold': threshold})}: nothing to go back from."
        )
    if expected is not None and present.model_version != expected:
        raise DecisionRefused(
            f"The champion is version {present.model_version}, not {expected}: look again with `quant-assets model list`."
        )
    fitting = [
        version
        for version in champions_in_order(ledger, horizon, threshold)
        if _champion(last_decision(ledger, version)).misfit(view, definition_hash(view)) is None
    ]
    earlier = [version for version in fitting if version != present.model_version]
    if present.model_version not in fitting or not earlier:
        raise DecisionRefused(
            f"Before version {present.model_version} there was no champion that may score {view} as it is defined now; "
            "promote another version, or train one."
        )
    target = earlier[-1]
    facts = _facts(desk, target)
    sha256, rewritten = verified_copy(desk, target, facts["model_sha256"])
    _append(desk, ledger, facts | {"model_sha256": sha256}, ROLLED_BACK, reason, by, present, instant, run_id)
    done = [f"The local copy of version {target} was written again from the registry."] if rewritten else []
    done.append(f"Version {target} is champion again for {_label(facts)}, instead of version {present.model_version}.")
    warnings = [*_may_not_score(desk, facts | {"model_sha256": sha256}), *_tell_registry(desk, target, ROLLED_BACK, reason, by)]
    return Outcome(target, True, tuple(done), tuple(warnings))


def delete(desk: ModelDesk, version: str, reason: str, by: str, instant: datetime, run_id: str = "by hand") -> Outcome:
    """Remove a version from the registry and its local copy with its card; its predictions, ledger rows and MLflow run stay.

    Raises `DecisionRefused` for a champion in use, for the only promoted version of its label, and while MLflow does not
    answer. A deletion that was cut off is completed when it is asked for again.
    """
    _require(reason, by)
    if desk.registry is None:
        raise DecisionRefused(f"A version is deleted in the registry too, and that does not answer. {desk.registry_fault}")
    ledger = desk.decisions()
    done, written = [], False
    if ledger.filter(pl.col("model_version") == version)["decision"].tail(1).to_list() == [DELETED]:
        done.append(f"Version {version} was deleted before.")
    else:
        facts = _facts(desk, version, may_be_gone=True)
        if champions_in_order(ledger, facts["horizon"], facts["label_threshold"]) == [version]:
            raise DecisionRefused(f"Version {version} is the only promoted version for {_label(facts)}: promote another first.")
        in_use = desk.in_use(facts["horizon"], facts["label_threshold"])
        if in_use is not None and in_use.model_version == version:
            raise DecisionRefused(f"Version {version} is the champion for {_label(facts)}: promote another, or roll back, first.")
        _append(desk, ledger, facts | {"model_sha256": facts["model_sha256"] or ""}, DELETED, reason, by, in_use, instant, run_id)
        done.append(f"Version {version} is deleted; its predictions, decisions and MLflow run stay.")
        written = True
    if desk.registry.delete_version(version):
        done.append("It was removed from the registry.")
    for path in (local_copy(desk.settings.models_path, version), model_card_path(desk.settings.models_path, version)):
        if path.exists():
            path.unlink()
            done.append(f"{path} was removed.")
    return Outcome(version, written, tuple(done), tuple(_follow(desk)))


def sync_champion(desk: ModelDesk) -> str | None:
    """Let the registry's alias `champion` follow the ledger, for the label that the settings ask for; says so where it was moved."""
    if desk.registry is None:
        return None
    in_use = desk.in_use()
    version = in_use.model_version if in_use else None
    if not desk.registry.sync_champion(version):
        return None
    return f"The alias {CHAMPION} points to version {version} now." if version else f"The alias {CHAMPION} was taken off."


def this_person() -> str:
    """The user of this machine, who decides where nobody is named. Raises `ConfigurationError` where that cannot be told."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise ConfigurationError("This machine does not tell who you are: give the name of who decides.") from None


def _facts(desk: ModelDesk, version: str, *, may_be_gone: bool = False) -> dict[str, Any]:
    """What is known of a version that can be decided about: not deleted, and in the registry where that answers."""
    facts = facts_of(desk, version)
    if facts.get("decision") == DELETED:
        raise DecisionRefused(f"Version {version} was deleted at {facts['promoted_at']} UTC: {facts['reason']}")
    known = desk.registered().get(version)
    if known is None:
        if desk.registry is None or may_be_gone:
            return facts
        raise DecisionRefused(
            f"The ledger knows version {version}, but the registry does not have it: is QUANT_MLFLOW_TRACKING_URI the one it was registered in?"
        )
    if known.tags.get("fingerprint") != facts["fingerprint"]:
        raise DecisionRefused(
            f"Version {version} of the registry is another training than the ledger's version {version}: "
            "point QUANT_MLFLOW_TRACKING_URI back to the registry that the ledger's versions are in."
        )
    return facts


def verified_copy(desk: ModelDesk, version: str, sha256: str | None) -> tuple[str, bool]:
    """The hash of the local copy as the ledger knows it, written again from the registry where it is not that; and whether it was."""
    path = local_copy(desk.settings.models_path, version)
    if sha256 is not None and (state := copy_state(path, sha256)) == "verified":
        return sha256, False
    because = (
        f"The local copy {path} of version {version} is {state}"
        if sha256 is not None
        else f"Nothing is known of a local copy of version {version}"
    )
    if desk.registry is None:
        raise DecisionRefused(f"{because}, and the registry that it could be written from again does not answer. {desk.registry_fault}")
    model, contract = desk.registry.model(version)
    with tempfile.TemporaryDirectory() as folder:
        written = save_local_copy(Path(folder), version, model, contract)
    if sha256 is not None and written != sha256:
        raise DecisionRefused(
            f"{because}, and what the registry has (sha256 {written[:12]}…) is not the model that the ledger knows ({sha256[:12]}…): train again."
        )
    return save_local_copy(desk.settings.models_path, version, model, contract), True


def _append(
    desk: ModelDesk,
    seen: pl.DataFrame,
    facts: Mapping[str, Any],
    decision: str,
    reason: str,
    by: str,
    incumbent: Champion | None,
    instant: datetime,
    run_id: str,
) -> None:
    """Write one decision, after all that were there; refused where somebody decided since the ledger was read."""
    with desk.warehouse.transaction() as connection:
        last = scalar(connection, f"select max(promoted_at) from {PROMOTIONS.full_name} where model = ?", [MODEL])
        if last != seen["promoted_at"].max():
            raise DecisionRefused("Somebody has decided about a model at this moment: look again with `quant-assets model list`.")
        row = {
            **facts,
            "model": MODEL,
            "promoted_at": instant if last is None else max(instant, last + timedelta(microseconds=1)),
            "decision": decision,
            "decided_by": by,
            "reason": reason,
            "incumbent_version": incumbent.model_version if incumbent else None,
            "run_id": run_id,
            "recorded_at": utc_now(),
        }
        append_ledger(connection, PROMOTIONS, pl.DataFrame([row], schema=PROMOTIONS.polars_schema))


def _tell_registry(desk: ModelDesk, version: str, decision: str, reason: str, by: str) -> list[str]:
    """Write the decision onto the version and move the alias; what could not be done, in words."""
    if desk.registry is not None:
        try:
            desk.registry.set_decision(version, decision, {"reason": reason, "decided_by": by})
        except QuantAssetsError as error:
            return [_unmoved(str(error))]
    return _follow(desk)


def _follow(desk: ModelDesk) -> list[str]:
    if desk.registry is None:
        return [_unmoved(desk.registry_fault)]
    try:
        sync_champion(desk)
    except QuantAssetsError as error:
        return [_unmoved(str(error))]
    return []


def _unmoved(fault: str) -> str:
    return f"The ledger holds the decision and the nights follow it, but MLflow's alias {CHAMPION} does not yet; the next action moves it. {fault}"


def _may_not_score(desk: ModelDesk, facts: Mapping[str, Any]) -> list[str]:
    """Why the nights, as the settings are, do not score with a version; empty where they may."""
    settings, champion = desk.settings, _champion(facts)
    if (facts["horizon"], facts["label_threshold"]) != (settings.horizon, settings.label_threshold):
        asked = _label({"horizon": settings.horizon, "label_threshold": settings.label_threshold})
        return [f"It does not score: it is for {_label(facts)}, and the settings ask for {asked} (QUANT_HORIZON, QUANT_LABEL_THRESHOLD)."]
    view, definition = settings.feature_view, definition_hash(settings.feature_view)
    fault = champion.misfit(view, definition)
    if fault is None:
        try:
            load_local_copy(settings.models_path, champion.model_version, champion.model_sha256, view, definition)
        except QuantAssetsError as error:
            fault = str(error)
    if fault is None:
        return []
    others = [
        each for each in [desk.in_use()] if each and each.misfit(view, definition) is None and each.model_version != champion.model_version
    ]
    instead = f"version {others[0].model_version}" if others else "the heuristic"
    return [f"It may not score, {instead} does: {fault}"]


def _champion(facts: Mapping[str, Any]) -> Champion:
    return Champion(facts["model_version"], facts["trained_until"], facts["feature_view"], facts["definition_hash"], facts["model_sha256"])


def _label(facts: Mapping[str, Any]) -> str:
    return f"horizon {facts['horizon']} and label threshold {facts['label_threshold']:g}"


def _require(reason: str, by: str) -> None:
    for name, value in (("a reason", reason), ("a name", by)):
        if not value.strip():
            raise ConfigurationError(f"A decision about a model needs {name}; it is kept in the ledger.")
