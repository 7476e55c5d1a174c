"""Local copies: what was saved comes back, or the file is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
