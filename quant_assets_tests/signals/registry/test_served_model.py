"""The served model: what MLflow loads by the champion's alias says what our own model says, and refuses other columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_assets.errors import ContractError, QuantAssetsError
from quant_assets.signals.champions import PROMOTED
from quant_assets.signals.registry.served_model import CONTRACT_FILE, DATA, MODEL_FILE, ServedModel, _load_pyfunc, read, save
from quant_assets.signals.registry.tracking import Registry
from quant_assets_tests.signals.trained import CONTRACT, FRAME, NAMES, settings_of, trained

RESULT = trained()
OFFERED = FRAME.select(*NAMES, "session")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The champion as a user of MLflow loads it."""
    import mlflow

    settings = settings_of(tmp_path_factory.mktemp("home"))
    registry = Registry.open(settings)
    registry.set_decision(registry.log_training(RESULT, CONTRACT, "r", "signals/model").version, PROMOTED, {})
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(settings.mlflow_uri)
    mlflow.set_registry_uri(settings.mlflow_uri)
    yield mlflow.pyfunc.load_model("models:/signal@champion")
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model's folder."""
    from mlflow.models import Model

    save(RESULT.model, "lightgbm", (), CONTRACT, tmp_path / "model", Model())
    return tmp_path / "model"


class TestRegression:
    def test_loaded_by_its_alias_it_predicts_as_our_own_does(self, loaded: Any) -> None:
        told = loaded.predict(OFFERED.to_pandas())
        assert list(told.columns) == ["probability"]
        assert told["probability"].to_list() == RESULT.model.predict(FRAME).to_list()
        assert RESULT.model.predict(FRAME).n_unique() > 10

    def test_without_sessions_all_rows_are_of_one(self, loaded: Any) -> None:
        one = FRAME.head(10)
        told = loaded.predict(one.select(NAMES).to_pandas())["probability"].to_list()
        assert told == pytest.approx(RESULT.model.predict(one).to_list(), abs=1e-12)

    def test_unknown_values_are_nan(self, loaded: Any) -> None:
        holes = OFFERED.with_columns(pl.when(pl.col("session").dt.day() > 15).then(pl.col(NAMES[0])).alias(NAMES[0]))
        assert loaded.predict(holes.to_pandas())["probability"].to_list() == RESULT.model.predict(holes).to_list()

    def test_a_missing_column_is_refused_by_the_signature(self, loaded: Any) -> None:
        from mlflow.exceptions import MlflowException

        with pytest.raises(MlflowException, match=f"missing inputs.*{NAMES[1]}"):
            loaded.predict(OFFERED.drop(NAMES[1]).to_pandas())

    def test_the_contract_refuses_what_it_does_not_name(self) -> None:
        served = ServedModel(RESULT.model, CONTRACT)
        for offered, fault in (
            (OFFERED.drop(NAMES[1]), f"missing: {NAMES[1]}"),
            (OFFERED.with_columns(other=1.0), "extra: other"),
            (OFFERED.select("session", *reversed(NAMES)), "reordered"),
            (OFFERED.with_columns(pl.col(NAMES[0]).cast(pl.Int64)), f"{NAMES[0]} is Int64, was Float64"),
        ):
            with pytest.raises(ContractError, match=fault):
                served.predict(offered.to_pandas())

    def test_requirements_are_pinned_and_no_code_is_copied(self, folder: Path) -> None:
        lines = (folder / "requirements.txt").read_text().splitlines()
        assert lines == [f"{name}=={installed(name)}" for name in ("mlflow", "quant-assets", "polars", "numpy", "pandas", "lightgbm")]
        assert json.loads((folder / "python_env.yaml").read_text())["dependencies"] == ["-r requirements.txt"]
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert files == {"MLmodel", "requirements.txt", "python_env.yaml", f"{DATA}/{MODEL_FILE}", f"{DATA}/{CONTRACT_FILE}"}

    def test_an_average_needs_what_its_members_need(self, tmp_path: Path) -> None:
        from mlflow.models import Model

        save(RESULT.model, "average", ("catboost", "logistic", "catboost"), CONTRACT, tmp_path / "model", Model())
        lines = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
        assert [line.partition("==")[0] for line in lines[5:]] == ["catboost", "scikit-learn"]

    @pytest.mark.parametrize("name", [MODEL_FILE, CONTRACT_FILE])
    def test_a_file_cut_in_half_is_named(self, folder: Path, name: str) -> None:
        path = folder / DATA / name
        path.write_text(path.read_text()[: path.stat().st_size // 2])
        with pytest.raises(QuantAssetsError, match=name):
            read(folder / DATA)

    def test_a_contract_of_another_model_is_refused(self, folder: Path) -> None:
        path = folder / DATA / CONTRACT_FILE
        path.write_text(path.read_text().replace(NAMES[0], "other"))
        with pytest.raises(ContractError, match="does not belong to this contract"):
            _load_pyfunc(str(folder / DATA))
