"""Forward adjustment: factors that a person can verify, and what later actions may never do."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.adjustment import forward_adjusted, unusable_actions
from quant_assets_tests.lookahead import ACTIONS, NO_ACTIONS, evening, random_history

DAYS = [date(2024, 1, day) for day in (2, 3, 4, 5, 8)]


def bars_of(closes: list[float | None], basis: str = "raw", symbol: str = "A") -> pl.DataFrame:
    """One bar per close from 2 January 2024 on; None is a session without a bar."""
    frame = pl.DataFrame({"symbol": symbol, "session": DAYS[: len(closes)], "close": closes}, schema_overrides={"close": pl.Float64})
    prices = [pl.col("close").alias(name) for name in ("open", "high", "low")]
    return frame.drop_nulls().with_columns(*prices, pl.lit(600.0).alias("volume"), pl.lit(basis).alias("basis"), evening())


def actions_of(*rows: tuple[int, str, float], symbol: str = "A") -> pl.DataFrame:
    """Actions as (index of the ex-session, kind, value), known in that session's evening."""
    content = [{"symbol": symbol, "session": DAYS[day], "kind": kind, "value": value} for day, kind, value in rows]
    return pl.DataFrame(content, schema={name: ACTIONS[name] for name in ("symbol", "session", "kind", "value")}).with_columns(evening())


def factors(bars: pl.DataFrame, actions: pl.DataFrame) -> tuple[list[float], list[float]]:
    adjusted = forward_adjusted(bars, actions)
    return adjusted["price_factor"].to_list(), adjusted["share_factor"].to_list()


class TestRegression:
    def test_a_split_halves_the_price_and_the_adjusted_series_does_not_move(self) -> None:
        adjusted = forward_adjusted(bars_of([100, 50, 51]), actions_of((1, "split", 2.0)))
        assert adjusted["adj_close"].to_list() == [100, 100, 102]
        assert adjusted["adj_high"].to_list() == [100, 100, 102]
        assert adjusted["adj_volume"].to_list() == [600, 300, 300]

    def test_a_dividend_is_reinvested_and_leaves_volume_alone(self) -> None:
        adjusted = forward_adjusted(bars_of([100, 96, 96]), actions_of((1, "dividend", 4.0)))
        assert adjusted["adj_close"].to_list() == pytest.approx([100, 100, 100])
        assert adjusted["adj_low"].to_list() == pytest.approx([100, 100, 100])
        assert adjusted["adj_volume"].to_list() == [600, 600, 600]
        assert adjusted["share_factor"].to_list() == [1, 1, 1]

    def test_a_dividend_on_a_splits_session_is_per_new_share(self) -> None:
        price, share = factors(bars_of([100, 48]), actions_of((1, "dividend", 2.0), (1, "split", 2.0)))
        assert price[1] == pytest.approx(2 / (1 - 2 / 50))
        assert price[1] * 48 == pytest.approx(100)
        assert share[1] == 2

    def test_actions_on_sessions_without_a_bar_apply_in_order_at_the_next_one(self) -> None:
        late = actions_of((1, "dividend", 10.0), (2, "split", 3.0), (2, "dividend", 3.0))
        price, share = factors(bars_of([100, None, None, 27]), late)
        assert price == [1, pytest.approx(3 * 100 / (100 - 10 - 3 * 3))]
        assert share == [1, 3]

    def test_actions_on_the_first_bar_before_it_or_after_the_last_change_nothing(self) -> None:
        bars = bars_of([None, 100, 101])
        assert factors(bars, actions_of((0, "split", 2.0), (1, "split", 3.0), (3, "dividend", 1.0))) == ([1, 1], [1, 1])

    def test_restated_bars_are_passed_by(self) -> None:
        restated = bars_of([100, 100, 100], basis="restated")
        assert factors(restated, actions_of((1, "split", 2.0), (2, "dividend", 5.0))) == ([1, 1, 1], [1, 1, 1])

    def test_one_symbols_action_is_not_anothers(self) -> None:
        bars = pl.concat([bars_of([100, 50]), bars_of([7, 7], symbol="B")])
        assert forward_adjusted(bars, actions_of((1, "split", 2.0)))["price_factor"].to_list() == [1, 2, 1, 1]

    def test_unusable_actions_count_as_one_and_are_returned_with_their_numbers(self) -> None:
        bars = bars_of([100, 101, 102, 103])
        wrong = actions_of((1, "split", 0.0), (1, "dividend", 100.0), (2, "split", float("nan")), (2, "dividend", -1.0), (3, "merger", 2.0))
        assert factors(bars, wrong) == ([1] * 4, [1] * 4)
        reasons = unusable_actions(bars, wrong)["reason"].to_list()
        assert reasons == [
            "dividend of 100.0 leaves nothing of the previous close 100.0",
            "split of 0.0 is not a positive number",
            "dividend of -1.0 is not a positive number",
            "split of NaN is not a positive number",
            "kind merger is neither split nor dividend",
        ]

    def test_an_unusable_action_does_not_take_a_good_one_with_it(self) -> None:
        bars, mixed = bars_of([100, 50]), actions_of((1, "dividend", 500.0), (1, "split", 2.0))
        assert factors(bars, mixed) == ([1, 2], [1, 2])
        assert unusable_actions(bars, mixed)["kind"].to_list() == ["dividend"]

    def test_a_row_is_known_when_the_last_action_or_earlier_bar_it_needs_is(self) -> None:
        late = datetime(2024, 3, 1)
        split = actions_of((2, "split", 2.0)).with_columns(pl.lit(late).alias("known_at"))
        adjusted = forward_adjusted(bars_of([100, 100, 50, 50]), split)
        evenings = [datetime(2024, 1, day, 21, 30) for day in (2, 3)]
        assert adjusted["known_at"].to_list() == [*evenings, late, late]

    def test_a_missing_volume_stays_missing(self) -> None:
        bars = bars_of([100, 50]).with_columns(pl.lit(None, pl.Float64).alias("volume"))
        assert forward_adjusted(bars, actions_of((1, "split", 2.0)))["adj_volume"].to_list() == [None, None]

    def test_no_bars_and_no_actions(self) -> None:
        bars = bars_of([100, 101])
        assert forward_adjusted(bars.clear(), NO_ACTIONS).schema == forward_adjusted(bars, actions_of((1, "split", 2.0))).schema
        assert unusable_actions(bars, NO_ACTIONS).is_empty()


class TestProperties:
    @given(seed=st.integers(0, 10**6), cut=st.integers(5, 110))
    @settings(max_examples=15, deadline=None)
    def test_a_later_action_never_changes_an_earlier_row(self, seed: int, cut: int) -> None:
        history = random_history(seed, symbols=2)
        moment = date(2020, 1, 1) + timedelta(days=cut)
        before, until = pl.col("session") < moment, history["actions"].filter(pl.col("session") < moment)
        with_later, without = forward_adjusted(**history), forward_adjusted(history["bars"], until)
        assert with_later.filter(before).equals(without.filter(before))

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=15, deadline=None)
    def test_factors_start_at_one_and_rows_may_come_in_any_order(self, seed: int) -> None:
        history = random_history(seed, symbols=3)
        adjusted = forward_adjusted(**history)
        assert adjusted.group_by("symbol").first()["price_factor"].to_list() == [1, 1, 1]
        assert adjusted.equals(
            forward_adjusted(**{name: frame.sample(fraction=1, shuffle=True, seed=1) for name, frame in history.items()})
        )
        assert adjusted.select((pl.col("close") * pl.col("price_factor") - pl.col("adj_close")).abs().max()).item() == 0

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=15, deadline=None)
    def test_the_adjusted_return_on_an_ex_session_is_what_the_holder_got(self, seed: int) -> None:
        """An independent oracle: reinvest each dividend at the ex-dividend price, share by share, in plain Python."""
        history = random_history(seed, symbols=1)
        dated: dict[date, dict[str, float]] = {}
        for row in history["actions"].rows(named=True):
            dated.setdefault(row["session"], {})[row["kind"]] = row["value"]
        days, closes = (forward_adjusted(**history)[name].to_list() for name in ("session", "close"))
        shares, wealth, last = 1.0, [closes[0]], days[0]
        for index in range(1, len(days)):
            price = closes[index - 1]
            for day in sorted(day for day in dated if last < day <= days[index]):
                ratio, dividend = dated[day].get("split", 1.0), dated[day].get("dividend", 0.0)
                price, shares = price / ratio, shares * ratio
                shares, price = shares * price / (price - dividend), price - dividend
            wealth.append(shares * closes[index])
            last = days[index]
        assert forward_adjusted(**history)["adj_close"].to_list() == pytest.approx(wealth, rel=1e-12)
