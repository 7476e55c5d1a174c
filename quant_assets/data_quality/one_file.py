"""One vendor's file of one symbol, judged under its own exchange's calendar.

The file has Yahoo's columns: Date or Datetime (with or without an offset), Open, High, Low, Close, Volume, and where it
has them Adj Close, Dividends, Stock Splits, Capital Gains. Yahoo's prices and dividends are restated for splits, and the
adjusted closes of one file are of one day's basis, so that dividends and adjusted closes can be held against each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.data_quality.findings import NOTHING
from quant_assets.data_quality.judge import judge, prepared
from quant_assets.data_quality.rules.dividends import adjusted_closes
from quant_assets.errors import ConfigurationError, QuantAssetsError

PRICES = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Adj Close": "adj_close", "Volume": "volume"}
ACTIONS = {"Dividends": "dividend", "Stock Splits": "split", "Capital Gains": "capital_gain"}
EXCHANGES = {
    "AS": "XAMS", "AT": "ASEX", "AX": "XASX", "BD": "XBUD", "BE": "XETR", "BK": "XBKK", "BO": "XBOM", "BR": "XBRU", "CO": "XCSE",
    "CR": "XCBF", "DE": "XETR", "DU": "XDUS", "F": "XFRA", "HA": "XETR", "HE": "XHEL", "HK": "XHKG", "HM": "XHAM", "IC": "XICE",
    "IL": "XLON", "IR": "XDUB", "IS": "XIST", "JK": "XIDX", "JO": "XJSE", "KL": "XKLS", "KQ": "XKRX", "KS": "XKRX", "L": "XLON",
    "LS": "XLIS", "MC": "XMAD", "ME": "XMOS", "MI": "XMIL", "MU": "XETR", "MX": "XMEX", "NE": "XTSE", "NS": "XBOM", "NZ": "XNZE",
    "OL": "XOSL", "PA": "XPAR", "PR": "XPRA", "PS": "XPHS", "RO": "XBSE", "SA": "BVMF", "SG": "XETR", "SI": "XSES", "SN": "XSGO",
    "SR": "XSAU", "SS": "XSHG", "ST": "XSTO", "SW": "XSWX", "SZ": "XSHG", "T": "XTKS", "TA": "XTAE", "TI": "XMIL", "TL": "XTAL",
    "TO": "XTSE", "TW": "XTAI", "TWO": "XTAI", "V": "XTSE", "VI": "XWBO", "VS": "XLIT", "WA": "XWAR", "CN": "XTSE", "BA": "XBUE",
    "LM": "XLIM", "CL": "XBOG", "KA": "XKAR", "ZA": "XZAG", "RG": "XRIS", "LU": "XLUX",
}  # fmt: skip
"""Yahoo's suffixes and the exchange calendars they trade by; none means New York."""
NOTES = pl.Schema({"reason": pl.String, "bars": pl.Int64})
INTERVAL = re.compile(r"^\d+(m|h|d|wk|mo|y)$")
SPACINGS = ((0.9, "intraday"), (4.5, "daily"), (14.0, "weekly"), (60.0, "monthly"), (float("inf"), "quarterly"))
"""Median days between neighbouring rows, up to which a file is of an interval."""


@dataclass(frozen=True)
class FileJudgement:
    """Findings about one file (as `data_quality.anomalies` holds them), and what could not be judged (`reason`, `bars`).

    `refused` says why nothing was judged at all, else it is null; both frames are empty then but for that reason.
    """

    symbol: str
    calendar: str
    refused: str | None
    findings: pl.DataFrame
    not_judged: pl.DataFrame


@dataclass(frozen=True)
class VendorFile:
    """A file of daily bars, read: bars (`judge.BAR_COLUMNS`), actions (kinds `dividend`, `split`, `capital_gain`), and what could not be read."""

    symbol: str
    calendar: TradingCalendar
    bars: pl.DataFrame
    actions: pl.DataFrame
    unread: pl.DataFrame


class NotDailyBars(QuantAssetsError):
    """A file that cannot be judged; the text is the reason."""


def judge_file(path: Path, calendar: str | None = None, symbol: str | None = None) -> FileJudgement:
    """Judge every bar of a file of daily bars, under the calendar given, else that of the symbol's suffix.

    The symbol is taken from the file's name where it is not given: `1398.HK.csv`, or `1398-HK-1d-anything.csv`. Weekly,
    monthly, quarterly and intraday files are refused, by the spacing of their rows. Rows come in any order. A file that
    cannot be judged raises nothing: it is refused with the reason.
    """
    symbol = symbol or symbol_of(path.name)
    try:
        file = read_file(path, calendar, symbol)
    except NotDailyBars as reason:
        return FileJudgement(symbol, calendar or calendar_of(symbol) or "", str(reason), NOTHING, _noted([(str(reason), 0)]))
    judged = judge(file.bars, file.actions, file.calendar)
    panel = prepared(file.bars, file.actions, file.calendar)
    # Its adjusted closes are all of one day's basis, which those of a nightly history are not.
    found = pl.concat([judged.findings, adjusted_closes(panel, file.actions)])
    notes = pl.concat([file.unread, judged.not_judged.select(*NOTES).cast(NOTES)])  # type: ignore[arg-type]
    return FileJudgement(symbol, file.calendar.name, None, found.sort("session", "rule", "detector"), notes)


def read_file(path: Path, calendar: str | None = None, symbol: str | None = None) -> VendorFile:
    """Read a file of daily bars; raises `NotDailyBars` with the reason where it holds none.

    Numbers and dates that cannot be read are null and told, and so are columns that are missing; of several rows of one
    session the last one counts.
    """
    symbol = symbol or symbol_of(path.name)
    name = calendar or calendar_of(symbol)
    if name is None:
        raise NotDailyBars(f"no exchange is known for the suffix of {symbol}; name its calendar")
    try:
        # As text: what does not read as a number or a date is told, not guessed.
        read = pl.read_csv(path, infer_schema=False, null_values=["", "null", "NaN", "nan"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise NotDailyBars(f"{path.name} is not a readable CSV file: {error}") from None
    time = next((column for column in ("Datetime", "Date") if column in read.columns), None)
    missing = [column for column in ("Open", "High", "Low", "Close") if column not in read.columns]
    if time is None or missing:
        raise NotDailyBars(f"{path.name} has no {', '.join(missing or ['Date'])}; its columns are {', '.join(read.columns)}")
    rows = read.with_columns(
        written=pl.col(time).str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False),
        of_day=pl.col(time).str.slice(11, 8).str.to_time("%H:%M:%S", strict=False),
    ).drop_nulls("written")
    if (interval := _interval(rows)) != "daily":
        raise NotDailyBars(f"{path.name} holds {interval} bars; only daily ones are judged")
    first: date = rows["written"].min()  # type: ignore[assignment]
    try:
        sessions = trading_calendar(name, first - timedelta(days=10))
    except ConfigurationError as error:
        raise NotDailyBars(str(error)) from None
    rows = rows.with_columns(session=_session(time, sessions.timezone), symbol=pl.lit(symbol)).sort("session", maintain_order=True)
    once = rows.unique("session", keep="last", maintain_order=True)
    numbers = [column for column in (*PRICES, *ACTIONS) if column in once.columns]
    cast = once.with_columns(pl.col(numbers).cast(pl.Float64, strict=False))
    unread = [
        (f"no readable {time}", read.height - rows.height),
        ("another row of the same session stands below it", rows.height - once.height),
        *((f"{column} is not a number", cast[column].null_count() - once[column].null_count()) for column in numbers),
        *((f"no column {column}", once.height) for column in (*PRICES, "Dividends", "Stock Splits") if column not in numbers),
    ]
    return VendorFile(symbol, sessions, _bars(cast, sessions), _actions(cast, sessions), _noted([note for note in unread if note[1]]))


def symbol_of(file_name: str) -> str:
    """The symbol that a file is named for: what stands before the interval or the ending, with the exchange after a point."""
    stem = file_name.removesuffix(".csv")
    words = stem.split("-")
    at = next((n for n, word in enumerate(words) if n and INTERVAL.match(word)), len(words))
    words = words[:at]
    if len(words) > 1 and words[-1].upper() in EXCHANGES:
        return f"{'-'.join(words[:-1])}.{words[-1]}"
    return "-".join(words)


def calendar_of(symbol: str) -> str | None:
    """The exchange calendar of a Yahoo symbol: New York's without a suffix, null for a suffix that is not known."""
    name, point, suffix = symbol.rpartition(".")
    return EXCHANGES.get(suffix.upper()) if point and name else "XNYS"


def _noted(notes: list[tuple[str, int]]) -> pl.DataFrame:
    return pl.DataFrame(notes, schema=NOTES, orient="row")


def _interval(rows: pl.DataFrame) -> str:
    """`intraday`, `daily`, `weekly`, `monthly` or `quarterly` by the median distance between neighbouring rows."""
    stamps = rows.select(pl.col("written").dt.combine(pl.col("of_day").fill_null(pl.time(0)))).to_series().unique().sort()
    if len(stamps) < 2:
        return "too few"
    # Summer time moves the hour of a daily row by one.
    hours: float = stamps.diff().dt.total_hours().median()  # type: ignore[assignment]
    return next(name for most, name in SPACINGS if hours / 24 <= most)


def _session(time: str, timezone: str) -> pl.Expr:
    """The date as written where it is midnight or has no offset, else the date at the exchange at that instant."""
    stamp = pl.col(time).str.replace(" ", "T", literal=True).str.replace(r"Z$", "+00:00")
    there = stamp.str.to_datetime("%Y-%m-%dT%H:%M:%S%:z", strict=False, time_zone="UTC").dt.convert_time_zone(timezone).dt.date()
    return pl.when(pl.col("of_day") != pl.time(0)).then(pl.coalesce(there, "written")).otherwise("written")


def _bars(rows: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """The rows in the columns of `judge.BAR_COLUMNS`; a bar of a closed day is known at its end."""
    nothing = pl.lit(None, pl.Float64)
    values = [(pl.col(column) if column in rows.columns else nothing).alias(name) for column, name in PRICES.items()]
    bars = rows.select("symbol", "session", *values, basis=pl.lit("restated"))
    return bars.join(_known(bars, calendar), on="session", how="left", maintain_order="left")


def _actions(rows: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """One row per dividend, split or capital gain that the rows tell of."""
    kinds = [
        rows.select("symbol", "session", kind=pl.lit(kind), value=pl.col(column)).filter(
            (pl.col("value") != 0) & pl.col("value").is_not_null()
        )
        for column, kind in ACTIONS.items()
        if column in rows.columns
    ]
    schema = {"symbol": pl.String, "session": pl.Date, "kind": pl.String, "value": pl.Float64}
    told = pl.concat([pl.DataFrame(schema=schema), *kinds])
    return told.join(_known(told, calendar), on="session", how="left", maintain_order="left")


def _known(rows: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    days = rows.select("session").unique()
    known = days.join(calendar.frame(calendar.sessions[0], calendar.sessions[-1]).select("session", "known_at"), on="session", how="left")
    return known.with_columns(pl.col("known_at").fill_null(pl.col("session").cast(pl.Datetime("us")) + pl.duration(days=1)))
