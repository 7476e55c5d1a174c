"""The look-ahead harness itself: what it compares, what it reports, and what it refuses to call a proof."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given

from quant_assets.lookahead import NotComparable, described, differences, offending_rows

DAYS = [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]
KNOWN = [datetime(2024, 1, 2, 21, 30), datetime(2024, 1, 3, 21, 30), datetime(2024, 1, 4, 21, 30)]


def rows(values: list[object], dtype: pl.DataType | type[pl.DataType] | None = None, **more: list[object]) -> pl.DataFrame:
    """Rows of the symbol A in consecutive sessions with a column `x`."""
    n = len(values)
    return pl.DataFrame({"symbol": ["A"] * n, "session": DAYS[:n], "x": pl.Series(values, dtype=dtype, strict=False), **more})


def versions() -> pl.DataFrame:
    """Three bars known in the evening of their session; the first was restated in the evening of the last."""
    return rows([1.0, 2.0, 4.0], known_at=KNOWN).vstack(rows([9.0], known_at=KNOWN[2:]))


def newest(bars: pl.DataFrame) -> pl.DataFrame:
    """The newest version of each bar, known when that version was."""
    return bars.sort("known_at").unique(["symbol", "session"], keep="last", maintain_order=True)


def prices() -> pl.DataFrame:
    return rows([1.0, 2.0, 4.0])


class TestRegression:
    def test_the_offending_value_is_named(self) -> None:
        found = offending_rows(lambda bars: bars.with_columns(pl.col("x") / pl.col("x").max()), {"bars": prices()}, DAYS[1:2])
        assert found.columns == ["cut", "symbol", "session", "column", "stored", "recomputed"]
        assert found.rows() == [(DAYS[1], "A", DAYS[0], "x", "0.25", "0.5"), (DAYS[1], "A", DAYS[1], "x", "0.5", "1.0")]
        assert described(found, limit=1) == (
            "x of symbol=A, session=2024-01-02: stored 0.25, recomputed 0.5 (cut at 2024-01-03)\nand 1 more"
        )

    def test_what_differs_is_described_without_a_cut_as_well(self) -> None:
        found = differences(rows([None, 2.0]), rows([1.0]))
        assert described(found).splitlines() == [
            "row of symbol=A, session=2024-01-03: stored present, recomputed absent",
            "x of symbol=A, session=2024-01-02: stored null, recomputed 1.0",
        ]
        assert described(found.clear()) == "nothing differs"

    @pytest.mark.parametrize(
        ("stored", "recomputed", "dtype", "texts"),
        [
            (None, 2.0, pl.Float64, (None, "2.0")),
            (math.nan, None, pl.Float64, ("nan", None)),
            (math.nan, 1.0, pl.Float64, ("nan", "1.0")),
            (math.inf, 1e308, pl.Float64, ("inf", "1e+308")),
            (math.inf, -math.inf, pl.Float64, ("inf", "-inf")),
            (0.0, 1e-300, pl.Float64, ("0.0", "1e-300")),
            (1, 2, pl.Int64, ("1", "2")),
            (True, False, pl.Boolean, ("True", "False")),
            ("bull", "bear", pl.String, ("bull", "bear")),
            ("bull", "bear", pl.Categorical, ("bull", "bear")),
            ("", None, pl.String, ("", None)),
            (KNOWN[0], KNOWN[0] + timedelta(microseconds=1), pl.Datetime("us"), ("2024-01-02 21:30:00", "2024-01-02 21:30:00.000001")),
            (timedelta(1), timedelta(2), pl.Duration("us"), ("1 day, 0:00:00", "2 days, 0:00:00")),
            (b"\xff", b"a", pl.Binary, ("b'\\xff'", "b'a'")),
            ([1.0, None], [1.0, 2.0], pl.List(pl.Float64), ("[1.0, None]", "[1.0, 2.0]")),
            ([1.0], [1.0, 2.0], pl.List(pl.Float64), ("[1.0]", "[1.0, 2.0]")),
            ([], None, pl.List(pl.Float64), ("[]", None)),
            ([1.0, 2.0], [1.0, 3.0], pl.Array(pl.Float64, 2), ("[1.0, 2.0]", "[1.0, 3.0]")),
            (
                [{"feature": "rsi_14", "share": 0.5}],
                [{"feature": "macd", "share": 0.5}],
                pl.List(pl.Struct({"feature": pl.String, "share": pl.Float64})),
                ("[{'feature': 'rsi_14', 'share': 0.5}]", "[{'feature': 'macd', 'share': 0.5}]"),
            ),
        ],
    )
    @pytest.mark.parametrize("tolerance", [0.0, 0.25])
    def test_a_changed_value_of_any_type_is_an_offence(
        self, stored: object, recomputed: object, dtype: pl.DataType, texts: tuple[str | None, str | None], tolerance: float
    ) -> None:
        a, b = rows([stored], dtype), rows([recomputed], dtype)
        assert differences(a, b, tolerance=tolerance).rows() == [("A", DAYS[0], "x", *texts)]
        assert differences(a, a).is_empty()
        assert differences(b, b).is_empty()

    def test_floats_may_differ_by_a_fraction_of_the_larger_also_inside_lists_and_structs(self) -> None:
        dtype = pl.Struct({"name": pl.String, "parts": pl.List(pl.Array(pl.Float64, 2)), "n": pl.Int64})

        def nested(value: float) -> pl.DataFrame:
            return rows([{"name": "a", "parts": [[value, math.nan], [math.inf, None]], "n": 3}, None], dtype)

        for of in (nested, lambda value: rows([value, None]), lambda value: rows([value, None], pl.Float64)):
            assert differences(of(100.0), of(101.0), tolerance=0.01).is_empty()
            assert differences(of(101.0), of(100.0), tolerance=0.01).is_empty()
            assert differences(of(100.0), of(101.1), tolerance=0.01)["column"].to_list() == ["x"]
            assert differences(of(100.0), of(-100.0), tolerance=0.99)["column"].to_list() == ["x"]

    def test_instants_are_compared_to_the_microsecond_whatever_the_tolerance(self) -> None:
        later = [KNOWN[0] + timedelta(microseconds=1)]
        found = differences(rows([1.0], known_at=KNOWN[:1]), rows([1.0], known_at=later), tolerance=0.5)
        assert found.rows() == [("A", DAYS[0], "known_at", "2024-01-02 21:30:00", "2024-01-02 21:30:00.000001")]

    def test_no_name_of_a_column_is_in_the_way(self) -> None:
        frame = rows([1.0, 2.0], here=[1, 2], row=[1, 2], stored=[1, 2], recomputed=[1, 2], cut=[1, 2], x_recomputed=[1, 2]).with_columns(
            pl.col("here").alias("stored 0"), pl.col("here").alias("key 0")
        )
        changed = frame.with_columns(pl.all().exclude("symbol", "session") + 1)
        assert differences(frame, frame).is_empty()
        assert set(differences(frame, changed)["column"]) == set(frame.columns) - {"symbol", "session"}

    def test_a_null_in_the_key_is_a_key_like_any_other(self) -> None:
        frame = rows([1.0, 2.0]).with_columns(symbol=pl.lit(None, pl.String))
        assert differences(frame, frame).is_empty()
        changed = frame.with_columns(pl.Series("x", [1.0, 3.0]))
        assert differences(frame, changed).rows() == [(None, DAYS[1], "x", "2.0", "3.0")]

    def test_a_null_that_becomes_a_number_is_an_offence_at_any_tolerance(self) -> None:
        filled = offending_rows(
            lambda bars: bars.with_columns(pl.col("x").backward_fill()), {"bars": rows([None, 2.0])}, DAYS[:1], tolerance=0.9
        )
        assert filled.select("stored", "recomputed").rows() == [("2.0", None)]

    def test_a_later_version_of_a_row_is_no_offence(self) -> None:
        assert offending_rows(newest, {"bars": versions()}, KNOWN[:2], clock="known_at").is_empty()

    def test_a_later_version_that_claims_the_instant_of_the_first_is_caught(self) -> None:
        def backdated(bars: pl.DataFrame) -> pl.DataFrame:
            return newest(bars).with_columns(known_at=pl.col("session").cast(pl.Datetime("us")) + pl.duration(hours=21, minutes=30))

        found = offending_rows(backdated, {"bars": versions()}, KNOWN[:2], clock="known_at")
        assert found.rows() == [(cut, "A", DAYS[0], "x", "9.0", "1.0") for cut in KNOWN[:2]]

    def test_a_row_at_the_cut_itself_is_known(self) -> None:
        def seen(bars: pl.DataFrame) -> pl.DataFrame:
            return bars.with_columns(pl.len().over("symbol").alias("bars"))

        found = offending_rows(seen, {"bars": prices()}, DAYS[1:2])
        assert found["recomputed"].to_list() == ["2", "2"]

    def test_survivors_chosen_with_hindsight_are_caught_by_the_rows_they_lack(self) -> None:
        bars = pl.concat([prices(), prices().head(2).with_columns(symbol=pl.lit("GONE"))])

        def survivors(bars: pl.DataFrame) -> pl.DataFrame:
            return bars.filter(pl.col("session").max().over("symbol") == pl.col("session").max())

        found = offending_rows(survivors, {"bars": bars}, DAYS[1:2])
        assert found.rows() == [(DAYS[1], "GONE", day, "row", "absent", "present") for day in DAYS[:2]]

    def test_a_row_that_exists_before_what_it_rests_on_is_caught(self) -> None:
        def with_a_next(bars: pl.DataFrame) -> pl.DataFrame:
            return bars.filter(pl.col("x").shift(-1).is_not_null())

        found = offending_rows(with_a_next, {"bars": prices()}, DAYS[:2])
        assert found.rows() == [(day, "A", day, "row", "present", "absent") for day in DAYS[:2]]


class TestRefusals:
    @pytest.mark.parametrize("cuts", [[], DAYS[2:], [date(2030, 1, 1)]])
    def test_cuts_that_hide_nothing_prove_nothing(self, cuts: list[date]) -> None:
        with pytest.raises(NotComparable, match=f"Nothing lies after any of the {len(cuts)} cuts"):
            offending_rows(lambda bars: bars, {"bars": prices()}, cuts)

    def test_rows_that_all_claim_to_be_known_late_prove_nothing(self) -> None:
        def late(bars: pl.DataFrame) -> pl.DataFrame:
            return bars.with_columns(pl.col("known_at").max(), pl.col("x").max())

        with pytest.raises(NotComparable, match="All 1 rows that the cuts give are stored with a later known_at"):
            offending_rows(late, {"bars": versions().head(3)}, KNOWN[:1], clock="known_at")

    @pytest.mark.parametrize(
        ("clock", "cut", "message"),
        [
            ("known_at", DAYS[0], r"cut datetime.date\(2024, 1, 2\) is not of the type of known_at in history 'bars', Datetime"),
            ("known_at", KNOWN[0].replace(tzinfo=UTC), "is not of the type of known_at in history 'bars'"),
            ("session", KNOWN[0], "is not of the type of session in history 'bars', Date"),
            ("x", DAYS[0], "x of history 'bars' is Float64; it must be a date or an instant"),
            ("seen_at", DAYS[0], "history 'bars' has no column 'seen_at'; it has symbol, session, x, known_at"),
        ],
    )
    def test_a_cut_and_a_clock_of_different_types(self, clock: str, cut: date, message: str) -> None:
        with pytest.raises(NotComparable, match=message):
            offending_rows(newest, {"bars": versions()}, [cut], clock=clock)

    def test_a_row_that_never_became_known(self) -> None:
        unknown = versions().with_columns(pl.when(pl.col("session") != DAYS[1]).then("known_at").alias("known_at"))
        with pytest.raises(NotComparable, match=r"known_at is null in 1 rows of history 'bars', the first \{'symbol': 'A'"):
            offending_rows(newest, {"bars": unknown}, KNOWN[:1], clock="known_at")
        with pytest.raises(NotComparable, match="known_at is null in 1 rows of the result"):
            offending_rows(lambda bars: newest(unknown), {"bars": versions()}, KNOWN[:1], clock="known_at")

    @pytest.mark.parametrize(
        ("recomputed", "message"),
        [
            (rows([1.0]).drop("x"), "Columns differ: x stored Float64, recomputed missing."),
            (rows([1.0], more=[1]), "Columns differ: more stored missing, recomputed Int64."),
            (rows([None]), "Columns differ: x stored Float64, recomputed Null."),
            (rows([1.0], pl.Float32), "Columns differ: x stored Float64, recomputed Float32."),
            (rows([1.0]).vstack(rows([2.0])), "2 recomputed rows are not unique by symbol, session, among them {'symbol': 'A'"),
        ],
    )
    def test_frames_that_are_not_of_one_table(self, recomputed: pl.DataFrame, message: str) -> None:
        with pytest.raises(NotComparable) as refused:
            differences(rows([1.0]), recomputed)
        assert str(refused.value).startswith(message)

    @pytest.mark.parametrize("key", [(), ("symbol", "horizon"), ("symbol", "column")])
    def test_a_key_that_cannot_be_one(self, key: tuple[str, ...]) -> None:
        with pytest.raises(NotComparable, match="cannot be a key of rows with columns symbol, session, x, column"):
            differences(rows([1.0], column=["a"]), rows([1.0], column=["a"]), key=key)

    @pytest.mark.parametrize("tolerance", [-0.1, 1.0, math.nan])
    def test_a_tolerance_that_is_no_fraction(self, tolerance: float) -> None:
        with pytest.raises(NotComparable, match="is not a fraction"):
            differences(prices(), prices(), tolerance=tolerance)


class TestProperties:
    @given(st.floats(width=64), st.floats(width=64), st.floats(0.0, 0.99))
    def test_floats_are_judged_alike_alone_and_inside_a_list(self, a: float, b: float, tolerance: float) -> None:
        alone = differences(rows([a], pl.Float64), rows([b], pl.Float64), tolerance=tolerance)
        inside = differences(rows([[a]], pl.List(pl.Float64)), rows([[b]], pl.List(pl.Float64)), tolerance=tolerance)
        assert alone.is_empty() == inside.is_empty() == (math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b)))

    @given(
        st.lists(st.tuples(st.floats(0, 10), st.none() | st.text(max_size=2)), min_size=1, max_size=20),
        st.data(),
    )
    def test_exactly_the_changed_value_is_found_in_any_order(self, values: list[tuple[float, str | None]], data: st.DataObject) -> None:
        n = len(values)
        frame = pl.DataFrame(
            {
                "symbol": [f"S{i % 3}" for i in range(n)],
                "session": [DAYS[0] + timedelta(i // 3) for i in range(n)],
                "x": [value for value, _ in values],
                "note": pl.Series([note for _, note in values], dtype=pl.String),
            }
        )
        order = data.draw(st.permutations(range(n)))
        at, column = data.draw(st.integers(0, n - 1)), data.draw(st.sampled_from(["x", "note"]))
        other: object = -1.0 if column == "x" else "changed"
        changed = frame.with_columns(pl.when(pl.int_range(pl.len()) == at).then(pl.lit(other)).otherwise(column).alias(column))
        shuffled = changed[order].select("note", "x", "session", "symbol")
        stored, key = frame[column][at], frame.select("symbol", "session").row(at)
        assert differences(frame, frame[order]).is_empty()
        assert differences(frame, shuffled).rows() == [(*key, column, None if stored is None else str(stored), str(other))]
        assert differences(frame, shuffled.filter(pl.col("symbol") == "S0"))["column"].to_list().count("row") == n - len(range(0, n, 3))
