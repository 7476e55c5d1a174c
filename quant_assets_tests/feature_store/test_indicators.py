"""The 22 indicators against golden values, TA-Lib, SQL windows and exact arithmetic, and what must always hold."""

from __future__ import annotations

import json
from datetime import date
from fractions import Fraction

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import TECHNICAL_V1, model_columns
from quant_assets.feature_store.indicators import technical_v1
from quant_assets_tests.lookahead import ACTIONS, DATA, NO_ACTIONS, evening, random_history, sessions_from, sp500_panel

Floats = npt.NDArray[np.float64]
NAMES = [feature.name for feature in TECHNICAL_V1]
PRICES = [feature.name for feature in TECHNICAL_V1 if feature.unit == "price"]
SHARES = [feature.name for feature in TECHNICAL_V1 if feature.unit == "shares"]
SKENDER = DATA / "indicators" / "skender"
STOCKCHARTS = DATA / "indicators" / "stockcharts"
WITHOUT_DATA = "the shared market data is not at hand"


def bars_of(close: list[float] | Floats, volume: list[float | None] | Floats | pl.Series | None = None, symbol: str = "A") -> pl.DataFrame:
    """Restated bars from closes alone; high and low one percent around them, volume 1000 unless given."""
    closes = np.asarray(close, dtype=float)
    frame = pl.DataFrame({"symbol": [symbol] * len(closes), "session": sessions_from(date(1960, 1, 4), len(closes)), "close": closes})
    return frame.with_columns(
        pl.col("close").alias("open"),
        (pl.col("close") * 1.01).alias("high"),
        (pl.col("close") * 0.99).alias("low"),
        pl.Series("volume", np.full(len(closes), 1000.0) if volume is None else volume, dtype=pl.Float64),
        pl.lit("restated").alias("basis"),
        evening(),
    )


def indicators_of(bars: pl.DataFrame, actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    return technical_v1(forward_adjusted(bars, actions))


def assert_equal(ours: Floats, theirs: Floats, scale: Floats | float, what: str) -> None:
    """*Equal* as the design defines it: nulls alike, and |a − b| ≤ 1e-9 · max(|a|, the row's scale)."""
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=f"nulls of {what}")
    excess = np.abs(ours - theirs) - 1e-9 * np.maximum(np.abs(theirs), scale)
    assert not (excess > 0).any(), f"{what} differs in {(excess > 0).sum()} rows, most in row {np.nanargmax(excess)} by {np.nanmax(excess)}"


def column(frame: pl.DataFrame, name: str) -> Floats:
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def talib_columns(close: Floats, volume: Floats) -> dict[str, Floats]:
    """What TA-Lib says of one series, in our units."""
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    fast, slow = talib.EMA(close, 12), talib.EMA(close, 26)
    macd, macd_signal, macd_hist = talib.MACD(close, 12, 26, 9)
    moved = np.cumsum(np.abs(np.diff(close, prepend=close[0]))) > 0
    return {
        "rsi_14": np.where(moved | (np.arange(len(close)) < 14), talib.RSI(close, 14), 50.0),
        "late_macd": macd,
        "late_macd_signal": macd_signal,
        "late_macd_hist": macd_hist,
        "macd": fast - slow,
        "bb_upper": upper,
        "bb_middle": middle,
        "bb_lower": lower,
        "ema_12": fast,
        "ema_26": slow,
        "obv": np.concatenate([[0.0], np.diff(talib.OBV(close, volume))]),
        "volume_sma_20": talib.SMA(volume, 20),
        **{f"sma_{n}": talib.SMA(close, n) for n in (5, 10, 20, 50)},
        **{f"price_change_{n}d": talib.ROCP(close, n) for n in (1, 5, 20)},
    }


def assert_talib_agrees(bars: pl.DataFrame) -> None:
    """Compare every symbol with a TA-Lib loop; MACD's three after 200 sessions, OBV by its differences."""
    ours = indicators_of(bars).with_columns(pl.col("obv").diff().over("symbol").fill_null(0.0))
    ordered = bars.sort("symbol", "session")
    groups = [(group["close"].to_numpy(), group["volume"].to_numpy()) for group in ordered.partition_by("symbol", maintain_order=True)]
    theirs = [talib_columns(close, volume) for close, volume in groups]
    age = np.concatenate([np.arange(len(close)) for close, _ in groups])
    price, shares = column(ordered, "close"), np.maximum(np.nan_to_num(column(ours, "volume_sma_20")), column(ordered, "volume"))
    for name in theirs[0]:
        oracle, settled = np.concatenate([columns[name] for columns in theirs]), slice(None)
        scale = price if name.removeprefix("late_") in PRICES else shares if name in SHARES else np.ones_like(price)
        if name.startswith("late_"):
            settled = age >= 200
        assert_equal(column(ours, name.removeprefix("late_"))[settled], oracle[settled], scale[settled], name)


class TestRegression:
    def test_golden_values(self) -> None:
        if not SKENDER.exists():
            pytest.skip(WITHOUT_DATA)
        quotes = pl.read_csv(SKENDER / "default.csv", schema_overrides={"date": pl.Date}).rename({"date": "session"})
        bars = quotes.with_columns(pl.lit("SPY").alias("symbol"), pl.lit("restated").alias("basis"), evening())
        ours, price = indicators_of(bars), column(bars, "close")
        golden = {
            ("rsi", "rsi"): "rsi_14",
            ("macd", "macd"): "macd",
            ("macd", "signal"): "macd_signal",
            ("macd", "histogram"): "macd_hist",
            ("macd", "fastEma"): "ema_12",
            ("macd", "slowEma"): "ema_26",
            ("bb", "upperBand"): "bb_upper",
            ("bb", "sma"): "bb_middle",
            ("bb", "lowerBand"): "bb_lower",
            ("bb", "width"): "bb_width",
            ("bb", "percentB"): "bb_position",
            ("sma", "sma"): "sma_20",
            ("obv", "obv"): "obv",
        }
        for (file, field), name in golden.items():
            rows = json.loads((SKENDER / f"{file}.standard.json").read_text())
            expected = np.array([row[field] if row[field] is not None else np.nan for row in rows], dtype=float)
            assert_equal(column(ours, name), expected, price if name in PRICES else 1.0, name)

    def test_worked_tables(self) -> None:
        if not STOCKCHARTS.exists():
            pytest.skip(WITHOUT_DATA)
        bands = pl.read_csv(STOCKCHARTS / "cs-bbands.csv")
        ours = indicators_of(bars_of(bands["Close"].to_numpy()))
        for theirs, name in {"HighBand": "bb_upper", "MiddleBand": "bb_middle", "LowBand": "bb_lower"}.items():
            np.testing.assert_allclose(column(ours, name), column(bands, theirs), atol=1e-4)
        table = pl.read_csv(STOCKCHARTS / "cs-obv.csv")
        assert indicators_of(bars_of(table["Close"].to_numpy(), table["Volume"]))["obv"].to_list() == table["OBV"].to_list()

    def test_on_balance_volume_by_hand(self) -> None:
        rows = indicators_of(bars_of([10, 11, 11, 9, 12, 13], [5, 7, 100, 3, None, 2]))
        assert rows["obv"].to_list() == [0, 7, 7, 4, None, 6]

    def test_price_changes_and_range_by_hand(self) -> None:
        rows = indicators_of(bars_of([10, 11, 12, 13, 14, 15]))
        assert rows["price_change_1d"].to_list()[:2] == [None, pytest.approx(0.1)]
        assert rows["price_change_5d"].to_list() == [None] * 5 + [pytest.approx(0.5)]
        assert rows["high_low_range"].to_list() == pytest.approx([0.02] * 6)

    def test_rsi_of_a_rising_a_falling_and_a_flat_series(self) -> None:
        up, down, flat = [100.0 + n for n in range(20)], [100.0 - n for n in range(20)], [100.0] * 20
        values = [indicators_of(bars_of(closes))["rsi_14"].to_list() for closes in (up, down, flat)]
        assert values == [[None] * 14 + [level] * 6 for level in (100.0, 0.0, 50.0)]

    @pytest.mark.parametrize("price", [0.1, 33.33, 1e-3, 123456.789])
    def test_constant_prices(self, price: float) -> None:
        last = indicators_of(bars_of([price] * 60)).row(-1, named=True)
        assert last["bb_upper"] == last["bb_middle"] == last["bb_lower"] == pytest.approx(price, rel=1e-15)
        assert (last["bb_width"], last["bb_position"], last["rsi_14"], last["obv"], last["price_change_20d"]) == (0, None, 50, 0, 0)
        assert last["macd"] == pytest.approx(0, abs=1e-14 * price)

    def test_a_flat_total_return_stays_flat_through_the_rounding_of_its_factors(self) -> None:
        prices, content = [100.0], []
        days = sessions_from(date(1960, 1, 4), 60)
        for number, day in enumerate(days[1:], 1):
            prices.append(prices[-1] - 0.37 if number % 7 == 0 else prices[-1])
            if number % 7 == 0:
                content.append({"symbol": "A", "session": day, "kind": "dividend", "value": 0.37})
        actions = pl.DataFrame(content, schema={name: ACTIONS[name] for name in ("symbol", "session", "kind", "value")})
        rows = indicators_of(bars_of(prices).with_columns(pl.lit("raw").alias("basis")), actions.with_columns(evening()))
        assert set(rows["rsi_14"].drop_nulls()) == {50.0}
        assert rows["bb_position"].null_count() == rows.height
        assert set(rows["obv"]) == {0.0}

    def test_zero_volume(self) -> None:
        rows = indicators_of(bars_of([100.0 + n for n in range(30)], [0.0] * 30))
        assert rows["volume_ratio"].null_count() == 30
        assert rows["volume_sma_20"].drop_nulls().to_list() == [0.0] * 11
        assert set(rows["obv"]) == {0.0}

    def test_a_missing_volume_blanks_the_windows_that_hold_it(self) -> None:
        volume: list[float | None] = [1000.0] * 60
        volume[25] = None
        rows = indicators_of(bars_of([100.0 + n for n in range(60)], volume))
        for name in ("volume_sma_20", "volume_ratio"):
            blank = [index for index, value in enumerate(rows[name]) if value is None]
            assert blank == [*range(19), *range(25, 45)]
        assert [index for index, value in enumerate(rows["obv"]) if value is None] == [25]
        assert rows["rsi_14"].null_count() == 14

    def test_a_single_row_and_none(self) -> None:
        bars = bars_of([100.0])
        values = indicators_of(bars).row(0, named=True)
        assert {name for name, value in values.items() if value is not None} == {"symbol", "session", "obv", "high_low_range"}
        assert indicators_of(bars.clear()).schema == indicators_of(bars).schema
        assert indicators_of(bars).columns == ["symbol", "session", *NAMES]
        assert set(indicators_of(bars).dtypes[2:]) == {pl.Float64}

    def test_levels_stand_in_the_basis_of_their_own_session(self) -> None:
        """After a 2:1 split a chart shows yesterday's 100 as 50, and yesterday's 1000 shares as 2000."""
        bars = bars_of([100.0] * 30 + [50.0] * 30, [1000.0] * 30 + [2000.0] * 30).with_columns(pl.lit("raw").alias("basis"))
        split = pl.DataFrame({"symbol": ["A"], "session": [bars["session"][30]], "kind": ["split"], "value": [2.0]}).with_columns(evening())
        rows = indicators_of(bars, split)
        assert rows["sma_20"].to_list()[28:32] == [100, 100, 50, 50]
        assert rows["volume_sma_20"].to_list()[28:32] == [1000, 1000, 2000, 2000]
        assert rows["price_change_1d"].to_list()[30] == 0
        unadjusted = indicators_of(bars)
        assert unadjusted["price_change_1d"].to_list()[30] == -0.5

    def test_a_spike_leaves_no_trace_in_later_windows(self) -> None:
        random = np.random.default_rng(5)
        close = np.round(100 * np.cumprod(1 + random.normal(0, 0.001, 120)), 2)
        volume = np.round(random.lognormal(10, 1, 120))
        close[40], volume[40] = close[40] * 1e4, volume[40] * 1e9
        rows, exact = indicators_of(bars_of(close, volume)), [Fraction(float(value)) for value in close]
        for row in range(49, 120):
            window = exact[row - 19 : row + 1]
            mean = sum(window) / 20
            deviation = float(sum((value - mean) ** 2 for value in window) / 20) ** 0.5
            tolerance = 1e-12 * max(float(mean), close[row])
            assert rows["bb_upper"][row] == pytest.approx(float(mean) + 2 * deviation, abs=tolerance)
            assert rows["bb_width"][row] == pytest.approx(4 * deviation / float(mean), rel=1e-11)
            assert rows["sma_50"][row] == pytest.approx(float(sum(exact[row - 49 : row + 1]) / 50), rel=1e-14)
            shares = float(sum(Fraction(float(value)) for value in volume[row - 19 : row + 1]) / 20)
            assert rows["volume_sma_20"][row] == pytest.approx(shares, rel=1e-14)

    def test_fifteen_thousand_rows_with_jumps_agree_with_exact_recursions(self) -> None:
        random = np.random.default_rng(2)
        close = np.round(50 * np.exp(np.cumsum(random.normal(0, 0.01, 15_000))), 2) + 0.01
        close[7000:7005] *= 1e4
        rows = indicators_of(bars_of(close))
        expected, alpha = float(np.mean(close[:26])), 2 / 27
        for row in range(26, 15_000):
            expected += alpha * (close[row] - expected)
            if row % 500 == 0:
                assert rows["ema_26"][row] == pytest.approx(expected, rel=1e-12)
        gain, loss = (float(np.mean(np.maximum(sign * np.diff(close[:15]), 0))) for sign in (1, -1))
        for row in range(15, 15_000):
            move = close[row] - close[row - 1]
            gain, loss = (gain * 13 + max(move, 0)) / 14, (loss * 13 + max(-move, 0)) / 14
        assert rows["rsi_14"][-1] == pytest.approx(100 - 100 / (1 + gain / loss), rel=1e-12)

    def test_talib_agrees_on_the_real_panel(self) -> None:
        bars = sp500_panel()
        if bars is None:
            pytest.skip(WITHOUT_DATA)
        assert (bars.height, bars["symbol"].n_unique()) == (619_040 - 23, 505)
        assert_talib_agrees(bars)

    def test_talib_agrees_on_generated_bars(self) -> None:
        bars = random_history(11, symbols=6, n=400)["bars"]
        assert_talib_agrees(bars.with_columns(pl.lit("restated").alias("basis"), pl.col("volume").fill_null(0.0)))

    def test_talib_agrees_on_a_long_series(self) -> None:
        moves = np.random.default_rng(3).normal(0, 0.01, 15_000)
        assert_talib_agrees(bars_of(np.round(100 * np.exp(np.cumsum(moves)), 4) + 0.01))


class TestProperties:
    @pytest.mark.parametrize("seed", range(3))
    def test_sql_windows_say_the_same(self, seed: int) -> None:
        adjusted = forward_adjusted(**random_history(seed, n=90))
        ours = technical_v1(adjusted)
        with duckdb.connect() as connection:
            connection.register("adjusted", adjusted)
            oracle = connection.sql(f"""
                with windows as (
                    select *, row_number() over symbol as age, lag(adj_close) over symbol as previous,
                        {", ".join(f"lag(adj_close, {n}) over symbol as close_{n}" for n in (1, 5, 20))},
                        {", ".join(f"avg(adj_close) over last_{n} as mean_{n}" for n in (5, 10, 20, 50))},
                        stddev_pop(adj_close) over last_20 as deviation,
                        if(count(adj_volume) over last_20 = 20, avg(adj_volume) over last_20, null) as mean_volume
                    from adjusted
                    window symbol as (partition by symbol order by session),
                        {", ".join(f"last_{n} as (partition by symbol order by session rows {n - 1} preceding)" for n in (5, 10, 20, 50))}
                ),
                flows as (
                    select *, sum(if(abs(adj_close / previous - 1) < 1e-12, 0, adj_volume * sign(adj_close - previous)))
                        over (partition by symbol order by session) as flow
                    from windows
                )
                select symbol, session,
                    {", ".join(f"if(age >= {n}, mean_{n} / price_factor, null) as sma_{n}" for n in (5, 10, 20, 50))},
                    sma_20 as bb_middle, sma_20 + 2 * deviation / price_factor as bb_upper, sma_20 - 2 * deviation / price_factor as bb_lower,
                    (bb_upper - bb_lower) / bb_middle as bb_width,
                    (close - bb_lower) / nullif(bb_upper - bb_lower, 0) as bb_position,
                    if(age >= 20, mean_volume * share_factor, null) as volume_sma_20,
                    if(age >= 20, adj_volume / nullif(mean_volume, 0), null) as volume_ratio,
                    {", ".join(f"adj_close / close_{n} - 1 as price_change_{n}d" for n in (1, 5, 20))},
                    (high - low) / close as high_low_range,
                    if(volume is null, null, coalesce(flow, 0) * share_factor) as obv
                from flows order by symbol, session
            """).pl()
        scales = {**dict.fromkeys(PRICES, column(adjusted, "close")), **dict.fromkeys(SHARES, np.nan_to_num(column(ours, "volume_sma_20")))}
        assert len(oracle.columns) == 18
        for name in oracle.columns[2:]:
            assert_equal(column(ours, name), column(oracle, name), scales.get(name, 1.0), name)

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=15, deadline=None)
    def test_values_stay_in_the_catalogs_ranges_and_bands_in_order(self, seed: int) -> None:
        rows = indicators_of(**random_history(seed, symbols=3))
        for feature in TECHNICAL_V1:
            values = rows[feature.name].drop_nulls()
            assert values.is_finite().all()
            assert feature.low is None or (values >= feature.low - 1e-12).all(), feature.name
            assert feature.high is None or (values <= feature.high + 1e-12).all(), feature.name
        bands = rows.drop_nulls("bb_middle")
        assert bands.select((pl.col("bb_lower") <= pl.col("bb_middle")).all() & (pl.col("bb_middle") <= pl.col("bb_upper")).all()).item()

    @given(cents=st.lists(st.integers(1, 10**6), min_size=55, max_size=70), factor=st.sampled_from([0.001, 0.5, 3.0, 7.7, 1e6]))
    @settings(max_examples=30, deadline=None)
    def test_scaling_prices_scales_the_price_columns_and_nothing_else(self, cents: list[int], factor: float) -> None:
        close = np.array(cents) / 100
        once, scaled = indicators_of(bars_of(close)), indicators_of(bars_of(close * factor))
        top = float(close.max())
        for name in NAMES:
            by = factor if name in PRICES else 1.0
            assert_equal(column(scaled, name), by * column(once, name), factor * top if name in PRICES else 1.0, name)

    @given(
        cents=st.lists(st.integers(100, 10**6), min_size=60, max_size=60),
        ex=st.integers(1, 59),
        ratio=st.sampled_from([2.0, 3.0, 1.5, 0.1, 7.0]),
    )
    @settings(max_examples=30, deadline=None)
    def test_a_split_changes_no_scale_free_feature(self, cents: list[int], ex: int, ratio: float) -> None:
        bars = bars_of(np.array(cents) / 100, np.array(cents, dtype=float)).with_columns(pl.lit("raw").alias("basis"))
        after = pl.int_range(pl.len()) >= ex
        split_bars = bars.with_columns(
            *(pl.when(after).then(pl.col(name) / ratio).otherwise(name).alias(name) for name in ("open", "high", "low", "close")),
            pl.when(after).then(pl.col("volume") * ratio).otherwise("volume").alias("volume"),
        )
        split = pl.DataFrame({"symbol": ["A"], "session": [bars["session"][ex]], "kind": ["split"], "value": [ratio]})
        whole, parted = indicators_of(bars), indicators_of(split_bars, split.with_columns(evening()))
        for name in model_columns("technical_v1"):
            assert_equal(column(parted, name), column(whole, name), 1.0, name)
        by = np.where(np.arange(60) >= ex, ratio, 1.0)
        for name in PRICES:
            assert_equal(column(parted, name) * by, column(whole, name), max(cents) / 100, name)

    @given(seed=st.integers(0, 10**6))
    @settings(max_examples=10, deadline=None)
    def test_symbols_and_row_order_do_not_matter(self, seed: int) -> None:
        history = random_history(seed)
        adjusted = forward_adjusted(**history)
        whole = technical_v1(adjusted)
        assert whole.equals(technical_v1(adjusted.sample(fraction=1, shuffle=True, seed=seed)))
        for group in adjusted.partition_by("symbol"):
            assert technical_v1(group).equals(whole.filter(pl.col("symbol") == group["symbol"][0]))
