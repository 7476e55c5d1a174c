"""Where model versions are kept, read together: the ledger of decisions, the verified local copies, and MLflow's registry.

Reading works while MLflow is missing; what only the registry knows is then null.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.views import definition_hash
from quant_assets.schemas import PROMOTIONS
from quant_assets.settings import Settings
from quant_assets.signals.champions import DELETED, MODEL, PROMOTED, ROLLED_BACK, Champion, champion_in_use
from quant_assets.signals.registry.local_copies import local_copy, model_card_path
from quant_assets.signals.registry.tracking import MODEL_CARD, Registered, Registry
from quant_assets.warehouse import Warehouse

HEADLINE = ("rank_ic", "rank_ic_low", "rank_ic_high", "log_loss", "log_loss_low", "log_loss_high", "base_rate_log_loss")
"""Metrics that tell a version at a glance: taken from its run in MLflow, else from the ledger's evidence."""


class DecisionRefused(QuantAssetsError):
    """A decision about a model version cannot stand; the text says why, and nothing was written."""


@dataclass(frozen=True)
class ModelDesk:
    """Where models are kept: ledger, local copies and the registry, or why there is none (`registry_fault`)."""

    warehouse: Warehouse
    settings: Settings
    registry: Registry | None
    registry_fault: str = ""

    @classmethod
    def open(cls, warehouse: Warehouse, settings: Settings) -> ModelDesk:
        """Connect to everything; an MLflow that is missing or does not answer is no error here, and nothing is made."""
        try:
            return cls(warehouse, settings, Registry.open(settings, create=False))
        except QuantAssetsError as error:
            return cls(warehouse, settings, None, str(error))

    def registered(self) -> dict[str, Registered]:
        """The registry's versions by number; empty without a registry."""
        return self.registry.versions() if self.registry else {}

    def decisions(self) -> pl.DataFrame:
        """The ledger of all versions, in the order of the decisions."""
        return self.warehouse.read(
            f"select * from {PROMOTIONS.full_name} where model = $model order by promoted_at, model_version::bigint", {"model": MODEL}
        )

    def in_use(self, horizon: int | None = None, label_threshold: float | None = None) -> Champion | None:
        """The champion of a label, by default the one that the settings ask for."""
        view = self.settings.feature_view
        return champion_in_use(
            self.warehouse,
            self.settings.horizon if horizon is None else horizon,
            view,
            definition_hash(view),
            self.settings.label_threshold if label_threshold is None else label_threshold,
        )


def list_versions(desk: ModelDesk) -> pl.DataFrame:
    """Every version that the ledger or the registry knows, the newest first, deleted ones too.

    `version`, `in_use` (it scores what the settings ask for), `trained_until`, `family`, `feature_view`, `horizon`,
    `label_threshold`, `decision` (the last; null: none), `decided_by`, `decided_at`, the columns of `HEADLINE` (null where
    nobody knows), `local_copy` (verified, damaged, missing; null where no hash is known), `aliases` (null without a registry).
    """
    registered, ledger, in_use = desk.registered(), desk.decisions(), desk.in_use()
    rows = []
    for version in sorted({*ledger["model_version"], *registered}, key=int, reverse=True):
        decided = ledger.filter(pl.col("model_version") == version)
        known, last = registered.get(version), decided.row(-1, named=True) if decided.height else None
        facts = last or _tagged(registered[version])
        metrics = {**json.loads(facts["evidence"]), **(known.metrics if known else {})}
        rows.append(
            {
                "version": version,
                "in_use": in_use is not None and in_use.model_version == version,
                "trained_until": facts["trained_until"],
                "family": known.tags.get("family") if known else metrics.get("family"),
                "feature_view": facts["feature_view"],
                "horizon": facts["horizon"],
                "label_threshold": facts["label_threshold"],
                "decision": last and last["decision"],
                "decided_by": last and last["decided_by"],
                "decided_at": last and last["promoted_at"],
                **{name: metrics.get(name) for name in HEADLINE},
                "local_copy": last and copy_state(local_copy(desk.settings.models_path, version), last["model_sha256"]),
                "aliases": ", ".join(known.aliases if known else ()) if desk.registry else None,
            }
        )
    schema: dict[str, Any] = {"version": pl.String, "in_use": pl.Boolean, "trained_until": pl.Datetime("us"), "family": pl.String}
    schema |= {"feature_view": pl.String, "horizon": pl.Int32, "label_threshold": pl.Float64, "decision": pl.String}
    schema |= {"decided_by": pl.String, "decided_at": pl.Datetime("us"), **dict.fromkeys(HEADLINE, pl.Float64)}
    return pl.DataFrame(rows, schema={**schema, "local_copy": pl.String, "aliases": pl.String})


def show_version(desk: ModelDesk, version: str) -> tuple[str | None, pl.DataFrame]:
    """A version's model card (None where neither HOME nor the registry has it) and the decisions about it, in their order."""
    ledger = desk.decisions().filter(pl.col("model_version") == version)
    known = desk.registered().get(version)
    if known is None and ledger.is_empty():
        raise _unknown(version)
    path = model_card_path(desk.settings.models_path, version)
    if path.exists():
        return path.read_text(encoding="utf-8"), ledger
    return desk.registry.file(known.run_id, MODEL_CARD) if desk.registry and known else None, ledger


def champions_in_order(ledger: pl.DataFrame, horizon: int, label_threshold: float) -> list[str]:
    """The versions of a label that were champion and are not undone, the present one last.

    A rollback takes off what came after the version that it went back to; a deletion takes the version off.
    """
    order: list[str] = []
    rows = ledger.filter((pl.col("horizon") == horizon) & (pl.col("label_threshold") == label_threshold))
    for version, decision in rows.select("model_version", "decision").iter_rows():
        if decision == DELETED:
            order = [each for each in order if each != version]
        elif decision == ROLLED_BACK:
            order = order[: len(order) - order[::-1].index(version)] if version in order else [*order, version]
        elif decision == PROMOTED:
            order.append(version)
    return [version for number, version in enumerate(order) if number == 0 or order[number - 1] != version]


def facts_of(desk: ModelDesk, version: str) -> dict[str, Any]:
    """A version as the ledger's columns tell it: its last decision's row, else what the registry's tags say (no hash then).

    Raises `DecisionRefused` for a version that neither knows.
    """
    ledger = desk.decisions()
    if (ledger["model_version"] == version).any():
        return last_decision(ledger, version)
    registered = desk.registered()
    if version not in registered:
        raise _unknown(version)
    return _tagged(registered[version])


def _tagged(known: Registered) -> dict[str, Any]:
    tags = known.tags
    return {
        "model_version": known.version,
        "trained_until": datetime.fromisoformat(tags["trained_until"]),
        "horizon": int(tags["horizon"]),
        "label_threshold": float(tags.get("label_threshold", 0.0)),
        "feature_view": tags["feature_view"],
        "definition_hash": tags["definition_hash"],
        "fingerprint": tags["fingerprint"],
        "model_sha256": None,
        "mlflow_run_id": known.run_id,
        "evidence": json.dumps({name: known.metrics[name] for name in HEADLINE if name in known.metrics}, sort_keys=True),
    }


def last_decision(ledger: pl.DataFrame, version: str) -> dict[str, Any]:
    return ledger.filter(pl.col("model_version") == version).row(-1, named=True)


def copy_state(path: Path, sha256: str) -> str:
    if not path.exists():
        return "missing"
    return "verified" if hashlib.sha256(path.read_bytes()).hexdigest() == sha256 else "damaged"


def _unknown(version: str) -> DecisionRefused:
    return DecisionRefused(f"There is no model version {version!r}: see `quant-assets model list`.")
