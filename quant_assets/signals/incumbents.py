"""What the champion said out of sample, for a challenger to be held against."""

from __future__ import annotations

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.errors import QuantAssetsError
from quant_assets.settings import Settings
from quant_assets.signals.champions import MODEL, Champion
from quant_assets.signals.registry.local_copies import load_local_copy
from quant_assets.warehouse import Warehouse


def incumbent_predictions(
    warehouse: Warehouse, calendar: TradingCalendar, settings: Settings, champion: Champion, frame: pl.DataFrame
) -> pl.DataFrame:
    """`symbol`, `session`, `probability` of a champion on the sessions of a training frame that it had not seen.

    Its walk-forward predictions as far as its training reached, the model itself on sessions that closed after that. Where
    its local copy cannot be used, the walk-forward predictions alone.
    """
    walked = warehouse.read(
        """
        select symbol, session, probability from signals.predictions
        where model = $model and model_version = $version and horizon = $horizon
        qualify row_number() over (partition by symbol, session order by known_at desc, fold desc) = 1
        """,
        {"model": MODEL, "version": champion.model_version, "horizon": settings.horizon},
    )
    first, last = frame.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    later = calendar.frame(first, last).filter(pl.col("close_at") > champion.trained_until).select("session")
    unseen = frame.join(later, on="session", how="semi").sort("session", "symbol")
    try:
        model, _ = load_local_copy(
            settings.models_path, champion.model_version, champion.model_sha256, champion.feature_view, champion.definition_hash
        )
    except (QuantAssetsError, OSError):
        return walked
    scored = unseen.select("symbol", "session").with_columns(model.predict(unseen))
    return pl.concat([walked.join(scored, on=["symbol", "session"], how="anti"), scored])
