"""Deliveries in which many symbols carry one series: refused as a whole, and said so."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.market_data.delivery import BARS
from quant_assets.market_data.refusal import MANY, refused, shared_series
from quant_assets.warehouse import Warehouse
from quant_assets_tests.conftest import Row, action, bar, delivery
from quant_assets_tests.market_data.deliveries import Nights, Vendor

CALENDAR = trading_calendar("XNYS", date(2020, 1, 2))
S = tuple(CALENDAR.between(date(2020, 3, 2), date(2020, 3, 31)))


def same(symbols: int, sessions: int = 2, volume: float = 1000.0) -> list[Row]:
    """Symbols X0, X1, … that all carry one series."""
    return [bar(f"X{n}", S[at], 50.0 + at, volume=volume) for n in range(symbols) for at in range(sessions)]


def own(symbols: int, sessions: int = 2) -> list[Row]:
    """Symbols A0, A1, …, each with a series of its own."""
    return [bar(f"A{n}", S[at], 10.0 + n + at / 10) for n in range(symbols) for at in range(sessions)]


def judged(rows: list[Row]) -> str:
    return shared_series(pl.DataFrame(rows, schema=BARS))


class TestRegression:
    def test_many_symbols_with_one_series_are_named(self) -> None:
        assert judged(own(100) + same(MANY)) == (
            "10 of 110 symbols carry one and the same series over 2 sessions (X0, X1, X2, X3, X4, …): "
            "the delivery is refused as a whole, since whose it is cannot be known; fetch it again"
        )

    @pytest.mark.parametrize(
        ("rows", "is_refused"),
        [
            (own(3) + same(2), False),  # two twins: two classes of one share, or chance
            (same(2), False),  # and where there is nobody else
            (same(1), False),
            (own(100) + same(MANY - 1), False),
            (own(100) + same(MANY), True),
            (same(3), True),  # a source of three symbols, all alike
            (own(3) + same(3), True),  # half of a small delivery
            (own(4) + same(3), False),
            (own(3, sessions=1) + same(3, sessions=1), True),
            (own(3) + same(20, volume=0.0), False),  # did not trade
            (own(40) + [bar(f"X{n}", S[0], 50.0, volume=None) for n in range(20)], False),  # nobody knows whether they did
            ([*same(12), bar("A0", S[0], volume=None)], True),
            ([row | {"volume": None} for row in own(40) + same(12)], True),  # a source without volumes
            ([], False),
        ],
    )
    def test_how_many_are_too_many(self, rows: list[Row], is_refused: bool) -> None:
        assert bool(judged(rows)) is is_refused

    def test_a_series_that_differs_in_one_value_is_another(self) -> None:
        rows = same(12, sessions=3)
        for n in range(3, 12):
            rows[3 * n + n % 3] = rows[3 * n + n % 3] | {("open", "high", "low", "close", "volume")[n % 5]: 51.5 + n}
        assert judged(own(30, sessions=3) + rows) == ""

    def test_a_series_over_fewer_sessions_is_another(self) -> None:
        assert judged(own(30) + [row for n, row in enumerate(same(12)) if n % 2 or n < 12]) == ""

    def test_a_refused_delivery_keeps_its_receipts_and_nothing_else(self) -> None:
        whole = delivery(own(3), [action("A1", S[1], 2.0)])
        left = refused(whole, "why")
        assert (left.bars.height, left.actions.height, left.listed) == (0, 0, None)
        assert left.receipts["detail"].to_list() == ["refused: why; one file"]
        assert left.receipts["status"].to_list() == ["refused"]
        assert left.batch_id == whole.batch_id

    def test_it_lands_no_bar_no_action_no_list_and_one_row_that_says_why(self, tmp_path: Path, open_warehouse: Warehouse) -> None:
        vendor = Vendor(tmp_path, CALENDAR)
        for n in range(30):
            vendor.trades(f"A{n}", {session: 10.0 + n + at / 10 for at, session in enumerate(S[:6])})
        vendor.listed = list(vendor.closes)
        vendor.send(S[1])
        sound = vendor.rows(S[2])
        alike = [row | {key: sound[at % 2][key] for key in ("open", "high", "low", "close", "volume")} for at, row in enumerate(sound[:24])]
        vendor.splits["A20", S[2]] = 3.0
        vendor.listed = [*vendor.listed, "NEW"]
        vendor.send(S[2], rows=alike + sound[24:])
        nights = Nights(tmp_path, CALENDAR, open_warehouse)
        nights.night(S[1])
        before = nights.hashes()
        landing = nights.night(S[2])[0]
        after = nights.hashes()
        assert (landing.new, landing.actions, landing.symbols) == (0, 0, 0)
        assert [name for name in before if before[name] != after[name]] == ["market_data.fetch_ledger"]
        name = f"{S[2]:%Y%m%d}"
        assert nights.statuses()[name] == "refused"
        assert "12 of 30 symbols carry one and the same series over 2 sessions (A0, A1, A10, A11, A2, …)" in nights.details()[name]
        assert nights.night(S[2]) == []  # not tried every night
        vendor.splits.clear()
        vendor.send(S[3])
        assert nights.night(S[3])[0].new == 60  # the next good one heals it
        vendor.send(S[2])
        assert nights.night(S[3])[0].new == 0  # and the corrected one has nothing left to bring


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(alike=st.integers(1, 14), others=st.integers(0, 30), sessions=st.integers(1, 3), draw=st.randoms(use_true_random=False))
    def test_the_order_of_rows_and_their_adjusted_closes_make_no_difference(
        self, alike: int, others: int, sessions: int, draw: random.Random
    ) -> None:
        rows = [row | {"adj_close": draw.random()} for row in own(others, sessions) + same(alike, sessions)]
        said = judged(rows)
        draw.shuffle(rows)
        assert judged(rows) == said
        assert bool(said) is (alike >= MANY or (alike >= 3 and alike >= others))
