"""Which instrument a ticker meant when: a ticker that changes hands is a new symbol, not a return of 2,000 %.

Vendors tell tickers, and give a ticker to somebody else once its holder is gone; some go on to deliver the old series for
days. Our symbols are unique through time: the second holder of `SSE` is `SSE.2`.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

import polars as pl

JUMP = 3.0
"""From this factor between two closes on, up or down, somebody else's price is likelier than a return."""
MISSING_UP, MISSING_DOWN = 2, 20
"""Sessions without a bar before a jump up, or down, from which on it is a change of hands. Many a stock falls by two
thirds after a halt, few rise threefold: hiding a real loss would be the worse error."""
NEW_LISTING_SESSIONS = 10
"""Sessions after a listing within which a jump is the listing's first own price."""

SCHEMA = {"symbol": pl.String, "ticker": pl.String, "valid_from": pl.Date, "valid_to": pl.Date}


def resolve(frame: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Put the symbol that a ticker meant on each session into `symbol`, which holds tickers.

    `known` are the instruments (`symbol`, `ticker`, `valid_from`). Before its first instrument a ticker is that one, and
    where there is none, its own symbol.
    """
    reused = known.filter((pl.col("symbol") != pl.col("ticker")).any().over("ticker")).select("ticker", "valid_from", holder="symbol")
    if reused.is_empty():
        return frame
    columns = frame.columns
    first = reused.sort("valid_from").unique("ticker", keep="first").select("ticker", first_holder="holder")
    return (
        frame.with_row_index("row")
        .sort("session")
        .join_asof(
            reused.sort("valid_from"), left_on="session", right_on="valid_from", by_left="symbol", by_right="ticker", check_sortedness=False
        )
        .join(first, left_on="symbol", right_on="ticker", how="left")
        .sort("row")
        .with_columns(symbol=pl.coalesce("holder", "first_holder", "symbol"))
        .select(columns)
    )


def namesakes(bars: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Find the tickers of a delivery that are called as a symbol of ours is, which is another's: new instruments (`SCHEMA`)."""
    ours = known.filter(pl.col("symbol") != pl.col("ticker")).select("symbol").join(known, left_on="symbol", right_on="ticker", how="anti")
    if ours.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    found = bars.join(ours, on="symbol", how="semi").group_by("symbol").agg(valid_from=pl.col("session").min()).sort("symbol")
    taken = {*known["symbol"], *bars["symbol"].unique()}
    rows = [(_free(ticker, 2, taken), ticker, valid_from, None) for ticker, valid_from in found.iter_rows()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _free(ticker: str, nth: int, taken: Collection[str]) -> str:
    """What the nth holder of a ticker is called: `SSE.2`, or the next number that is nobody's name."""
    return next(name for n in count(nth) if (name := f"{ticker}.{n}") not in taken)


def changed_hands(
    bars: pl.DataFrame, last: pl.DataFrame, actions: pl.DataFrame, sessions: pl.DataFrame, listed: pl.DataFrame, known: pl.DataFrame
) -> pl.DataFrame:
    """Find the sessions from which on a symbol is somebody else: new instruments (`SCHEMA`, `valid_to` null), or the next
    holder that is known already and, as a late delivery tells, began earlier.

    `bars` are a delivery's under our symbols, `last` the stored bar before them (`symbol`, `session`, its last `close`), `actions`
    what explains a jump (`symbol`, `session`), `sessions` the calendar (`session`, `ordinal`), `listed` since when each
    symbol is listed, where that is known (`symbol`, `listed_from`), `known` the instruments so far. A price of zero or
    less says nothing, but that there was a bar. The result has one row per change, in order.
    """
    # Of thousands of symbols a handful moved so far at all: the others are left alone early.
    prices = pl.concat([frame.select("symbol", "close") for frame in (last, bars)]).filter(pl.col("close") > 0)
    moved = prices.group_by("symbol").agg(pl.col("close").max() / pl.col("close").min()).filter(pl.col("close") >= JUMP)
    if moved.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    every, (bars, last) = bars, (frame.join(moved, on="symbol", how="semi") for frame in (bars, last))
    new = bars.join(last.select("symbol", last_session="session"), on="symbol", how="left").filter(
        pl.col("last_session").is_null() | (pl.col("session") > pl.col("last_session"))
    )
    series = (
        pl.concat(
            [last.select("symbol", "session", "close", fresh=pl.lit(False)), new.select("symbol", "session", "close", fresh=pl.lit(True))]
        )
        .with_columns(close=pl.when(pl.col("close") > 0).then(pl.col("close")))
        .join(sessions.select("session", "ordinal"), on="session", how="left")
        .sort("symbol", "session")
        .with_columns(
            jump=pl.col("close") / pl.col("close").forward_fill().shift(1).over("symbol"),
            missing=pl.col("ordinal") - pl.col("ordinal").shift(1).over("symbol") - 1,
        )
        .filter(pl.col("fresh") & ((pl.col("jump") >= JUMP) | (pl.col("jump") <= 1 / JUMP)))
    )
    if series.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    starts = listed.join(sessions.select(listed_from="session", listed_ordinal="ordinal"), on="listed_from")
    after_gap = pl.col("missing") >= pl.when(pl.col("jump") > 1).then(MISSING_UP).otherwise(MISSING_DOWN)
    # A listing has one first price of its own: once, and for the ticker's first holder.
    since_listed = pl.col("ordinal") - pl.col("listed_ordinal")
    first_jump = pl.col("ordinal") == pl.col("ordinal").min().over("symbol")
    just_listed = since_listed.is_between(0, NEW_LISTING_SESSIONS) & first_jump & (pl.col("symbol") == pl.col("ticker"))
    tickers = known.select("symbol", "ticker")
    held = known.group_by("ticker").len("holders")
    found = (
        series.join(actions.select("symbol", "session").unique(), on=["symbol", "session"], how="anti")
        .join(starts, on="symbol", how="left")
        .join(tickers, on="symbol", how="left")
        .with_columns(ticker=pl.coalesce("ticker", "symbol"))
        .filter(after_gap | just_listed.fill_null(value=False))
        .join(held, on="ticker", how="left")
        .sort("symbol", "session")
        .with_columns(nth=pl.col("holders").fill_null(1) + 1)
    )
    taken = {*known["symbol"], *every["symbol"].unique()}
    rows = []
    for ticker, nth, session in found.select("ticker", "nth", "session").iter_rows():
        nexts = known.filter((pl.col("ticker") == ticker) & (pl.col("valid_from") > session)).sort("valid_from")["symbol"]
        rows.append((nexts[0] if len(nexts) else _free(ticker, nth, taken), ticker, session, None))
        taken.add(rows[-1][0])
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
