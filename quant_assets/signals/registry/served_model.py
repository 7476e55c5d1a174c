"""A registered model as MLflow serves it: the signal model with its contract, read from two JSON files and never unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

import polars as pl

from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.signal_model import SignalModel

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model

MODEL_FILE, CONTRACT_FILE = "signal_model.json", "feature_contract.json"
DATA = "data/signal"
"""Where the files of a saved model lie in its folder."""
LIBRARIES = {
    "lightgbm": ("lightgbm",),
    "catboost": ("catboost",),
    "xgboost": ("xgboost",),
    "logistic": ("scikit-learn",),
}
"""What a family needs to predict, besides what every model needs."""


@dataclass(frozen=True)
class ServedModel:
    """What `mlflow.pyfunc.load_model` wraps: a frame of features in, probabilities out."""

    model: SignalModel
    contract: FeatureContract

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One `probability` per row, in the frame's order.

        `model_input` has the contract's features in its order (NaN: unknown) and may have `session`, anywhere: of each
        session all symbols that are to be held against one another. Without it all rows are of one session. There are no
        `params`. Raises `ContractError` for missing, further, reordered or retyped columns.
        """
        frame = pl.from_pandas(model_input, nan_to_null=True)
        session = frame["session"] if "session" in frame.columns else pl.repeat(None, len(frame), dtype=pl.Date, eager=True)
        features = frame.drop("session", strict=False)
        self.contract.check(features, self.contract.view, self.contract.definition_hash)
        return self.model.predict(features.with_columns(session.alias("session"))).to_frame().to_pandas()


def save(model: SignalModel, family: str, members: tuple[str, ...], contract: FeatureContract, path: Path, described: Model) -> None:
    """Write a model in MLflow's `pyfunc` flavour: signature, pinned requirements, and the two files that it is read from.

    Requirements are pinned, not inferred, and no code is copied: who loads the model has this package. Written file by file,
    since `mlflow.pyfunc.save_model` scans every installed package for seconds.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    contract.check_model(model.features)
    inputs = [ColSpec(DataType.double, name) for name in contract.names]
    described.signature = ModelSignature(
        Schema([*inputs, ColSpec(DataType.datetime, "session", required=False)]), Schema([ColSpec(DataType.double, "probability")])
    )
    described.metadata = {"feature_view": contract.view, "definition_hash": contract.definition_hash, "family": family}
    mlflow.pyfunc.add_to_model(described, loader_module=__name__, data=DATA, python_env="python_env.yaml")
    libraries = {library for each in (members if family == "average" else (family,)) for library in LIBRARIES[each]}
    names = ("mlflow", "quant-assets", "polars", "numpy", "pandas", *sorted(libraries))
    files = {
        f"{DATA}/{MODEL_FILE}": model.to_json(),
        f"{DATA}/{CONTRACT_FILE}": contract.to_json(),
        "requirements.txt": "".join(f"{name}=={installed(name)}\n" for name in names),
        "python_env.yaml": json.dumps({"python": python_version(), "dependencies": ["-r requirements.txt"]}),  # JSON is YAML
    }
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content, encoding="utf-8")
    described.save(str(path / "MLmodel"))


def read(folder: Path) -> tuple[SignalModel, FeatureContract]:
    """The model and the contract in a folder that `save` wrote; raises `QuantAssetsError` where they cannot be read or are no pair."""
    contract = FeatureContract.from_json((folder / CONTRACT_FILE).read_bytes(), str(folder / CONTRACT_FILE))
    model = SignalModel.from_json((folder / MODEL_FILE).read_text(encoding="utf-8"), str(folder / MODEL_FILE))
    contract.check_model(model.features)
    return model, contract


def _load_pyfunc(path: str) -> ServedModel:
    """MLflow's door: it calls this by name with the folder of the data."""
    return ServedModel(*read(Path(path)))
