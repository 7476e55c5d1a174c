"""One series under two symbols."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from quant_assets.data_quality.findings import NOTHING
from quant_assets.data_quality.rules.identity import IDENTICAL_SESSIONS, identical_series
from quant_assets_tests.data_quality.rules.test_prices import DAYS, at, found, frame, series


class TestRegression:
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


class TestProperties:
    def test_findings_have_the_form_of_their_table(self) -> None:
        for bars in (frame(), frame(*series("AAA", 0, 6), *series("BBB", 0, 6))):
            assert identical_series(bars).schema == NOTHING.schema
            assert (
                not identical_series(bars)
                .select(pl.struct(["symbol", "session", "rule", "detector", "bar_known_at"]).is_duplicated().any())
                .item()
            )

    @pytest.mark.parametrize("seed", range(10))
    def test_a_finding_is_made_from_what_was_known_at_its_instant_and_not_before(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        rows = [row for symbol in ("AAA", "BBB", "CCC") for row in series(symbol, 0, 12) if random.random() > 0.06]
        bars = frame(*rows)
        late = pl.Series(np.where(random.random(bars.height) < 0.2, random.integers(1, 9, bars.height), 0))
        bars = bars.with_columns(pl.col("known_at") + pl.duration(days=late))
        complete = {
            (symbol, session): known
            for symbol, session, known in identical_series(bars).select("symbol", "session", "known_at").iter_rows()
        }
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
