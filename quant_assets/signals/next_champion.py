"""Is there a champion for tonight? If not, and a training is due, it is trained; what became of that is said in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from quant_assets.clock import TradingCalendar
from quant_assets.errors import QuantAssetsError
from quant_assets.feature_store.inputs import SCOPE_THEN
from quant_assets.feature_store.views import definition_hash
from quant_assets.settings import Settings
from quant_assets.signals.champions import AT_ONCE, MODEL, REJECTED, Champion, champion_for
from quant_assets.signals.registry.actions import verified_copy
from quant_assets.signals.registry.desk import ModelDesk
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.signals.retraining import TrainingFailed, train_in_own_process
from quant_assets.signals.splits import TooFewSessions
from quant_assets.signals.training import walk
from quant_assets.signals.training_run import setup_of
from quant_assets.warehouse import Warehouse


@dataclass(frozen=True)
class Due:
    """What became of the night's look for a champion, in words; `failed` where a training was due and did not do."""

    text: str
    failed: bool = False


def ensure_champion(warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, as_of: datetime) -> Due:
    """Train when no version may score the last session and there is history enough; says in words what was done.

    A version of another view than the settings name, or of another definition of it, may not score. Where a training of
    the same label and definition was turned down lately, none is started before the cool-down has passed.
    """
    if settings.scorer == "heuristic":
        return Due("the heuristic scores, as QUANT_SCORER says")
    tonight = calendar.last_known_session(as_of)
    now = settings.feature_view, definition_hash(settings.feature_view), settings.label_threshold
    champion = champion_for(warehouse, settings.horizon, calendar.close(tonight), as_of, *now)
    fault = champion and (champion.misfit(*now[:2]) or _unreadable(warehouse, settings, champion))
    if champion is not None and fault is None:
        return Due(f"champion is version {champion.model_version}, trained until {champion.trained_until} UTC")
    because = f"; {fault}" if fault else ""
    since = calendar.known_at(calendar.sessions_before(tonight, settings.retrain_cooldown_sessions - 1))
    if (turned_down := _turned_down(warehouse, settings, since, as_of)) is not None:
        return Due(f"no model: {turned_down}; the next training is due {settings.retrain_cooldown_sessions} sessions after it{because}")
    sessions = warehouse.read(
        f"""
        select distinct session from feature_store.labels as row semi join {SCOPE_THEN}
        where horizon = $horizon and known_at < $close order by session
        """,
        {"horizon": settings.horizon, "close": calendar.close(tonight), "as_of": as_of},
    )["session"].to_list()
    try:
        walk(sessions[-settings.look_back_sessions :], setup_of(settings, now[1]))
    except TooFewSessions as error:
        return Due(f"no model yet: of symbols in scope with known outcomes, {error}{because}")
    try:
        train_in_own_process(as_of)
    except TrainingFailed as error:
        return Due(f"no model: {error}{because}", failed=True)
    champion = champion_for(warehouse, settings.horizon, calendar.close(tonight), as_of, *now)
    if champion is not None and (champion.misfit(*now[:2]) or _unreadable(warehouse, settings, champion)) is None:
        return Due(f"champion is version {champion.model_version}, trained now, until {champion.trained_until} UTC{because}")
    if (turned_down := _turned_down(warehouse, settings, since, as_of)) is not None:
        return Due(f"no model: {turned_down}{because}")
    return Due(
        f"no model: the training ended well, but decided on no version that may score {tonight} as of {as_of} UTC{because}", failed=True
    )


def _unreadable(warehouse: Warehouse, settings: Settings, champion: Champion) -> str | None:
    """Why a champion's local copy cannot be used, though it was asked of the registry again; None where it can."""
    known = champion.model_version, champion.model_sha256, champion.feature_view, champion.definition_hash
    try:
        load_local_copy(settings.models_path, *known)
    except (QuantAssetsError, OSError):
        try:
            verified_copy(ModelDesk.open(warehouse, settings), champion.model_version, champion.model_sha256)
            load_local_copy(settings.models_path, *known)
        except (QuantAssetsError, OSError) as error:
            return str(error)
    return None


def _turned_down(warehouse: Warehouse, settings: Settings, since: datetime, as_of: datetime) -> str | None:
    """The last training of this label and definition that was held against something and turned down since an instant, in words."""
    found = warehouse.read(
        f"""
        select model_version, reason from signals.promotions
        where model = $model and horizon = $horizon and label_threshold = $label_threshold and feature_view = $view
            and definition_hash = $definition_hash and decision = '{REJECTED}' and promoted_at between $since and $as_of
            and cast(evidence ->> 'window_sessions' as bigint) > 0
        order by promoted_at desc, model_version::bigint desc limit 1
        """,
        {
            "model": MODEL,
            "horizon": settings.horizon,
            "label_threshold": settings.label_threshold,
            "view": settings.feature_view,
            "definition_hash": definition_hash(settings.feature_view),
            "since": since,
            "as_of": as_of + AT_ONCE,
        },
    )
    return f"version {found['model_version'][0]} was turned down: {found['reason'][0]}" if len(found) else None
