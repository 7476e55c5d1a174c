"""Sectors: joined by symbol, and a file that cannot serve is named."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from quant_assets.errors import ConfigurationError
from quant_assets.signals.sectors import with_sectors

FRAME = pl.DataFrame({"symbol": ["B", "A", "NA"], "x": [1, 2, 3]})


class TestRegression:
    def test_symbols_get_their_sector_and_keep_their_order(self, tmp_path: Path) -> None:
        (tmp_path / "s.csv").write_text("symbol,sector\nA,Energy\nNA, Health Care \n")
        assert with_sectors(FRAME, str(tmp_path / "s.csv")).rows() == [("B", 1, None), ("A", 2, "Energy"), ("NA", 3, "Health Care")]

    def test_no_path_leaves_the_frame_as_it_came(self) -> None:
        assert with_sectors(FRAME, "").equals(FRAME)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (None, "is no file"),
            ("symbol,industry\nA,Energy\n", "lacks the column sector; its header is symbol,industry"),
            ("symbol,sector\nA,Energy\nA,Banks\n", "names A more than once"),
        ],
    )
    def test_a_file_that_cannot_serve_is_named(self, text: str | None, told: str, tmp_path: Path) -> None:
        file = tmp_path / "s.csv"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigurationError, match=rf"QUANT_SECTORS_PATH={file} {told}"):
            with_sectors(FRAME, str(file))
