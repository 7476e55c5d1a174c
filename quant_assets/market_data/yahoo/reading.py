"""What one symbol's reply comes to: bars, actions, rejected rows, and a receipt that accounts for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.market_data.delivery import ACTIONS, BARS, REJECTED
from quant_assets.market_data.fetching.replies import ReplyClass
from quant_assets.market_data.yahoo.chart import (
    MINOR_UNITS,
    PRICES,
    Chart,
    MalformedReply,
    read_chart,
    undo_splits,
    unsettled_splits,
    yahoo_symbol,
)
from quant_assets.market_data.yahoo.client import REMEDIES, Reply

Fault = tuple[pl.Expr, str, str]
"""When a row is at fault, in which column, and why."""
FAULT = [pl.col("line"), pl.col("fault_column").alias("column_name"), pl.col("fault_value").alias("value"), pl.col("reason")]


@dataclass(frozen=True)
class Ask:
    """What is asked of a symbol: its sessions from `first` to `last`, of which `lacking` are not held; held are those from `held_from` to `held_to`."""

    symbol: str
    first: date
    last: date
    lacking: int
    held_from: date | None = None
    held_to: date | None = None


@dataclass(frozen=True)
class Reading:
    """One reply, read: frames as in a `Delivery`, the receipt as a row of it, and how it ended."""

    bars: pl.DataFrame
    actions: pl.DataFrame
    rejected: pl.DataFrame
    receipt: dict[str, object]
    reply_class: ReplyClass


def read_reply(ask: Ask, reply: Reply, calendar: TradingCalendar) -> Reading:
    """Read a reply to an ask; whatever cannot become a bar or an action is a rejected row or a failed receipt.

    Rows outside the asked span are out of scope. A held session is delivered again, so that a restatement is seen,
    unless shares were merged after it: Yahoo's volumes have then lost digits that the held ones still have.
    """
    ticker = yahoo_symbol(ask.symbol)
    if reply.reply_class is not ReplyClass.DATA:
        return _failed(ask, reply, reply.reply_class, reply.words)
    try:
        chart = read_chart(reply.body, ticker)
    except MalformedReply as error:
        return _failed(ask, reply, ReplyClass.MALFORMED, str(error))
    unsettled = unsettled_splits(chart)
    traded = undo_splits(chart)
    asked = pl.col("session").is_between(ask.first, ask.last)
    held = asked & pl.col("session").is_between(ask.held_from, ask.held_to) if ask.held_from and ask.held_to else pl.lit(False)
    rows = _judge_rows(traded, calendar, unsettled).filter(asked).with_columns(held=held)
    events = _judge_events(traded, calendar, unsettled).filter(asked).with_columns(held=held)
    sound = pl.col("reason").is_null() & ~(pl.col("held") & (pl.col("ratio") < 1))
    bars, symbol = rows.filter(sound), pl.lit(ask.symbol).alias("symbol")
    refused = pl.concat([frame.filter(pl.col("reason").is_not_null() & ~pl.col("held")).select(FAULT) for frame in (rows, events)])
    new = bars.filter(~pl.col("held")).height
    status = "failed" if ask.held_to is None and not new else "partial" if refused.height else "landed" if new else "unchanged"
    # Only an id with this mark says that the history was asked; one that waits for a split to settle is asked again.
    answered = status != "failed" and not unsettled
    return Reading(
        bars=bars.select(symbol, *list(BARS)[1:]),
        actions=events.filter(sound).select(symbol, *list(ACTIONS)[1:]),
        rejected=refused.select(pl.lit(f"chart/{ticker}").alias("file"), *list(REJECTED)[1:]),
        receipt={
            "request_id": f"{request_mark(ask.symbol)}{ask.first}:{reply.requested_at.isoformat()}" if answered else None,
            **_receipt(ask, reply, ReplyClass.DATA, status),
            "rows": chart.rows.height,
            "detail": _detail(ask, traded, rows, bars, new),
        },
        reply_class=ReplyClass.DATA,
    )


def request_mark(symbol: str) -> str:
    """With what the id of an answered request for a symbol begins; the first date asked for follows."""
    return f"yahoo:{symbol}@"


def _receipt(ask: Ask, reply: Reply, reply_class: ReplyClass, status: str) -> dict[str, object]:
    return {
        "symbol": ask.symbol,
        "requested_at": reply.requested_at,
        "status": status,
        "reply_class": reply_class.value,
        "payload_sha256": sha256(reply.body).hexdigest() if reply.body else None,
    }


def _failed(ask: Ask, reply: Reply, reply_class: ReplyClass, words: str) -> Reading:
    detail = f"{yahoo_symbol(ask.symbol)} from {ask.first} to {ask.last}: {words}. {REMEDIES[reply_class]}."
    receipt = {"request_id": None, **_receipt(ask, reply, reply_class, "failed"), "rows": 0, "detail": detail}
    return Reading(pl.DataFrame(schema=BARS), pl.DataFrame(schema=ACTIONS), pl.DataFrame(schema=REJECTED), receipt, reply_class)


def _detail(ask: Ask, chart: Chart, rows: pl.DataFrame, bars: pl.DataFrame, new: int) -> str:
    """Account for the rows of a reply, and say what was done to their numbers."""
    rejected = rows.filter(pl.col("reason").is_not_null() & ~pl.col("held")).height
    counts = {
        "bars": bars.height,
        "of these not held before": new,
        "rejected": rejected,
        "held and kept as they are": rows.height - bars.height - rejected,
        "outside the asked span": chart.rows.height - rows.height,
    }
    told = ", ".join(f"{words} {count:,}" for words, count in counts.items() if count or words == "bars")
    said = [f"{yahoo_symbol(ask.symbol)} from {ask.first} to {ask.last}: rows {chart.rows.height:,}, {told}"]
    if chart.unit != chart.currency:
        said.append(f"prices and dividends come in {chart.unit} and are stored in {chart.currency}, 1/{MINOR_UNITS[chart.unit][1]} of it")
    splits = chart.events.filter((pl.col("kind") == "split") & (pl.col("session") > ask.first)).select("value", "session").rows()
    if splits:
        said.append("undone splits: " + ", ".join(f"{ratio:g} on {session}" for ratio, session in splits))
    if ask.held_to is None and not new:
        said.append("no bar came of it: check how Yahoo spells the symbol, and QUANT_START")
    return "; ".join(said) + "."


def _judge_rows(chart: Chart, calendar: TradingCalendar, unsettled: Mapping[date, str]) -> pl.DataFrame:
    """Add `column_name`, `value` and `reason` to the rows: why one is no bar, null where it is one."""
    last = pl.col("line") == pl.col("line").max().over("session")
    newest = pl.col("session") == pl.col("session").max()
    differs = pl.any_horizontal(pl.col(name).n_unique().over("session") > 1 for name in PRICES)
    faults: list[Fault] = [
        (~pl.col("session").is_in(calendar.sessions), "session", f"is no session of {calendar.name}"),
        *((pl.col(name).is_null(), name, f"Yahoo has no {name} of this session") for name in ("close", "open", "high", "low")),
        *((~pl.col(name).is_finite(), name, f"the {name} is not finite") for name in PRICES),
        (pl.col("volume") < 0, "volume", "the volume is negative"),
        (~pl.col("volume").is_finite(), "volume", "the volume is not finite"),
        # Yahoo gives the newest session a second time while it settles it.
        (newest & ~last, "session", "a later row gives this session as it was settled"),
        (~differs & ~last, "session", "a later row repeats this session"),
        (~newest & differs, "session", "two rows give this session other prices; which is right cannot be known"),
        *_before_unsettled(unsettled),
    ]
    return _with_faults(chart.rows, faults)


def _judge_events(chart: Chart, calendar: TradingCalendar, unsettled: Mapping[date, str]) -> pl.DataFrame:
    """The same for splits and dividends, with the event in words as its value."""
    dividend = pl.col("kind") == "dividend"
    faults: list[Fault] = [
        (~pl.col("session").is_in(calendar.sessions), "event", f"its date is no session of {calendar.name}"),
        (
            pl.col("currency").is_not_null(),
            "event",
            f"it is paid in another currency than the prices' ({chart.currency}), and no rate is known",
        ),
        (~pl.col("value").is_finite() | (pl.col("value") <= 0), "event", "this cannot be paid"),
        *((before & dividend, name, why) for before, name, why in _before_unsettled(unsettled, "event")),
    ]
    amount = pl.format(
        "{} of {}{} on {}",
        "kind",
        "value",
        pl.when(pl.col("currency").is_null()).then(pl.lit("")).otherwise(pl.format(" {}", "currency")),
        "session",
    )
    return _with_faults(chart.events.with_columns(event=amount), faults)


def _before_unsettled(unsettled: Mapping[date, str], column: str = "close") -> list[Fault]:
    return [
        (pl.col("session") < split, column, f"what it was on its day cannot be known: {why}") for split, why in sorted(unsettled.items())
    ]


def _with_faults(frame: pl.DataFrame, faults: Sequence[Fault]) -> pl.DataFrame:
    """The first fault that a row has."""
    nothing = pl.lit(None, pl.String)
    column, value, reason = nothing, nothing, nothing
    for there, name, why in reversed(faults):
        found = there.fill_null(False)
        column = pl.when(found).then(pl.lit(name)).otherwise(column)
        value = pl.when(found).then(pl.col(name).cast(pl.String)).otherwise(value)
        reason = pl.when(found).then(pl.lit(why)).otherwise(reason)
    return frame.with_columns(fault_column=column, fault_value=value, reason=reason)
