"""The scorecard: which version of a signal counts, what its outcome does to it, and what is told of its makers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.clock import TradingCalendar
from quant_assets.schemas import DAILY_SIGNALS, LABELS, SIGNAL_SCORECARD
from quant_assets.signals.live.scorecard import by_month, performance, refresh_scorecard, scorecard_as_of
from quant_assets.warehouse import Warehouse, append_versions, change_counter, rewrite_current

SESSIONS = [date(2020, 1, day) for day in (2, 3, 6, 7, 8, 9, 10)]
CLOSES = [datetime(2020, 1, session.day, 21) for session in SESSIONS]
KNOWN = [close + timedelta(minutes=30) for close in CLOSES]
LATER = datetime(2021, 1, 1)


@pytest.fixture(autouse=True)
def held_open(warehouse: Warehouse) -> Iterator[None]:
    """The file stays open in this process between the calls, which are many."""
    with duckdb.connect(warehouse.path):
        yield


def version(
    number: int,
    probability: float,
    known_at: datetime | None = None,
    *,
    symbol: str = "A",
    mode: str = "live",
    threshold: float = 0.0,
    session: date | None = None,
) -> dict[str, object]:
    """One version of a signal of the n-th session, on the evening of that session unless it says when."""
    return {column.name: "-" for column in DAILY_SIGNALS.columns} | {
        "symbol": symbol, "session": session or SESSIONS[number], "horizon": 1, "known_at": known_at or KNOWN[number],
        "label_threshold": threshold, "probability": probability, "confidence": abs(2 * probability - 1),
        "recommendation": "buy" if probability > 0.52 else "sell" if probability < 0.48 else "hold", "scorer": "model",
        "model_version": "1", "centre": None, "mode": mode, "trained_until": None, "recorded_at": LATER,
    }  # fmt: skip


def say(warehouse: Warehouse, number: int, probability: float, known_at: datetime | None = None, **changed: Any) -> None:
    """Store a version of a signal."""
    row = version(number, probability, known_at, **changed)
    with warehouse.transaction() as connection:
        append_versions(connection, DAILY_SIGNALS, pl.DataFrame([row], schema=DAILY_SIGNALS.polars_schema))


def happens(warehouse: Warehouse, outcomes: Iterable[tuple[int, float]], symbol: str = "A", known_at: datetime | None = None) -> None:
    """Make the next sessions' returns of a symbol these and no others, each known on the evening of the next session."""
    rows = [
        {"symbol": symbol, "session": SESSIONS[n], "horizon": 1, "forward_return": r, "up": r > 0, "known_at": known_at or KNOWN[n + 1]}
        for n, r in outcomes
    ]
    with warehouse.transaction() as connection:
        rewrite_current(connection, LABELS, pl.DataFrame(rows, schema=LABELS.polars_schema), pl.DataFrame({"symbol": [symbol]}))


def refreshed(warehouse: Warehouse, calendar: TradingCalendar, as_of: datetime = LATER) -> tuple[int, int, int]:
    run = refresh_scorecard(warehouse, calendar, as_of, "run")
    return run.written, run.removed, run.late


def card(warehouse: Warehouse) -> pl.DataFrame:
    return warehouse.read(
        f"select * exclude (run_id, recorded_at) from {SIGNAL_SCORECARD.full_name} order by mode, horizon, symbol, session"
    )


def told(warehouse: Warehouse) -> list[tuple[str, date, float, float, bool]]:
    return card(warehouse).select("mode", "session", "probability", "forward_return", "up").rows()


class TestRegression:
    def test_a_signal_gets_a_row_when_its_outcome_is_known(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.6)
        happens(warehouse, [(0, 0.01)])
        assert refreshed(warehouse, calendar, KNOWN[1] - timedelta(seconds=1)) == (0, 0, 0)
        assert refreshed(warehouse, calendar, KNOWN[1]) == (1, 0, 0)
        assert card(warehouse).row(0, named=True) == {
            "mode": "live", "horizon": 1, "symbol": "A", "session": SESSIONS[0], "signal_known_at": KNOWN[0], "label_threshold": 0.0,
            "probability": 0.6, "recommendation": "buy", "scorer": "model", "model_version": "1", "forward_return": 0.01, "up": True,
            "known_at": KNOWN[1],
        }  # fmt: skip

    def test_the_last_live_version_before_the_next_close_counts(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.6)
        say(warehouse, 0, 0.4, CLOSES[1] - timedelta(microseconds=1))
        say(warehouse, 0, 0.99, CLOSES[1])
        happens(warehouse, [(0, 0.01)])
        assert refreshed(warehouse, calendar) == (1, 0, 0)
        assert told(warehouse) == [("live", SESSIONS[0], 0.4, 0.01, True)]

    def test_the_next_close_is_the_next_sessions_over_a_weekend(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 1, 0.6, datetime(2020, 1, 5, 12))  # Friday's signal, made on Sunday
        happens(warehouse, [(1, 0.01)])
        assert refreshed(warehouse, calendar) == (1, 0, 0)

    def test_a_live_signal_that_came_too_late_is_left_out_and_counted(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.99, CLOSES[1])
        say(warehouse, 1, 0.6)
        happens(warehouse, [(0, 0.01), (1, 0.01)])
        run = refresh_scorecard(warehouse, calendar, LATER, "run")
        assert (run.written, run.late) == (1, 1)
        assert run.note == "1 live signals with an outcome came only after the next session's close and do not count"
        assert refresh_scorecard(warehouse, calendar, LATER, "run").note == run.note
        assert [row[1] for row in told(warehouse)] == [SESSIONS[1]]

    def test_of_replayed_signals_the_newest_counts_and_replaces_the_older(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.6, KNOWN[5], mode="replayed")
        happens(warehouse, [(0, -0.01)])
        assert refreshed(warehouse, calendar) == (1, 0, 0)
        say(warehouse, 0, 0.3, KNOWN[6], mode="replayed")
        assert refreshed(warehouse, calendar) == (1, 1, 0)
        assert told(warehouse) == [("replayed", SESSIONS[0], 0.3, -0.01, False)]

    def test_live_and_replayed_stand_apart(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.6)
        say(warehouse, 0, 0.3, KNOWN[6], mode="replayed")
        happens(warehouse, [(0, 0.01)])
        refreshed(warehouse, calendar)
        assert [row[:3] for row in told(warehouse)] == [("live", SESSIONS[0], 0.6), ("replayed", SESSIONS[0], 0.3)]
        assert performance(card(warehouse)).select("mode", "signals").rows() == [("live", 1), ("replayed", 1)]

    def test_a_restated_outcome_changes_its_row_alone(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        for number in (0, 1):
            say(warehouse, number, 0.6)
        happens(warehouse, [(0, 0.01), (1, 0.02)])
        refresh_scorecard(warehouse, calendar, KNOWN[2], "first")
        happens(warehouse, [(0, -0.01), (1, 0.02)])
        second = refresh_scorecard(warehouse, calendar, KNOWN[3], "second")
        assert (second.written, second.removed) == (1, 1)
        rows = warehouse.read("select run_id, forward_return, up from signals.scorecard order by session").rows()
        assert rows == [("second", -0.01, False), ("first", 0.02, True)]

    def test_a_withdrawn_label_takes_its_row_away(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        for number in (0, 1):
            say(warehouse, number, 0.6)
        happens(warehouse, [(0, 0.01), (1, 0.02)])
        refreshed(warehouse, calendar)
        happens(warehouse, [(1, 0.02)])
        assert refreshed(warehouse, calendar) == (0, 1, 0)
        assert [row[1] for row in told(warehouse)] == [SESSIONS[1]]

    def test_each_signal_is_held_against_its_own_threshold(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        for number, threshold in ((0, 0.0), (1, 0.02), (2, 0.01)):
            say(warehouse, number, 0.6, threshold=threshold)
        happens(warehouse, [(0, 0.01), (1, 0.01), (2, 0.01)])
        refreshed(warehouse, calendar)
        assert [row[4] for row in told(warehouse)] == [True, False, False]

    def test_a_session_that_the_calendar_does_not_have_is_left_out(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.6, session=date(2020, 1, 4))
        happens(warehouse, [(0, 0.01)])
        assert refreshed(warehouse, calendar) == (0, 0, 0)

    def test_an_earlier_night_run_again_takes_nothing_away(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        for number in (0, 1, 2):
            say(warehouse, number, 0.6)
        happens(warehouse, [(0, 0.01), (1, 0.02), (2, 0.03)])
        refreshed(warehouse, calendar, KNOWN[3])
        before = card(warehouse)
        assert refreshed(warehouse, calendar, KNOWN[1]) == (0, 0, 0)
        assert_frame_equal(card(warehouse), before)
        assert scorecard_as_of(warehouse, 1, KNOWN[1])["session"].to_list() == [SESSIONS[0]]
        assert scorecard_as_of(warehouse, 5, KNOWN[3]).is_empty()

    def test_a_session_in_numbers(self) -> None:
        rows = scored([("A", 0.6, "buy", 0.03), ("B", 0.55, "strong_buy", -0.01), ("C", 0.5, "hold", 0.0), ("D", 0.3, "sell", -0.04)])
        row = performance(rows).row(0, named=True)
        assert row["signals"] == 4
        assert row["rank_ic"] == pytest.approx(0.8)  # ranks 4 3 2 1 against 4 2 3 1: 1 - 6 * 2 / (4 * 15)
        assert row["hit_rate"] == 0.5  # A and D; C says up at 0.5 and was not
        assert row["up_share"] == 0.25
        assert row["log_loss"] == pytest.approx(-(math.log(0.6) + math.log(0.45) + math.log(0.5) + math.log(0.7)) / 4)
        assert row["brier"] == pytest.approx((0.16 + 0.3025 + 0.25 + 0.09) / 4)
        assert (row["buys"], row["sells"]) == (2, 1)
        assert row["buy_return"] == pytest.approx(0.01)
        assert row["sell_return"] == pytest.approx(-0.04)
        assert row["mean_return"] == pytest.approx(-0.005)

    def test_what_cannot_be_computed_is_null(self) -> None:
        few = performance(scored([("A", 0.6, "hold", 0.03), ("B", 0.5, "hold", 0.01)])).row(0, named=True)
        constant = performance(scored([(name, 0.5, "hold", 0.01 * n) for n, name in enumerate("ABC")])).row(0, named=True)
        assert [few[name] for name in ("rank_ic", "buy_return", "sell_return")] == [None] * 3
        assert constant["rank_ic"] is None
        assert performance(scored([])).is_empty()
        assert by_month(performance(scored([]))).is_empty()

    def test_a_month_weighs_signals_alike(self) -> None:
        months = by_month(
            performance(
                pl.concat(
                    [
                        scored([("A", 0.6, "buy", 0.03), ("B", 0.6, "buy", 0.01), ("C", 0.4, "sell", -0.02)], SESSIONS[0]),
                        scored([("A", 0.6, "buy", -0.04), ("B", 0.4, "hold", 0.01), ("C", 0.3, "hold", 0.02)], SESSIONS[1]),
                        scored([("A", 0.6, "hold", 0.04)], date(2020, 2, 3)),
                    ]
                )
            )
        )
        assert months["month"].to_list() == ["2020-02", "2020-01"]
        january = months.row(1, named=True)
        assert (january["sessions"], january["signals"]) == (2, 6)
        assert january["buy_return"] == pytest.approx(0.0)
        assert january["sell_return"] == pytest.approx(-0.02)
        assert january["spread"] == pytest.approx(0.02)
        assert january["hit_rate"] == pytest.approx(3 / 6)
        assert january["constant_log_loss"] == pytest.approx(-(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(2 / 6)))
        assert months.row(0, named=True)["spread"] is None


def scored(rows: list[tuple[str, float, str, float]], session: date = SESSIONS[0]) -> pl.DataFrame:
    """Rows of the scorecard of one session: symbol, probability, recommendation, forward return."""
    return pl.DataFrame(
        [
            {
                "mode": "live", "horizon": 1, "symbol": symbol, "session": session, "signal_known_at": KNOWN[0], "label_threshold": 0.0,
                "probability": probability, "recommendation": recommendation, "scorer": "model", "model_version": "1",
                "forward_return": forward_return, "up": forward_return > 0, "known_at": LATER, "run_id": "run", "recorded_at": LATER,
            }
            for symbol, probability, recommendation, forward_return in rows
        ],
        schema=SIGNAL_SCORECARD.polars_schema,
    )  # fmt: skip


VERSIONS = st.lists(
    st.tuples(
        st.integers(0, 4),  # session
        st.sampled_from("AB"),
        st.sampled_from(["live", "replayed"]),
        st.integers(0, 200),  # hours after the session's close
        st.integers(1, 99),  # probability in percent
    ),
    max_size=12,
    unique_by=lambda said: (said[0], said[1], said[3]),
)
RETURNS = st.dictionaries(st.tuples(st.integers(0, 4), st.sampled_from("AB")), st.sampled_from([-0.02, 0.0, 0.01]), max_size=8)


class TestProperties:
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(versions=VERSIONS, before=RETURNS, after=RETURNS, night=st.integers(1, 6))
    def test_it_is_what_one_would_write_down_by_hand(
        self,
        warehouse: Warehouse,
        calendar: TradingCalendar,
        versions: list[tuple[int, str, str, int, int]],
        before: dict[tuple[int, str], float],
        after: dict[tuple[int, str], float],
        night: int,
    ) -> None:
        """Night by night, with outcomes changed and withdrawn in between, it equals what the definition says of the last night."""
        signals = [
            version(n, percent / 100, CLOSES[n] + timedelta(hours=h), symbol=symbol, mode=mode) for n, symbol, mode, h, percent in versions
        ]
        with warehouse.transaction() as connection:
            for table in (DAILY_SIGNALS, LABELS, SIGNAL_SCORECARD):
                connection.execute(f"delete from {table.full_name}")
            connection.register("signals_said", pl.DataFrame(signals, schema=DAILY_SIGNALS.polars_schema))
            connection.execute(f"insert into {DAILY_SIGNALS.full_name} by name select * from signals_said")
        for as_of, returns in ((KNOWN[night], before), (LATER, after)):
            for symbol in "AB":
                happens(warehouse, [(n, r) for (n, name), r in returns.items() if name == symbol], symbol)
            refresh_scorecard(warehouse, calendar, as_of, "run")
            assert_frame_equal(card(warehouse).select(EXPECTED), by_hand(stored_signals(warehouse), returns, as_of))
            assert refreshed(warehouse, calendar, as_of)[:2] == (0, 0)

    def test_nothing_new_writes_nothing(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        say(warehouse, 0, 0.6)
        say(warehouse, 1, 0.99, CLOSES[3])
        happens(warehouse, [(0, 0.01), (1, 0.01)])
        assert refreshed(warehouse, calendar) == (1, 0, 1)
        with warehouse.connect() as connection:
            before = change_counter(connection)
        assert refreshed(warehouse, calendar) == (0, 0, 1)
        with warehouse.connect() as connection:
            assert change_counter(connection) == before

    def test_later_knowledge_never_enters(self, warehouse: Warehouse, calendar: TradingCalendar) -> None:
        for number in range(5):
            say(warehouse, number, 0.6)
            say(warehouse, number, 0.4, KNOWN[number] + timedelta(hours=5))
        happens(warehouse, [(number, 0.01) for number in range(5)])
        for night in range(1, 6):
            as_of = KNOWN[night]
            refresh_scorecard(warehouse, calendar, as_of, "run")
            rows = card(warehouse)
            assert rows.height == night
            assert rows.filter((pl.col("known_at") > as_of) | (pl.col("signal_known_at") > as_of)).is_empty()


EXPECTED = ["mode", "symbol", "session", "probability", "forward_return"]


def stored_signals(warehouse: Warehouse) -> list[tuple[str, str, date, datetime, float]]:
    return warehouse.read("select mode, symbol, session, known_at, probability from signals.daily_signals").rows()


def by_hand(signals: list[tuple[str, str, date, datetime, float]], returns: dict[tuple[int, str], float], as_of: datetime) -> pl.DataFrame:
    """The scorecard's rows by its definition, one after the other."""
    chosen: dict[tuple[str, str, date], tuple[datetime, float]] = {}
    for mode, symbol, session, known_at, probability in signals:
        number = SESSIONS.index(session)
        if (mode == "live" and known_at >= CLOSES[number + 1]) or known_at > as_of:
            continue
        if (number, symbol) in returns and KNOWN[number + 1] <= as_of:
            chosen[mode, symbol, session] = max(chosen.get((mode, symbol, session), (known_at, probability)), (known_at, probability))
    rows = [(*key, said, returns[SESSIONS.index(key[2]), key[1]]) for key, (_, said) in sorted(chosen.items())]
    schema = {"mode": pl.String, "symbol": pl.String, "session": pl.Date, "probability": pl.Float64, "forward_return": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
