"""The nightly proof: silent over sound tables, whatever happened to the bars; loud over each kind of tampering."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pytest

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store import proof
from quant_assets.feature_store.proof import Proof, cut_changes_nothing, recomputed_as_of
from quant_assets.lookahead import described
from quant_assets.warehouse import Warehouse
from quant_assets_tests.feature_store.market import Market, built_market

VIEWS = ("technical_v1", "alpha_v1")
SEED, ROWS = 5, 8


@pytest.fixture
def market(
    tmp_path_factory: pytest.TempPathFactory, warehouse: Warehouse, calendar: TradingCalendar, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Market]:
    """A market to prove, by a few rows at a time: each is computed from its own past."""
    monkeypatch.setattr(proof, "ROWS", ROWS)
    market = built_market(tmp_path_factory.getbasetemp(), warehouse, calendar)
    with duckdb.connect(warehouse.path):
        yield market


def proven(market: Market, view: str, seed: int = SEED) -> Proof:
    return recomputed_as_of(market.warehouse, market.calendar, view, seed)


def tampered(market: Market, sql: str, *values: object) -> None:
    """Change stored rows behind the platform's back."""
    with market.warehouse.transaction() as connection:
        assert connection.execute(sql, list(values)).fetchall() != [(0,)]


def marked(market: Market, table: str, column: str) -> None:
    tampered(market, f"update feature_store.{table} set {column} = {column} * (1 + 1e-15) + 1e-300 where {column} is not null")


class TestRegression:
    def test_one_value_of_one_row_is_named(self, market: Market) -> None:
        sample = market.warehouse.read(
            f"select symbol, session, rsi_14 from feature_store.technical_v1 order by hash(symbol, session, {SEED}) limit {ROWS}"
        )
        symbol, session, rsi = sample.drop_nulls().row(2)
        tampered(market, "update feature_store.technical_v1 set rsi_14 = ? where symbol = ? and session = ?", rsi + 1, symbol, session)
        found = proven(market, "technical_v1")
        assert found.offending.rows() == [(symbol, session, "rsi_14", str(rsi + 1), str(rsi))]
        assert (found.seed, found.rows) == (SEED, ROWS)

    @pytest.mark.parametrize(
        ("table", "column"),
        [
            ("technical_v1", "price_change_1d"),
            ("alpha_history_v1", "return_volatility_20"),
            ("alpha_market_v1", "beta_60"),
            ("market_v1", "market_return_1d"),
            ("market_v1", "market_dispersion_1d"),
        ],
    )
    def test_a_last_bit_of_any_table_below_alpha_v1_is_found(self, market: Market, table: str, column: str) -> None:
        marked(market, table, column)
        offending = proven(market, "alpha_v1").offending
        assert column in set(offending["column"])

    def test_a_row_of_bars_that_were_known_later_is_found(self, market: Market) -> None:
        """The features of a restated bar under the instant of the bar that it replaced."""
        symbol, session = market.restate(sessions_ago=200)
        market.refresh()
        assert proven(market, "technical_v1").offending.is_empty()
        honest = market.warehouse.read(
            "select min(known_at) from market_data.daily_bars where symbol = $s and session = $d", {"s": symbol, "d": session}
        )
        tampered(
            market,
            "update feature_store.technical_v1 set known_at = ? + (session - ?) * interval 1 day where known_at = ?",
            honest.item(), session, market.now,
        )  # fmt: skip
        offending = proven(market, "technical_v1").offending
        assert set(offending["symbol"]) == {symbol}

    @pytest.mark.parametrize(("view", "table"), [("technical_v1", "technical_v1"), ("alpha_v1", "alpha_history_v1")])
    @pytest.mark.parametrize("change", ["- interval 1 day", "+ interval 1 microsecond"], ids=["too early", "too late"])
    def test_a_wrong_instant_is_found(self, market: Market, view: str, table: str, change: str) -> None:
        tampered(market, f"update feature_store.{table} set known_at = known_at {change}")
        if view == "alpha_v1" and change.startswith("-"):  # the latest of its parts counts, so that all have to lie
            for part in ("technical_v1", "alpha_market_v1", "market_v1"):
                tampered(market, f"update feature_store.{part} set known_at = known_at {change}")
        found = proven(market, view)
        assert found.offending.select("symbol", "session").unique().height == found.rows > 0

    @pytest.mark.parametrize(
        "planted",
        [
            "lead(rsi_14) over symbols",
            "(rsi_14 - avg(rsi_14) over ()) / stddev_pop(rsi_14) over ()",
            "avg(rsi_14) over (symbols rows between 5 preceding and 5 following)",
        ],
        ids=["a session early", "scaled by the whole sample", "centred window"],
    )
    def test_features_that_peek_are_found_by_both(self, market: Market, planted: str) -> None:
        tampered(
            market,
            f"""
            update feature_store.technical_v1 as row set rsi_14 = peeking.rsi_14 from (
                select symbol, session, {planted} as rsi_14 from feature_store.technical_v1 window symbols as (partition by symbol order by session)
            ) as peeking where row.symbol = peeking.symbol and row.session = peeking.session
            """,
        )
        for found in (proven(market, "technical_v1"), cut_changes_nothing(market.warehouse, SEED)):
            assert found.offending["column"].unique().to_list() == ["rsi_14"]

    def test_a_row_without_a_bar_and_a_bar_without_a_row_are_found_by_the_cut(self, market: Market) -> None:
        tampered(market, "delete from feature_store.technical_v1 where symbol = 'S0' and session = ?", market.sessions[3])
        tampered(
            market,
            "update feature_store.technical_v1 set session = session + interval 1 day where symbol = 'S0' and session = ?",
            market.sessions[1],
        )
        offending = cut_changes_nothing(market.warehouse, SEED).offending
        rows = offending.filter(column="row").select("session", "stored", "recomputed").sort("session").rows()
        assert (market.sessions[3], "absent", "present") in rows
        assert ("present", "absent") in {row[1:] for row in rows}

    def test_the_seed_is_the_sample(self, market: Market) -> None:
        marked(market, "technical_v1", "high_low_range")
        first, again, other = (proven(market, "technical_v1", seed).offending for seed in (1, 1, 2))
        assert first.equals(again)
        assert not first.equals(other)
        assert first.height == other.height == ROWS

    def test_nothing_stored_is_nothing_proven(self, open_warehouse: Warehouse, calendar: TradingCalendar) -> None:
        proofs = [recomputed_as_of(open_warehouse, calendar, view, 1) for view in VIEWS] + [cut_changes_nothing(open_warehouse, 1)]
        assert [(found.rows, found.offending.height) for found in proofs] == [(0, 0)] * 3


class TestProperties:
    def test_sound_tables_prove_sound_whatever_happened_to_the_bars(self, market: Market) -> None:
        def first_bar_restated() -> None:
            market.restate(sessions_ago=market.tonight)

        events: tuple[tuple[Callable[[], object], ...], ...] = (
            (first_bar_restated, market.split_told_late),
            (market.restate, market.hold),
            (market.release, market.change_scope, market.next_session),
        )
        for seed, several in enumerate(events):
            for event in several:
                event()
            market.refresh()
            for found in (*(proven(market, view, seed) for view in VIEWS), cut_changes_nothing(market.warehouse, seed)):
                assert found.rows
                assert found.offending.is_empty(), described(found.offending)

    def test_a_restatement_of_the_first_session_is_known_wherever_it_is_looked_back_on(self, market: Market) -> None:
        restated, _ = market.restate(sessions_ago=market.tonight)
        market.refresh()
        moved = market.warehouse.read("select session from feature_store.market_v1 where known_at = $now", {"now": market.now})
        assert moved["session"].to_list() == [market.sessions[1]]
        others = market.warehouse.read(
            "select session, known_at = $now as moved from feature_store.alpha_market_v1 where symbol <> $symbol",
            {"now": market.now, "symbol": restated},
        )
        assert others.filter(session=market.sessions[252])["moved"].unique().to_list() == [True]
