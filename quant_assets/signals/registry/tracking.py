"""MLflow: one run per training with a child per fold, the model registered with its evidence, and the decision about it.

A run ends as its last step, so that a run which is still open after a crash was never finished: a version without an
ended run is completed when it is found again, a run without a version is closed as failed when the training is repeated.
Who is champion is decided after that, in the ledger; the aliases here only follow it.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import polars as pl

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.settings import PROJECT_ROOT, Settings
from quant_assets.signals.champions import DELETED, MODEL, PROMOTED, REJECTED, ROLLED_BACK
from quant_assets.signals.registry import served_model
from quant_assets.signals.registry.mlflow_store import answering, connect, initialise, sqlite_path
from quant_assets.signals.signal_model import SignalModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from quant_assets.signals.evaluation import Evaluation
    from quant_assets.signals.training import TrainingResult

EXPERIMENT = "signals"
CHAMPION, CHALLENGER = "champion", "challenger"
MODEL_CARD = "model_card.md"
ALIASES = {PROMOTED: CHAMPION, ROLLED_BACK: CHAMPION, REJECTED: CHALLENGER}
BATCH = 1000
"""Metrics that MLflow takes at once."""


@dataclass(frozen=True)
class Version:
    """One registered model version and the run that made it; `url` opens the run in MLflow's UI and holds no secret."""

    version: str
    run_id: str
    fingerprint: str
    url: str


@dataclass(frozen=True)
class Registered:
    """What the registry knows of a version: its lineage tags, the aliases that point to it, and its run's metrics."""

    version: str
    run_id: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Registry:
    """MLflow's tracking store and model registry, behind one client; works alike on a file and on a server."""

    client: MlflowClient
    uri: str
    experiment_id: str
    pages_url: str
    dagster_url: str

    @classmethod
    def open(cls, settings: Settings, *, create: bool = True) -> Registry:
        """Connect to the store that the settings name, setting up an sqlite store under HOME where there is none yet.

        Without `create` nothing is set up. Raises `QuantAssetsError` where there is no store, or MLflow does not answer.
        """
        path = sqlite_path(settings.mlflow_uri, settings.home)
        if create:
            initialise(settings.mlflow_uri, settings.home)
        elif path is not None and not path.exists():
            raise QuantAssetsError(f"There is no MLflow store at {path} yet: a training makes it. See QUANT_MLFLOW_TRACKING_URI.")
        with answering(settings.mlflow_uri):
            client = connect(settings.mlflow_uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                return cls(client, settings.mlflow_uri, found.experiment_id, settings.mlflow_url, settings.dagster_url)
            created = client.create_experiment(EXPERIMENT, artifact_location=str(settings.home / "mlflow" / "artifacts") if path else None)
            return cls(client, settings.mlflow_uri, created, settings.mlflow_url, settings.dagster_url)

    def find_version(self, fingerprint: str) -> Version | None:
        """The registered version of a training that was made before, if any; one that a crash left half done is completed."""
        with answering(self.uri):
            found = self.client.search_model_versions(f"name = '{MODEL}' and tags.fingerprint = '{fingerprint}'")
            if not found:
                return None
            newest = max(found, key=lambda each: int(each.version))
            if self.client.get_run(newest.run_id).info.status != "FINISHED":
                self._finish(str(newest.version), newest.run_id)
            return self._version(str(newest.version), newest.run_id, fingerprint)

    def log_training(
        self,
        result: TrainingResult,
        contract: FeatureContract,
        run_id: str,
        asset_key: str,
        *,
        artifacts: Mapping[str, bytes | str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Version:
        """Log one training as one run with a child per fold, and register its model as the newest version.

        `run_id` and `asset_key` are the orchestrator's, so that the run links back. The run holds parameters, scores with
        their intervals (those of fold n also as `fold_…` at step n), the contract, the tables of folds, scores, calibration
        and importance, the model with signature and pinned requirements, and `artifacts`, files by their name. Nothing
        secret belongs in these or in `tags`. No alias is moved: `set_decision` does that, once it is decided.
        """
        all_tags = {
            "fingerprint": result.fingerprint,
            "definition_hash": contract.definition_hash,
            "feature_view": contract.view,
            "horizon": str(result.setup.horizon),
            "label_threshold": str(result.setup.label_threshold),
            "family": result.config.family,
            "trained_until": result.trained_until.isoformat(),
            "partition": result.last_session.isoformat(),
            "dagster_run_id": run_id,
            "asset_key": asset_key,
            "git_commit": _git_commit(),
            "mlflow.note.content": f"Trained by [Dagster run {run_id}]({self.dagster_url}/runs/{run_id}), asset `{asset_key}`.",
            **(tags or {}),
        }
        with answering(self.uri):
            self._close_abandoned(result.fingerprint)
            name = f"{MODEL} h{result.setup.horizon} {result.last_session}"
            run = self.client.create_run(
                self.experiment_id, run_name=name, tags={**all_tags, "mlflow.source.git.commit": all_tags["git_commit"]}
            )
            mlflow_run_id = run.info.run_id
            try:
                model_id, location = self._log_model(result, contract, mlflow_run_id)
                self._log_evidence(result, contract, mlflow_run_id, model_id, artifacts or {})
                for fold in result.folds.to_dicts():
                    self._log_fold(fold, mlflow_run_id, result.fingerprint)
                self._ensure_registered_model()
                created = self.client.create_model_version(MODEL, location, mlflow_run_id, tags=all_tags, model_id=model_id)
                self._finish(str(created.version), mlflow_run_id)
            except BaseException:
                self._close_abandoned(result.fingerprint)
                raise
        return self._version(str(created.version), mlflow_run_id, result.fingerprint)

    def keep_files(self, run_id: str, files: Mapping[str, bytes | str]) -> None:
        """Keep files with a run, by their name, such as the card that knows the version's number; the same name replaces."""
        with answering(self.uri), tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), files)
            self.client.log_artifacts(run_id, folder)

    def set_decision(self, version: str, decision: str, evidence: Mapping[str, Any]) -> None:
        """Write a decision and its evidence onto a version, and move the alias that follows from it.

        `promoted` and `rolled_back` make it `champion`, `rejected` makes it `challenger`, unless it is the champion; an alias
        that it had by an earlier decision and has no longer is taken off.
        """
        with answering(self.uri):
            for name, value in (("decision", decision), ("evidence", json.dumps(dict(evidence), sort_keys=True, default=str))):
                self.client.set_model_version_tag(MODEL, version, name, value)
            if ALIASES[decision] == CHAMPION:
                self._point(CHAMPION, version)
            elif self._aliases().get(CHAMPION) != version:
                self._point(CHALLENGER, version)

    def sync_champion(self, version: str | None) -> bool:
        """Let the alias `champion` point to what the ledger says, or to nothing; says whether it had to be moved."""
        with answering(self.uri):
            if self._aliases().get(CHAMPION) == version:
                return False
            if version is None:
                self.client.delete_registered_model_alias(MODEL, CHAMPION)
            else:
                self._point(CHAMPION, version)
            return True

    def versions(self) -> dict[str, Registered]:
        """Every registered version by its number, in their order."""
        with answering(self.uri):
            aliases = self._aliases()
            runs = self.client.search_runs([self.experiment_id], "tags.model_version != ''")
            metrics = {run.info.run_id: run.data.metrics for run in runs}
            found = sorted(self.client.search_model_versions(f"name = '{MODEL}'"), key=lambda each: int(each.version))
        return {
            str(each.version): Registered(
                str(each.version),
                each.run_id,
                each.tags,
                tuple(alias for alias, version in aliases.items() if version == str(each.version)),
                metrics.get(each.run_id, {}),
            )
            for each in found
        }

    def model(self, version: str) -> tuple[SignalModel, FeatureContract]:
        """A version's model and contract, from its artifacts. Raises `QuantAssetsError` where they are gone or damaged."""
        import mlflow.artifacts

        with answering(self.uri), tempfile.TemporaryDirectory() as folder:
            source = self.client.get_model_version(MODEL, version).source
            files = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=self.uri)
            return served_model.read(Path(files) / served_model.DATA)

    def file(self, run_id: str, name: str) -> str | None:
        """A text file that was kept with a run; None where there is none of that name."""
        with answering(self.uri), tempfile.TemporaryDirectory() as folder:
            if name not in {each.path for each in self.client.list_artifacts(run_id, str(PurePosixPath(name).parent).strip("."))}:
                return None
            return Path(self.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")

    def delete_version(self, version: str) -> bool:
        """Remove a version from the registry, its run and artifacts stay; says whether it was there."""
        with answering(self.uri):
            there = any(str(each.version) == version for each in self.client.search_model_versions(f"name = '{MODEL}'"))
            if there:
                self.client.set_model_version_tag(MODEL, version, "decision", DELETED)
                self.client.delete_model_version(MODEL, version)
            return there

    def _log_model(self, result: TrainingResult, contract: FeatureContract, run_id: str) -> tuple[str, str]:
        """Save the model as MLflow serves it; returns its id and where its files lie."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        config = result.config
        logged = self.client.create_logged_model(self.experiment_id, name=MODEL, source_run_id=run_id, model_type=config.family)
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        described = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            served_model.save(result.model, config.family, config.members, contract, path, described)
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        return logged.model_id, logged.artifact_location

    def _log_evidence(
        self, result: TrainingResult, contract: FeatureContract, run_id: str, model_id: str, artifacts: Mapping[str, bytes | str]
    ) -> None:
        from mlflow.entities import Metric, Param

        parameters = {**asdict(result.setup), **asdict(result.config), "features": ", ".join(result.setup.features), "rows": result.rows}
        del parameters["config"]
        parameters |= {"first_session": result.first_session, "last_session": result.last_session}
        now = int(time.time() * 1000)
        scores = [(name, value, 0) for name, value in metrics_of(result.evaluation).items()]
        scores += [(f"fold_{name}", value, row["fold"]) for row in result.folds.to_dicts() for name, value in _numbers(row).items()]
        metrics = [Metric(name, value, now, step, model_id=model_id, run_id=run_id) for name, value, step in scores]
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in parameters.items()])
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics[start : start + BATCH])
        tables = {
            "folds.csv": result.folds,
            "scores.csv": result.evaluation.scores,
            "calibration.csv": result.evaluation.calibration,
            "importance.csv": result.model.importance,
        }
        told: dict[str, bytes | str] = {name: table.write_csv() for name, table in tables.items()}
        self.keep_files(run_id, {served_model.CONTRACT_FILE: contract.to_json(), **told, **artifacts})

    def _log_fold(self, fold: Mapping[str, Any], parent_run_id: str, fingerprint: str) -> None:
        """One fold as a child run: what it was trained and tested on as tags, its sizes and scores as metrics."""
        from mlflow.entities import Metric

        dates = {name: value.isoformat() for name, value in fold.items() if isinstance(value, date | datetime)}
        tags = {"mlflow.parentRunId": parent_run_id, "fingerprint": fingerprint, "fold": str(fold["fold"]), **dates}
        run_id = self.client.create_run(self.experiment_id, run_name=f"fold {fold['fold']}", tags=tags).info.run_id
        now = int(time.time() * 1000)
        self.client.log_batch(run_id, [Metric(name, value, now, 0) for name, value in _numbers(fold).items()])
        self.client.set_terminated(run_id, "FINISHED")

    def _ensure_registered_model(self) -> None:
        if not self.client.search_registered_models(f"name = '{MODEL}'"):
            description = "Probability that a symbol's return over the horizon exceeds the label's threshold."
            self.client.create_registered_model(MODEL, description=description)

    def _finish(self, version: str, run_id: str) -> None:
        self.client.set_tag(run_id, "model_version", version)
        self.client.set_terminated(run_id, "FINISHED")

    def _close_abandoned(self, fingerprint: str) -> None:
        still_open = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self.experiment_id], still_open):
            self.client.set_terminated(run.info.run_id, "FAILED")

    def _aliases(self) -> dict[str, str]:
        """Version by alias; empty where no model is registered."""
        found = self.client.search_registered_models(f"name = '{MODEL}'")
        return {alias: str(version) for alias, version in found[0].aliases.items()} if found else {}

    def _point(self, alias: str, version: str) -> None:
        if alias == CHAMPION and self._aliases().get(CHALLENGER) == version:
            self.client.delete_registered_model_alias(MODEL, CHALLENGER)
        self.client.set_registered_model_alias(MODEL, alias, version)

    def _version(self, version: str, run_id: str, fingerprint: str) -> Version:
        return Version(version, run_id, fingerprint, f"{self.pages_url}/#/experiments/{self.experiment_id}/runs/{run_id}")


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """The summary of an evaluation, and of each of the model's scores over all sessions its interval, as `…_low` and `…_high`.

    What is unknown or not finite is left out.
    """
    of_model = evaluation.scores.filter((pl.col("group") == "all") & (pl.col("predictor") == "model"))
    found: dict[str, float | None] = dict(evaluation.summary)
    for metric, value, low, high in of_model.select("metric", "value", "low", "high").iter_rows():
        found |= {metric: found.get(metric, value), f"{metric}_low": low, f"{metric}_high": high}
    return _numbers(found)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row but the fold's own."""
    numbers = {name: float(value) for name, value in row.items() if name != "fold" and isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _write(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"An artifact cannot be called {name!r}; its name is a path below the run's artifacts.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
