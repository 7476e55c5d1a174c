"""Labels: calendar sessions are counted, not bars, and an outcome is known when its last part is."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.labels import labels
from quant_assets.schemas import LABELS
from quant_assets_tests.lookahead import calendar_frame, evening, random_history

CALENDAR = calendar_frame(date(2024, 1, 2), 40)
DAYS = CALENDAR["session"].to_list()


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
