"""The market's session from its symbols: numbers by hand, Polars as the oracle, and no dependence on order or other sessions."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.feature_store.catalog import ALPHA_CROSS_SECTION
from quant_assets.feature_store.market_series import market_series
from quant_assets_tests.lookahead import sessions_from

FEATURES = [feature for feature in ALPHA_CROSS_SECTION if feature.table == "market_v1"]
DAY = date(2020, 1, 2)


def returns_of(*changes: float | None, session: date = DAY) -> pl.DataFrame:
    symbols = [f"S{number}" for number in range(len(changes))]
    return pl.DataFrame({"symbol": symbols, "session": session, "price_change_1d": pl.Series(changes, dtype=pl.Float64)})


def random_returns(seed: int, symbols: int = 40, sessions: int = 30) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    frame = pl.DataFrame({"symbol": [f"S{number}" for number in range(symbols)]}).join(
        pl.DataFrame({"session": sessions_from(DAY, sessions)}), how="cross"
    )
    changes = pl.Series("price_change_1d", random.standard_t(3, frame.height) / 50)
    return frame.with_columns(changes).sample(fraction=0.9, seed=seed, shuffle=True)


class TestRegression:
    def test_four_returns(self) -> None:
        row = market_series(returns_of(0.01, -0.03, 0.04, 0.0)).row(0, named=True)
        assert row["session"] == DAY
        assert row["symbols"] == 4
        assert row["market_return_1d"] == pytest.approx(0.005, rel=1e-14)
        assert row["market_dispersion_1d"] == pytest.approx((0.0025 / 3) ** 0.5, rel=1e-14)
        assert row["market_breadth_1d"] == 0.5
        assert row["market_skewness_1d"] == pytest.approx(0.0, abs=1e-14)

    def test_a_missing_return_does_not_count(self) -> None:
        assert_frame_equal(market_series(returns_of(0.01, -0.03, None)), market_series(returns_of(0.01, -0.03)))

    def test_what_few_or_equal_returns_leave_unknown(self) -> None:
        one, two = market_series(returns_of(0.02)).row(0, named=True), market_series(returns_of(0.02, 0.04)).row(0, named=True)
        assert (one["market_return_1d"], one["market_dispersion_1d"], one["market_skewness_1d"]) == (0.02, None, None)
        assert two["market_dispersion_1d"] == pytest.approx(0.02 / 2**0.5, rel=1e-14)
        assert two["market_skewness_1d"] is None
        level = market_series(returns_of(*[0.1] * 7)).row(0, named=True)
        assert (level["market_return_1d"], level["market_dispersion_1d"], level["market_skewness_1d"]) == (0.1, 0.0, None)

    def test_no_returns_are_no_sessions(self) -> None:
        assert market_series(returns_of(None)).columns == ["session", "symbols", *(feature.name for feature in FEATURES)]
        assert market_series(returns_of(None)).is_empty()


class TestProperties:
    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_polars(self, seed: int) -> None:
        returns, change = random_returns(seed), pl.col("price_change_1d")
        expected = (
            returns.group_by("session")
            .agg(change.len().alias("symbols").cast(pl.Int64), change.mean(), change.std().alias("std"), (change > 0).mean().alias("up"), change.skew().alias("skew"))
            .sort("session")
        )  # fmt: skip
        expected.columns = market_series(returns).columns
        assert_frame_equal(market_series(returns), expected, rel_tol=1e-11, abs_tol=1e-13)

    @pytest.mark.parametrize("seed", range(5))
    def test_neither_order_nor_other_sessions_change_a_bit(self, seed: int) -> None:
        returns = random_returns(seed)
        whole = market_series(returns)
        assert_frame_equal(market_series(returns.sample(fraction=1.0, seed=seed, shuffle=True)), whole, check_exact=True)
        days = whole["session"].sample(7, seed=seed)
        alone = market_series(returns.filter(pl.col("session").is_in(days.implode())))
        assert_frame_equal(alone, whole.filter(pl.col("session").is_in(days.implode())), check_exact=True)

    @pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: str(feature.name))
    def test_stays_in_the_catalogs_range(self, feature) -> None:  # type: ignore[no-untyped-def]
        values = market_series(
            pl.concat([random_returns(seed).with_columns(pl.col("session").dt.offset_by(f"{seed}y")) for seed in range(4)])
        )[feature.name]
        assert values.null_count() == 0
        assert values.is_between(
            feature.low if feature.low is not None else -np.inf, feature.high if feature.high is not None else np.inf
        ).all()
