"""Verified local copies of registered models: what the nights score with, without MLflow."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.views import features_of
from quant_assets.signals.champions import MODEL
from quant_assets.signals.signal_model import SignalModel

REMEDY = "`quant-assets model promote {version}` writes it again from the registry, else train again; until then the heuristic scores."


class ModelUnusable(QuantAssetsError):
    """The local copy of a model is missing or damaged; the text names the file and the remedy."""


def save_local_copy(models_path: Path, version: str, model: SignalModel, contract: FeatureContract) -> str:
    """Keep a version as one file, model and contract together, and return its sha256: what the nights score with.

    The file is replaced in one step, and the same version with the same content is the same bytes. Raises `ContractError`
    for a contract that is not the model's.
    """
    contract.check_model(model.features)
    content = {"version": version, "contract": contract.to_json(), "model": model.to_json()}
    payload = json.dumps(content, ensure_ascii=False).encode()
    _replace(local_copy(models_path, version), payload)
    return hashlib.sha256(payload).hexdigest()


def save_model_card(path: Path, card: str) -> None:
    """Keep a model card where it is readable without MLflow; the file is replaced in one step."""
    _replace(path, card.encode())


def load_local_copy(models_path: Path, version: str, sha256: str, view: str, definition_hash: str) -> tuple[SignalModel, FeatureContract]:
    """Read back a version's model and contract without MLflow, to score the features of a view as it is defined now.

    Raises `ModelUnusable` unless the file is what was saved, and `ContractError` where the contract cannot be read, is not
    the model's, or differs from what the catalog says of the view's features (names, order, types, units) or from
    `definition_hash`. What was read stays in memory for as long as the file is not touched.
    """
    path = local_copy(models_path, version)
    if not path.exists():
        raise ModelUnusable(f"There is no local copy of model version {version} at {path}. {REMEDY.format(version=version)}")
    state = path.stat()
    model, contract = _read(path, version, sha256, state.st_mtime_ns, state.st_size)
    units = {feature.name: feature.unit for feature in features_of(view) if feature.name in contract.names}
    contract.check(dict.fromkeys(units, pl.Float64), view, definition_hash, units)
    return model, contract


@lru_cache(maxsize=8)
def _read(path: Path, version: str, sha256: str, changed_ns: int, size: int) -> tuple[SignalModel, FeatureContract]:
    payload = path.read_bytes()
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise ModelUnusable(
            f"The local copy of model version {version} at {path} ({len(payload)} bytes) is not the one that was saved: "
            f"its sha256 is {found[:12]}…, not {sha256[:12]}…. {REMEDY.format(version=version)}"
        )
    content = json.loads(payload)
    model = SignalModel.from_json(content["model"], f"The local copy of model version {version} at {path}")
    contract = FeatureContract.from_json(content["contract"], source=f"The contract of model version {version} in {path}")
    contract.check_model(model.features)
    return model, contract


def local_copy(models_path: Path, version: str) -> Path:
    """Where a version's copy lies."""
    return models_path / f"{MODEL}-{version}.json"


def model_card_path(models_path: Path, version: str) -> Path:
    """Where a version's model card lies."""
    return models_path / f"{MODEL}-{version}.md"


def _replace(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with open(aside, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
