"""Which symbols lack what, the stalest first: decided from what is held and what was asked before, without a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.fetching.asks import Ask
from quant_assets.market_data.fetching.calls import History

COMPACT_SESSIONS = 100
"""What a short reply holds: the last hundred sessions."""

Span = tuple[date, date]


def spans_of(held: pl.DataFrame) -> dict[str, Span]:
    """First and last session per symbol, from `Holdings.symbols()`."""
    return {symbol: (first, last) for symbol, first, last in held.select("symbol", "first_session", "last_session").iter_rows()}


def plan(
    universe: Sequence[str],
    calendar: TradingCalendar,
    first: date,
    last: date,
    present: date,
    held: Mapping[str, Span],
    histories: Mapping[str, History],
    muted: Collection[str],
    datatype: str,
) -> list[Ask]:
    """The symbols to ask for sessions from first to last: never fetched, then stalest; in the universe's order where equal.

    A symbol that was tried in vain counts as stale only from the session it was tried for, so that it holds up nobody.
    Left out are those that reach the last session, were answered for it, or are unknown to the vendor (`muted`). A short
    reply ends at `present`, the last session there is, also where the last one asked for lies in the past.
    """
    asks = []
    for place, symbol in enumerate(universe):
        history = histories.get(symbol, History())
        reach = held[symbol][1] if symbol in held else None
        lacking = len(calendar.between(first if reach is None else max(first, reach + timedelta(days=1)), last))
        if symbol in muted or not lacking or (history.answered is not None and history.answered >= last):
            continue
        answered = max(reach or date.min, history.answered or date.min)  # a symbol that no longer trades lacks ever more sessions
        unasked = len(calendar.between(max(first, answered + timedelta(days=1)), present))
        whole = history.whole_since is not None and history.whole_since <= first
        wants_full = len(calendar.between(first, present)) > COMPACT_SESSIONS and (unasked > COMPACT_SESSIONS or not whole)
        ask = Ask(symbol, first, last, lacking, wants_full, "json" if history.last_was_malformed else datatype)
        asks.append((max(reach or date.min, history.tried or date.min), place, ask))
    return [ask for _, _, ask in sorted(asks, key=lambda item: item[:2])]


def to_read_again(first: date, last: date, held: Mapping[str, Span], histories: Mapping[str, History]) -> list[str]:
    """The ids of requests whose stored payload reaches further than what they were asked for and than what is held.

    This is so after a run as of an earlier day, and when an earlier start was set: no call is needed then.
    """
    found = []
    for symbol, history in sorted(histories.items()):
        low, high = held.get(symbol, (date.max, date.min))
        if history.newest and history.newest_row and history.newest_target and history.newest_target < history.newest_row:
            found += [history.newest] if max(high, first) < min(history.newest_row, last) else []
        if history.longest and history.longest_row and history.longest_since and max(history.longest_row, first) < history.longest_since:
            found += [history.longest] if max(history.longest_row, first) < min(low, last) else []
    return list(dict.fromkeys(found))


def missing_history(calendar: TradingCalendar, first: date, reply_first: date, held: Span | None, is_whole: bool) -> str:
    """What lies before a short reply and is not held, in words; empty where nothing is missing.

    `is_whole` says that all history up to what is held was received once, so that nothing is missing before it.
    """
    before = reply_first - timedelta(days=1)
    stretches = [(first, before)] if held is None else [(held[1] + timedelta(days=1), before)]
    if held is not None and not is_whole:
        stretches.insert(0, (first, min(held[0] - timedelta(days=1), before)))
    sessions = [calendar.between(max(low, first), high) for low, high in stretches if low <= high]
    words = [f"{between[0]} to {between[-1]} ({len(between):,} sessions)" for between in sessions if between]
    if not words:
        return ""
    return f"History from {' and from '.join(words)} stays missing: the key's plan does not include outputsize=full, only the last {COMPACT_SESSIONS} sessions."
