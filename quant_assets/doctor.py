"""Is everything there that a night needs? One finding per setting, store and address, with the remedy."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from quant_assets.clock import calendar_of, utc_now
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.views import definition_hash
from quant_assets.home import require_writable
from quant_assets.market_data.alpha_vantage.source import NAME as ALPHA_VANTAGE
from quant_assets.market_data.alpha_vantage.source import AlphaVantageSource
from quant_assets.market_data.sources import make_source
from quant_assets.market_data.universe import universe
from quant_assets.publishing.document_store import DocumentStore
from quant_assets.publishing.embedded_store import address
from quant_assets.publishing.webhook import Webhook
from quant_assets.settings import Settings
from quant_assets.signals.champions import champion_in_use
from quant_assets.warehouse import Warehouse

LEAST_FREE_BYTES = 2 * 1024**3
LOCK_SECONDS = 5.0
CONNECT_SECONDS = 3.0
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, and the numbers or the remedy in words."""

    what: str
    ok: bool
    text: str

    @property
    def mark(self) -> str:
        return "ok  " if self.ok else "FAIL"


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a fault in one place does not hide the next."""
    examinations: dict[str, Callable[[Settings], str]] = {
        "home": _home,
        "calendar": _calendar,
        "source": _source,
        "vendor": _vendor,
        "warehouse": _warehouse,
        "models": _models,
        "mlflow": _mlflow,
        "document store": _document_store,
        "webhook": _webhook,
    }
    return [_finding(what, look, settings) for what, look in examinations.items()]


def _finding(what: str, look: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(what, True, look(settings))
    except (QuantAssetsError, OSError) as error:
        return Finding(what, False, str(error))


def _home(settings: Settings) -> str:
    require_writable(settings.home)
    existing = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_BYTES:
        raise QuantAssetsError(f"{settings.home} has {free / 1024**3:.1f} GiB free; make room or move QUANT_HOME.")
    return f"{settings.home}, {free / 1024**3:.0f} GiB free"


def _calendar(settings: Settings) -> str:
    calendar = calendar_of(settings)
    last = calendar.last_known_session(utc_now())
    if calendar.sessions[-1] < utc_now().date():
        raise QuantAssetsError(f"{calendar.name} is known up to {calendar.sessions[-1]} only: update the package exchange_calendars.")
    return f"{calendar.name} ({calendar.timezone}), last known session {last}"


def _source(settings: Settings) -> str:
    calendar = calendar_of(settings)
    return f"{settings.source}, delivers up to {make_source(settings, calendar, utc_now()).last_session()}"


def _vendor(settings: Settings) -> str:
    if settings.source != ALPHA_VANTAGE:
        return f"the source {settings.source} needs no key"
    calendar = calendar_of(settings)
    source = AlphaVantageSource.from_settings(settings, calendar, universe(settings), utc_now())
    host = _reached(settings.alpha_vantage_url, "QUANT_ALPHA_VANTAGE_URL")
    return f"{host}, key present, {source.calls_left()}; no call was spent"


def _warehouse(settings: Settings) -> str:
    if not settings.warehouse_path.exists():
        return f"{settings.warehouse_path} is made by the first run"
    rows = Warehouse(settings.warehouse_path, settings.source, lock_timeout_seconds=LOCK_SECONDS).read(
        "select count(*) as bars, max(session) as last from data_quality.clean_bars"
    )
    bars, last = rows.row(0)
    return f"{bars:,} clean bars up to {last}"


def _models(settings: Settings) -> str:
    if not settings.warehouse_path.exists():
        return "the first run trains one"
    if settings.scorer == "heuristic":
        return "the heuristic scores, as QUANT_SCORER says"
    warehouse = Warehouse(settings.warehouse_path, settings.source, lock_timeout_seconds=LOCK_SECONDS)
    view = settings.feature_view
    champion = champion_in_use(warehouse, settings.horizon, view, definition_hash(view), settings.label_threshold)
    if champion is None:
        return "no champion: the heuristic scores until a training brings evidence; see `quant-assets model list`"
    misfit = champion.misfit(view, definition_hash(view))
    told = f"champion is version {champion.model_version}, trained on what was known until {champion.trained_until} UTC"
    return f"{told}; it may not score: {misfit}" if misfit else told


def _mlflow(settings: Settings) -> str:
    uri = settings.mlflow_uri
    if not uri.startswith("http"):
        return f"{urlsplit(uri).scheme or 'a folder'}, shown by `make ui`; set QUANT_MLFLOW_TRACKING_URI for a server"
    return f"runs and models go to {_reached(uri, 'QUANT_MLFLOW_TRACKING_URI')}"


def _document_store(settings: Settings) -> str:
    uri = settings.mongodb_uri.get_secret_value()
    embedded = "" if uri else address(settings.home)
    if not uri and not embedded:
        return "the embedded one, which starts with `make ui` and for the length of a run; set QUANT_MONGODB_URI for a server"
    with DocumentStore(uri or str(embedded), settings.mongodb_database) as store:
        store.ping()
        return store.describe()


def _webhook(settings: Settings) -> str:
    url = settings.webhook_url.get_secret_value()
    if not url:
        return "none: set QUANT_WEBHOOK_URL to be told of failed checks and runs"
    Webhook(url).close()  # an address that cannot be one is refused
    signed = "signed" if settings.webhook_secret.get_secret_value() else "unsigned: set QUANT_WEBHOOK_SECRET"
    return f"alerts go to {_reached(url, 'QUANT_WEBHOOK_URL')}, {signed}; nothing was posted"


def _reached(url: str, setting: str) -> str:
    """The host of an http address, once a connection to it was made; the rest of the address is a secret."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise QuantAssetsError(f"{parts.hostname} cannot be reached ({error}): check {setting} and the network.") from None
    return str(parts.hostname)
