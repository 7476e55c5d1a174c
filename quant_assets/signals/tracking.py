"""MLflow: one run per training, the model registered with its evidence, and a verified local copy for the nights.

A run ends as its last step, so that a run which is still open after a crash was never finished: a version without an
ended run is completed when it is found again, a run without a version is closed as failed when the training is repeated.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.settings import PROJECT_ROOT, Settings
from quant_assets.signals.champions import MODEL
from quant_assets.signals.plots import calibration_png, importance_png
from quant_assets.signals.training import TrainingResult

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "signals"
CHAMPION = "champion"


@dataclass(frozen=True)
class Version:
    """One registered model version and the run that made it; `url` opens the run in MLflow's UI and holds no secret."""

    version: str
    run_id: str
    fingerprint: str
    url: str


@dataclass(frozen=True)
class Registry:
    """MLflow's tracking store and model registry, behind one client; works alike on a file and on a server."""

    client: MlflowClient
    uri: str
    experiment_id: str
    pages_url: str
    dagster_url: str

    @classmethod
    def open(cls, settings: Settings) -> Registry:
        """Connect to the store that the settings name, setting up an sqlite store under HOME where there is none yet."""
        initialise(settings.mlflow_uri, settings.home)
        with _answering(settings.mlflow_uri):
            client = _client(settings.mlflow_uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                return cls(client, settings.mlflow_uri, found.experiment_id, settings.mlflow_url, settings.dagster_url)
            root = str(settings.home / "mlflow" / "artifacts") if _sqlite_path(settings.mlflow_uri, settings.home) else None
            created = client.create_experiment(EXPERIMENT, artifact_location=root)
            return cls(client, settings.mlflow_uri, created, settings.mlflow_url, settings.dagster_url)

    def find_version(self, fingerprint: str) -> Version | None:
        """The registered version of a training that was made before, if any; one that a crash left half done is completed."""
        with _answering(self.uri):
            found = self.client.search_model_versions(f"name = '{MODEL}' and tags.fingerprint = '{fingerprint}'")
            if not found:
                return None
            newest = max(found, key=lambda each: int(each.version))
            if self.client.get_run(newest.run_id).info.status != "FINISHED":
                self._finish(newest.version, newest.run_id)
            return self._version(str(newest.version), newest.run_id, fingerprint)

    def log_training(
        self, result: TrainingResult, contract: FeatureContract, run_id: str, asset_key: str, tags: Mapping[str, str] | None = None
    ) -> Version:
        """Log one training as one run, register its model as the newest version and give it the alias `champion`.

        `run_id` and `asset_key` are the orchestrator's, so that the run links back. The run holds parameters, scores
        with their baselines and controls (those of fold n as `fold_…` at step n), the contract, the fold table,
        importance as table and plot, and the model with signature and pinned requirements. Nothing secret belongs in
        `tags`.
        """
        from mlflow.entities import RunTag

        all_tags = {
            "fingerprint": result.fingerprint,
            "definition_hash": contract.definition_hash,
            "feature_view": contract.view,
            "horizon": str(result.setup.horizon),
            "trained_until": result.trained_until.isoformat(),
            "partition": result.last_session.isoformat(),
            "dagster_run_id": run_id,
            "asset_key": asset_key,
            "git_commit": _git_commit(),
            "mlflow.note.content": f"Trained by [Dagster run {run_id}]({self.dagster_url}/runs/{run_id}), asset `{asset_key}`.",
            **(tags or {}),
        }
        with _answering(self.uri):
            self._close_abandoned(result.fingerprint)
            name = f"{MODEL} h{result.setup.horizon} {result.last_session}"
            run = self.client.create_run(
                self.experiment_id, run_name=name, tags={**all_tags, "mlflow.source.git.commit": all_tags["git_commit"]}
            )
            mlflow_run_id = run.info.run_id
            try:
                model_id, location = self._log_model(result, contract, mlflow_run_id)
                self._log_evidence(result, contract, mlflow_run_id, model_id)
                self._ensure_registered_model()
                created = self.client.create_model_version(MODEL, location, mlflow_run_id, tags=all_tags, model_id=model_id)
                self.client.log_batch(mlflow_run_id, tags=[RunTag("model_version", str(created.version))])
                self._finish(created.version, mlflow_run_id)
            except BaseException:
                self.client.set_terminated(mlflow_run_id, "FAILED")
                raise
        return self._version(str(created.version), mlflow_run_id, result.fingerprint)

    def _log_model(self, result: TrainingResult, contract: FeatureContract, run_id: str) -> tuple[str, str]:
        """Save the model in MLflow's LightGBM flavour; returns its id and where its files lie."""
        import mlflow.lightgbm
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        logged = self.client.create_logged_model(self.experiment_id, name=MODEL, source_run_id=run_id, model_type="LightGBM")
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        signature = ModelSignature(
            Schema([ColSpec(DataType.double, name) for name in contract.names]), Schema([ColSpec(DataType.double, "probability")])
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            mlflow.lightgbm.save_model(
                result.booster.native,
                path,
                mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
                signature=signature,
                pip_requirements=[f"lightgbm=={installed('lightgbm')}"],  # inferring them would take seconds
            )
            (path / "feature_contract.json").write_text(contract.to_json(), encoding="utf-8")
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        return logged.model_id, logged.artifact_location

    def _log_evidence(self, result: TrainingResult, contract: FeatureContract, run_id: str, model_id: str) -> None:
        from mlflow.entities import Metric, Param

        setup = asdict(result.setup)
        numbers = {**setup.pop("config"), **setup, "features": ", ".join(result.setup.features), "rows": result.rows}
        numbers |= {"first_session": result.first_session, "last_session": result.last_session}
        now = int(time.time() * 1000)
        scores = [(name, value, 0) for name, value in result.evaluation.summary.items()]
        scores += [(f"fold_{name}", row[name], row["fold"]) for row in result.folds.to_dicts() for name in result.evaluation.summary]
        metrics = [
            Metric(name, float(value), now, step, model_id=model_id, run_id=run_id)
            for name, value, step in scores
            if value is not None and math.isfinite(value)
        ]
        self.client.log_batch(run_id, metrics, [Param(name, str(value)) for name, value in numbers.items()])
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder)
            (files / "feature_contract.json").write_text(contract.to_json(), encoding="utf-8")
            result.folds.write_csv(files / "folds.csv")
            result.booster.importance.write_csv(files / "importance.csv")
            (files / "importance.png").write_bytes(importance_png(result.booster.importance))
            result.evaluation.calibration.write_csv(files / "calibration.csv")
            (files / "calibration.png").write_bytes(calibration_png(result.evaluation.calibration))
            self.client.log_artifacts(run_id, folder)

    def _ensure_registered_model(self) -> None:
        if not self.client.search_registered_models(f"name = '{MODEL}'"):
            self.client.create_registered_model(MODEL, description="Probability that a symbol's return over the horizon is positive.")

    def _finish(self, version: str, run_id: str) -> None:
        self.client.set_registered_model_alias(MODEL, CHAMPION, version)
        self.client.set_terminated(run_id, "FINISHED")

    def _close_abandoned(self, fingerprint: str) -> None:
        still_open = f"tags.fingerprint = '{fingerprint}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self.experiment_id], still_open):
            self.client.set_terminated(run.info.run_id, "FAILED")

    def _version(self, version: str, run_id: str, fingerprint: str) -> Version:
        return Version(version, run_id, fingerprint, f"{self.pages_url}/#/experiments/{self.experiment_id}/runs/{run_id}")


def initialise(uri: str, home: Path) -> None:
    """Create the sqlite tracking store of a fresh HOME, whole or not at all; any other store is left to MLflow.

    MLflow builds the tables in dozens of migrations, over seconds, and cannot go on where it was killed among them: so
    they are built aside and moved into place. Processes that come at the same moment wait for the first.
    """
    path = _sqlite_path(uri, home)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        aside = path.with_suffix(".partial")
        aside.unlink(missing_ok=True)
        with _answering(uri):
            _quieten()
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            SqlAlchemyStore(f"sqlite:///{aside}", str(home / "mlflow" / "artifacts")).engine.dispose()
        os.replace(aside, path)


def _sqlite_path(uri: str, home: Path) -> Path | None:
    """The file of an sqlite store under HOME, which is ours to create; `None` for every other store."""
    if not uri.startswith("sqlite:///"):
        return None
    path = Path(uri.removeprefix("sqlite:///")).resolve()
    return path if path.is_relative_to(home.resolve()) else None


def _client(uri: str) -> MlflowClient:
    _quieten()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _quieten() -> None:
    """No progress lines, no links on standard output, no usage reports; a server that is down is said so in seconds."""
    for name, value in {
        "DO_NOT_TRACK": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401  (sets its own log levels as it loads)

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)


@contextmanager
def _answering(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into ours, without the credentials that a URI may hold."""
    _quieten()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        parts = urlsplit(uri)
        secret, shown = parts.netloc.rpartition("@")[0], f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        text = str(error).replace(secret, "…") if secret else str(error)
        raise QuantAssetsError(
            f"MLflow at {shown} failed: {text.splitlines()[0]}. Check that it runs, or QUANT_MLFLOW_TRACKING_URI."
        ) from None


def _git_commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
