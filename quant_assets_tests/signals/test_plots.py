"""Pictures: real PNGs of the size asked for, also of very little."""

from __future__ import annotations

import struct

import polars as pl

from quant_assets.signals.plots import calibration_png, importance_png


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


class TestRegression:
    def test_calibration_is_five_by_four_and_a_half_inches(self) -> None:
        table = pl.DataFrame({"bin": [0, 1], "rows": [5, 5], "probability": [0.4, 0.6], "up_share": [0.5, 0.5]})
        assert size(calibration_png(table)) == (550, 495)
        assert calibration_png(table) != calibration_png(table.with_columns(up_share=pl.lit(0.9)))

    def test_nothing_to_plot_is_an_empty_picture(self) -> None:
        assert size(calibration_png(pl.DataFrame(schema={"probability": pl.Float64, "up_share": pl.Float64}))) == (550, 495)

    def test_importance_grows_with_its_features(self) -> None:
        table = pl.DataFrame({"feature": ["rsi_14", "bb_width"], "gain": [3.0, 1.0]})
        assert size(importance_png(table)) == (770, 220)
