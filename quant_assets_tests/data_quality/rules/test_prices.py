"""Prices that contradict each other within one bar."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import polars as pl
import pytest

from quant_assets.data_quality.findings import NOTHING
from quant_assets.data_quality.rules.prices import non_positive_price, ohlc_order
from quant_assets.schemas import ANOMALIES
from quant_assets_tests.lookahead import evening, sessions_from, sp500_panel

DAYS = sessions_from(date(2020, 3, 2), 12)
SCHEMA = {"symbol": pl.String, "session": pl.Date, **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)}


def frame(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row").with_columns(evening())


def series(symbol: str, first: int, last: int, offset: float = 0.0, volume: float | None = 500.0) -> list[tuple[object, ...]]:
    """Bars of a symbol on DAYS[first:last], which equal another symbol's of the same offset."""
    return [
        (symbol, DAYS[n], 10.0 + n + offset, 12.0 + n + offset, 9.0 + n + offset, 11.0 + n + offset, volume) for n in range(first, last)
    ]


def found(findings: pl.DataFrame) -> list[tuple[str, date]]:
    return sorted(findings.select("symbol", "session").rows())


def at(day: int) -> datetime:
    return datetime.combine(DAYS[day], datetime.min.time()) + timedelta(hours=21, minutes=30)


class TestRegression:
    @pytest.mark.parametrize(
        ("prices", "broken"),
        [
            ((10, 12, 9, 11), False),
            ((10, 10, 10, 10), False),
            ((10, 10.5, 9, 11), True),  # close above high
            ((13, 12, 9, 11), True),  # open above high
            ((10, 12, 10.5, 11), True),  # open below low
            ((10, 12, 9, 8), True),  # close below low
            ((10, 9, 12, 11), True),  # high below low
        ],
    )
    def test_order_of_the_four_prices(self, prices: tuple[float, ...], broken: bool) -> None:
        findings = ohlc_order(frame(("AAA", DAYS[0], *prices, 5)))
        assert found(findings) == [("AAA", DAYS[0])] * broken

    @pytest.mark.parametrize(
        ("prices", "broken"), [((1, 1, 1, 1), False), ((1, 1, 0, 1), True), ((-1, 1, -1, 1), True), ((1, 1, 1, None), True)]
    )
    def test_prices_are_positive(self, prices: tuple[float, ...], broken: bool) -> None:
        findings = non_positive_price(frame(("AAA", DAYS[0], *prices, 5)))
        assert found(findings) == [("AAA", DAYS[0])] * broken

    def test_a_finding_says_which_version_why_and_since_when(self) -> None:
        findings = ohlc_order(frame(("AAA", DAYS[0], 10, 10.5, 9, 11, 5), *series("BBB", 0, 3)))
        assert findings.to_dicts() == [
            {
                "symbol": "AAA",
                "session": DAYS[0],
                "rule": "ohlc_order",
                "detector": "rules",
                "bar_known_at": at(0),
                "score": 1.0,
                "severity": "critical",
                "detail": "open 10.0, high 10.5, low 9.0, close 11.0 are out of order",
                "suggestion": None,
                "known_at": at(0),
            }
        ]

    def test_real_bars_break_the_known_rules_only(self) -> None:
        panel = sp500_panel()
        if panel is None:
            pytest.skip("the shared market data is not at hand")
        assert ohlc_order(panel).is_empty()
        assert non_positive_price(panel).is_empty()  # the panel comes without its faulty rows


class TestProperties:
    def test_findings_have_the_form_of_their_table(self) -> None:
        declared = {name: dtype for name, dtype in ANOMALIES.polars_schema.items() if name not in ("source", "recorded_at")}
        assert NOTHING.schema == declared
        for rule in (ohlc_order, non_positive_price):
            assert rule(frame()).schema == declared
            assert rule(frame(*series("AAA", 0, 6))).schema == declared
