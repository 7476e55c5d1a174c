"""Labels: calendar sessions are counted, not bars, and an outcome is known when its last part is."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.labels import labels, uniqueness_weights
from quant_assets.schemas import LABELS
from quant_assets_tests.lookahead import calendar_frame, evening, random_history

CALENDAR = calendar_frame(date(2024, 1, 2), 40)
DAYS = CALENDAR["session"].to_list()
EDGE = [
    (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5,
    (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 5) / 5,
    (1 / 3 + 1 / 4 + 1 / 5 + 1 / 5 + 1 / 5) / 5,
    (1 / 4 + 1 / 5 + 1 / 5 + 1 / 5 + 1 / 5) / 5,
]
"""Weights of the first of many labels over five sessions: so many labels span the sessions of each."""


def adjusted_of(closes: list[float | None]) -> pl.DataFrame:
    frame = pl.DataFrame({"symbol": "A", "session": DAYS[: len(closes)], "adj_close": closes}, schema_overrides={"adj_close": pl.Float64})
    return frame.drop_nulls().with_columns(evening())


class TestRegression:
    def test_returns_over_one_and_two_sessions(self) -> None:
        rows = labels(adjusted_of([100, 110, 99]), CALENDAR, horizons=(1, 2))
        assert rows["horizon"].to_list() == [1, 2, 1]
        assert rows["forward_return"].to_list() == pytest.approx([0.1, -0.01, -0.1])
        assert rows["up"].to_list() == [True, False, False]
        assert rows["known_at"].dt.date().to_list() == [DAYS[1], DAYS[2], DAYS[2]]

    def test_a_missing_bar_moves_no_label(self) -> None:
        rows = labels(adjusted_of([100, None, 120, 90]), CALENDAR, horizons=(1, 2))
        assert rows.select("session", "horizon", "forward_return").rows() == [
            (DAYS[0], 2, pytest.approx(0.2)),
            (DAYS[2], 1, pytest.approx(-0.25)),
        ]

    def test_an_unchanged_price_is_not_up(self) -> None:
        assert labels(adjusted_of([100, 100]), CALENDAR)["up"].to_list() == [False]

    def test_a_late_bar_makes_its_labels_late(self) -> None:
        late = datetime(2024, 2, 1)
        adjusted = adjusted_of([100, 110, 99]).with_columns(
            known_at=pl.when(pl.col("session") == DAYS[1]).then(pl.lit(late)).otherwise("known_at")
        )
        assert labels(adjusted, CALENDAR, horizons=(1,))["known_at"].to_list() == [late, late]

    def test_no_label_is_known_before_its_session_closed(self) -> None:
        early = adjusted_of([100, 110]).with_columns(pl.lit(datetime(2020, 1, 1)).alias("known_at"))
        assert labels(early, CALENDAR)["known_at"].to_list() == [datetime.combine(DAYS[1], datetime.min.time()) + timedelta(hours=21.5)]

    def test_a_closed_day_is_no_session(self) -> None:
        open_days = CALENDAR.filter(pl.col("session") != DAYS[1]).with_columns(ordinal=pl.int_range(pl.len(), dtype=pl.Int32))
        rows = labels(adjusted_of([100, None, 110]), open_days, horizons=(1,))
        assert rows.select("session", "forward_return").rows() == [(DAYS[0], pytest.approx(0.1))]

    @pytest.mark.parametrize("horizons", [(0,), (1, -5), ()])
    def test_a_horizon_must_look_ahead(self, horizons: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            labels(adjusted_of([100, 110]), CALENDAR, horizons)

    def test_the_frame_is_what_the_table_declares(self) -> None:
        assert dict(labels(adjusted_of([100, 110]), CALENDAR).schema) == LABELS.polars_schema
        assert dict(labels(adjusted_of([100, 110]).clear(), CALENDAR).schema) == LABELS.polars_schema

    @pytest.mark.parametrize(
        ("places", "horizon", "weights"),
        [
            ([0, 1, 2], 1, [1, 1, 1]),  # each spans the session after it alone
            ([0], 20, [1]),
            ([0, 1], 2, [3 / 4, 3 / 4]),  # sessions 1 and 2, 2 and 3: alone on one, two on the other
            ([0, 2], 2, [1, 1]),  # 1 and 2, 3 and 4: a missing bar between them, nothing shared
            ([0, 1, 3], 3, [(1 + 1 / 2 + 1 / 2) / 3, (1 / 2 + 1 / 2 + 1 / 2) / 3, (1 / 2 + 1 + 1) / 3]),
            (range(9), 5, [EDGE[0], EDGE[1], EDGE[2], EDGE[3], 1 / 5, EDGE[3], EDGE[2], EDGE[1], EDGE[0]]),
        ],
    )
    def test_weights_by_hand(self, places: list[int], horizon: int, weights: list[float]) -> None:
        rows = pl.DataFrame({"symbol": "A", "session": [DAYS[place] for place in places]})
        assert uniqueness_weights(rows, CALENDAR, horizon)["weight"].to_list() == pytest.approx(weights)

    def test_symbols_share_nothing(self) -> None:
        one = pl.DataFrame({"symbol": "A", "session": DAYS[:9]})
        two = pl.concat([one, one.with_columns(symbol=pl.lit("B"))]).sort("session", "symbol", descending=True)
        weighted = uniqueness_weights(two, CALENDAR, 5)
        assert weighted.drop("weight").equals(two)
        alone = uniqueness_weights(one, CALENDAR, 5)["weight"].to_list()
        assert weighted.filter(symbol="B").sort("session")["weight"].to_list() == alone

    def test_no_rows_have_no_weights(self) -> None:
        empty = pl.DataFrame({"symbol": ["A"], "session": [DAYS[0]]}).clear()
        assert uniqueness_weights(empty, CALENDAR, 5).schema == {**empty.schema, "weight": pl.Float64}


class TestProperties:
    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=10, deadline=None)
    def test_a_sql_join_says_the_same(self, seed: int) -> None:
        adjusted, sessions = forward_adjusted(**random_history(seed)), calendar_frame(date(2020, 1, 1), 130)
        ours = labels(adjusted, sessions)
        with duckdb.connect() as connection:
            connection.register("adjusted", adjusted)
            connection.register("sessions", sessions)
            oracle = connection.sql("""
                with dated as (select * exclude (known_at), adjusted.known_at from adjusted join sessions using (session))
                select a.symbol, a.session, horizon, b.adj_close / a.adj_close - 1 as forward_return, forward_return > 0 as up,
                    greatest(a.known_at, b.known_at) as known_at
                from dated a, dated b, (values (1), (5), (20)) horizons(horizon)
                where a.symbol = b.symbol and b.ordinal - a.ordinal = horizon
                order by all
            """).pl()
        assert ours.equals(oracle.cast({"horizon": pl.Int32}))
        assert ours.null_count().sum_horizontal().item() == 0

    @given(st.sets(st.tuples(st.sampled_from("AB"), st.integers(0, 30)), min_size=1), st.integers(1, 9))
    @settings(max_examples=40, deadline=None)
    def test_weights_are_the_mean_of_one_over_those_that_span_each_session(self, keys: set[tuple[str, int]], horizon: int) -> None:
        rows = pl.DataFrame([(symbol, DAYS[place]) for symbol, place in keys], schema=["symbol", "session"], orient="row")
        spans = {(symbol, place): range(place + 1, place + horizon + 1) for symbol, place in keys}
        expected = [
            sum(1 / sum(day in span for (other, _), span in spans.items() if other == symbol) for day in spans[symbol, place]) / horizon
            for symbol, place in keys
        ]
        weights = uniqueness_weights(rows, CALENDAR, horizon)["weight"]
        assert weights.to_list() == pytest.approx(expected)
        assert weights.is_between(1 / horizon - 1e-12, 1).all()
