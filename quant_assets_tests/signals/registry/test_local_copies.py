"""Local copies: what was saved comes back, or the file is refused by name; no model comes without its own contract."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quant_assets.errors import ContractError, FeaturesUnavailable
from quant_assets.feature_store.catalog import VIEWS, Feature
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.registry.local_copies import ModelUnusable, load_local_copy, save_local_copy
from quant_assets.signals.signal_model import SignalModel
from quant_assets.signals.training import TrainingResult, TrainingSetup, train
from quant_assets_tests.signals.worlds import FEATURES, world

VIEW = "four_v1"
CATALOG = tuple(
    Feature(name, "a draw", 0, "ratio", None, None, scale_free, "never null", "A draw.", "None.", VIEW)
    for name, scale_free in (("first", True), ("level", False), ("second", True), ("third", True), ("fourth", True))
)
CONTRACT = FeatureContract(VIEW, "abc", FEATURES, ("Float64",) * len(FEATURES), ("ratio",) * len(FEATURES))
FRAME = world(21, rank_ic=0.2, symbols=10, sessions=120)


@pytest.fixture(scope="module", autouse=True)
def catalog() -> Iterator[None]:
    """A view of the four features that models may use, and of one that they may not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VIEWS, VIEW, CATALOG)
        yield


def load(folder: Path, sha256: str, version: str = "3", definition: str = "abc") -> tuple[SignalModel, FeatureContract]:
    return load_local_copy(folder, version, sha256, VIEW, definition)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    config = ModelConfig(rounds=5, threads=1)
    return train(FRAME, TrainingSetup(FEATURES, 1, "abc", n_folds=2, train_min_sessions=60, seed=1, config=config))


def rewritten(file: Path, **changes: str) -> str:
    """Replace parts of a copy behind its back and return its new sha256, as if it had been saved so."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return hashlib.sha256(file.read_bytes()).hexdigest()


class TestRegression:
    def test_round_trip_is_verified_and_repeatable(self, result: TrainingResult, tmp_path: Path) -> None:
        sha256 = save_local_copy(tmp_path / "models", "3", result.model, CONTRACT)
        assert load(tmp_path / "models", sha256) == (result.model, CONTRACT)
        assert save_local_copy(tmp_path / "models", "3", result.model, CONTRACT) == sha256
        assert len(list((tmp_path / "models").iterdir())) == 1

    @pytest.mark.parametrize(
        "damage", [lambda file: file[:-100], lambda file: b"", lambda file: file.replace(b"split_gain", b"split_pain", 1)]
    )
    def test_a_damaged_copy_is_refused(self, damage: object, result: TrainingResult, tmp_path: Path) -> None:
        sha256 = save_local_copy(tmp_path, "3", result.model, CONTRACT)
        (file,) = tmp_path.iterdir()
        file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
        with pytest.raises(ModelUnusable, match=f"version 3 at .* is not the one that was saved: its sha256 is .*, not {sha256[:12]}"):
            load(tmp_path, sha256)

    def test_a_missing_copy_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnusable, match="no local copy of model version 9"):
            load(tmp_path, "0" * 64, "9")

    def test_the_night_does_not_need_mlflow(self, result: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sha256 = save_local_copy(tmp_path, "3", result.model, CONTRACT)
        monkeypatch.setitem(sys.modules, "mlflow", None)  # from here on importing it fails
        model, _ = load(tmp_path, sha256)
        assert model.predict(FRAME).equals(result.model.predict(FRAME))

    def test_a_contract_of_another_model_is_refused_on_saving_and_on_loading(self, result: TrainingResult, tmp_path: Path) -> None:
        swapped = replace(CONTRACT, names=("second", "first", "third", "fourth"))
        told = r"does not belong to this contract of view four_v1: reordered: first stands where second belongs, at 1; moved: "
        with pytest.raises(ContractError, match=told):
            save_local_copy(tmp_path, "3", result.model, swapped)
        assert not list(tmp_path.iterdir())
        save_local_copy(tmp_path, "3", result.model, CONTRACT)
        (file,) = tmp_path.iterdir()
        sha256 = rewritten(file, contract=swapped.to_json())
        with pytest.raises(ContractError, match=told):
            load(tmp_path, sha256)

    def test_a_contract_that_cannot_be_read_names_version_file_and_remedy(self, result: TrainingResult, tmp_path: Path) -> None:
        save_local_copy(tmp_path, "3", result.model, CONTRACT)
        (file,) = tmp_path.iterdir()
        sha256 = rewritten(file, contract=CONTRACT.to_json().replace('"Float64"', '"double"', 1))
        with pytest.raises(ContractError) as refused:
            load(tmp_path, sha256)
        assert str(refused.value).startswith(
            f"The contract of model version 3 in {file} is no feature contract: $.features[0].dtype: 'double' is not one of ["
        )
        assert str(refused.value).endswith("Train the model again to write one.")

    @pytest.mark.parametrize(
        ("catalog_now", "definition", "difference"),
        [
            (CATALOG, "abd", "redefined: definition abd, was abc"),
            (CATALOG[:4], "abc", "missing: fourth"),
            ((replace(CATALOG[0], unit="0 to 100"), *CATALOG[1:]), "abc", "other units: first is in 0 to 100, was in ratio"),
            (
                (CATALOG[0], CATALOG[3], CATALOG[2], CATALOG[4]), "abd",
                "reordered: third stands where second belongs, at 2; moved: third (3 → 2) · redefined: definition abd, was abc",
            ),
        ],
    )  # fmt: skip
    def test_a_view_that_changed_since_is_refused_on_loading(
        self,
        catalog_now: tuple[Feature, ...],
        definition: str,
        difference: str,
        result: TrainingResult,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sha256 = save_local_copy(tmp_path, "3", result.model, CONTRACT)
        monkeypatch.setitem(VIEWS, VIEW, catalog_now)
        with pytest.raises(ContractError) as refused:
            load(tmp_path, sha256, definition=definition)
        assert str(refused.value).startswith(f"The features offered differ from the contract of view {VIEW}: {difference}. ")

    def test_another_view_is_refused_on_loading(self, result: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sha256 = save_local_copy(tmp_path, "3", result.model, CONTRACT)
        monkeypatch.setitem(VIEWS, "same_v1", CATALOG)
        with pytest.raises(ContractError, match=r"another view: same_v1, was four_v1\. "):
            load_local_copy(tmp_path, "3", sha256, "same_v1", "abc")
        with pytest.raises(FeaturesUnavailable, match="There is no feature view 'gone_v1'"):
            load_local_copy(tmp_path, "3", sha256, "gone_v1", "abc")


class TestProperties:
    @given(order=st.permutations(FEATURES), kept=st.integers(1, len(FEATURES)))
    def test_a_copy_is_loaded_with_its_own_contract_alone(
        self, order: list[str], kept: int, result: TrainingResult, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        names = tuple(order[:kept])
        assume(names != FEATURES)
        other = FeatureContract(VIEW, "abc", names, ("Float64",) * kept, ("ratio",) * kept)
        folder = tmp_path_factory.mktemp("models")
        save_local_copy(folder, "3", result.model, CONTRACT)
        (file,) = folder.iterdir()
        sha256 = rewritten(file, contract=other.to_json())
        with pytest.raises(ContractError, match="does not belong to this contract"):
            load(folder, sha256)
