"""Rules that no bar may break."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quant_assets.data_quality.rules import IDENTICAL_SESSIONS, identical_series, judge, non_positive_price, ohlc_order
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
        findings = judge(frame(("AAA", DAYS[0], 10, 10.5, 9, 11, 5), *series("BBB", 0, 3)))
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
                "known_at": at(0),
            }
        ]

    def test_one_series_under_two_symbols_is_found_once_it_is_long_enough(self) -> None:
        assert IDENTICAL_SESSIONS == 5
        four = frame(*series("AAA", 0, 4), *series("BBB", 0, 4))
        assert identical_series(four).is_empty()
        findings = identical_series(frame(*series("AAA", 0, 7), *series("BBB", 0, 7), *series("CCC", 0, 7, offset=1.0)))
        assert found(findings) == [(symbol, day) for symbol in ("AAA", "BBB") for day in DAYS[:7]]
        instants = dict(findings.filter(pl.col("symbol") == "AAA").select("session", "known_at").iter_rows())
        assert instants == {**dict.fromkeys(DAYS[:5], at(4)), DAYS[5]: at(5), DAYS[6]: at(6)}
        assert set(findings["detail"]) == {
            f"the same open, high, low, close and volume as {twin} for 5 sessions or more" for twin in ("AAA", "BBB")
        }

    def test_a_series_completed_by_a_late_bar_is_found_when_that_bar_is_known(self) -> None:
        bars = frame(*series("AAA", 0, 6), *series("BBB", 0, 6))
        late = (pl.col("symbol") == "BBB") & (pl.col("session") == DAYS[1])
        bars = bars.with_columns(known_at=pl.when(late).then(pl.lit(at(9))).otherwise("known_at"))
        findings = identical_series(bars)
        instants = dict(findings.filter(pl.col("symbol") == "AAA").select("session", "known_at").iter_rows())
        # Sessions 1 to 5 lie in the stretch 1 to 5 or 0 to 4, which both hold the late bar.
        assert instants == dict.fromkeys(DAYS[:6], at(9))
        assert set(findings.filter(pl.col("symbol") == "BBB", pl.col("session") == DAYS[1])["bar_known_at"]) == {at(9)}

    @pytest.mark.parametrize("volume", [None, 0.0])
    def test_bars_that_did_not_trade_do_not_count(self, volume: float | None) -> None:
        assert identical_series(frame(*series("AAA", 0, 8, volume=volume), *series("BBB", 0, 8, volume=volume))).is_empty()

    def test_a_session_that_differs_breaks_the_run(self) -> None:
        rows = [*series("AAA", 0, 9), *series("BBB", 0, 4), *series("BBB", 4, 5, offset=0.5), *series("BBB", 5, 9)]
        assert identical_series(frame(*rows)).is_empty()
        assert found(identical_series(frame(*rows), sessions_in_a_row=4)) == [
            (s, d) for s in ("AAA", "BBB") for d in (*DAYS[:4], *DAYS[5:9])
        ]

    def test_real_bars_break_the_known_rules_only(self) -> None:
        panel = sp500_panel()
        if panel is None:
            pytest.skip("the shared market data is not at hand")
        findings = judge(panel.filter(pl.col("session") < date(2014, 1, 1)))
        assert findings.is_empty()  # the panel comes without its faulty rows


class TestProperties:
    def test_findings_have_the_form_of_their_table(self) -> None:
        declared = {name: dtype for name, dtype in ANOMALIES.polars_schema.items() if name != "recorded_at"}
        for bars in (frame(), frame(*series("AAA", 0, 6), *series("BBB", 0, 6))):
            assert judge(bars).schema == declared
            assert not judge(bars).select(pl.struct(ANOMALIES.key).is_duplicated().any()).item()

    @pytest.mark.parametrize("seed", range(10))
    def test_a_finding_is_made_from_what_was_known_at_its_instant_and_not_before(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        rows = [row for symbol in ("AAA", "BBB", "CCC") for row in series(symbol, 0, 12) if random.random() > 0.06]
        bars = frame(*rows)
        late = pl.Series(np.where(random.random(bars.height) < 0.2, random.integers(1, 9, bars.height), 0))
        bars = bars.with_columns(pl.col("known_at") + pl.duration(days=late))
        complete = {(symbol, session): known for symbol, session, known in judge(bars).select("symbol", "session", "known_at").iter_rows()}
        order = {day: n for n, day in enumerate(sorted(bars["session"].unique()))}
        first_found: dict[tuple[str, date], datetime] = {}
        for instant in bars["known_at"].unique().sort():
            # Sessions in a row are counted in the whole calendar, which holes in what is known so far do not change.
            seen = bars.filter(pl.col("known_at") <= instant)
            for symbol, session in _in_common_runs(seen, order):
                first_found.setdefault((symbol, session), instant)
        assert complete
        assert complete == first_found


def _in_common_runs(bars: pl.DataFrame, order: dict[date, int]) -> set[tuple[str, date]]:
    """Oracle: bars inside five sessions in a row that two symbols both have (all bars of a session are equal here)."""
    have = {symbol: {order[day] for day in part["session"]} for (symbol,), part in bars.group_by("symbol")}
    days = {n: day for day, n in order.items()}
    return {
        (str(symbol), days[n])
        for symbol in have
        for twin in have
        if twin != symbol
        for start in have[symbol]
        if all(start + k in have[symbol] & have[twin] for k in range(5))
        for n in range(start, start + 5)
    }
