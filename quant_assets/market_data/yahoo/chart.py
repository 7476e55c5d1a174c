"""From Yahoo's daily chart to prices as traded: splits undone, minor units converted, what cannot be a bar told apart.

Yahoo divides every price, volume and dividend of the past by the splits since. With the splits of the same reply, which
always reaches up to the present, that is undone: price × the ratios of all splits after the session. So a later split
leaves what is stored as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import log
from typing import Any

import polars as pl

from quant_assets.errors import QuantAssetsError

PRICES = ("open", "high", "low", "close")
ROWS = {"line": pl.Int64, "session": pl.Date} | dict.fromkeys((*PRICES, "volume", "adj_close"), pl.Float64)
EVENTS = {"line": pl.Int64, "session": pl.Date, "kind": pl.String, "value": pl.Float64, "currency": pl.String}

MINOR_UNITS = {
    "GBp": ("GBP", 100),
    "GBX": ("GBP", 100),
    "ILA": ("ILS", 100),
    "ZAc": ("ZAR", 100),
    "ZAC": ("ZAR", 100),
}
"""Yahoo's name of a minor unit → the currency, and how many make one of it."""

EXCHANGES_OF_ONE_LETTER = "FLTV"
"""Yahoo's exchanges with a suffix of one letter: Frankfurt, London, Tokyo, Toronto's Venture."""

CLEAR_SPLIT = log(1.5)
"""From which size on, as a logarithm, the prices show whether a split is undone in them; a day's move is smaller."""

# Yahoo's prices are 32-bit floats, which are off by up to 6e-8 of themselves, and twice that once a split went through;
# its dividends have six decimals. Digits beyond that say nothing, and would make a new version out of each split.
_PRICE_NOISE, _DIVIDEND_NOISE = 2.4e-7, 1e-6


class MalformedReply(QuantAssetsError):
    """A reply has not the form of a daily chart, or is about another symbol."""


@dataclass(frozen=True)
class Chart:
    """One reply, read; values in the major unit of the currency, past ones still divided by the splits since.

    `rows` (`ROWS`) has one row per time stamp, in order of time, nulls where Yahoo has none; `line` counts them from 1.
    `events` (`EVENTS`) has one row per session and kind (split: new shares per old one; dividend: amount per share) and
    currency of payment, null for the one of the prices; its `line` counts on from there. `unit` is the currency as Yahoo names it, `currency` the major one.
    """

    rows: pl.DataFrame
    events: pl.DataFrame
    unit: str
    currency: str


def yahoo_symbol(symbol: str) -> str:
    """How Yahoo spells a symbol: a share class follows a hyphen (BRK.B is BRK-B), all else stays as it is.

    A share class is one letter after the only dot, unless that letter is one of Yahoo's exchanges (VOD.L, 7203.T). Where
    both readings exist (MKC.V), write it as Yahoo does (MKC-V). Indices, currencies, futures (^GSPC, EURUSD=X) and
    longer suffixes (KEN.TA, SSW.JO) are never touched.
    """
    name, dot, suffix = symbol.partition(".")
    is_class = name.isalpha() and len(suffix) == 1 and suffix.isalpha() and suffix.upper() not in EXCHANGES_OF_ONE_LETTER
    return f"{name}-{suffix}" if dot and is_class else symbol


def read_chart(body: bytes, ticker: str) -> Chart:
    """Read a reply of the class `data`; raises `MalformedReply` saying what is not as it should be."""
    try:
        result = json.loads(body)["chart"]["result"][0]
        meta = result["meta"]
        if str(meta["symbol"]).upper() != ticker.upper():
            raise MalformedReply(f"the reply is about {meta['symbol']}, asked was {ticker}")
        zone, unit = str(meta["exchangeTimezoneName"]), str(meta.get("currency") or "")
        currency, parts = MINOR_UNITS.get(unit, (unit, 1))
        rows = _rows(result, zone).with_columns(pl.col(*PRICES, "adj_close") / parts)
        events = _events(result.get("events") or {}, zone, unit).with_row_index("line", offset=rows.height + 1)
        return Chart(rows, events.cast(EVENTS), unit, currency)  # type: ignore[arg-type]
    except (
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        pl.exceptions.PolarsError,
    ) as error:
        raise MalformedReply(f"the reply is no daily chart ({type(error).__name__}: {' '.join(str(error).split())[:120]})") from None


def _rows(result: dict[str, Any], zone: str) -> pl.DataFrame:
    stamps = result.get("timestamp") or []
    quotes = (result["indicators"].get("quote") or [{}])[0] if stamps else {}
    adjusted = (result["indicators"].get("adjclose") or [{}])[0].get("adjclose")
    columns = {name: quotes[name] if stamps else [] for name in (*PRICES, "volume")}
    columns["adj_close"] = [None] * len(stamps) if adjusted is None else adjusted
    numbers = {name: [None if value is None else float(value) for value in values] for name, values in columns.items()}
    if uneven := {name: len(values) for name, values in numbers.items() if len(values) != len(stamps)}:
        raise MalformedReply(f"the reply has {len(stamps)} time stamps, but as many values: {uneven}")
    frame = pl.DataFrame({"stamp": stamps, **numbers}, schema={"stamp": pl.Int64, **dict.fromkeys(numbers, pl.Float64)})
    frame = frame.sort("stamp", maintain_order=True).with_columns(session=_session("stamp", zone)).with_row_index("line", offset=1)
    return frame.select(list(ROWS)).cast(ROWS).with_columns(pl.when(pl.col("adj_close").is_finite()).then("adj_close").alias("adj_close"))  # type: ignore[arg-type]


def _session(stamp: str, zone: str) -> pl.Expr:
    """The exchange's date; Yahoo's midnights lie an hour or two early around some changes to summer time."""
    local = pl.from_epoch(stamp).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    slipped = (local.dt.hour() >= 22) & (local.dt.minute() == 0)
    return pl.when(slipped).then(local.dt.date() + pl.duration(days=1)).otherwise(local.dt.date())


def _events(events: dict[str, Any], zone: str, unit: str) -> pl.DataFrame:
    """Splits and dividends by ex-session; several of one session are one, as their effects multiply or add up."""
    splits = [(int(e["date"]), float(e["numerator"]) / float(e["denominator"])) for e in (events.get("splits") or {}).values()]
    dividends = [(int(e["date"]), float(e["amount"]), str(e.get("currency") or unit)) for e in (events.get("dividends") or {}).values()]
    if bad := [ratio for _, ratio in splits if not 0 < ratio < float("inf")]:
        raise MalformedReply(f"a split of {bad[0]} shares for one cannot be")
    currency = MINOR_UNITS.get(unit, (unit, 1))[0]
    paid = [(at, amount, *MINOR_UNITS.get(name, (name, 1))) for at, amount, name in dividends]
    found: list[tuple[int, str, float, str | None]] = [(at, "split", ratio, None) for at, ratio in splits]
    found += [(at, "dividend", amount / parts, None if name == currency else name) for at, amount, name, parts in paid]
    frame = pl.DataFrame(found, schema={"stamp": pl.Int64, **{name: EVENTS[name] for name in ("kind", "value", "currency")}}, orient="row")
    value = pl.when(pl.col("kind").first() == "split").then(pl.col("value").product()).otherwise(pl.col("value").sum())
    merged = frame.with_columns(session=_session("stamp", zone)).group_by("session", "kind", "currency").agg(value.alias("value"))
    return (
        merged.select(list(EVENTS)[1:]).filter((pl.col("kind") == "dividend") | (pl.col("value") != 1)).sort("session", "kind", "currency")
    )


def undo_splits(chart: Chart) -> Chart:
    """Bring prices, volumes and dividends to what they were on their day; `ratio` is the product of the splits since.

    `adj_close` stays as delivered. Numbers are rounded to the digits that Yahoo's carry, volumes to whole shares.
    """
    splits = chart.events.filter(pl.col("kind") == "split").select(ex="session", ratio=pl.col("value").cum_prod(reverse=True))

    def since(frame: pl.DataFrame) -> pl.DataFrame:
        later = frame.join_asof(splits, left_on="session", right_on="ex", strategy="forward", allow_exact_matches=False, coalesce=True)
        return later.with_columns(pl.col("ratio").fill_null(1.0))

    rows = since(chart.rows.sort("session", "line"))
    rows = rows.with_columns((pl.col(name) * pl.col("ratio")).alias(name) for name in PRICES)
    rows = rows.with_columns(_rounded(pl.col(name), pl.col(name).abs() * _PRICE_NOISE) for name in PRICES)
    events = since(chart.events.sort("session", "kind"))
    dividend = _rounded(pl.col("value") * pl.col("ratio"), pl.col("ratio") * _DIVIDEND_NOISE)
    events = events.with_columns(value=pl.when(pl.col("kind") == "dividend").then(dividend).otherwise("value"))
    return Chart(rows.with_columns((pl.col("volume") / pl.col("ratio")).round().alias("volume")), events, chart.unit, chart.currency)


def _rounded(value: pl.Expr, noise: pl.Expr) -> pl.Expr:
    """Round to the last decimal that is larger than the noise; values of no size stay as they are."""
    scale = pl.lit(10.0).pow((-noise.log10()).floor())
    return pl.when(value.is_finite() & (noise > 0) & scale.is_finite()).then((value * scale).round() / scale).otherwise(value)


def unsettled_splits(chart: Chart) -> dict[Any, str]:
    """Ex-sessions of splits that Yahoo lists but has not carried through its prices, or that it cannot be told of, and why.

    A split carried through leaves no step of its own size in the chart as delivered. Small ones (below 3:2) do not show.
    """
    closes = chart.rows.filter(pl.col("close") > 0).sort("session", "line").select("session", "close")
    found = {}
    for session, ratio in chart.events.filter(pl.col("kind") == "split").select("session", "value").iter_rows():
        before = closes.filter(pl.col("session") < session)["close"].tail(1).to_list()
        after = closes.filter(pl.col("session") >= session)["close"].head(1).to_list()
        if abs(log(ratio)) < CLEAR_SPLIT or not before:
            continue
        if not after:
            found[session] = f"no price after the split of {ratio:g} on {session} tells yet whether this one is divided by it"
        elif abs(log(before[0] / after[0]) - log(ratio)) < abs(log(ratio)) / 4:
            found[session] = (
                f"Yahoo lists a split of {ratio:g} on {session}, but its prices still go from {before[0]:g} to {after[0]:g} there"
            )
    return found
