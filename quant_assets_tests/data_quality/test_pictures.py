"""Pictures: readable as PNG, small enough for metadata, and drawn from whatever the bars are."""

from __future__ import annotations

import base64
import io
import json
import re
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.data_quality.pictures import SEVERITIES, bar_png, counts_png, suggested_price, worst_table
from quant_assets_tests.lookahead import sessions_from

DAYS = sessions_from(date(2020, 1, 2), 250)
MIDDLE = DAYS[15]
COUNTS = {"session": pl.Date, "rule": pl.String, "severity": pl.String, "findings": pl.Int64}


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(png), format="png"))[:, :, :3]


def reach(png: bytes, colour: str) -> tuple[slice, slice] | None:
    """The rows and columns over which a colour is spread; None where it is not there."""
    from matplotlib.colors import to_rgb

    rows, columns = np.nonzero(np.abs(pixels(png) - np.asarray(to_rgb(colour))).max(axis=2) < 0.02)
    return (slice(rows.min(), rows.max()), slice(columns.min(), columns.max())) if rows.size else None


def walk(seed: int = 3, n: int = 31) -> pl.DataFrame:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.015, n)))
    return pl.DataFrame({"session": DAYS[:n], "high": 1.01 * close, "low": 0.99 * close, "close": close})


def with_price(bars: pl.DataFrame, name: str, value: float | None) -> pl.DataFrame:
    return bars.with_columns(pl.when(pl.col("session") == MIDDLE).then(pl.lit(value, pl.Float64)).otherwise(name).alias(name))


def finding(**changed: Any) -> dict[str, Any]:
    row = {"symbol": "AAA", "session": MIDDLE, "rule": "jump", "severity": "critical", "score": 1.0, "detail": "8 | sigmas\nhigh"}
    return {**row, "suggestion": json.dumps({"column": "close", "value": 100.25, "evidence": "open"}), **changed}


class TestRegression:
    def test_the_marked_bar_is_red_in_the_middle_and_a_spike_stands_at_the_top(self) -> None:
        png = bar_png(with_price(walk(), "close", 130.0), MIDDLE)
        place = reach(png, SEVERITIES["critical"])
        assert place is not None
        height, width, _ = pixels(png).shape
        assert place[0].start < height / 3
        assert abs((place[1].start + place[1].stop) / 2 - width / 2) < 3

    def test_a_suggestion_is_a_green_ring_below_the_spike(self) -> None:
        bars = with_price(walk(), "close", 130.0)
        assert reach(bar_png(bars, MIDDLE), "#2e8b57") is None
        ring = reach(bar_png(bars, MIDDLE, 100.0), "#2e8b57")
        dot = reach(bar_png(bars, MIDDLE, 100.0), SEVERITIES["critical"])
        assert ring is not None
        assert dot is not None
        assert ring[0].start > dot[0].start

    def test_a_session_without_a_bar_is_a_line_from_top_to_bottom(self) -> None:
        png = bar_png(walk().filter(pl.col("session") != MIDDLE), MIDDLE)
        line = reach(png, SEVERITIES["critical"])
        assert line is not None
        assert line[0].stop - line[0].start > 0.8 * len(pixels(png))
        assert line[1].stop - line[1].start < 5

    def test_each_severity_that_was_found_has_its_colour(self) -> None:
        rows = [(DAYS[3], "jump", "critical", 2), (DAYS[4], "volume", "warning", 5), (DAYS[5], None, None, 0)]
        png = counts_png(pl.DataFrame(rows, schema=COUNTS, orient="row"))
        assert [reach(png, colour) is not None for colour in SEVERITIES.values()] == [True, True, False]

    def test_without_a_finding_the_picture_says_so(self) -> None:
        nothing = pl.DataFrame([(day, None, None, 0) for day in DAYS[:5]], schema=COUNTS, orient="row")
        for counts in (nothing, nothing.clear()):
            png = counts_png(counts)
            assert all(reach(png, colour) is None for colour in SEVERITIES.values())
            assert pixels(png).min() < 0.9

    def test_only_a_price_is_drawn_as_a_suggestion(self) -> None:
        assert suggested_price({"column": "close", "value": 12}) == 12.0
        for other in ({"column": "split", "value": 2.0}, {"column": "close", "value": None}, {}):
            assert suggested_price(other) is None

    def test_the_table_of_the_worst(self) -> None:
        around = walk().with_columns(symbol=pl.lit("AAA"), marked=pl.lit(MIDDLE))
        table = worst_table(pl.DataFrame([finding(), finding(symbol="BBB", suggestion=None)]), around)
        first, second = table.drop("price").rows()
        assert first == ("AAA", MIDDLE, "jump", "critical", "1.00000", "8 | sigmas high", "close 100.25")
        assert second[-1] == ""
        (address,) = re.findall(r"^!\[bars around\]\(data:image/png;base64,(.*)\)$", table["price"][0])
        assert base64.b64decode(address) == bar_png(walk(), MIDDLE, 100.25)
        assert worst_table(pl.DataFrame([finding()]).clear(), around).is_empty()


class TestProperties:
    def test_twenty_pictures_and_the_counts_of_a_year_fit_into_metadata(self) -> None:
        noisy = [
            with_price(walk(seed).with_columns(symbol=pl.lit(f"S{seed}"), marked=pl.lit(MIDDLE)), "close", 112.0) for seed in range(20)
        ]
        table = worst_table(pl.DataFrame([finding(symbol=f"S{seed}") for seed in range(20)]), pl.concat(noisy))
        assert sum(len(text) for text in table["price"]) < 200_000
        draw = np.random.default_rng(1)
        rows = [
            (day, f"rule_{number:02d}", severity, int(draw.poisson(rate)))
            for day in DAYS
            for number in range(25)
            for severity, rate in (("critical", 0.01), ("warning", 0.1), ("info", 2))
        ]
        assert len(counts_png(pl.DataFrame(rows, schema=COUNTS, orient="row"))) < 150_000

    @given(
        st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)), max_size=8),
        st.integers(0, 9),
        st.one_of(st.none(), st.floats(-1e6, 1e6)),
    )
    @settings(max_examples=25, deadline=None)
    def test_any_bars_make_a_picture(self, closes: list[float | None], marked: int, suggested: float | None) -> None:
        values = pl.Series(closes, dtype=pl.Float64)
        bars = pl.DataFrame(
            {"session": DAYS[: len(closes)], "high": values, "low": values, "close": values}, schema_overrides={"session": pl.Date}
        )
        assert pixels(bar_png(bars, DAYS[marked], suggested)).shape == (62, 240, 3)
