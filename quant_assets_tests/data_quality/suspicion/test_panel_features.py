"""Features of a panel of bars."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.data_quality.suspicion.panel_features import panel_features, shifted
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.lookahead import sessions_from

DAYS = sessions_from(date(2021, 1, 4), 30)


def steady(symbols: int = 12) -> pl.DataFrame:
    """Shares at 100 whose gap alternates between +1 % and -1 % and whose session moves not at all, volume 1,000."""
    level = [100.0 * 1.01 ** (n % 2) for n in range(len(DAYS))]
    rows = {"session": DAYS, "open": level, "high": level, "low": level, "close": level, "volume": [1000.0] * len(DAYS)}
    return pl.concat([pl.DataFrame(rows).with_columns(symbol=pl.lit(f"S{n:02d}")) for n in range(symbols)])


class TestRegression:
    def test_the_market_is_taken_out_and_what_is_left_measured_against_the_usual(self) -> None:
        last = pl.col("session") == DAYS[-1]
        lone = last & (pl.col("symbol") == "S03")
        bars = steady().with_columns(
            pl.when(lone).then(pl.col(name) * 1.05).otherwise(pl.col(name)) for name in ("open", "high", "low", "close")
        )
        features = panel_features(bars)
        at = len(DAYS) - 1, features.symbols.to_list().index("S03")
        assert features.gap[at] == pytest.approx(np.log(1.05))
        assert features.gap[at[0], 0] == pytest.approx(0.0, abs=1e-12)
        assert features.move[at] == 0.0
        assert features.history[at] == len(DAYS) - 1
        assert features.volume[at] == pytest.approx(0.0)

    def test_the_close_before_a_hole_is_the_last_one_known(self) -> None:
        lone = steady(1).filter(pl.col("session") != DAYS[20])
        other = steady(1).with_columns(symbol=pl.lit("ZZZ"))
        features = panel_features(pl.concat([lone, other]))
        assert np.isnan(features.gap[20, 0])
        assert features.gap[21, 0] == pytest.approx(np.log(1.0))  # from the session before the hole, at 1.01 as this one
        assert not features.present[20, 0]

    def test_prices_and_volumes_that_cannot_be_are_unknown(self) -> None:
        bars = steady(1).with_columns(volume=pl.when(pl.col("session") == DAYS[5]).then(0.0).otherwise("volume"))
        bars = bars.with_columns(close=pl.when(pl.col("session") == DAYS[5]).then(-1.0).otherwise("close"))
        raw = panel_features(bars).raw
        assert np.isnan(raw["volume"][5, 0])
        assert np.isnan(raw["close"][5, 0])

    def test_shifting(self) -> None:
        values = np.arange(3.0)[:, None]
        assert shifted(values, 1)[1:, 0].tolist() == [0.0, 1.0]
        assert shifted(values, -1)[:2, 0].tolist() == [1.0, 2.0]
        assert np.isnan(shifted(values, 3)).all()
        assert shifted(values, 0).tolist() == values.tolist()


class TestProperties:
    def test_no_value_looks_ahead(self) -> None:
        bars = market(seed=2, symbols=25, n=120)
        full = panel_features(bars)
        for position in (3, 40, 90):
            cut = panel_features(bars.filter(pl.col("session") <= full.sessions[position]))
            for name in ("gap", "move", "gap_scale", "move_scale", "volume", "history"):
                assert np.array_equal(getattr(full, name)[: position + 1], getattr(cut, name), equal_nan=True), name

    def test_residuals_hardly_follow_the_market_and_are_scaled_to_one(self) -> None:
        features = panel_features(market(seed=3, symbols=60, n=250))
        later = slice(130, None)
        scaled = features.gap[later] / features.gap_scale[later]
        assert np.median(np.abs(scaled)) * 1.4826 == pytest.approx(1.0, abs=0.1)
        assert (features.gap_scale[1:] > 0).all()
