"""A fingerprint sees every value, name, type and place, and nothing else."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.fingerprints import fingerprint

FRAME = pl.DataFrame(
    {
        "symbol": ["A", "B", None],
        "session": [date(2024, 1, 2), date(2024, 1, 3), None],
        "x": [0.1, None, float("nan")],
        "up": [True, False, None],
        "known_at": [datetime(2024, 1, 2, 21, 30), None, datetime(2024, 1, 3)],
        "horizon": pl.Series([1, 5, None], dtype=pl.Int32),
    }
)
CHANGES = {
    "a value by one bit": FRAME.with_columns(x=pl.col("x") + 2**-56),
    "a null that is a zero": FRAME.with_columns(x=pl.col("x").fill_null(0.0)),
    "a null that is no number": FRAME.with_columns(x=pl.col("x").fill_null(float("nan"))),
    "another symbol": FRAME.with_columns(symbol=pl.col("symbol").replace("A", "C")),
    "a null that is a text": FRAME.with_columns(symbol=pl.col("symbol").fill_null("null")),
    "another session": FRAME.with_columns(session=pl.col("session") + pl.duration(days=1)),
    "a microsecond": FRAME.with_columns(known_at=pl.col("known_at") + pl.duration(microseconds=1)),
    "another answer": FRAME.with_columns(up=~pl.col("up")),
    "another type": FRAME.cast({"horizon": pl.Int64}),
    "another precision": FRAME.cast({"x": pl.Float32}),
    "another name": FRAME.rename({"x": "y"}),
    "another order of rows": FRAME.reverse(),
    "a row less": FRAME.head(2),
    "a column less": FRAME.drop("up"),
    "two columns exchanged": FRAME.with_columns(x=pl.col("x").reverse()),
}


class TestRegression:
    @pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
    def test_any_change_changes_it(self, changed: pl.DataFrame) -> None:
        assert fingerprint(changed) != fingerprint(FRAME)

    def test_it_is_the_same_for_ever(self) -> None:
        """A number that is written down: whoever changes how it is made makes all stored ones worthless."""
        assert fingerprint(FRAME, view="technical_v1", horizon=5) == "a53c422d60f8901fd65acfa387f10dc4799f7f673524493af2e0c25e57d97fbd"

    def test_what_stands_beside_the_frame_counts(self) -> None:
        one, other = fingerprint(FRAME, view="a", horizon=1), fingerprint(FRAME, view="b", horizon=1)
        assert len({one, other, fingerprint(FRAME)}) == 3
        assert fingerprint(FRAME, horizon=1, view="a") == one

    def test_symbols_that_read_alike_together_are_told_apart(self) -> None:
        assert fingerprint(pl.DataFrame({"symbol": ["AB", "C"]})) != fingerprint(pl.DataFrame({"symbol": ["A", "BC"]}))
        assert fingerprint(pl.DataFrame({"symbol": ["A, B"]})) != fingerprint(pl.DataFrame({"symbol": ["A", "B"]}))

    def test_zeros_and_what_is_no_number_have_one_form(self) -> None:
        assert fingerprint(pl.DataFrame({"x": [0.0, float("nan")]})) == fingerprint(pl.DataFrame({"x": [-0.0, -float("nan")]}))


class TestProperties:
    @given(
        st.lists(st.tuples(st.text(max_size=3), st.floats(), st.none() | st.integers(-9, 9)), max_size=8),
        st.randoms(use_true_random=False),
    )
    @settings(max_examples=50, deadline=None)
    def test_the_order_of_columns_and_the_layout_in_memory_do_not_count(self, rows: list[tuple[object, ...]], random: object) -> None:
        frame = pl.DataFrame(rows, schema={"symbol": pl.String, "x": pl.Float64, "n": pl.Int64}, orient="row")
        names = frame.columns
        random.shuffle(names)  # type: ignore[attr-defined]
        chunked = pl.concat([frame.slice(place, 1) for place in range(frame.height)], rechunk=False) if frame.height else frame
        assert fingerprint(frame.select(names)) == fingerprint(chunked) == fingerprint(frame)

    @given(st.lists(st.floats(), min_size=1, max_size=6), st.integers(0, 5))
    @settings(max_examples=50, deadline=None)
    def test_each_float_counts(self, values: list[float], place: int) -> None:
        place %= len(values)
        other = [value if at != place else 1.5 if value != 1.5 else 2.5 for at, value in enumerate(values)]
        assert fingerprint(pl.DataFrame({"x": values})) != fingerprint(pl.DataFrame({"x": other}))
