"""Splits and dividends out of re-based adjusted closes, and each split once."""

from __future__ import annotations

import math
from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.market_data.corporate_actions import RATIOS, infer_actions, without_repeats
from quant_assets.market_data.delivery import ACTIONS
from quant_assets.market_data.landing import land
from quant_assets.warehouse import Warehouse
from quant_assets_tests.conftest import Row, action, bar, delivery
from quant_assets_tests.market_data.deliveries import COLUMNS, Nights, Vendor

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
S = tuple(CALENDAR.between(date(2020, 3, 2), date(2020, 5, 29)))
SESSIONS = CALENDAR.frame(S[0], S[-1])


def series(closes: list[float], adjusted: list[float], symbol: str = "AAA") -> pl.DataFrame:
    sessions = CALENDAR.sessions[: len(closes)] if len(closes) > len(S) else S[: len(closes)]
    rows = [(symbol, *row) for row in zip(sessions, closes, adjusted, strict=True)]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "session": pl.Date, "close": pl.Float64, "adj_close": pl.Float64}, orient="row")


def inferred(closes: list[float], adjusted: list[float]) -> list[tuple[str, float]]:
    """Kind and value of what two or more sessions show."""
    actions, doubtful = infer_actions(series(closes, adjusted))
    assert doubtful.is_empty()
    return actions.select("kind", "value").rows()


def returns(bars: pl.DataFrame, actions: pl.DataFrame) -> list[float]:
    """Log returns of the forward-adjusted closes, from the second session on."""
    known = pl.lit(None, pl.Datetime("us"))
    prices = {name: pl.col("close") for name in ("open", "high", "low")}
    bars = bars.drop("adj_close").with_columns(**prices, volume=pl.lit(1.0), basis=pl.lit("raw"), known_at=known)
    adjusted = forward_adjusted(bars, actions.with_columns(known_at=known))
    return adjusted["adj_close"].log().diff().to_list()[1:]


def kept(actions: list[Row], closes: list[float], stored: list[Row] | None = None) -> list[tuple[date, float]]:
    """The splits of one symbol that stay, told by one delivery with these closes."""
    bars = series(closes, closes)
    left = without_repeats(pl.DataFrame(actions, schema=ACTIONS), bars, pl.DataFrame(stored or [], schema=ACTIONS), SESSIONS)
    return left.select("session", "value").rows()


class TestRegression:
    @pytest.mark.parametrize(
        ("closes", "adjusted", "action"),
        [
            ([100.0, 99.5], [99.75, 99.5], ("dividend", 0.25)),  # 25 cents, told in cents
            ([100.0, 99.5], [99.876544, 99.5], ("dividend", 0.123456)),  # and in six digits
            ([50.0, 49.9], [49.53, 49.9], ("dividend", 0.47)),
            ([100.0, 50.4], [50.0, 50.4], ("split", 2.0)),
            ([90.0, 60.2], [60.0, 60.2], ("split", 1.5)),
            ([70.0, 10.1], [10.0, 10.1], ("split", 7.0)),
            ([100.0, 14.3], [14.285714, 14.3], ("split", 7.0)),
            ([1.5, 14.9], [15.0, 14.9], ("split", 0.1)),
            ([0.42, 14.5], [14.7, 14.5], ("split", 1 / 35)),
            ([0.4213, 14.5], [14.75, 14.5], ("split", 1 / 35)),  # told in cents: 14.7455 to be exact
            ([105.0, 100.1], [100.0, 100.1], ("dividend", 5.0)),  # a dividend in shares of 5 % cannot be told from one in cash
            ([100.0, 74.0], [75.0, 74.0], ("split", 4 / 3)),
            ([40.0, 30.5], [29.6, 30.5], ("dividend", 10.4)),  # a quarter of the price, and no simple ratio
        ],
    )
    def test_two_sessions_tell_what_was_paid_or_split(self, closes: list[float], adjusted: list[float], action: tuple[str, float]) -> None:
        assert inferred(closes, adjusted) == [(action[0], pytest.approx(action[1], rel=1e-9))]
        vendors = math.log(adjusted[1] / adjusted[0])
        actions, _ = infer_actions(series(closes, adjusted))
        exact = max(len(str(adjusted[0]).partition(".")[2]), 2) > 2 or action[0] == "dividend" or closes[0] * 100 % 1 == 0
        assert returns(series(closes, adjusted), actions) == [pytest.approx(vendors, abs=1e-6 if exact else 5e-4)]

    def test_nothing_where_the_ratio_stays(self) -> None:
        assert inferred([100.0, 50.0, 75.0], [100.0, 50.0, 75.0]) == []
        assert inferred([100.0, 50.0, 75.0], [40.0, 20.0, 30.0]) == []
        assert inferred([10.0, 10.37, 10.11], [9.83, 10.19, 9.94]) == []  # × 0.983, in cents
        assert inferred([100.0], [50.0]) == []

    def test_what_has_no_price_says_nothing(self) -> None:
        assert inferred([100.0, 0.0, 50.0], [50.0, 0.0, 50.0]) == [("split", 2.0)]
        without = series([100.0, 99.0, 50.0], [50.0, 49.0, 50.0]).with_columns(adj_close=pl.lit(None, pl.Float64))
        assert infer_actions(without)[0].is_empty()
        negative = series([100.0, 99.0], [-3.0, 99.0])
        assert infer_actions(negative)[0].is_empty()

    def test_a_split_and_a_dividend_on_one_session_keep_the_price_right(self) -> None:
        """2:1 and 0.50 per new share on 100: one number tells both, so it is read as one payment; the return is right."""
        factor = 2 / (1 - 0.5 * 2 / 100)
        closes, adjusted = [100.0, 49.6], [round(100 / factor, 6), 49.6]
        actions, _ = infer_actions(series(closes, adjusted))
        assert actions.select("kind", "value").rows() == [("dividend", 50.5)]
        assert returns(series(closes, adjusted), actions) == [pytest.approx(math.log(adjusted[1] / adjusted[0]), abs=1e-9)]

    def test_a_merger_of_shares_with_a_dividend_is_a_split_of_an_odd_ratio(self) -> None:
        factor = 0.1 / (1 - 0.2 * 0.1 / 2.0)
        closes, adjusted = [2.0, 19.7], [round(2.0 / factor, 6), 19.7]
        actions, _ = infer_actions(series(closes, adjusted))
        assert actions.select("kind", "value").rows() == [("split", pytest.approx(factor, rel=1e-6))]
        assert returns(series(closes, adjusted), actions) == [pytest.approx(math.log(adjusted[1] / adjusted[0]), abs=1e-6)]

    def test_a_large_factor_that_the_prices_do_not_follow_is_not_believed(self) -> None:
        actions, doubtful = infer_actions(series([0.75, 0.76], [3.75, 0.76]))
        assert actions.is_empty()
        assert doubtful.rows() == [("AAA", S[1], "split", 0.2, "a factor of 0.2, but the close went from 0.75 to 0.76")]

    @pytest.mark.parametrize("together", [True, False])
    def test_a_split_told_a_day_early_and_again_is_applied_once(self, tmp_path: Path, open_warehouse: Warehouse, together: bool) -> None:
        """ACUR, 2015-08-27 and 28: the vendor told its 1:5 merger on both, the price followed on the second."""
        vendor = Vendor(tmp_path, CALENDAR)
        vendor.trades("ACUR", {S[0]: 0.75, S[1]: 0.74, S[2]: 3.66, S[3]: 3.7})
        for n, symbol in enumerate(("AAA", "BBB", "CCC"), 1):
            vendor.trades(symbol, {session: 10.0 * n + at for at, session in enumerate(S[:4])})
        vendor.splits["ACUR", S[1]] = vendor.splits["ACUR", S[2]] = 0.2
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        for day in S[1:4]:
            vendor.send(day)
            if not together:
                nights.night(day)
        nights.night(S[3])
        assert nights.actions() == [("ACUR", S[2], "split", 0.2)]
        assert "no split of ACUR: a factor of 0.2" in nights.details()[f"{S[1]:%Y%m%d}"]

    def test_of_two_tellings_the_one_stays_that_the_prices_follow(self) -> None:
        told: list[Row] = [action("AAA", S[1], 2.0), action("AAA", S[2], 2.0)]
        assert kept(told, [100.0, 100.2, 50.3]) == [(S[2], 2.0)]
        assert kept(told, [100.0, 50.2, 50.3]) == [(S[1], 2.0)]
        assert kept(told, []) == [(S[1], 2.0)]  # no prices: the first
        assert kept([action("AAA", S[1], 2.0), action("AAA", S[2], 2.001)], [100.0, 100.2, 50.3]) == [(S[2], 2.001)]

    def test_what_is_stored_stays_and_what_repeats_it_goes(self) -> None:
        assert kept([action("AAA", S[5], 2.0)], [], stored=[action("AAA", S[1], 2.0)]) == []
        assert kept([action("AAA", S[1], 2.0)], [], stored=[action("AAA", S[5], 2.0)]) == []
        assert kept([action("AAA", S[1], 2.0)], [], stored=[action("AAA", S[1], 2.0)]) == [(S[1], 2.0)]  # itself
        assert kept([action("AAA", S[5], 2.0)], [], stored=[action("BBB", S[1], 2.0)]) == [(S[5], 2.0)]

    def test_two_real_splits_stay_two(self) -> None:
        assert kept([action("AAA", S[1], 2.0), action("AAA", S[21], 2.0)], []) == [(S[1], 2.0), (S[21], 2.0)]
        assert kept([action("AAA", S[7], 2.0)], [], stored=[action("AAA", S[1], 2.0)]) == [(S[7], 2.0)]  # six sessions apart
        assert kept([action("AAA", S[1], 2.0), action("AAA", S[2], 3.0)], []) == [(S[1], 2.0), (S[2], 3.0)]
        dividends: list[Row] = [action("AAA", S[1], 2.0, "dividend"), action("AAA", S[2], 2.0, "dividend")]
        assert kept(dividends, []) == [(S[1], 2.0), (S[2], 2.0)]

    @pytest.mark.parametrize("apart", [1, 3, 5])
    def test_a_vendors_own_split_told_again_some_sessions_later_is_applied_once(self, open_warehouse: Warehouse, apart: int) -> None:
        def night(at: int, *told: Row) -> None:
            bars = [bar(symbol, S[at], close / (1 if at < 2 else 2)) for symbol, close in (("AAA", 100.0), ("BBB", 50.0), ("CCC", 20.0))]
            land(open_warehouse, delivery(bars, told, batch_id=f"{at}"), CALENDAR, CALENDAR.known_at(S[at]), "run")

        for at in range(26):
            night(at, *[action("AAA", S[at], 2.0)] * (at in (2, 2 + apart)), *[action("BBB", S[at], 2.0)] * (at in (2, 22)))
        rows = open_warehouse.read("select symbol, session from market_data.latest_corporate_actions order by all").rows()
        assert rows == [("AAA", S[2]), ("BBB", S[2]), ("BBB", S[22])]

    def test_an_amount_in_other_digits_is_no_news_and_another_amount_is(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        vendor = Vendor(tmp_path, CALENDAR)
        for n, symbol in enumerate(("AAA", "BBB", "CCC"), 1):
            vendor.trades(symbol, {session: 100.0 * n + at for at, session in enumerate(S[:5])})
        vendor.dividends = {("AAA", S[2]): 0.25, ("BBB", S[2]): 0.4}
        vendor.send(S[2])
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        nights.night(S[2])
        vendor.dividends = {("AAA", S[2]): 0.250002, ("BBB", S[2]): 0.5}
        vendor.send(S[3], rows=vendor.rows(S[3], sessions=3))
        nights.night(S[3])
        assert nights.actions() == [("AAA", S[2], "dividend", 0.25), ("BBB", S[2], "dividend", 0.5)]
        versions = "select symbol, value, known_at from market_data.corporate_actions where symbol = 'BBB' order by known_at"
        assert nights.read(versions) == [("BBB", 0.4, CALENDAR.known_at(S[2])), ("BBB", 0.5, CALENDAR.known_at(S[3]))]

    def test_an_archive_without_adjusted_closes_has_no_actions(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        vendor = Vendor(tmp_path, CALENDAR)
        for n, symbol in enumerate(("AAA", "BBB", "CCC"), 1):
            vendor.trades(symbol, {S[0]: 100.0 * n, S[1]: 50.0 * n})
        vendor.send(S[1], columns=COLUMNS[:-1])
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        nights.night(S[1])
        assert nights.actions() == []


TRUE_RATIOS = [Fraction(2), Fraction(3, 2), Fraction(7), Fraction(1, 10), Fraction(1, 35), Fraction(4, 3), Fraction(1, 4)]


class TestProperties:
    @settings(max_examples=120, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        digits=st.integers(2, 6),
        level=st.floats(3.0, 400.0),
        events=st.dictionaries(st.integers(1, 49), st.one_of(st.sampled_from(TRUE_RATIOS), st.floats(0.002, 0.12)), max_size=4),
    )
    def test_a_history_rounded_to_some_digits_gives_its_vendors_returns_back(
        self, seed: int, digits: int, level: float, events: dict[int, Fraction | float]
    ) -> None:
        draw = np.random.default_rng(seed)
        closes, factors = [round(level, 2)], [1.0]
        for at in range(1, 50):
            event, move = events.get(at), math.exp(draw.normal(0, 0.02))
            ratio = float(event) if isinstance(event, Fraction) else 1.0
            paid = round(event * closes[-1], 2) if isinstance(event, float) else 0.0
            closes.append(max(round((closes[-1] - paid) / ratio * move, 2), 0.01))
            factors.append(ratio / (1 - paid / closes[-2]))
        behind = [float(np.prod(factors[at + 1 :])) for at in range(50)]
        adjusted = [round(close / factor, digits) for close, factor in zip(closes, behind, strict=True)]
        bars = series(closes, adjusted)
        actions, doubtful = infer_actions(bars)
        if not all(value > 0 for value in adjusted):
            return  # so much was split since that nothing is left within these digits
        ours = returns(bars, actions)
        known = {row["session"]: row["value"] for row in doubtful.iter_rows(named=True)}
        for at in range(1, 50):
            slack = 1.1 * (0.5 * 10.0**-digits) * (1 / adjusted[at] + 1 / adjusted[at - 1])
            if S[at] in known or slack > 0.05:
                continue  # what the prices did not follow, and what the digits cannot tell
            vendors = math.log(adjusted[at] / adjusted[at - 1])
            assert ours[at - 1] == pytest.approx(vendors, abs=2.5 * slack + 3e-5), at
        unmade = actions.filter(~pl.col("session").is_in([S[at] for at in events]))
        for row in unmade.iter_rows(named=True):
            at = S.index(row["session"])
            rounding = 10.0**-digits * (1 / adjusted[at] + 1 / adjusted[at - 1])
            share = abs(row["value"] - 1) if row["kind"] == "split" else row["value"] / closes[at - 1]
            assert share <= 2 * rounding + 1e-6, row

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), digits=st.integers(2, 6), level=st.floats(5.0, 300.0), behind=st.floats(0.2, 1.0))
    def test_rounding_alone_makes_no_action(self, seed: int, digits: int, level: float, behind: float) -> None:
        draw = np.random.default_rng(seed)
        closes = np.round(level * np.exp(np.cumsum(draw.normal(0, 0.015, 60))), 2)
        bars = series(closes.tolist(), np.round(closes * behind, digits).tolist())
        actions, doubtful = infer_actions(bars)
        assert doubtful.is_empty()
        if behind * level < level - 2 * 10.0**-digits:  # what was paid is more than the last digit can hide
            assert actions.is_empty()

    @settings(max_examples=60, deadline=None)
    @given(ratio=st.sampled_from(RATIOS), close=st.integers(200, 50_000), digits=st.integers(4, 6), move=st.floats(0.97, 1.03))
    def test_every_simple_ratio_is_found_as_it_is(self, ratio: Fraction, close: int, digits: int, move: float) -> None:
        before, after = close / 100, close / 100 / float(ratio)
        adjusted = round(after, digits)
        shown = max(2, len(f"{adjusted:.{digits}f}".rstrip("0").partition(".")[2]))  # how many digits a price is told in shows by its last
        actions, _ = infer_actions(series([before, round(after * move, 4)], [adjusted, round(after * move, 4)]))
        slack = 2.5 * 10.0**-shown / adjusted + 2e-5
        if not 1 / 1.25 < ratio < 1.25:  # at 1.2 the rounding decides whether it is taken for a payment
            found = actions.select("kind", "value").row(0)
            assert found[0] == "split"
            assert found[1] == pytest.approx(float(ratio), rel=2 * slack)
            if slack < 1e-4:
                assert found[1] == pytest.approx(float(ratio), rel=1e-9)
        assert returns(series([before, after], [adjusted, after]), actions)[0] == pytest.approx(math.log(after / adjusted), abs=2 * slack)

    def test_the_order_of_rows_makes_no_difference(self) -> None:
        bars = pl.concat([series([100.0, 50.4], [50.0, 50.4]), series([100.0, 99.5], [99.75, 99.5], "BBB")])
        assert infer_actions(bars)[0].equals(infer_actions(bars.reverse())[0])
        told = [action("AAA", S[1], 2.0), action("AAA", S[2], 2.0)]
        assert kept(told, [100.0, 100.2, 50.3]) == kept(told[::-1], [100.0, 100.2, 50.3])
