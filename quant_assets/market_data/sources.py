"""Which source the settings name."""

from __future__ import annotations

from datetime import datetime

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.delivery import Source
from quant_assets.market_data.universe import universe
from quant_assets.settings import Settings


def make_source(settings: Settings, calendar: TradingCalendar, now: datetime) -> Source:
    """Build the source that `QUANT_SOURCE` names; raises `ConfigurationError` when a setting it needs is missing."""
    if settings.source == "synthetic":
        from quant_assets.market_data.synthetic.market import SyntheticSource

        return SyntheticSource(
            calendar,
            settings.synthetic_start,
            settings.synthetic_symbols,
            settings.synthetic_seed,
            settings.synthetic_rank_ic,
            now,
        )
    if settings.source == "alpha_vantage":
        from quant_assets.market_data.alpha_vantage.source import AlphaVantageSource

        return AlphaVantageSource.from_settings(settings, calendar, universe(settings), now)
    if settings.source == "yahoo":
        from quant_assets.market_data.yahoo.source import YahooSource

        return YahooSource.from_settings(settings, calendar, universe(settings), now)
    from quant_assets.market_data.files.archives import ArchivesSource, find_archives
    from quant_assets.market_data.files.source import FilesSource

    if find_archives(settings.files_path):
        return ArchivesSource(settings.files_path, calendar, settings.files_date_format, universe(settings), settings.first_session_floor)
    if not settings.files_path:
        raise ConfigurationError("QUANT_SOURCE=files needs QUANT_FILES_PATH: a file, folder or glob of CSV or Parquet with daily bars.")
    return FilesSource(
        settings.files_path, calendar, settings.files_basis, settings.files_date_format, universe(settings), settings.first_session_floor
    )
