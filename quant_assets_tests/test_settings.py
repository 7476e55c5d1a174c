"""The one reader of the environment."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from quant_assets.clock import calendar_of
from quant_assets.errors import ConfigurationError
from quant_assets.settings import PROJECT_ROOT, Settings, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from outside: neither variables nor a `.env` file."""
    for name in list(os.environ):
        if name.startswith("QUANT_") or f"QUANT_{name}" in _VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


_VARIABLES = {f"QUANT_{name.upper()}" for name in Settings.model_fields}


class TestRegression:
    def test_without_any_setting_the_synthetic_market_runs_in_var(self, tmp_path: Path) -> None:
        settings = load_settings()
        assert (settings.source, settings.calendar, settings.home) == ("synthetic", "XNYS", tmp_path / "var")
        assert settings.warehouse_path == tmp_path / "var" / "quant.duckdb"
        assert settings.read_copy_path == tmp_path / "var" / "quant.read.duckdb"
        assert settings.mlflow_uri == f"sqlite:///{tmp_path}/var/mlflow/mlflow.db"

    def test_variables_beat_the_env_file_and_empty_ones_do_not_count(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("QUANT_SOURCE=files\nQUANT_HORIZON=5\nQUANT_CALENDAR=\nUNRELATED=1\n")
        monkeypatch.setenv("QUANT_HORIZON", "20")
        settings = load_settings()
        assert (settings.source, settings.horizon, settings.calendar) == ("files", 20, "XNYS")

    def test_names_that_other_tools_use_work_with_and_without_our_prefix(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MONGODB_URI", "mongodb://theirs")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
        assert load_settings().mongodb_uri.get_secret_value() == "mongodb://theirs"
        assert load_settings().mlflow_url == "http://tracking:5000"
        monkeypatch.setenv("QUANT_MONGODB_URI", "mongodb://ours")
        assert load_settings().mongodb_uri.get_secret_value() == "mongodb://ours"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("QUANT_SOURCE", "bloomberg"),
            ("QUANT_START", "soon"),
            ("QUANT_HORIZON", "7"),
            ("QUANT_SYNTHETIC_SYMBOLS", "0"),
            ("QUANT_LOCK_TIMEOUT_SECONDS", "0"),
            ("QUANT_READ_COPY", "perhaps"),
            ("QUANT_SPECIAL_SESSIONS", "2024-01-20, soon"),
            ("QUANT_ANOMALY_CRITICAL_RATE", "0"),
        ],
    )
    def test_a_wrong_value_names_its_variable_and_the_remedy(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigurationError, match=rf"{name}: .*\.env\.example"):
            load_settings()

    def test_special_sessions_are_dates_by_comma_and_the_calendar_has_them(self) -> None:
        settings = load_settings(special_sessions="2024-03-02, 2024-01-20,", start=date(2024, 1, 2), calendar="XBOM")
        assert settings.special_session_dates == (date(2024, 1, 20), date(2024, 3, 2))
        assert calendar_of(settings).is_session(date(2024, 1, 20))
        assert not calendar_of(load_settings(start=date(2024, 1, 2), calendar="XBOM")).is_session(date(2024, 1, 27))

    def test_the_floor_is_the_start_else_what_the_source_begins_with(self) -> None:
        assert load_settings().first_session_floor == load_settings().synthetic_start
        assert load_settings(source="files").first_session_floor == date(2000, 1, 1)
        assert load_settings(source="files", start=date(2013, 2, 8)).first_session_floor == date(2013, 2, 8)

    def test_export_gives_yaml_files_and_child_processes_what_they_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        settings = load_settings(home=tmp_path / "desk")
        for name in ("DAGSTER_HOME", "QUANT_HOME", "QUANT_WAREHOUSE", "QUANT_LOCK_TIMEOUT_SECONDS", "DO_NOT_TRACK"):
            monkeypatch.setenv(name, "before")  # so that they are put back afterwards
        settings.export()
        assert os.environ["DAGSTER_HOME"] == str(tmp_path / "desk" / "dagster")
        assert os.environ["QUANT_HOME"] == str(tmp_path / "desk")
        assert os.environ["QUANT_WAREHOUSE"] == str(tmp_path / "desk" / "quant.duckdb")

    def test_the_example_names_every_setting(self) -> None:
        example = (PROJECT_ROOT / ".env.example").read_text()
        assert [name for name in sorted(_VARIABLES) if name not in example] == []


class TestProperties:
    @pytest.mark.parametrize("name", ["MONGODB_URI", "WEBHOOK_URL", "WEBHOOK_SECRET"])
    def test_secrets_show_in_no_text(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(f"QUANT_{name}", "hunter2")
        settings = load_settings()
        assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
        monkeypatch.setenv("QUANT_HORIZON", "7")
        with pytest.raises(ConfigurationError) as error:
            load_settings()
        assert "hunter2" not in str(error.value)
        assert error.value.__cause__ is None
