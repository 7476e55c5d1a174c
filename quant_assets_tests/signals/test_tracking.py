"""Tracking: a real MLflow on sqlite; one run and one version per training, whatever was killed in between."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.settings import Settings, load_settings
from quant_assets.signals import tracking
from quant_assets.signals.boosters import BoosterConfig
from quant_assets.signals.champions import MODEL
from quant_assets.signals.tracking import Registry, Version, initialise
from quant_assets.signals.training import TrainingResult, TrainingSetup, train
from quant_assets_tests.signals.worlds import FEATURES, world

CONTRACT = FeatureContract("technical_v1", "abc", FEATURES, ("Float64",) * len(FEATURES), ("ratio",) * len(FEATURES))
FRAME = world(21, rank_ic=0.2, symbols=10, sessions=120)


def trained(seed: int) -> TrainingResult:
    setup = TrainingSetup(FEATURES, 1, "abc", n_folds=2, train_min_sessions=60, seed=seed, config=BoosterConfig(rounds=5, threads=1))
    return train(FRAME, setup)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(home=tmp_path_factory.mktemp("home"), mlflow_tracking_uri="")


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry.open(settings)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    return trained(seed=1)


@pytest.fixture(scope="module")
def version(registry: Registry, result: TrainingResult) -> Version:
    assert registry.find_version(result.fingerprint) is None
    return registry.log_training(result, CONTRACT, "dagster-run-1", "signals/model")


class TestRegression:
    def test_a_training_is_found_again(self, settings: Settings, registry: Registry, result: TrainingResult, version: Version) -> None:
        assert Registry.open(settings).find_version(result.fingerprint) == version
        assert version.version == "1"
        assert version.url.endswith(f"/#/experiments/{registry.experiment_id}/runs/{version.run_id}")
        assert registry.find_version("0" * 64) is None

    def test_run_holds_parameters_scores_and_lineage(self, registry: Registry, result: TrainingResult, version: Version) -> None:
        run = registry.client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        tags = {
            "fingerprint": result.fingerprint, "definition_hash": "abc", "feature_view": "technical_v1", "dagster_run_id": "dagster-run-1",
            "asset_key": "signals/model", "partition": "2020-04-29", "trained_until": "2020-04-30T21:30:00", "model_version": "1",
        }  # fmt: skip
        assert tags.items() <= run.data.tags.items()
        assert run.data.tags["git_commit"] == run.data.tags["mlflow.source.git.commit"]
        parameters = {"rounds": "5", "horizon": "1", "seed": "1", "features": "first, second, third, fourth", "rows": "1200"}
        assert parameters.items() <= run.data.params.items()
        summary = {name: value for name, value in result.evaluation.summary.items() if value is not None}
        assert {name: run.data.metrics[name] for name in summary} == summary
        history = registry.client.get_metric_history(version.run_id, "fold_rank_ic")
        assert [(point.step, point.value) for point in history] == list(result.folds.select("fold", "rank_ic").iter_rows())

    def test_artifacts_say_what_was_trained(self, registry: Registry, result: TrainingResult, version: Version, tmp_path: Path) -> None:
        files = Path(registry.client.download_artifacts(version.run_id, "", str(tmp_path)))
        assert FeatureContract.from_json((files / "feature_contract.json").read_text()) == CONTRACT
        assert pl.read_csv(files / "folds.csv")["rank_ic"].to_list() == pytest.approx(result.folds["rank_ic"].to_list())
        assert pl.read_csv(files / "importance.csv")["feature"].to_list() == result.booster.importance["feature"].to_list()
        assert (files / "importance.png").read_bytes().startswith(b"\x89PNG")

    def test_champion_is_the_model_with_its_signature(
        self, settings: Settings, registry: Registry, result: TrainingResult, version: Version
    ) -> None:
        import mlflow

        champion = registry.client.get_model_version_by_alias(MODEL, tracking.CHAMPION)
        assert (champion.version, champion.run_id, champion.tags["fingerprint"]) == (1, version.run_id, result.fingerprint)
        loaded = mlflow.lightgbm.load_model(champion.source)
        assert loaded.model_to_string() == result.booster.text
        described = mlflow.models.Model.load(champion.source)
        assert described.signature.inputs.input_names() == list(FEATURES)
        assert described.signature.outputs.input_names() == ["probability"]
        assert Path(champion.source).is_relative_to(settings.home / "mlflow" / "artifacts")
        requirements = (Path(champion.source) / "requirements.txt").read_text()
        assert f"lightgbm=={__import__('lightgbm').__version__}" in requirements.splitlines()

    def test_a_server_that_is_down_is_named_without_its_password(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        down = load_settings(home=tmp_path, mlflow_tracking_uri="http://desk:hunter2@127.0.0.1:9")
        with pytest.raises(QuantAssetsError, match=r"MLflow at http://127\.0\.0\.1:9 failed") as failure:
            Registry.open(down)
        assert "hunter2" not in str(failure.value)
        link = Registry(None, down.mlflow_uri, "1", down.mlflow_url, down.dagster_url)._version("3", "abc", "")  # type: ignore[arg-type]
        assert link.url == "http://127.0.0.1:9/#/experiments/1/runs/abc"


class TestCrashes:
    def test_killed_before_the_version_leaves_a_failed_run_and_trains_anew(
        self, registry: Registry, version: Version, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        again = trained(seed=2)
        tags = {"fingerprint": again.fingerprint}
        abandoned = registry.client.create_run(registry.experiment_id, tags=tags).info.run_id
        monkeypatch.setattr(Registry, "_ensure_registered_model", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.log_training(again, CONTRACT, "r", "signals/model")
        monkeypatch.undo()
        assert registry.find_version(again.fingerprint) is None
        registry.log_training(again, CONTRACT, "r", "signals/model")
        runs = registry.client.search_runs([registry.experiment_id], f"tags.fingerprint = '{again.fingerprint}'")
        assert sorted(run.info.status for run in runs) == ["FAILED", "FAILED", "FINISHED"]
        assert registry.client.get_run(abandoned).info.status == "FAILED"
        assert len(registry.client.search_model_versions(f"name = '{MODEL}' and tags.fingerprint = '{again.fingerprint}'")) == 1

    def test_killed_after_the_version_is_completed(self, registry: Registry, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
        again = trained(seed=3)
        monkeypatch.setattr(Registry, "_finish", lambda self, version, run_id: None)
        half = registry.log_training(again, CONTRACT, "r", "signals/model")
        monkeypatch.undo()
        assert registry.client.get_run(half.run_id).info.status == "RUNNING"
        assert registry.client.get_model_version_by_alias(MODEL, tracking.CHAMPION).run_id != half.run_id
        assert registry.find_version(again.fingerprint) == half
        assert registry.client.get_run(half.run_id).info.status == "FINISHED"
        assert registry.client.get_model_version_by_alias(MODEL, tracking.CHAMPION).run_id == half.run_id

    def test_finding_an_old_version_leaves_the_champion(self, registry: Registry, result: TrainingResult, version: Version) -> None:
        newer = registry.log_training(trained(seed=4), CONTRACT, "r", "signals/model")
        assert registry.find_version(result.fingerprint) == version
        assert registry.client.get_model_version_by_alias(MODEL, tracking.CHAMPION).run_id == newer.run_id

    def test_a_store_killed_in_its_making_is_made_anew(
        self, settings: Settings, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store appears whole or not at all: what an earlier process left aside is thrown away."""
        path = tmp_path / "mlflow" / "mlflow.db"
        path.parent.mkdir()
        whole = (settings.home / "mlflow" / "mlflow.db").read_bytes()
        path.with_suffix(".partial").write_bytes(whole[: len(whole) // 2])
        uri = f"sqlite:///{path}"

        def build(self: object, uri: str, root: str) -> None:
            assert not path.exists()
            assert not Path(uri.removeprefix("sqlite:///")).exists()
            Path(uri.removeprefix("sqlite:///")).write_bytes(whole)
            self.engine = type("Engine", (), {"dispose": lambda self: None})()  # type: ignore[attr-defined]

        monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.__init__", build)
        initialise(uri, tmp_path)
        assert path.read_bytes() == whole
        monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.__init__", lambda *_: 1 / 0)
        initialise(uri, tmp_path)  # there already: nothing is built
        assert sorted(found.name for found in path.parent.iterdir()) == ["mlflow.db", "mlflow.lock"]

    def test_stores_elsewhere_are_left_alone(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        for uri in (f"sqlite:///{tmp_path / 'elsewhere.db'}", "http://127.0.0.1:9", "postgresql://desk@db/mlflow"):
            initialise(uri, home)
        assert list(tmp_path.iterdir()) == []
