"""Local copies: what was saved comes back, or the file is refused by name; no model comes without its own contract."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quant_assets.errors import ContractError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.boosters import BoosterConfig
from quant_assets.signals.local_copies import ModelUnusable, load_local_copy, save_local_copy
from quant_assets.signals.training import TrainingResult, TrainingSetup, train
from quant_assets_tests.signals.worlds import FEATURES, world

CONTRACT = FeatureContract("technical_v1", "abc", FEATURES, ("Float64",) * len(FEATURES), ("ratio",) * len(FEATURES))
FRAME = world(21, rank_ic=0.2, symbols=10, sessions=120)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    config = BoosterConfig(rounds=5, threads=1)
    return train(FRAME, TrainingSetup(FEATURES, 1, "abc", n_folds=2, train_min_sessions=60, seed=1, config=config))


def rewritten(file: Path, **changes: str) -> str:
    """Replace parts of a copy behind its back and return its new sha256, as if it had been saved so."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return hashlib.sha256(file.read_bytes()).hexdigest()


class TestRegression:
    def test_round_trip_is_verified_and_repeatable(self, result: TrainingResult, tmp_path: Path) -> None:
        sha256 = save_local_copy(tmp_path / "models", "3", result.booster, CONTRACT)
        assert load_local_copy(tmp_path / "models", "3", sha256) == (result.booster, CONTRACT)
        assert save_local_copy(tmp_path / "models", "3", result.booster, CONTRACT) == sha256
        assert len(list((tmp_path / "models").iterdir())) == 1

    @pytest.mark.parametrize(
        "damage", [lambda file: file[:-100], lambda file: b"", lambda file: file.replace(b"split_gain", b"split_pain", 1)]
    )
    def test_a_damaged_copy_is_refused(self, damage: object, result: TrainingResult, tmp_path: Path) -> None:
        sha256 = save_local_copy(tmp_path, "3", result.booster, CONTRACT)
        (file,) = tmp_path.iterdir()
        file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
        with pytest.raises(ModelUnusable, match=f"version 3 at .* is not the one that was saved: its sha256 is .*, not {sha256[:12]}"):
            load_local_copy(tmp_path, "3", sha256)

    def test_a_missing_copy_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnusable, match="no local copy of model version 9"):
            load_local_copy(tmp_path, "9", "0" * 64)

    def test_the_night_does_not_need_mlflow(self, result: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sha256 = save_local_copy(tmp_path, "3", result.booster, CONTRACT)
        monkeypatch.setitem(sys.modules, "mlflow", None)  # from here on importing it fails
        booster, _ = load_local_copy(tmp_path, "3", sha256)
        assert booster.predict(FRAME).equals(result.booster.predict(FRAME))

    def test_a_contract_of_another_model_is_refused_on_saving_and_on_loading(self, result: TrainingResult, tmp_path: Path) -> None:
        swapped = replace(CONTRACT, names=("second", "first", "third", "fourth"))
        told = r"does not belong to this contract of view technical_v1: reordered: first stands where second belongs, at 1; moved: "
        with pytest.raises(ContractError, match=told):
            save_local_copy(tmp_path, "3", result.booster, swapped)
        assert not list(tmp_path.iterdir())
        save_local_copy(tmp_path, "3", result.booster, CONTRACT)
        (file,) = tmp_path.iterdir()
        sha256 = rewritten(file, contract=swapped.to_json())
        with pytest.raises(ContractError, match=told):
            load_local_copy(tmp_path, "3", sha256)

    def test_a_contract_that_cannot_be_read_names_version_file_and_remedy(self, result: TrainingResult, tmp_path: Path) -> None:
        save_local_copy(tmp_path, "3", result.booster, CONTRACT)
        (file,) = tmp_path.iterdir()
        sha256 = rewritten(file, contract=CONTRACT.to_json().replace('"Float64"', '"double"', 1))
        with pytest.raises(ContractError) as refused:
            load_local_copy(tmp_path, "3", sha256)
        assert str(refused.value).startswith(
            f"The contract of model version 3 in {file} is no feature contract: $.features[0].dtype: 'double' is not one of ["
        )
        assert str(refused.value).endswith("Train the model again to write one.")

    def test_a_view_that_changed_since_is_refused_by_the_loaded_contract(self, result: TrainingResult, tmp_path: Path) -> None:
        _, contract = load_local_copy(tmp_path, "3", save_local_copy(tmp_path, "3", result.booster, CONTRACT))
        view = dict.fromkeys(FEATURES, pl.Float64)
        contract.check(view, "technical_v1", "abc")
        with pytest.raises(ContractError, match=r"another view: alpha_v1, was technical_v1\. "):
            contract.check(view, "alpha_v1", "abc")
        with pytest.raises(ContractError, match=r"redefined: definition abd, was abc\. "):
            contract.check(view, "technical_v1", "abd")
        with pytest.raises(ContractError, match=r"extra: fifth · retyped: first is Float32, was Float64\. "):
            contract.check({**view, "fifth": pl.Float64, "first": pl.Float32}, "technical_v1", "abc")


class TestProperties:
    @given(order=st.permutations(FEATURES), kept=st.integers(1, len(FEATURES)))
    def test_a_copy_is_loaded_with_its_own_contract_alone(
        self, order: list[str], kept: int, result: TrainingResult, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        names = tuple(order[:kept])
        assume(names != FEATURES)
        other = FeatureContract("technical_v1", "abc", names, ("Float64",) * kept, ("ratio",) * kept)
        folder = tmp_path_factory.mktemp("models")
        save_local_copy(folder, "3", result.booster, CONTRACT)
        (file,) = folder.iterdir()
        sha256 = rewritten(file, contract=other.to_json())
        with pytest.raises(ContractError, match="does not belong to this contract"):
            load_local_copy(folder, "3", sha256)
