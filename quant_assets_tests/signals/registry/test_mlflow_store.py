"""MLflow's store under HOME appears whole or not at all, and a server that is down is named without its password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quant_assets.errors import QuantAssetsError
from quant_assets.settings import load_settings
from quant_assets.signals.registry.mlflow_store import initialise
from quant_assets.signals.registry.tracking import Registry
from quant_assets_tests.signals.trained import mlflow_store


class TestRegression:
    def test_a_server_that_is_down_is_named_without_its_password(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        down = load_settings(home=tmp_path, mlflow_tracking_uri="http://desk:hunter2@127.0.0.1:9")
        with pytest.raises(QuantAssetsError, match=r"MLflow at http://127\.0\.0\.1:9 failed") as failure:
            Registry.open(down)
        assert "hunter2" not in str(failure.value)
        link = Registry(None, down.mlflow_uri, "1", down.mlflow_url, down.dagster_url)._version("3", "abc", "")  # type: ignore[arg-type]
        assert link.url == "http://127.0.0.1:9/#/experiments/1/runs/abc"

    def test_a_store_killed_in_its_making_is_made_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The store appears whole or not at all: what an earlier process left aside is thrown away."""
        whole = mlflow_store()
        path = tmp_path / "mlflow" / "mlflow.db"
        path.parent.mkdir()
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

    def test_who_only_reads_makes_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(QuantAssetsError, match=r"There is no MLflow store at .*mlflow\.db yet"):
            Registry.open(load_settings(home=tmp_path, mlflow_tracking_uri=""), create=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "mlflow").mkdir()
        (tmp_path / "mlflow" / "mlflow.db").write_text("not a database, but long enough to be taken for one" * 40)
        with pytest.raises(QuantAssetsError, match=r"MLflow at sqlite:///?.*mlflow\.db failed: .*not a database"):
            Registry.open(load_settings(home=tmp_path, mlflow_tracking_uri=""))

    def test_an_mlflow_that_cannot_be_imported_is_said_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(QuantAssetsError, match="MLflow cannot be imported"):
            Registry.open(load_settings(home=tmp_path, mlflow_tracking_uri=""))
