"""What the champion said out of sample, for a challenger to be held against."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.errors import QuantAssetsError
from quant_assets.settings import Settings
from quant_assets.signals.champions import FOREVER, MODEL, Champion, champion_for
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.signals.signal_model import SignalModel
from quant_assets.warehouse import Warehouse


def incumbent(warehouse: Warehouse, settings: Settings, definition_hash: str, as_of: datetime) -> tuple[Champion, SignalModel] | None:
    """The champion of sessions to come, after all that was decided by an instant, and its model; None where none may score."""
    view, threshold = settings.feature_view, settings.label_threshold
    champion = champion_for(warehouse, settings.horizon, FOREVER, as_of, view, definition_hash, threshold)
    if champion is None or champion.misfit(view, definition_hash):
        return None
    try:
        return champion, load_local_copy(settings.models_path, champion.model_version, champion.model_sha256, view, definition_hash)[0]
    except (QuantAssetsError, OSError):  # it scores no more than one that is not there; the night's check tells why
        return None


def unseen_predictions(
    warehouse: Warehouse, calendar: TradingCalendar, champion: Champion, model: SignalModel, horizon: int, frame: pl.DataFrame
) -> pl.DataFrame:
    """`symbol`, `session`, `probability` of a champion on the sessions of a training frame that it had not seen.

    Its walk-forward predictions as far as its training reached, the model itself on sessions that closed after that.
    """
    walked = warehouse.read(
        """
        select symbol, session, probability from signals.predictions
        where model = $model and model_version = $version and horizon = $horizon
        qualify row_number() over (partition by symbol, session order by known_at desc, fold desc) = 1
        """,
        {"model": MODEL, "version": champion.model_version, "horizon": horizon},
    )
    first, last = frame.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    later = calendar.frame(first, last).filter(pl.col("close_at") > champion.trained_until).select("session")
    unseen = frame.join(later, on="session", how="semi").sort("session", "symbol")
    scored = unseen.select("symbol", "session").with_columns(model.predict(unseen))
    return pl.concat([walked.join(scored, on=["symbol", "session"], how="anti"), scored])
