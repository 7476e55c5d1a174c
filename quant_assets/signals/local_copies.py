"""Verified local copies of registered models: what the nights score with, without MLflow."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.views import features_of
from quant_assets.signals.boosters import Booster
from quant_assets.signals.champions import MODEL


class ModelUnusable(QuantAssetsError):
    """The local copy of a model is missing or damaged; the text names the file and the remedy."""


def save_local_copy(models_path: Path, version: str, booster: Booster, contract: FeatureContract) -> str:
    """Keep a version as one file, model and contract together, and return its sha256: what the nights score with.

    The file is replaced in one step, and the same version with the same content is the same bytes. Raises `ContractError`
    for a contract that is not the booster's.
    """
    contract.check_model(booster.features)
    content = {"version": version, "contract": contract.to_json(), "model": booster.text}
    payload = json.dumps(content, ensure_ascii=False).encode()
    path = _local_copy(models_path, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with open(aside, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    return hashlib.sha256(payload).hexdigest()


def load_local_copy(models_path: Path, version: str, sha256: str, view: str, definition_hash: str) -> tuple[Booster, FeatureContract]:
    """Read back a version's model and contract without MLflow, to score the features of a view as it is defined now.

    Raises `ModelUnusable` unless the file is what was saved, and `ContractError` where the contract cannot be read, is not
    the booster's, or differs from what the catalog says of the view's features (names, order, types, units) or from
    `definition_hash`.
    """
    path = _local_copy(models_path, version)
    remedy = "Train again to write it anew; until then the heuristic scores."
    if not path.exists():
        raise ModelUnusable(f"There is no local copy of model version {version} at {path}. {remedy}")
    payload = path.read_bytes()
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise ModelUnusable(
            f"The local copy of model version {version} at {path} ({len(payload)} bytes) is not the one that was saved: "
            f"its sha256 is {found[:12]}…, not {sha256[:12]}…. {remedy}"
        )
    content = json.loads(payload)
    booster = Booster.from_text(content["model"])
    contract = FeatureContract.from_json(content["contract"], source=f"The contract of model version {version} in {path}")
    contract.check_model(booster.features)
    units = {feature.name: feature.unit for feature in features_of(view) if feature.scale_free}
    contract.check(dict.fromkeys(units, pl.Float64), view, definition_hash, units)
    return booster, contract


def _local_copy(models_path: Path, version: str) -> Path:
    return models_path / f"{MODEL}-{version}.json"
