"""Tickers that change hands: whose bar it is, from when to when, and whose it stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.market_data.instruments import JUMP, changed_hands, namesakes, resolve
from quant_assets.warehouse import Warehouse
from quant_assets_tests.market_data.deliveries import COLUMNS, Nights, Vendor

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
S = tuple(CALENDAR.between(date(2020, 3, 2), date(2020, 5, 29)))
SESSIONS = CALENDAR.frame(S[0], S[-1])
KNOWN = {"symbol": pl.String, "ticker": pl.String, "valid_from": pl.Date, "valid_to": pl.Date}


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    """Three steady symbols beside whatever a test is about."""
    vendor = Vendor(tmp_path / "in", CALENDAR)
    for n, symbol in enumerate(("AAA", "BBB", "CCC"), 1):
        vendor.trades(symbol, flat(10.0 * n, 0, len(S)))
    return vendor


@pytest.fixture
def nights(vendor: Vendor, open_warehouse: Warehouse) -> Nights:
    return Nights(vendor.folder, CALENDAR, open_warehouse)


def flat(close: float, first: int, end: int) -> dict[date, float]:
    """Closes near a level, from one session to before another."""
    return {S[at]: round(close * (1 + 0.001 * (at % 7)), 4) for at in range(first, end)}


def others(nights: Nights) -> list[tuple[str, str, date, date | None]]:
    return [row for row in nights.instruments() if row[0] not in {"AAA", "BBB", "CCC"}]


def found(closes: dict[date, float], actions: tuple[date, ...] = (), listed: date | None = None) -> list[tuple[str, date]]:
    """The changes of hands in one symbol's series of closes, delivered at once."""
    bars = pl.DataFrame({"symbol": "SSE", "session": list(closes), "close": list(closes.values())}, schema_overrides={"close": pl.Float64})
    explained = pl.DataFrame({"symbol": ["SSE"] * len(actions), "session": list(actions)}, schema={"symbol": pl.String, "session": pl.Date})
    lists = pl.DataFrame(
        {"symbol": ["SSE"], "listed_from": [listed]} if listed else None, schema={"symbol": pl.String, "listed_from": pl.Date}
    )
    changes = changed_hands(bars, bars.clear(), explained, SESSIONS, lists, pl.DataFrame(schema=KNOWN))
    return [(symbol, valid_from) for symbol, _, valid_from, _ in changes.rows()]


class TestRegression:
    @pytest.mark.parametrize("by_night", [True, False])
    def test_a_ticker_with_a_gap_and_a_jump_is_somebody_else_and_so_is_the_third_holder(
        self, vendor: Vendor, nights: Nights, by_night: bool
    ) -> None:
        for close, first, end in ((2.0, 0, 4), (40.0, 8, 11), (200.0, 15, 20)):
            vendor.trades("SSE", flat(close, first, end))
        for day in S[1:18]:
            vendor.send(day)
        for day in S[1:18] if by_night else S[17:18]:
            nights.night(day)
        assert others(nights) == [("SSE", "SSE", S[0], S[3]), ("SSE.2", "SSE", S[8], S[10]), ("SSE.3", "SSE", S[15], None)]
        assert [list(nights.closes(symbol)) for symbol in ("SSE", "SSE.2", "SSE.3")] == [list(S[0:4]), list(S[8:11]), list(S[15:18])]

    def test_before_the_change_nobody_knew_of_it(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 11))
        for day in S[1:9]:
            vendor.send(day)
        nights.night(S[8])
        instruments = "select symbol, valid_to from market_data.instruments_as_of($at) where ticker = 'SSE' order by symbol"
        assert nights.read(instruments, at=CALENDAR.known_at(S[7])) == [("SSE", None)]
        assert nights.read(instruments, at=CALENDAR.known_at(S[8])) == [("SSE", S[3]), ("SSE.2", None)]

    def test_the_adjusted_return_at_the_change_is_absent(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 12))
        for day in S[1:12]:
            vendor.send(day)
        nights.night(S[11])
        bars = nights.warehouse.read("select * exclude (adj_close) from market_data.latest_daily_bars")
        actions = nights.warehouse.read("select * from market_data.latest_corporate_actions")
        returns = forward_adjusted(bars, actions).select(change=pl.col("adj_close").pct_change().over("symbol"))["change"]
        assert returns.null_count() == 5  # the first bar of each symbol, SSE.2 among them
        assert returns.abs().max() < 0.01  # type: ignore[operator]

    def test_later_deliveries_and_restatements_of_old_sessions_go_to_the_right_holder(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 12))
        for day in S[1:10]:
            vendor.send(day)
        nights.night(S[9])
        vendor.changes = {("SSE", S[2]): {"close": 2.5}, ("SSE", S[8]): {"close": 41.5}}
        vendor.send(S[10], rows=vendor.rows(S[10], sessions=11))
        nights.night(S[10])
        assert (nights.closes("SSE")[S[2]], nights.closes("SSE.2")[S[8]]) == (2.5, 41.5)
        assert len(others(nights)) == 2

    def test_a_rerun_of_what_was_landed_changes_nothing(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 12))
        for day in S[1:10]:
            vendor.send(day)
        nights.night(S[9])
        before = nights.hashes()
        for at in (8, 9):
            vendor.send(S[at], rows=list(reversed(vendor.rows(S[at]))))  # the same bars in another file
        assert [(landing.new, landing.restated, landing.newcomers) for landing in nights.night(S[9])] == [(0, 0, ())] * 2
        after = nights.hashes()
        assert [name for name in before if before[name] != after[name]] == ["market_data.fetch_ledger"]

    def test_a_name_that_somebody_has_is_passed_over(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE.2", flat(5.0, 0, 20))
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 12))
        for day in S[1:12]:
            vendor.send(day)
        nights.night(S[11])
        assert others(nights) == [("SSE", "SSE", S[0], S[3]), ("SSE.2", "SSE.2", S[0], None), ("SSE.3", "SSE", S[8], None)]

    def test_a_ticker_that_comes_later_and_is_called_as_a_symbol_of_ours_keeps_apart_from_it(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 16))
        vendor.trades("SSE.2", flat(5.0, 12, 16))
        for day in S[1:15]:
            vendor.send(day)
        nights.night(S[14])
        assert others(nights) == [("SSE", "SSE", S[0], S[3]), ("SSE.2", "SSE", S[8], None), ("SSE.2.2", "SSE.2", S[12], None)]
        assert list(nights.closes("SSE.2").values()) == pytest.approx([40.0] * 7, rel=0.01)
        assert list(nights.closes("SSE.2.2")) == list(S[12:15])

    def test_a_late_delivery_tells_that_the_next_holder_began_earlier(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 16))
        for day in (*S[1:6], *S[11:13]):
            vendor.send(day)
        nights.night(S[12])
        assert others(nights) == [("SSE", "SSE", S[0], S[3]), ("SSE.2", "SSE", S[10], None)]
        for day in (*S[6:11], S[13]):
            vendor.send(day)
        nights.night(S[13])
        assert others(nights) == [("SSE", "SSE", S[0], S[3]), ("SSE.2", "SSE", S[8], None)]
        assert list(nights.closes("SSE.2")) == list(S[8:14])

    def test_the_first_own_price_of_a_new_listing(self, vendor: Vendor, nights: Nights) -> None:
        vendor.listed = ["AAA", "BBB", "CCC"]
        for day in S[1:4]:
            vendor.send(day)
        vendor.listed = [*vendor.listed, "SHOP"]
        vendor.trades("SHOP", flat(5.0, 4, 6) | flat(28.0, 6, 9) | flat(120.0, 9, 12))
        for day in S[4:11]:
            vendor.send(day)
        nights.night(S[10])
        assert others(nights) == [("SHOP", "SHOP", S[4], S[5]), ("SHOP.2", "SHOP", S[6], None)]  # once: what comes then is a return

    def test_a_jump_that_the_vendor_explains_is_a_return(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 4) | flat(40.0, 8, 12))
        for day in S[1:10]:
            rows = [row | {"split": 0.05 if (row["symbol"], row["date"]) == ("SSE", S[8]) else 1} for row in vendor.rows(day)]
            vendor.send(day, rows, columns=[*COLUMNS, "split"])
        nights.night(S[9])
        assert others(nights) == [("SSE", "SSE", S[0], None)]
        assert nights.actions() == [("SSE", S[8], "split", 0.05)]

    @pytest.mark.parametrize(
        ("closes", "changes"),
        [
            (flat(2.0, 0, 4) | flat(6.1, 6, 9), [S[6]]),  # two sessions missing, three times the price
            (flat(2.0, 0, 4) | flat(6.1, 5, 9), []),  # one session missing
            (flat(2.0, 0, 4) | flat(6.1, 4, 9), []),  # none missing
            (flat(2.0, 0, 4) | flat(5.9, 6, 9), []),  # less than three times the price
            (flat(9.0, 0, 4) | flat(2.9, 9, 12), []),  # a fall by two thirds after a short halt
            (flat(9.0, 0, 4) | flat(2.9, 23, 26), []),  # and after 19 sessions
            (flat(9.0, 0, 4) | flat(2.9, 24, 26), [S[24]]),  # a month without a bar
            (flat(2.0, 0, 4) | flat(0.0, 4, 8) | flat(8.0, 8, 10), []),  # a price of zero is no gap
            (flat(0.0, 0, 4) | flat(8.0, 8, 10), []),  # and no price to jump from
            (flat(2.0, 0, 4) | flat(0.0, 7, 9) | flat(8.0, 9, 12), []),  # the gap lies before a bar that tells nothing
        ],
    )
    def test_what_is_a_change_of_hands_and_what_is_a_return(self, closes: dict[date, float], changes: list[date]) -> None:
        assert found(closes) == [("SSE.2", session) for session in changes]
        assert found(closes, actions=tuple(changes)) == []

    def test_zero_prices_across_nights_are_no_gap(self, vendor: Vendor, nights: Nights) -> None:
        vendor.trades("SSE", flat(2.0, 0, 3) | flat(0.0, 3, 8) | flat(8.0, 8, 11))
        for day in S[1:10]:
            vendor.send(day)
        nights.night(S[9])
        assert others(nights) == [("SSE", "SSE", S[0], None)]

    def test_a_ticker_means_whoever_held_it_on_that_session(self) -> None:
        known = pl.DataFrame(
            [("SSE", "SSE", S[0], S[3]), ("SSE.2", "SSE", S[8], None), ("ONE", "ONE", S[0], None), ("ZZZ.2.2", "ZZZ.2", S[5], None)],
            schema=KNOWN,
            orient="row",
        )
        asked = [("SSE", S[8]), ("SSE", S[7]), ("SSE", S[20]), ("ONE", S[8]), ("NEW", S[1]), ("ZZZ.2", S[1]), ("ZZZ.2", S[9])]
        frame = pl.DataFrame(asked, schema={"symbol": pl.String, "session": pl.Date}, orient="row")
        assert resolve(frame, known)["symbol"].to_list() == ["SSE.2", "SSE", "SSE.2", "ONE", "NEW", "ZZZ.2.2", "ZZZ.2.2"]
        assert resolve(frame, known.clear()).equals(frame)
        assert namesakes(frame, known).is_empty()  # ZZZ.2 is known


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(
        levels=st.lists(st.tuples(st.floats(0.5, 500), st.integers(1, 6), st.integers(0, 25)), min_size=1, max_size=5),
        cut=st.integers(0, 40),
    )
    def test_two_deliveries_find_what_one_finds(self, levels: list[tuple[float, int, int]], cut: int) -> None:
        """Stretches of some sessions on some level, some sessions apart, told at once or in two."""
        closes: dict[date, float] = {}
        at = 0
        for level, length, gap in levels:
            closes |= {S[n]: level for n in range(at, min(at + length, len(S)))}
            at += length + gap
        bars = pl.DataFrame({"symbol": "SSE", "session": list(closes), "close": list(closes.values())})
        none = pl.DataFrame(schema={"symbol": pl.String, "session": pl.Date})
        lists = pl.DataFrame(schema={"symbol": pl.String, "listed_from": pl.Date})
        known = pl.DataFrame(schema=KNOWN)
        find: Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame], pl.DataFrame] = lambda some, last, known: changed_hands(  # noqa: E731
            some, last, none, SESSIONS, lists, known
        )
        whole = find(bars, bars.clear(), known)
        early, late = bars.filter(pl.col("session") < S[cut]), bars.filter(pl.col("session") >= S[cut])
        first = find(early, early.clear(), known)
        if early.height:
            known = pl.concat([pl.DataFrame([("SSE", "SSE", S[0], None)], schema=KNOWN, orient="row"), first])
        second = find(resolve(late, known), resolve(early, known).tail(1), known)
        assert pl.concat([first, second]).equals(whole)
        assert whole["symbol"].to_list() == [f"SSE.{n}" for n in range(2, whole.height + 2)]
        jumps = {session: close / before for (session, close), before in zip(list(closes.items())[1:], closes.values(), strict=False)}
        assert all(not 1 / JUMP < jumps[session] < JUMP for session in whole["valid_from"])
