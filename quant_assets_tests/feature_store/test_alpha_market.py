"""A symbol against the market: numbers by hand, least squares of numpy for each window, and no dependence on what lies outside it."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.stats import skew

from quant_assets.feature_store.alpha_market import LOOKBACK, alpha_market
from quant_assets.feature_store.catalog import ALPHA_MARKET, Feature
from quant_assets.feature_store.comoments import TILE_ROWS
from quant_assets_tests.lookahead import evening, sessions_from

NAMES = [feature.name for feature in ALPHA_MARKET]


def returns_of(own: object, market: object, symbol: str = "A") -> pl.DataFrame:
    """One row per session of a symbol, its first return unknown, each session known in its evening."""
    columns = {
        "price_change_1d": pl.Series(own, dtype=pl.Float64, nan_to_null=True),
        "market_return_1d": pl.Series(market, dtype=pl.Float64),
    }
    frame = pl.DataFrame({"symbol": symbol, "session": sessions_from(date(2000, 1, 3), len(columns["price_change_1d"]))})
    first = pl.int_range(pl.len()) == 0
    return frame.with_columns(**columns).with_columns(
        pl.when(~first).then("price_change_1d").alias("price_change_1d"), evening(), evening().alias("market_known_at")
    )


def random_returns(seed: int, rows: int = 400, symbols: int = 3) -> pl.DataFrame:
    """Symbols that start one after the other and follow one market, with gaps."""
    random = np.random.default_rng(seed)
    market = random.standard_t(4, rows) / 100
    frames = []
    for number in range(symbols):
        own = random.uniform(-0.5, 2) * market + random.standard_t(4, rows) / 60
        frame = returns_of(own, market, f"S{number}")[20 * number :]
        frames.append(frame.filter(pl.Series(random.random(frame.height) > 0.03)))
    first = pl.int_range(pl.len()).over("symbol") == 0
    return pl.concat(frames).with_columns(pl.when(~first).then("price_change_1d").alias("price_change_1d"))


class TestRegression:
    def test_simple_returns_and_days(self) -> None:
        returns = returns_of([np.nan, 0.10, -0.05, 0.02, 0.0, 0.03], [0.5, 0.02, 0.01, 0.0, -0.01, 0.04])
        computed = alpha_market(returns)
        assert computed["excess_return_1"][0] is None
        assert computed["excess_return_1"].to_list()[1:] == pytest.approx([0.08, -0.06, 0.02, 0.01, -0.01], abs=1e-15)
        assert computed["excess_return_5"].to_list()[:5] == [None] * 5
        compounded = 1.10 * 0.95 * 1.02 * 1.03 - 1.02 * 1.01 * 0.99 * 1.04
        assert computed["excess_return_5"][5] == pytest.approx(compounded, rel=1e-13)
        assert computed["days_since_previous_session"].to_list() == [None, 1.0, 1.0, 1.0, 1.0, 3.0]

    def test_twice_the_market_leaves_nothing(self) -> None:
        market = np.random.default_rng(1).normal(0, 0.01, 300)
        last = alpha_market(returns_of(2 * market + 0.001, market)).row(-1, named=True)
        for n in (60, 120, 252):
            assert last[f"beta_{n}"] == pytest.approx(2.0, rel=1e-12)
            assert last[f"market_correlation_{n}"] == pytest.approx(1.0, rel=1e-12)
            assert last[f"idiosyncratic_volatility_{n}"] == 0.0
            assert last[f"idiosyncratic_skewness_{n}"] is None
        assert last["alpha_252"] == pytest.approx(0.001, rel=1e-9)
        assert last["appraisal_ratio_252"] is last["coskewness_252"] is last["residual_momentum_126_21"] is None

    def test_the_only_symbol_is_its_market(self) -> None:
        market = np.random.default_rng(2).normal(0, 0.01, 300)
        last = alpha_market(returns_of(market, market)).row(-1, named=True)
        assert (last["beta_252"], last["downside_beta_252"], last["upside_beta_252"], last["excess_return_120"]) == (1.0, 1.0, 1.0, 0.0)

    def test_betas_of_each_side(self) -> None:
        market = np.random.default_rng(3).normal(0, 0.01, 300)
        last = alpha_market(returns_of(np.where(market < 0, 1.5, 0.5) * market, market)).row(-1, named=True)
        assert last["downside_beta_252"] == pytest.approx(1.5, rel=1e-12)
        assert last["upside_beta_252"] == pytest.approx(0.5, rel=1e-12)

    def test_a_market_that_stands_still_has_no_beta(self) -> None:
        own = np.random.default_rng(4).normal(0, 0.01, 300)
        last = alpha_market(returns_of(own, np.zeros(300))).row(-1, named=True)
        unknown = {name for name, value in last.items() if value is None}
        assert unknown == {name for name in NAMES if not name.startswith(("excess", "days"))}

    def test_returns_that_stand_still_have_beta_zero(self) -> None:
        market = np.random.default_rng(5).normal(0, 0.01, 300)
        last = alpha_market(returns_of(np.zeros(300), market)).row(-1, named=True)
        assert (last["beta_60"], last["idiosyncratic_volatility_60"]) == (0.0, 0.0)
        assert last["market_correlation_60"] is last["idiosyncratic_skewness_60"] is None

    def test_a_restated_market_session_stamps_the_rows_that_look_back_on_it(self) -> None:
        later = datetime(2030, 1, 1)
        at = pl.int_range(pl.len()) == 100
        returns = random_returns(1, symbols=1).with_columns(
            pl.when(at).then(pl.lit(later)).otherwise("market_known_at").alias("market_known_at")
        )
        computed = alpha_market(returns)["known_at"]
        stamped = (computed == later).arg_true().to_list()
        assert stamped == list(range(100, 100 + LOOKBACK))
        assert computed.to_frame().filter(computed != later).equals(returns.filter(computed != later).select("known_at"))


class TestProperties:
    @pytest.mark.parametrize("feature", ALPHA_MARKET, ids=lambda feature: str(feature.name))
    def test_lookback_range_and_nulls_are_the_catalogs(self, feature: Feature) -> None:
        values = alpha_market(random_returns(7, symbols=1))[feature.name]
        assert values.is_not_null().arg_max() == feature.lookback
        known = values[feature.lookback :]
        assert known.null_count() == 0
        assert known.is_finite().all()
        assert known.is_between(
            feature.low if feature.low is not None else -np.inf, feature.high if feature.high is not None else np.inf
        ).all()

    @pytest.mark.parametrize("seed", range(3))
    def test_regressions_agree_with_least_squares(self, seed: int) -> None:
        returns = random_returns(seed).sort("symbol", "session")
        computed = alpha_market(returns)
        for symbol in ("S0", "S2"):
            rows, ours = returns.filter(symbol=symbol), computed.filter(symbol=symbol)
            own, market = rows["price_change_1d"].to_numpy(), rows["market_return_1d"].to_numpy()
            for n in (60, 120, 252):
                for end in (n, n + 17, len(own) - 1):
                    y, x = own[end - n + 1 : end + 1], market[end - n + 1 : end + 1]
                    (alpha, beta), *_ = np.linalg.lstsq(np.column_stack([np.ones(n), x]), y, rcond=None)
                    rest = y - alpha - beta * x
                    expected = {
                        f"beta_{n}": beta,
                        f"market_correlation_{n}": np.corrcoef(x, y)[0, 1],
                        f"idiosyncratic_volatility_{n}": np.sqrt((rest**2).sum() / (n - 2)),
                        f"idiosyncratic_skewness_{n}": skew(rest),
                    }
                    if n == 252:
                        half, year = rest[252 - 126 : 252 - 21], (y - beta * x)[: 252 - 21]
                        expected |= {
                            "alpha_252": alpha,
                            "appraisal_ratio_252": alpha / expected["idiosyncratic_volatility_252"],
                            "coskewness_252": (rest * (x - x.mean()) ** 2).mean() / (rest.std() * x.var()),
                            "downside_beta_252": (y * np.minimum(x, 0)).sum() / (np.minimum(x, 0) ** 2).sum(),
                            "residual_momentum_126_21": half.mean() / half.std(ddof=1) * np.sqrt(105),
                            "residual_momentum_252_21": year.mean() / year.std(ddof=1) * np.sqrt(231),
                        }
                    for name, value in expected.items():
                        assert ours[name][end] == pytest.approx(value, rel=1e-9, abs=1e-12), name

    def test_excess_returns_agree_with_products(self) -> None:
        returns = random_returns(11, symbols=1)
        own, market = returns["price_change_1d"].to_numpy(), returns["market_return_1d"].to_numpy()
        for n in (5, 20, 60, 120):
            expected = [np.prod(1 + own[end - n + 1 : end + 1]) - np.prod(1 + market[end - n + 1 : end + 1]) for end in range(n, len(own))]
            np.testing.assert_allclose(alpha_market(returns)[f"excess_return_{n}"][n:].to_numpy(), expected, rtol=1e-10, atol=1e-13)

    @pytest.mark.parametrize("cut", [1, 100, TILE_ROWS - 300, TILE_ROWS + 3])
    def test_nothing_before_the_look_back_and_nothing_later_changes_a_bit(self, cut: int) -> None:
        returns = random_returns(cut, rows=TILE_ROWS + 700, symbols=2).filter(pl.int_range(pl.len()).over("symbol") < TILE_ROWS + 500)
        whole = alpha_market(returns)
        later = pl.int_range(pl.len()).over("symbol") >= cut + LOOKBACK
        cut_off = alpha_market(returns.filter(pl.int_range(pl.len()).over("symbol") >= cut))
        assert_frame_equal(cut_off.filter(pl.int_range(pl.len()).over("symbol") >= LOOKBACK), whole.filter(later), check_exact=True)
        earlier = pl.int_range(pl.len()).over("symbol") < cut
        assert_frame_equal(alpha_market(returns.filter(earlier)), whole.filter(earlier), check_exact=True)

    def test_neither_order_nor_other_symbols_change_a_bit(self) -> None:
        returns = random_returns(5, symbols=4)
        whole = alpha_market(returns)
        assert_frame_equal(alpha_market(returns.sample(fraction=1.0, seed=1, shuffle=True)), whole, check_exact=True)
        assert_frame_equal(alpha_market(returns.filter(symbol="S2")), whole.filter(symbol="S2"), check_exact=True)

    def test_an_unknown_market_return_blanks_its_windows_alone(self) -> None:
        returns = random_returns(6, rows=600, symbols=1)
        hole = pl.int_range(pl.len()) == 260
        computed = alpha_market(returns.with_columns(pl.when(~hole).then("market_return_1d").alias("market_return_1d")))
        whole = alpha_market(returns)
        for feature in ALPHA_MARKET[:-1]:
            known = computed[feature.name].is_not_null()
            blank = (~known).arg_true().to_list()
            assert blank == [*range(feature.lookback), *range(max(260, feature.lookback), 260 + feature.lookback)]
            assert computed[feature.name].filter(known).equals(whole[feature.name].filter(known))

    def test_a_single_row_and_none(self) -> None:
        single = alpha_market(random_returns(1)[:1])
        assert single.select(NAMES).null_count().row(0) == (1,) * len(NAMES)
        assert alpha_market(random_returns(1).clear()).columns == ["symbol", "session", *NAMES, "known_at"]
