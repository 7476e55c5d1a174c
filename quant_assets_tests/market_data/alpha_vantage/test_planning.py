"""Who is asked for what, and in which order; what is read again from disk, and what history stays missing."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.clock import trading_calendar
from quant_assets.market_data.alpha_vantage.planning import Span, missing_history, plan, to_read_again
from quant_assets.market_data.fetching.asks import Ask
from quant_assets.market_data.fetching.calls import History

FIRST, LAST = date(2020, 1, 2), date(2020, 12, 31)
CALENDAR = trading_calendar("XNYS", FIRST)
WEEK_AGO = date(2020, 12, 23)


def planned(
    universe: tuple[str, ...],
    held: dict[str, Span] | None = None,
    histories: dict[str, History] | None = None,
    muted: frozenset[str] = frozenset(),
    first: date = FIRST,
    last: date = LAST,
) -> list[Ask]:
    return plan(universe, CALENDAR, first, last, LAST, held or {}, histories or {}, muted, "csv")


class TestRegression:
    def test_never_fetched_first_then_the_stalest(self) -> None:
        held = {"A": (FIRST, date(2020, 12, 29)), "B": (FIRST, date(2020, 12, 1)), "C": (FIRST, LAST)}
        asks = planned(("A", "B", "C", "D", "E"), held)
        assert [(ask.symbol, ask.lacking) for ask in asks] == [("D", 253), ("E", 253), ("B", 21), ("A", 2)]

    def test_what_was_tried_in_vain_holds_up_nobody(self) -> None:
        asks = planned(("A", "B", "C"), {"B": (FIRST, WEEK_AGO)}, {"A": History(tried=date(2020, 12, 30))})
        assert [ask.symbol for ask in asks] == ["C", "B", "A"]

    def test_who_was_answered_for_the_last_session_or_is_unknown_is_left_out(self) -> None:
        histories = {"A": History(answered=LAST), "B": History(answered=WEEK_AGO)}
        held = {"A": (FIRST, WEEK_AGO), "B": (FIRST, WEEK_AGO)}
        assert [ask.symbol for ask in planned(("A", "B", "C"), held, histories, frozenset("C"))] == ["B"]

    @pytest.mark.parametrize(
        ("held", "history", "wants_full"),
        [
            (None, History(), True),
            ((FIRST, WEEK_AGO), History(whole_since=FIRST), False),
            ((FIRST, WEEK_AGO), History(whole_since=date(2020, 6, 1)), True),  # the start was set earlier meanwhile
            ((date(2020, 8, 1), WEEK_AGO), History(answered=WEEK_AGO), True),  # only short replies so far
            ((FIRST, date(2020, 6, 1)), History(whole_since=FIRST), True),
            ((FIRST, date(2020, 6, 1)), History(whole_since=FIRST, answered=WEEK_AGO), False),  # it trades no more
        ],
    )
    def test_the_full_history_where_the_last_hundred_would_not_do(self, held: Span | None, history: History, wants_full: bool) -> None:
        (ask,) = planned(("A",), {"A": held} if held else {}, {"A": history})
        assert ask.wants_full == wants_full

    def test_a_short_range_never_needs_the_full_history(self) -> None:
        assert not planned(("A",), first=date(2020, 10, 1))[0].wants_full

    def test_a_past_session_lies_outside_the_last_hundred(self) -> None:
        past = date(2020, 3, 2)
        (ask,) = planned(("A",), last=past)
        assert (ask.wants_full, ask.lacking, ask.target) == (True, 41, past)

    def test_after_a_malformed_reply_json_is_asked_for(self) -> None:
        assert [ask.datatype for ask in planned(("A", "B"), None, {"A": History(last_was_malformed=True)})] == ["csv", "json"][::-1]

    def test_payloads_that_reach_further_than_what_they_were_asked_for(self) -> None:
        early = date(2020, 3, 2)
        history = History(newest="n", newest_row=LAST, newest_target=early, longest="w", longest_row=FIRST, longest_since=early)
        assert to_read_again(FIRST, LAST, {"A": (early, early)}, {"A": history}) == ["n", "w"]
        assert to_read_again(early, LAST, {"A": (early, early)}, {"A": history}) == ["n"]
        assert to_read_again(FIRST, early, {"A": (early, early)}, {"A": history}) == ["w"]
        assert to_read_again(FIRST, LAST, {"A": (FIRST, LAST)}, {"A": history}) == []
        asked_so_far = History(newest="n", newest_row=WEEK_AGO, newest_target=LAST)
        assert to_read_again(FIRST, LAST, {}, {"A": asked_so_far}) == []  # a refused delivery is no reason to land it again

    @pytest.mark.parametrize(
        ("held", "is_whole", "words"),
        [
            (None, False, "from 2020-01-02 to 2020-08-10 (153 sessions) stays"),
            ((date(2020, 9, 1), WEEK_AGO), False, "from 2020-01-02 to 2020-08-10 (153 sessions) stays"),
            ((date(2020, 9, 1), WEEK_AGO), True, ""),
            ((FIRST, date(2020, 8, 3)), False, "from 2020-08-04 to 2020-08-10 (5 sessions) stays"),
            (
                (date(2020, 1, 6), date(2020, 8, 7)),
                False,
                "from 2020-01-02 to 2020-01-03 (2 sessions) and from 2020-08-10 to 2020-08-10 (1 s",
            ),
            ((FIRST, date(2020, 8, 10)), False, ""),
        ],
    )
    def test_history_that_stays_missing_is_told_with_its_dates(self, held: Span | None, is_whole: bool, words: str) -> None:
        said = missing_history(CALENDAR, FIRST, date(2020, 8, 11), held, is_whole)
        assert words in said
        assert bool(words) == bool(said)


class TestProperties:
    @given(
        reached=st.dictionaries(st.sampled_from([f"S{n}" for n in range(30)]), st.sampled_from(CALENDAR.between(FIRST, LAST))),
    )
    def test_each_symbol_that_lacks_something_once_in_order_of_staleness(self, reached: dict[str, date]) -> None:
        universe = [f"S{n}" for n in range(30)]
        asks = planned(tuple(universe), {symbol: (FIRST, last) for symbol, last in reached.items()})
        assert sorted(ask.symbol for ask in asks) == sorted(symbol for symbol in universe if reached.get(symbol) != LAST)
        order = [(reached.get(ask.symbol, date.min), universe.index(ask.symbol)) for ask in asks]
        assert order == sorted(order)
