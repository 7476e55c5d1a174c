"""Which source the settings name."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.files.source import FilesSource
from quant_assets.market_data.sources import make_source
from quant_assets.market_data.synthetic.market import SyntheticSource
from quant_assets.settings import load_settings

NOW = datetime(2020, 7, 6, 12)


class TestRegression:
    def test_the_synthetic_market_is_the_default(self, calendar: TradingCalendar) -> None:
        source = make_source(load_settings(source="synthetic", synthetic_start=date(2020, 1, 2), synthetic_symbols=3), calendar, NOW)
        assert isinstance(source, SyntheticSource)
        assert (source.name, source.last_session()) == ("synthetic", date(2020, 7, 2))

    def test_files_take_their_settings(self, calendar: TradingCalendar, tmp_path: Path) -> None:
        (tmp_path / "AAA.csv").write_text("date,open,high,low,close\n2020-07-01,1,2,1,2\n2020-07-02,1,2,1,2\n")
        (tmp_path / "BBB.csv").write_text("date,open,high,low,close\n2020-07-06,1,2,1,2\n")
        settings = load_settings(source="files", files_path=str(tmp_path), universe="AAA", start=date(2020, 7, 2), files_basis="raw")
        source = make_source(settings, calendar, NOW)
        assert isinstance(source, FilesSource)
        assert source.last_session() == date(2020, 7, 2)
        batch = source.deliver(date(2020, 1, 1), date(2020, 12, 31))
        assert batch.bars.select("symbol", "session").rows() == [("AAA", date(2020, 7, 2))]
        assert batch.basis == "raw"

    def test_files_without_a_path_name_the_setting(self, calendar: TradingCalendar) -> None:
        with pytest.raises(ConfigurationError, match="QUANT_FILES_PATH"):
            make_source(load_settings(source="files", files_path=""), calendar, NOW)
