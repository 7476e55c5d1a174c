"""The one reader of the environment: every setting, its default and its meaning."""

from __future__ import annotations

import os
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from quant_assets.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _shared(name: str) -> AliasChoices:
    """Accept a name that other tools use too (`MONGODB_URI`) with or without our prefix; ours wins."""
    return AliasChoices(f"QUANT_{name}", name)


class Settings(BaseSettings):
    """Settings from the environment (prefix `QUANT_`) and from a `.env` file in the working directory.

    `.env.example` documents each. Secrets are `SecretStr`, so that they never appear in a log or a repr.
    Raises `ConfigurationError` from `load_settings` when a value cannot be used.
    """

    model_config = SettingsConfigDict(env_prefix="QUANT_", env_file=".env", extra="ignore", env_ignore_empty=True)

    home: Path = Path("var")
    source: Literal["synthetic", "files", "alpha_vantage", "yahoo"] = "synthetic"
    start: date | None = None
    calendar: str = "XNYS"
    special_sessions: str = ""
    universe: str = ""
    vendor_delay_minutes: int = Field(30, ge=0, le=24 * 60)

    files_path: str = ""
    files_date_format: str = ""
    files_basis: Literal["restated", "raw"] = "restated"

    alpha_vantage_api_key: SecretStr = Field(SecretStr(""), validation_alias=_shared("ALPHA_VANTAGE_API_KEY"))
    alpha_vantage_url: str = Field("https://www.alphavantage.co", validation_alias=_shared("ALPHA_VANTAGE_URL"))
    alpha_vantage_format: Literal["csv", "json"] = "json"
    alpha_vantage_calls_per_second: int = Field(1, ge=0)
    alpha_vantage_calls_per_minute: int = Field(0, ge=0)
    alpha_vantage_calls_per_day: int = Field(25, ge=0)
    vendor_concurrency: int = Field(4, ge=1, le=64)
    vendor_timeout_seconds: float = Field(30.0, gt=0)
    vendor_attempts: int = Field(4, ge=1, le=20)

    synthetic_seed: int = 7
    synthetic_symbols: int = Field(30, ge=1, le=20_000)
    synthetic_start: date = date(2021, 11, 22)
    synthetic_rank_ic: float = Field(0.08, ge=0.0, le=0.5)

    anomaly_critical_rate: float = Field(1e-4, gt=0, lt=0.5)
    anomaly_warning_rate: float = Field(1e-3, gt=0, lt=0.5)
    volume_model: Literal["mstl", "prophet"] = "mstl"

    horizon: Literal[1, 5, 20] = 1
    feature_view: Literal["technical_v1", "alpha_v1"] = "technical_v1"
    label_threshold: float = Field(0.0, ge=-0.5, le=0.5)
    train_min_sessions: int = Field(252, ge=60)
    look_back_sessions: int = Field(0, ge=0)
    test_sessions: int = Field(0, ge=0)
    embargo_sessions: int = Field(0, ge=0)
    train_window: Literal["expanding", "rolling"] = "expanding"
    model_family: Literal["lightgbm", "catboost", "logistic", "xgboost", "average", "small"] = "lightgbm"
    model_rounds: int = Field(100, ge=1, le=10_000)
    model_seed: int = 7
    model_threads: int = Field(2, ge=1)
    early_stopping_rounds: int = Field(0, ge=0)
    balanced_classes: bool = False
    calibration: Literal["platt", "isotonic", "none"] = "platt"
    tuning_trials: int = Field(0, ge=0)
    scorer: Literal["model", "heuristic"] = "model"
    strong_buy: float = 0.56
    buy: float = 0.52
    sell: float = 0.48
    strong_sell: float = 0.44
    fee_bps: float = Field(5.0, ge=0)
    sectors_path: str = ""
    promotion_confidence: float = Field(0.99, ge=0, lt=1)
    retrain_cooldown_sessions: int = Field(20, ge=1)

    lock_timeout_seconds: float = Field(60.0, gt=0)
    read_copy: bool = True

    dagster_port: int = Field(3000, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    dbt_docs_port: int = Field(8580, ge=1, le=65535)

    mlflow_tracking_uri: SecretStr = Field(SecretStr(""), validation_alias=_shared("MLFLOW_TRACKING_URI"))
    mongodb_uri: SecretStr = Field(SecretStr(""), validation_alias=_shared("MONGODB_URI"))
    mongodb_database: str = Field("quant_assets", validation_alias=_shared("MONGODB_DATABASE"))
    webhook_url: SecretStr = Field(SecretStr(""), validation_alias=_shared("WEBHOOK_URL"))
    webhook_secret: SecretStr = Field(SecretStr(""), validation_alias=_shared("WEBHOOK_SECRET"))

    @field_validator("horizon", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        """The environment holds texts, and a choice of numbers takes numbers only."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("special_sessions")
    @classmethod
    def _of_dates(cls, value: str) -> str:
        _dates(value)
        return value

    @model_validator(mode="after")
    def _of_use(self) -> Settings:
        if 0 < self.look_back_sessions <= self.train_min_sessions:
            raise ValueError(
                f"QUANT_LOOK_BACK_SESSIONS={self.look_back_sessions} leaves nothing to test on after a first training of "
                f"QUANT_TRAIN_MIN_SESSIONS={self.train_min_sessions}; make it longer, or 0 for all"
            )
        if 0 < self.promotion_confidence < 0.5:
            raise ValueError(f"QUANT_PROMOTION_CONFIDENCE={self.promotion_confidence} is no confidence; give 0 for none, or 0.5 to below 1")
        return self

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> Settings:
        if not 0 <= self.strong_sell < self.sell < self.buy < self.strong_buy <= 1:
            raise ValueError(
                f"QUANT_STRONG_SELL={self.strong_sell}, QUANT_SELL={self.sell}, QUANT_BUY={self.buy} and QUANT_STRONG_BUY={self.strong_buy} "
                "must ascend in this order, within 0 to 1"
            )
        return self

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @cached_property
    def first_session_floor(self) -> date:
        """The date from which partitions and bars are kept: `START`, else the synthetic market's first day, else 2000."""
        if self.start is not None:
            return self.start
        return self.synthetic_start if self.source == "synthetic" else date(2000, 1, 1)

    @cached_property
    def special_session_dates(self) -> tuple[date, ...]:
        """Sessions that the exchange held on days on which its calendar is closed, in order."""
        return _dates(self.special_sessions)

    @property
    def anomaly_rates(self) -> tuple[float, float]:
        """Shares of clean bars that may be called critical, and at least a warning."""
        return self.anomaly_critical_rate, self.anomaly_warning_rate

    @property
    def warehouse_path(self) -> Path:
        return self.home / "quant.duckdb"

    @property
    def read_copy_path(self) -> Path:
        return self.home / "quant.read.duckdb"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def outbox_path(self) -> Path:
        return self.home / "outbox"

    @property
    def payloads_path(self) -> Path:
        return self.home / "payloads"

    @property
    def requests_path(self) -> Path:
        return self.home / "requests.sqlite"

    @property
    def models_path(self) -> Path:
        return self.home / "models"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking and registry store: the setting, else sqlite under HOME."""
        return self.mlflow_tracking_uri.get_secret_value() or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def dagster_url(self) -> str:
        """Where `make ui` serves Dagster."""
        return f"http://127.0.0.1:{self.dagster_port}"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow's pages are: the tracking server (without user and password), or what `make ui` serves."""
        parts = urlsplit(self.mlflow_tracking_uri.get_secret_value())
        if parts.scheme in ("http", "https"):
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        return f"http://127.0.0.1:{self.mlflow_port}"

    def overridden(self, **changes: object) -> Settings:
        """These settings with some replaced by what a run asks for; None leaves one as it is. Raises `ConfigurationError` likewise."""
        asked = {name: value for name, value in changes.items() if value is not None}
        valid = load_settings(**asked)
        return self.model_copy(update={name: getattr(valid, name) for name in asked})

    def export(self) -> None:
        """Put into the environment what YAML files and child processes read from it."""
        os.environ["DAGSTER_HOME"] = str(self.dagster_home)
        os.environ["QUANT_HOME"] = str(self.home)
        os.environ["QUANT_WAREHOUSE"] = str(self.warehouse_path)
        os.environ["QUANT_LOCK_TIMEOUT_SECONDS"] = str(self.lock_timeout_seconds)
        os.environ["DO_NOT_TRACK"] = "1"
        # Threads of LightGBM that spin while they wait made training five times slower on a busy machine.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _dates(text: str) -> tuple[date, ...]:
    return tuple(sorted(date.fromisoformat(part.strip()) for part in text.split(",") if part.strip()))


def load_settings(**overrides: object) -> Settings:
    """Read the settings; a value that cannot be used raises `ConfigurationError` naming the variable, never its secret."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(f"{_variable(fault['loc'])}{fault['msg'].removeprefix('Value error, ')}" for fault in error.errors())
        raise ConfigurationError(f"{faults}. See .env.example for every setting and its form.") from None


def _variable(place: tuple[int | str, ...]) -> str:
    """The variable that a fault is about; a fault between several names them itself."""
    return f"QUANT_{str(place[0]).removeprefix('QUANT_').upper()}: " if place else ""
