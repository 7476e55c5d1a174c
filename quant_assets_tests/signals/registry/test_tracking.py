"""Tracking: a real MLflow on sqlite; one run and one version per training, whatever was killed in between."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.settings import Settings
from quant_assets.signals.champions import MODEL, PROMOTED, REJECTED, ROLLED_BACK
from quant_assets.signals.registry.tracking import CHALLENGER, CHAMPION, MODEL_CARD, Registry, Version, metrics_of
from quant_assets.signals.training import TrainingResult
from quant_assets_tests.signals.trained import CONTRACT, NAMES, settings_of, trained

FILES = {MODEL_CARD: "# Größe", "plots/calibration.png": b"\x89PNG"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry.open(settings)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    return trained("1" * 64)


@pytest.fixture(scope="module")
def version(registry: Registry, result: TrainingResult) -> Version:
    assert registry.find_version(result.fingerprint) is None
    return registry.log_training(result, CONTRACT, "dagster-run-1", "signals/model", artifacts=FILES, tags={"source": "synthetic"})


def aliases(registry: Registry) -> dict[str, str]:
    return {alias: version for version, known in registry.versions().items() for alias in known.aliases}


class TestRegression:
    def test_a_training_is_found_again(self, settings: Settings, registry: Registry, result: TrainingResult, version: Version) -> None:
        assert Registry.open(settings).find_version(result.fingerprint) == version
        assert version.version == "1"
        assert version.url.endswith(f"/#/experiments/{registry.experiment_id}/runs/{version.run_id}")
        assert registry.find_version("0" * 64) is None

    def test_run_holds_parameters_scores_and_lineage(self, registry: Registry, version: Version) -> None:
        run = registry.client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        tags = {
            "fingerprint": "1" * 64, "definition_hash": CONTRACT.definition_hash, "feature_view": "technical_v1", "asset_key": "signals/model",
            "dagster_run_id": "dagster-run-1", "partition": "2020-04-29", "trained_until": "2020-04-30T21:30:00", "model_version": "1",
            "family": "lightgbm", "horizon": "1", "label_threshold": "0.0", "source": "synthetic",
        }  # fmt: skip
        assert tags.items() <= run.data.tags.items()
        assert run.data.tags["git_commit"] == run.data.tags["mlflow.source.git.commit"]
        parameters = {"rounds": "5", "family": "lightgbm", "horizon": "1", "seed": "7", "features": ", ".join(NAMES), "rows": "1200"}
        assert parameters.items() <= run.data.params.items()
        assert "config" not in run.data.params
        told = {"rank_ic": 0.125, "rank_ic_low": 0.05, "rank_ic_high": 0.2, "log_loss": 0.6875, "base_rate_log_loss": 0.693}
        assert told.items() <= run.data.metrics.items()
        assert {"auc", "rank_ic_t", "log_loss_high"}.isdisjoint(run.data.metrics)  # unknown, not zero
        history = registry.client.get_metric_history(version.run_id, "fold_rank_ic")
        assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 0.5)]

    def test_each_fold_is_a_child_with_its_dates_and_scores(self, registry: Registry, version: Version) -> None:
        children = registry.client.search_runs([registry.experiment_id], f"tags.`mlflow.parentRunId` = '{version.run_id}'")
        first, second = sorted(children, key=lambda run: run.data.tags["fold"])
        assert {child.info.status for child in children} == {"FINISHED"}
        dates = {"fold": "1", "train_from": "2020-01-01", "train_to": "2020-03-02", "test_from": "2020-03-10", "test_to": "2020-04-01"}
        assert {**dates, "trained_until": "2020-03-02T21:30:00"}.items() <= second.data.tags.items()
        assert second.data.metrics == {"train_rows": 600, "rank_ic": 0.5, "log_loss": 0.69}
        assert first.data.metrics == {"train_rows": 600, "rank_ic": 0.0}

    def test_artifacts_say_what_was_trained(self, registry: Registry, result: TrainingResult, version: Version, tmp_path: Path) -> None:
        files = Path(registry.client.download_artifacts(version.run_id, "", str(tmp_path)))
        assert FeatureContract.from_json((files / "feature_contract.json").read_text()) == CONTRACT
        assert pl.read_csv(files / "folds.csv")["rank_ic"].to_list() == [0.0, 0.5]
        assert pl.read_csv(files / "scores.csv").select("predictor", "value").row(2) == ("heuristic", 0.01)
        assert pl.read_csv(files / "calibration.csv").height == 1
        assert pl.read_csv(files / "importance.csv")["feature"].to_list() == result.model.importance["feature"].to_list()
        assert (files / "plots" / "calibration.png").read_bytes() == b"\x89PNG"
        assert registry.file(version.run_id, MODEL_CARD) == "# Größe"
        assert registry.file(version.run_id, "plots/none.md") is None
        registry.keep_files(version.run_id, {MODEL_CARD: "# Anew"})
        assert registry.file(version.run_id, MODEL_CARD) == "# Anew"

    def test_a_version_gives_its_model_back(self, registry: Registry, result: TrainingResult, version: Version) -> None:
        model, contract = registry.model(version.version)
        assert (model.to_json(), contract) == (result.model.to_json(), CONTRACT)

    def test_an_artifact_cannot_be_written_outside(self, registry: Registry, version: Version) -> None:
        with pytest.raises(ValueError, match=r"cannot be called '\.\./outside'"):
            registry.keep_files(version.run_id, {"../outside": "x"})

    def test_metrics_are_the_summary_with_intervals(self, result: TrainingResult) -> None:
        assert metrics_of(result.evaluation) == {
            "rank_ic": 0.125, "rank_ic_low": 0.05, "rank_ic_high": 0.2, "log_loss": 0.6875, "log_loss_low": 0.68,
            "base_rate_log_loss": 0.693, "rows": 500,
        }  # fmt: skip


class TestDecisions:
    def test_no_alias_before_a_decision_and_one_after(self, registry: Registry, version: Version) -> None:
        assert aliases(registry) == {}
        second = registry.log_training(trained("2" * 64), CONTRACT, "r", "signals/model").version
        registry.set_decision("1", PROMOTED, {"rank_ic_gain": 0.5})
        assert aliases(registry) == {CHAMPION: "1"}
        tags = registry.versions()["1"].tags
        assert (tags["decision"], json.loads(tags["evidence"])) == ("promoted", {"rank_ic_gain": 0.5})
        registry.set_decision(second, REJECTED, {})
        assert aliases(registry) == {CHAMPION: "1", CHALLENGER: second}
        registry.set_decision(second, PROMOTED, {})
        assert aliases(registry) == {CHAMPION: second}
        registry.set_decision("1", ROLLED_BACK, {})
        assert aliases(registry) == {CHAMPION: "1"}
        registry.set_decision("1", REJECTED, {})
        assert aliases(registry) == {CHAMPION: "1"}  # what is in use is no challenger

    def test_the_alias_follows_what_the_ledger_says(self, registry: Registry, version: Version) -> None:
        second = registry.log_training(trained("3" * 64), CONTRACT, "r", "signals/model").version
        assert registry.sync_champion(second) is True
        assert registry.sync_champion(second) is False
        assert aliases(registry) == {CHAMPION: second}
        assert registry.sync_champion(None) is True
        assert registry.sync_champion(None) is False
        assert aliases(registry) == {}

    def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(self, registry: Registry, version: Version) -> None:
        gone = registry.log_training(trained("4" * 64), CONTRACT, "r", "signals/model")
        registry.set_decision(gone.version, REJECTED, {})
        assert registry.delete_version(gone.version) is True
        assert registry.delete_version(gone.version) is False
        assert gone.version not in registry.versions()
        assert registry.find_version("4" * 64) is None
        assert registry.client.get_run(gone.run_id).info.status == "FINISHED"
        assert int(registry.log_training(trained("4" * 64), CONTRACT, "r", "signals/model").version) == int(gone.version) + 1
        with pytest.raises(QuantAssetsError, match="MLflow at sqlite"):
            registry.model(gone.version)


class TestCrashes:
    @pytest.mark.parametrize("moment", ["_log_evidence", "_log_fold", "_ensure_registered_model"])
    def test_failing_before_the_version_leaves_a_failed_run_and_trains_anew(
        self, moment: str, registry: Registry, version: Version, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        again = trained(moment)
        monkeypatch.setattr(Registry, moment, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.log_training(again, CONTRACT, "r", "signals/model")
        monkeypatch.undo()
        assert registry.find_version(again.fingerprint) is None
        registry.log_training(again, CONTRACT, "r", "signals/model")
        runs = registry.client.search_runs([registry.experiment_id], f"tags.fingerprint = '{moment}' and tags.asset_key != ''")
        assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]
        assert len(registry.client.search_model_versions(f"name = '{MODEL}' and tags.fingerprint = '{moment}'")) == 1

    def test_what_a_kill_left_open_is_closed_with_its_children(self, registry: Registry, version: Version) -> None:
        again = trained("killed")
        parent = registry.client.create_run(registry.experiment_id, tags={"fingerprint": "killed"}).info.run_id
        child = registry.client.create_run(registry.experiment_id, tags={"fingerprint": "killed", "mlflow.parentRunId": parent}).info.run_id
        registry.log_training(again, CONTRACT, "r", "signals/model")
        assert [registry.client.get_run(run).info.status for run in (parent, child)] == ["FAILED", "FAILED"]

    def test_killed_after_the_version_is_completed(self, registry: Registry, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Registry, "_finish", lambda self, version, run_id: None)
        half = registry.log_training(trained("half"), CONTRACT, "r", "signals/model")
        monkeypatch.undo()
        assert registry.client.get_run(half.run_id).info.status == "RUNNING"
        assert registry.find_version("half") == half
        run = registry.client.get_run(half.run_id)
        assert (run.info.status, run.data.tags["model_version"]) == ("FINISHED", half.version)

    def test_finding_an_old_version_leaves_the_champion(self, registry: Registry, result: TrainingResult, version: Version) -> None:
        newer = registry.log_training(trained("newer"), CONTRACT, "r", "signals/model")
        registry.set_decision(newer.version, PROMOTED, {})
        assert registry.find_version(result.fingerprint) == version
        assert aliases(registry)[CHAMPION] == newer.version
