"""A symbol's own history in `alpha_v1` against TA-Lib, Polars, features written out and numbers by hand, and what must always hold."""

from __future__ import annotations

import math
from datetime import date
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.alpha.history import STATES, alpha_history, with_states
from quant_assets.feature_store.catalog import ALPHA_HISTORY, Feature
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.lookahead import described, offending_rows
from quant_assets_tests.feature_store.alpha.naive import naive_features
from quant_assets_tests.lookahead import NO_ACTIONS, evening, random_history, sessions_from, sp500_panel

Floats = npt.NDArray[np.float64]
NAMES = [feature.name for feature in ALPHA_HISTORY]
SCALE_FREE = [feature.name for feature in ALPHA_HISTORY if feature.scale_free]
RECURSIVE = {"atr_14", "natr_14", "plus_di_14", "minus_di_14", "adx_14"}
LONGEST = max(feature.lookback for feature in ALPHA_HISTORY)
WITHOUT_DATA = "the shared market data is not at hand"


def adjusted(bars: pl.DataFrame, actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    """What the features are computed from: adjusted bars with their one-session returns."""
    frame = forward_adjusted(bars, actions)
    return frame.hstack(technical_v1(frame).select("price_change_1d"))


def bars_of(close: list[float] | Floats, **columns: list[float] | list[float | None] | Floats) -> pl.DataFrame:
    """Restated bars of one symbol from closes; open at the close, high and low one percent around it, volume 1000 unless given."""
    closes = np.asarray(close, dtype=float)
    frame = pl.DataFrame({"symbol": ["A"] * len(closes), "session": sessions_from(date(1960, 1, 4), len(closes)), "close": closes})
    series = {"open": closes, "high": closes * 1.01, "low": closes * 0.99, "volume": np.full(len(closes), 1000.0), **columns}
    given_columns = [pl.Series(name, values, dtype=pl.Float64) for name, values in series.items()]
    return frame.with_columns(*given_columns, pl.lit("restated").alias("basis"), evening())


def walk(seed: int, n: int) -> pl.DataFrame:
    """A clean series: no gap, no missing or zero volume, no flat session."""
    random = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(random.normal(0, 0.02, n)))
    opened = close * np.exp(random.normal(0, 0.01, n))
    high, low = np.maximum(opened, close) * (1.001 + random.random(n) / 50), np.minimum(opened, close) * (0.999 - random.random(n) / 50)
    return bars_of(close, open=opened, high=high, low=low, volume=np.round(random.lognormal(13, 1, n)) + 1)


def features_of(bars: pl.DataFrame, actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    return alpha_history(adjusted(bars, actions))


def column(frame: pl.DataFrame, name: str) -> Floats:
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


@cache
def panel() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The real panel, adjusted, and its features; prices in whole hundredths of a cent, so that equal moves are equal to TA-Lib too."""
    bars = sp500_panel()
    if bars is None:
        pytest.skip(WITHOUT_DATA)
    assert bars["symbol"].n_unique() == 505
    inputs = adjusted(bars.with_columns((pl.col("open", "high", "low", "close") * 1e4).round()))
    return inputs, alpha_history(inputs)


def assert_as_written_out(inputs: pl.DataFrame) -> None:
    ours = alpha_history(inputs)
    theirs = [naive_features(group) for group in inputs.sort("symbol", "session").partition_by("symbol", maintain_order=True)]
    assert set(theirs[0]) == set(NAMES)
    for name in NAMES:
        expected = np.concatenate([symbol[name] for symbol in theirs])
        np.testing.assert_allclose(
            column(ours, name), expected, rtol=1e-9, atol=1e-11 * np.nanmax(np.abs(expected), initial=1e-12), err_msg=name
        )


def talib_columns(bars: pl.DataFrame) -> dict[str, Floats]:
    """What TA-Lib says of one symbol, in our units."""
    opened, high, low, close, volume = (bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume"))
    log_close = np.log(close)
    slow_k, _ = talib.STOCH(high, low, close, 14, 3, 0, 1, 0)
    _, slow_d = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    fast_k, _ = talib.STOCHF(high, low, close, 14, 1, 0)
    aroon_down, aroon_up = talib.AROON(high, low, 25)
    return {
        "atr_14": talib.ATR(high, low, close, 14),
        "natr_14": talib.NATR(high, low, close, 14),
        "adx_14": talib.ADX(high, low, close, 14),
        "plus_di_14": talib.PLUS_DI(high, low, close, 14),
        "minus_di_14": talib.MINUS_DI(high, low, close, 14),
        "stochastic_k_14": fast_k,
        "stochastic_d_14_3": slow_k,
        "stochastic_slow_d_14_3_3": slow_d,
        "mfi_14": talib.MFI(high, low, close, volume, 14),
        "aroon_up_25": aroon_up,
        "aroon_down_25": aroon_down,
        "ultimate_oscillator_7_14_28": talib.ULTOSC(high, low, close, 7, 14, 28),
        "balance_of_power": np.where(high > low, talib.BOP(opened, high, low, close), np.nan),
        **{f"cci_{n}": talib.CCI(high, low, close, n) for n in (14, 20)},
        **{f"williams_r_{n}": talib.WILLR(high, low, close, n) for n in (14, 28)},
        **{f"return_{n}d": talib.ROCP(close, n) for n in (2, 3, 10, 40, 60, 120, 180, 252)},
        **{f"close_to_sma_{n}": close / talib.SMA(close, n) - 1 for n in (5, 10, 20, 50, 100, 200)},
        **{f"trend_slope_{n}": talib.LINEARREG_SLOPE(log_close, n) for n in (20, 60, 120)},
        **{f"trend_residual_{n}": log_close - talib.LINEARREG(log_close, n) for n in (20, 60, 120)},
        **{f"distance_from_high_{n}": close / talib.MAX(high, n) - 1 for n in (20, 60, 120, 252)},
        **{f"distance_from_low_{n}": close / talib.MIN(low, n) - 1 for n in (20, 60, 120, 252)},
        **{f"close_volume_correlation_{n}": talib.CORREL(close, np.log(volume), n) for n in (10, 20, 60)},
    }


class TestRegression:
    def test_talib_agrees_on_every_symbol_of_the_real_panel(self) -> None:
        inputs, ours = panel()
        theirs = [talib_columns(group) for group in inputs.partition_by("symbol", maintain_order=True)]
        age = column(inputs.select(pl.int_range(pl.len()).over("symbol").alias("age")), "age")
        for name in theirs[0]:
            expected, computed, price = np.concatenate([columns[name] for columns in theirs]), column(ours, name), column(inputs, "close")
            if name in ("adx_14", "plus_di_14", "minus_di_14"):
                # TA-Lib starts these from sums of 13 values, not from the mean of 14; the start is forgotten at 13/14 a session.
                assert np.array_equal(np.isnan(computed), np.isnan(expected))
                computed, expected = computed[age >= 400], expected[age >= 400]
            scale = price if name == "atr_14" else 100.0
            # Its running sums of squares cancel, and leave a correlation six digits where the close hardly moves.
            tolerance = 1e-3 if name.startswith("close_volume") else 1e-9 * scale
            np.testing.assert_array_equal(np.isnan(computed), np.isnan(expected), err_msg=f"nulls of {name}")
            assert np.nanmax(np.abs(computed - expected) - tolerance) <= 0, name

    def test_polars_agrees_on_every_symbol_of_the_real_panel(self) -> None:
        inputs, ours = panel()
        log_return, logs = pl.col("price_change_1d").log1p(), pl.col("volume").log()
        theirs = inputs.select(
            *(log_return.rolling_std(n).over("symbol").alias(f"return_volatility_{n}") for n in (5, 10, 20, 60, 120, 252)),
            *(log_return.rolling_skew(n).over("symbol").alias(f"return_skewness_{n}") for n in (20, 60, 120, 252)),
            *(log_return.rolling_kurtosis(n).over("symbol").alias(f"return_kurtosis_{n}") for n in (20, 60, 120, 252)),
            *(pl.col("price_change_1d").rolling_max(n).over("symbol").alias(f"return_max_{n}") for n in (20, 60)),
            *(pl.col("price_change_1d").rolling_min(n).over("symbol").alias(f"return_min_{n}") for n in (20, 60)),
            *((pl.col("volume") / pl.col("volume").rolling_mean(n)).over("symbol").alias(f"volume_ratio_{n}") for n in (5, 60)),
            *(
                pl.rolling_corr(log_return, logs.diff(), window_size=n, min_samples=n)
                .over("symbol")
                .alias(f"return_volume_correlation_{n}")
                for n in (10, 20, 60)
            ),
        )
        for name in theirs.columns:
            np.testing.assert_allclose(column(ours, name), column(theirs, name), rtol=1e-6, atol=1e-6, err_msg=name)

    def test_real_symbols_come_out_as_written_out(self) -> None:
        inputs, _ = panel()
        assert_as_written_out(inputs.filter(pl.col("symbol").is_in(["AAPL", "AMZN", "BAC", "DXC", "NKE"])))

    @pytest.mark.parametrize("seed", range(2))
    def test_generated_symbols_come_out_as_written_out(self, seed: int) -> None:
        """With gaps, missing and zero volumes, flat sessions, splits and dividends."""
        assert_as_written_out(adjusted(**random_history(seed, symbols=3, n=420)))

    def test_fifteen_thousand_rows_come_out_as_written_out(self) -> None:
        assert_as_written_out(adjusted(walk(4, 15_000)))

    def test_candle_gap_and_night_by_hand(self) -> None:
        """Yesterday 100 to 110, closed at 104; today opened at 117, went to 120 and 112, closed at 115."""
        bars = bars_of([104.0, 115.0], open=[102.0, 117.0], high=[110.0, 120.0], low=[100.0, 112.0])
        last = features_of(bars).row(-1, named=True)
        expected = {
            "gap": 7 / 104, "overnight_return": 13 / 104, "intraday_return": -2 / 117, "balance_of_power": -2 / 8, "close_location": 3 / 8,
            "candle_body": 2 / 115, "candle_upper_shadow": 3 / 115, "candle_lower_shadow": 3 / 115,
        }  # fmt: skip
        assert {name: last[name] for name in expected} == pytest.approx(expected, rel=1e-14)

    def test_range_volatilities_by_hand(self) -> None:
        """Highs a factor e^0.02 above lows, opened at the low, closed in the geometric middle; every night goes back."""
        low, n = 100.0, 61
        bars = bars_of([low * math.exp(0.01)] * n, open=[low] * n, high=[low * math.exp(0.02)] * n, low=[low] * n)
        last = features_of(bars).row(-1, named=True)
        assert last["parkinson_volatility_20"] == pytest.approx(0.02 / math.sqrt(4 * math.log(2)), rel=1e-12)
        assert last["garman_klass_volatility_20"] == pytest.approx(math.sqrt(0.02**2 / 2 - (2 * math.log(2) - 1) * 0.01**2), rel=1e-12)
        assert last["rogers_satchell_volatility_20"] == pytest.approx(math.sqrt(0.02 * 0.01), rel=1e-12)
        k = 0.34 / (1.34 + 21 / 19)
        assert last["yang_zhang_volatility_20"] == pytest.approx(math.sqrt((1 - k) * 0.02 * 0.01), rel=1e-9)
        assert (last["return_volatility_20"], last["return_skewness_20"]) == (0.0, None)

    def test_the_spread_of_sessions_that_bounce_between_bid_and_ask(self) -> None:
        """Equal sessions, whose range is all spread: Corwin and Schultz find log(high / low) exactly."""
        last = features_of(bars_of([100.0] * 21, high=[101.0] * 21, low=[99.0] * 21)).row(-1, named=True)
        assert last["corwin_schultz_spread_20"] == pytest.approx(2 * (101 / 99 - 1) / (1 + 101 / 99), rel=1e-12)

    def test_a_way_up_and_down_by_hand(self) -> None:
        """60 closes from 101 to 160, then down by 2 to 140."""
        closes = [100.0 + n for n in range(61)] + [158.0 - 2 * n for n in range(10)]
        last = features_of(bars_of(closes, high=closes, low=closes)).row(-1, named=True)
        assert last["efficiency_ratio_10"] == 1.0
        assert last["efficiency_ratio_20"] == pytest.approx((150 - 140) / (10 + 20), rel=1e-12)
        assert (last["up_share_10"], last["up_share_20"], last["up_share_60"]) == (0.0, 0.5, pytest.approx(50 / 60))
        assert last["drawdown_60"] == last["max_drawdown_60"] == pytest.approx(20 / 160)
        assert last["sessions_since_high_60"] == pytest.approx(10 / 59)
        assert last["sessions_since_low_60"] == 1.0
        assert last["position_in_range_20"] == 0.0
        assert last["momentum_60_5"] == pytest.approx(150 / 110 - 1)
        assert (last["aroon_up_25"], last["williams_r_14"], last["stochastic_k_14"]) == (60.0, -100.0, 0.0)
        assert last["up_volume_share_20"] == 0.5

    def test_illiquidity_and_traded_value_by_hand(self) -> None:
        """A price that alternates between 100 and 101 while a million changes hands."""
        closes = np.where(np.arange(30) % 2 == 0, 100.0, 101.0)
        last = features_of(bars_of(closes, volume=1e6 / closes)).row(-1, named=True)
        assert last["traded_value_sma_20"] == pytest.approx(1e6)
        assert last["amihud_illiquidity_20"] == pytest.approx((1 / 100 + 1 / 101) / 2 / 1e6)

    @pytest.mark.parametrize("price", [0.1, 33.33, 123456.789])
    def test_constant_prices(self, price: float) -> None:
        """Nothing moves: no volatility, no direction, no correlation, and no rounding that looks like one."""
        n = LONGEST + 2
        last = features_of(bars_of([price] * n, high=[price] * n, low=[price] * n)).row(-1, named=True)
        flat = {name for name in NAMES if last[name] is None}
        assert flat == {
            *(f"reversal_{n}" for n in (5, 20)), "volatility_ratio_5_20", "volatility_ratio_20_60", "volatility_ratio_20_252",
            "volatility_of_volatility_20_60", *(f"return_{name}_{n}" for name in ("skewness", "kurtosis") for n in (20, 60, 120, 252)),
            *(f"return_autocorrelation_{n}" for n in (20, 60, 120)), *(f"efficiency_ratio_{n}" for n in (10, 20, 60)),
            "variance_ratio_5_60", "variance_ratio_10_252", "plus_di_14", "minus_di_14", "stochastic_k_14", "stochastic_d_14_3",
            "stochastic_slow_d_14_3_3", "williams_r_14", "williams_r_28", "cci_14", "cci_20", "mfi_14", "ultimate_oscillator_7_14_28",
            "balance_of_power", "close_location", *(f"trend_r2_{n}" for n in (20, 60, 120)),
            *(f"{name}_volume_correlation_{n}" for name in ("close", "return") for n in (10, 20, 60)), "volume_zscore_20", "volume_zscore_60",
            *(f"position_in_range_{n}" for n in (20, 60, 252)),
        }  # fmt: skip
        ones = {"volume_ratio_5", "volume_ratio_60", "sma_ratio_5_20", "sma_ratio_50_200"}
        levels = {
            "aroon_up_25": 100.0,
            "aroon_down_25": 100.0,
            "traded_value_sma_20": 1000 * price,
            **dict.fromkeys(ones, 1.0),
        }
        for name in set(NAMES) - flat:
            assert last[name] == pytest.approx(levels.get(name, 0.0), rel=1e-14, abs=1e-15), name

    def test_a_flat_total_return_stays_flat_through_the_rounding_of_its_factors(self) -> None:
        """A price that falls by each dividend and nothing else has no move, no trend and no volatility."""
        days = sessions_from(date(1960, 1, 4), 300)
        prices = [100.0 - 0.37 * (n // 7) for n in range(300)]
        bars = bars_of(prices, high=prices, low=prices).with_columns(pl.lit("raw").alias("basis"))
        paid = pl.DataFrame({"symbol": "A", "session": days[7::7], "kind": "dividend", "value": 0.37}).with_columns(evening())
        rows = features_of(bars, paid)
        for name in ("return_volatility_20", "efficiency_ratio_20", "return_skewness_60", "cci_20", "trend_r2_60", "position_in_range_60"):
            assert rows[name].drop_nulls().to_list() in ([], [0.0] * 280), name
        for name in ("up_share_20", "trend_slope_20", "trend_residual_60", "atr_14", "adx_14", "return_60d", "reversal_20"):
            assert set(rows[name].drop_nulls()) <= {0.0}, name
        assert set(rows["sessions_since_high_60"].drop_nulls()) == {0.0}

    def test_zero_volume(self) -> None:
        rows = features_of(walk(1, 90).with_columns(pl.lit(0.0).alias("volume")))
        wanting = [
            name for name in NAMES if "volume" in name or name in ("mfi_14", "chaikin_money_flow_20") or name.startswith(("vwap", "amihud"))
        ]
        assert len(wanting) == 20
        assert rows.select(wanting).null_count().row(0) == (90,) * 20
        assert rows["traded_value_sma_20"].drop_nulls().to_list() == [0.0] * 71

    def test_a_missing_volume_blanks_the_windows_that_hold_it_and_no_others(self) -> None:
        bars = walk(2, 400)
        missing = bars.with_columns(pl.when(pl.int_range(pl.len()) != 300).then("volume").alias("volume"))
        whole, blanked = features_of(bars), features_of(missing)
        reach = {name: int(name.rsplit("_", 1)[1]) for name in NAMES if "volume" in name or name.startswith(("vwap", "amihud", "traded"))}
        reach |= {"mfi_14": 14, "chaikin_money_flow_20": 20, **{f"return_volume_correlation_{n}": n + 1 for n in (10, 20, 60)}}
        for name in NAMES:
            hidden = [row for row in range(400) if blanked[name][row] is None and whole[name][row] is not None]
            assert hidden == list(range(300, 300 + reach.get(name, 0))), name

    def test_a_single_row_and_none(self) -> None:
        bars = bars_of([100.0])
        rows = features_of(bars)
        assert {name for name in NAMES if rows[name][0] is not None} == {feature.name for feature in ALPHA_HISTORY if feature.lookback == 0}
        assert rows.columns == ["symbol", "session", *NAMES]
        assert set(rows.dtypes[2:]) == {pl.Float64}
        assert features_of(bars.clear()).schema == rows.schema

    def test_levels_stand_in_the_basis_of_their_own_session(self) -> None:
        """After a 2:1 split a chart shows a range of 2 as one of 1; what was traded in currency stays."""
        closes, volume = [100.0] * 30 + [50.0] * 30, [1000.0] * 30 + [2000.0] * 30
        bars = bars_of(closes, volume=volume).with_columns(pl.lit("raw").alias("basis"))
        split = pl.DataFrame({"symbol": "A", "session": [bars["session"][30]], "kind": "split", "value": 2.0}).with_columns(evening())
        rows = features_of(bars, split)
        assert rows["atr_14"].to_list()[28:32] == pytest.approx([2.0, 2.0, 1.0, 1.0])
        assert rows["natr_14"].to_list()[28:32] == pytest.approx([2.0] * 4)
        assert rows["traded_value_sma_20"].to_list()[28:32] == pytest.approx([1e5] * 4)

    def test_a_close_outside_of_its_range_widens_it(self) -> None:
        last = features_of(bars_of([100.0, 100.0], high=[101.0, 99.0], low=[99.0, 98.0])).row(-1, named=True)
        assert (last["close_location"], last["candle_upper_shadow"], last["candle_lower_shadow"]) == (1.0, 0.0, pytest.approx(0.02))


class TestProperties:
    @pytest.mark.parametrize("feature", ALPHA_HISTORY, ids=lambda feature: str(feature.name))
    def test_each_feature_is_told_whole(self, feature: Feature) -> None:
        assert all((feature.definition, feature.unit, feature.null_rule, feature.source))
        assert feature.sentence.endswith(".")
        assert feature.table == "alpha_history_v1"
        assert 0 <= feature.lookback <= 252
        assert feature.scale_free == (feature.unit not in ("price", "currency", "1/currency"))

    def test_lookback_is_the_index_of_the_first_value(self) -> None:
        rows = features_of(walk(3, 300))
        for feature in ALPHA_HISTORY:
            values = rows[feature.name]
            assert values.is_not_null().arg_max() == feature.lookback, feature.name
            assert values[feature.lookback :].null_count() == 0, feature.name

    def test_what_lies_before_the_lookback_changes_no_bit(self) -> None:
        early, late = walk(5, 400).head(120), walk(6, 400)
        spoilt = pl.concat([early.with_columns(pl.col("open", "high", "low", "close") * 1e4, pl.col("volume") * 1e6), late.tail(280)])
        whole, other = features_of(late), features_of(spoilt.with_columns(late["session"]))
        for feature in ALPHA_HISTORY:
            if feature.name not in RECURSIVE:
                first = 120 + feature.lookback
                assert whole[feature.name][first:].equals(other[feature.name][first:]), feature.name

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=8, deadline=None)
    def test_values_stay_in_the_catalogs_ranges(self, seed: int) -> None:
        rows = features_of(**random_history(seed, symbols=3, n=300))
        for feature in ALPHA_HISTORY:
            values = rows[feature.name].drop_nulls()
            assert values.is_finite().all(), feature.name
            assert feature.low is None or (values >= feature.low).all(), feature.name
            assert feature.high is None or (values <= feature.high).all(), feature.name

    @given(jump=st.sampled_from([1e-6, 0.5, 3.0, 1e6]), row=st.integers(0, 299), shares=st.sampled_from([0.0, 1.0, 1e12]))
    @settings(max_examples=15, deadline=None)
    def test_a_lone_jump_reaches_the_ranges_and_does_not_leave_them(self, jump: float, row: int, shares: float) -> None:
        closes, volume = np.full(300, 33.33), np.full(300, shares)
        closes[row:] *= jump
        volume[row] += 7.0
        rows = features_of(bars_of(closes, high=closes, low=closes, volume=volume))
        for feature in ALPHA_HISTORY:
            values = rows[feature.name].drop_nulls()
            assert feature.low is None or (values >= feature.low).all(), feature.name
            assert feature.high is None or (values <= feature.high).all(), feature.name

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=3, deadline=None)
    def test_symbols_and_row_order_do_not_matter(self, seed: int) -> None:
        inputs = adjusted(**random_history(seed, n=300))
        whole = alpha_history(inputs)
        assert whole.equals(alpha_history(inputs.sample(fraction=1, shuffle=True, seed=seed)))
        for group in inputs.partition_by("symbol"):
            assert alpha_history(group).equals(whole.filter(pl.col("symbol") == group["symbol"][0]))

    @pytest.mark.parametrize("seed", range(3))
    def test_going_on_from_states_gives_the_same_bits_as_the_whole_history(self, seed: int) -> None:
        """Session after session from the states of the last and the look-back alone."""
        inputs = adjusted(**random_history(seed, n=330)).filter(pl.col("symbol") != "S3")
        whole = with_states(inputs)
        days = inputs["session"].unique().sort()[-12:].to_list()
        for last, day in pairwise(days):
            states = whole.filter(pl.col("session") <= last).group_by("symbol").last()
            carried = states.select("symbol", "session", *(pl.col(f"state_{name}").alias(name) for name in STATES))
            behind = inputs.filter(pl.col("session") <= day).group_by("symbol", maintain_order=True).tail(LONGEST + 1)
            went_on = with_states(behind, carried).filter(pl.col("session") == day)
            assert went_on.height
            assert went_on.equals(whole.filter(pl.col("session") == day))

    def test_going_on_over_many_sessions_and_symbols_of_the_real_panel(self) -> None:
        inputs, _ = panel()
        some = inputs.filter(pl.col("symbol").is_in(inputs["symbol"].unique().sort()[::25].implode()))
        whole = with_states(some)
        at = some.group_by("symbol", maintain_order=True).agg(pl.col("session").get(-48, null_on_oob=True)).drop_nulls()
        carried = whole.join(at, on=["symbol", "session"]).select(
            "symbol", "session", *(pl.col(f"state_{name}").alias(name) for name in STATES)
        )
        tail = some.group_by("symbol", maintain_order=True).tail(300)
        went_on, kept = (
            frame.join(at.rename({"session": "since"}), on="symbol").filter(pl.col("session") > pl.col("since"))
            for frame in (with_states(tail, carried), whole)
        )
        assert kept.height > 900
        assert went_on.equals(kept)

    @pytest.mark.parametrize("seed", range(2))
    def test_cutting_history_changes_nothing_before(self, seed: int) -> None:
        history = random_history(seed, symbols=2, n=300)
        days = sessions_from(date(2020, 1, 1), 300)
        found = offending_rows(features_of, history, np.random.default_rng(seed).choice(days[20:-1], 4).tolist())
        assert found.is_empty(), described(found)

    @given(
        seed=st.integers(0, 10**6),
        ex=st.integers(1, 299),
        ratio=st.sampled_from([2.0, 3.0, 1.5, 0.1, 7.0]),
        share=st.sampled_from([0.0, 0.01, 0.3]),
    )
    @settings(max_examples=8, deadline=None)
    def test_splits_and_dividends_change_no_scale_free_feature(self, seed: int, ex: int, ratio: float, share: float) -> None:
        bars = walk(seed, 300).with_columns(pl.lit("raw").alias("basis")).with_columns(pl.col("open", "high", "low", "close").round(1))
        after = pl.int_range(pl.len()) >= ex
        parted = bars.with_columns(
            *(
                pl.when(after).then(pl.col(name) * (1 - share) / ratio).otherwise(name).alias(name)
                for name in ("open", "high", "low", "close")
            ),
            pl.when(after).then(pl.col("volume") * ratio).otherwise("volume").alias("volume"),
        )
        paid = bars["close"][ex - 1] * share / ratio
        actions = pl.DataFrame(
            {"symbol": ["A", "A"], "session": [bars["session"][ex]] * 2, "kind": ["split", "dividend"], "value": [ratio, paid]}
        ).with_columns(evening())
        once, twice = features_of(bars), features_of(parted, actions.filter(pl.col("value") > 0))
        for name in SCALE_FREE:
            np.testing.assert_allclose(column(twice, name), column(once, name), rtol=1e-9, atol=1e-9, err_msg=name)
