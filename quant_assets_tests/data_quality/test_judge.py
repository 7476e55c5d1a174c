"""Everything at once over one panel: what is found, and what is said of that which could not be judged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import polars as pl
import pytest

from quant_assets.clock import trading_calendar
from quant_assets.data_quality.calibration_report.injection import inject
from quant_assets.data_quality.calibration_report.report import as_panel
from quant_assets.data_quality.catalog import RULES
from quant_assets.data_quality.findings import NOTHING
from quant_assets.data_quality.judge import DETECTOR_SIGHT, Judgement, judge
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.lookahead import NO_ACTIONS

CALENDAR = trading_calendar("XNYS", date(2021, 1, 4))
PRICES = ("open", "high", "low", "close")


def bars(symbols: int = 24, n: int = 130) -> pl.DataFrame:
    generated = market(5, symbols, n)
    days = generated["session"].unique().sort()
    sessions = pl.col("session").replace_strict(days.to_list(), list(CALENDAR.sessions[:n]))
    return as_panel(generated.with_columns(session=sessions), CALENDAR)


def judged(panel: pl.DataFrame, actions: pl.DataFrame = NO_ACTIONS) -> Judgement:
    return judge(panel, actions, CALENDAR)


THIN: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "one symbol": lambda panel: panel.filter(pl.col("symbol") == "S01"),
    "five bars": lambda panel: panel.filter(pl.col("symbol") == "S01").head(5),
    "one bar": lambda panel: panel.head(1),
    "no volume": lambda panel: panel.with_columns(volume=pl.lit(None, pl.Float64)),
    "no trade": lambda panel: panel.with_columns(volume=pl.lit(0.0)),
    "constant prices": lambda panel: panel.with_columns(pl.lit(10.0).alias(name) for name in PRICES),
    "nulls everywhere": lambda panel: panel.with_columns(pl.lit(None, pl.Float64).alias(name) for name in (*PRICES, "volume")),
}


class TestRegression:
    @pytest.mark.parametrize("what", THIN)
    def test_what_cannot_be_judged_is_said(self, what: str) -> None:
        told = judged(THIN[what](bars()))
        assert told.not_judged.schema == {"reason": pl.String, "bars": pl.Int64}
        assert told.not_judged.height > 0
        assert told.findings.schema == NOTHING.schema
        assert told.findings["score"].is_between(0, 1).all()
        expected = {
            "one symbol": "fewer than 10 symbols",
            "five bars": "too few earlier bars",
            "one bar": "no close before it",
            "no volume": "volume is not known",
            "no trade": "fewer than 60 earlier bars",
            "constant prices": "its price hardly moves",
            "nulls everywhere": "open or close is missing",
        }[what]
        assert any(expected in reason for reason in told.not_judged["reason"])

    def test_nothing_is_nothing(self) -> None:
        told = judged(bars().clear())
        assert (told.findings.height, told.not_judged.height) == (0, 0)

    def test_few_symbols_hold_no_bar_back_by_a_learned_score(self) -> None:
        panel = bars(symbols=3)
        wrong = (pl.col("symbol") == "S01") & (pl.col("session") == CALENDAR.sessions[100])
        panel = panel.with_columns(close=pl.when(wrong).then(pl.col("close") * 1.2).otherwise("close")).with_columns(
            high=pl.max_horizontal("high", "close")
        )
        found = judged(panel).findings.filter(pl.col("session") == CALENDAR.sessions[100])
        learned = found.filter(pl.col("rule") == "suspicious_close")
        assert learned.filter(pl.col("symbol") == "S01").height > 0
        assert set(learned["severity"]) == {"info"}
        assert "critical" in set(found.filter(pl.col("symbol") == "S01")["severity"])  # the rules know it without the market

    def test_severity_is_the_rate_that_the_desk_chose(self) -> None:
        panel = bars()
        strict, lax = (judge(panel, NO_ACTIONS, CALENDAR, rates=rates).findings for rates in ((1e-12, 1e-11), (0.4, 0.45)))
        assert set(strict["severity"]) <= {"info"}
        assert strict.drop("severity").equals(lax.drop("severity"))
        assert lax.filter(pl.col("severity") == "critical").height > 0.9 * lax.height


class TestProperties:
    def test_every_rule_is_in_the_catalog_and_every_detector_has_a_sight(self) -> None:
        injection = inject(bars(40, 250), NO_ACTIONS, CALENDAR, seed=3, rates=None)
        found = judged(injection.bars, injection.actions).findings
        assert found["rule"].n_unique() > 8
        assert set(found["rule"]) <= set(RULES)
        assert set(found["detector"]) <= set(DETECTOR_SIGHT)

    def test_at_least_the_highest_hundredth_of_the_bars_is_stored(self) -> None:
        panel = bars()
        found = judged(panel).findings.filter(pl.col("rule") == "suspicious_close")
        for (detector,), told in found.group_by("detector"):
            assert told.height >= 0.01 * (panel.height - 24 * DETECTOR_SIGHT[str(detector)])

    def test_bars_in_many_pieces_are_judged_as_in_one(self) -> None:
        whole = bars()
        pieces = pl.concat([whole[start : start + 37] for start in range(0, whole.height, 37)], rechunk=False)
        assert pieces.n_chunks() > 50
        assert judged(pieces).findings.equals(judged(whole).findings)

    def test_a_learned_score_holds_back_no_bar_of_a_symbol_that_trades_thinly(self) -> None:
        day = CALENDAR.sessions[100]
        wrong = pl.col("symbol").is_in(["S03", "S05"]) & (pl.col("session") == day)
        still = (pl.col("symbol") == "S03") & (pl.col("session").rank("dense") % 8 == 0)
        panel = bars().with_columns(open=pl.when(still).then("close").otherwise("open"))
        panel = panel.with_columns(close=pl.when(wrong).then(pl.col("close") * 1.15).otherwise("close"))
        told = judged(panel.with_columns(high=pl.max_horizontal("high", "close")))
        learned = told.findings.filter(pl.col("rule") == "suspicious_close", pl.col("session") == day, pl.col("detector") == "next_session")
        severities = dict(learned.select("symbol", "severity").iter_rows())
        assert (severities["S05"], severities["S03"]) == ("critical", "warning")
        assert "of symbols that trade thinly: a learned score holds none back" in set(told.not_judged["reason"])
