"""MLflow's store: made whole where it is ours to make, connected to without noise, its errors turned into ours."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from quant_assets.errors import QuantAssetsError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def initialise(uri: str, home: Path) -> None:
    """Create the sqlite tracking store of a fresh HOME, whole or not at all; any other store is left to MLflow.

    MLflow builds the tables in dozens of migrations, over seconds, and cannot go on where it was killed among them: so
    they are built aside and moved into place. Processes that come at the same moment wait for the first.
    """
    path = sqlite_path(uri, home)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        aside = path.with_suffix(".partial")
        aside.unlink(missing_ok=True)
        with answering(uri):
            quieten()
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            SqlAlchemyStore(f"sqlite:///{aside}", str(home / "mlflow" / "artifacts")).engine.dispose()
        os.replace(aside, path)


def sqlite_path(uri: str, home: Path) -> Path | None:
    """The file of an sqlite store under HOME, which is ours to create; `None` for every other store."""
    if not uri.startswith("sqlite:///"):
        return None
    path = Path(uri.removeprefix("sqlite:///")).resolve()
    return path if path.is_relative_to(home.resolve()) else None


def connect(uri: str) -> MlflowClient:
    """A client of the tracking store and the model registry at one address."""
    quieten()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def quieten() -> None:
    """No progress lines, no links on standard output, no usage reports; a server that is down is said so in seconds."""
    for name, value in {
        "DO_NOT_TRACK": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow  # noqa: F401  (sets its own log levels as it loads)
    except ImportError as error:
        raise QuantAssetsError(f"MLflow cannot be imported ({error}): install this package with its requirements.") from None

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into ours, without the credentials that a URI may hold."""
    quieten()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        parts = urlsplit(uri)
        secret, shown = parts.netloc.rpartition("@")[0], f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        text = str(error).replace(secret, "…") if secret else str(error)
        raise QuantAssetsError(
            f"MLflow at {shown} failed: {text.splitlines()[0]}. Check that it runs, or QUANT_MLFLOW_TRACKING_URI."
        ) from None
