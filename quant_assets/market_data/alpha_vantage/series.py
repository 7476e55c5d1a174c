"""Alpha Vantage's daily series, JSON or CSV, into bars, actions and rejected rows of one symbol."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.errors import ConfigurationError, QuantAssetsError
from quant_assets.market_data.delivery import ACTIONS, BARS, REJECTED
from quant_assets.market_data.files import parsing

SERIES = "Time Series (Daily)"
META = "Meta Data"
SHOWN_CHARACTERS = 200
_SAME = ("open", "high", "low", "close", "volume", "dividend", "split")


class NotASeries(QuantAssetsError):
    """A reply has the form of a series and cannot be trusted all the same: cut off, another symbol's, nothing readable in it."""


@dataclass(frozen=True)
class Series:
    """A parsed reply, oldest first: `rows` has the columns of a bar, `dividend` and `split`; `rejected` has `session` (null: no date)."""

    rows: pl.DataFrame
    rejected: pl.DataFrame

    def until(self, session: date) -> Series:
        """Without what lies after a session: it had not closed when the reply was asked for, and its row may still change."""
        return Series(self.rows.filter(pl.col("session") <= session), self.rejected.filter((pl.col("session") <= session).fill_null(True)))

    def bars(self, first: date, last: date) -> pl.DataFrame:
        """The bars of a range (`delivery.BARS`)."""
        return self.rows.filter(pl.col("session").is_between(first, last)).select(*BARS)

    def actions(self, first: date, last: date) -> pl.DataFrame:
        """Dividends that are not 0 and splits that are not 1, in a range (`delivery.ACTIONS`)."""
        kinds = {"dividend": pl.col("dividend") != 0, "split": (pl.col("split") != 0) & (pl.col("split") != 1)}
        inside = self.rows.filter(pl.col("session").is_between(first, last))
        parts = [inside.filter(there).select("symbol", "session", kind=pl.lit(kind), value=pl.col(kind)) for kind, there in kinds.items()]
        return pl.concat(parts).sort("symbol", "session", "kind").cast(ACTIONS)  # type: ignore[arg-type]

    def rejected_in(self, first: date, last: date, payload_sha256: str) -> pl.DataFrame:
        """The rejected rows of a range (`delivery.REJECTED`), the payload being their file; one without a date is in every range."""
        inside = self.rejected.filter(pl.col("session").is_between(first, last).fill_null(True))
        return inside.with_columns(file=pl.lit(payload_sha256)).select(*REJECTED).cast(REJECTED)  # type: ignore[arg-type]


def read_series(body: bytes, symbol: str, calendar: TradingCalendar) -> Series:
    """Read a reply that is classified as data.

    Of rows with one date and the same values one stays; where values differ, all are rejected, since which is right
    cannot be known. A date must be ISO: what a spreadsheet made of it is not guessed. A line is counted from the header,
    which is 1 (JSON: the row's number + 1). Raises `NotASeries` when nothing of the reply can be trusted.
    """
    text = body.decode("utf-8-sig")
    cells, spelled = _json_cells(text, symbol) if text.lstrip()[:1] == "{" else _csv_cells(text)
    cells = cells.with_columns(file=pl.lit(0, pl.UInt32), symbol=pl.lit(symbol))
    ragged = parsing.fault(
        cells.filter("ragged"), "", pl.lit(None), pl.col("text"), pl.lit("the row does not have the cells that the header names")
    )
    rows, faults = parsing.read_cells(cells.filter(~pl.col("ragged")), spelled)
    iso = pl.col("session").str.strip_chars()
    dates = cells.select("line", session=pl.when(iso.str.contains(r"^\d{4}-\d{2}-\d{2}$")).then(iso.str.to_date("%Y-%m-%d", strict=False)))
    rows = rows.join(dates, on="line", how="left", maintain_order="left").with_columns(symbol=pl.lit(symbol))
    faults = pl.concat([ragged, faults, _date_faults(rows, calendar, spelled["session"])])
    sound = rows.join(faults, on="line", how="anti", maintain_order="left")
    again = _repetitions(sound)
    sound = sound.join(again, on="line", how="anti").sort("session")
    if sound.is_empty():
        reasons = pl.concat([faults, again]).sort("line", "rank")["reason"].to_list()
        raise NotASeries(f"None of {cells.height:,} rows can be used; the first: {reasons[0]}.")
    rejected = (
        pl.concat([faults, again])
        .sort("line", "rank")
        .group_by("line", maintain_order=True)
        .agg(pl.col("column_name", "value").first(), pl.col("reason").str.join("; "))
        .join(dates, on="line", how="left", maintain_order="left")
    )
    return Series(sound.select(*BARS, "dividend", "split"), rejected)


def _csv_cells(text: str) -> tuple[pl.DataFrame, dict[str, str]]:
    """CSV into text cells; every line of Alpha Vantage ends with a line break, the last one too."""
    if not text.endswith("\n"):
        raise NotASeries(f"The CSV is cut off: its last line ends with {text.rpartition(chr(10))[2][-60:]!r} and without a line break.")
    header, *lines = text.replace("\r\n", "\n").split("\n")
    separator, names = parsing.split_header(header)
    frame = pl.DataFrame({"line": range(2, len(lines) + 2), "text": lines}, schema={"line": pl.Int64, "text": pl.String})
    split = parsing.split_lines(frame.filter(~parsing.is_blank(pl.col("text"))), separator, len(names)).sort("line")
    columns = _columns(names)
    last = split.tail(1)
    if last.height and 1 < last["fields"].item() < len(names) and re.match(r"\d{4}-", last["text"].item()):
        raise NotASeries(f"The CSV is cut off: its last line is {last['text'].item()[:60]!r}.")
    whole = pl.col("fields") == len(names)
    cells = split.select(
        "line", pl.col("text").str.slice(0, SHOWN_CHARACTERS), (~whole).alias("ragged"),
        **{meaning: pl.when(whole).then(f"field_{at}") for meaning, at in columns.items()},
    )  # fmt: skip
    return cells, {meaning: names[at] for meaning, at in columns.items()}


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its members as they stand, repeated names among them."""

    def get(self, name: str) -> Any:
        return next((value for key, value in self if key == name), None)


def _json_cells(text: str, symbol: str) -> tuple[pl.DataFrame, dict[str, str]]:
    """JSON into text cells; the reply must say itself that it is of the symbol that was asked for."""
    reply = json.loads(text, object_pairs_hook=_Pairs, parse_float=str, parse_int=str, parse_constant=str)
    meta = reply.get(META)
    named = str(next((value for name, value in meta if "symbol" in name.lower()), "")) if isinstance(meta, _Pairs) else ""
    if named.strip().upper() != symbol.upper():
        raise NotASeries(
            f"The reply is of {named!r}; {symbol!r} was asked for." if named else "The reply does not say which symbol it is of."
        )
    entries = [entry for name, series in reply if name == SERIES and isinstance(series, _Pairs) for entry in series]
    names = list(dict.fromkeys(name for _, values in entries if isinstance(values, _Pairs) for name, _ in values))
    columns = {meaning: ["date", *names][at] for meaning, at in _columns(["date", *names]).items()}
    numbers = [meaning for meaning in columns if meaning != "session"]
    rows = []
    for number, (day, values) in enumerate(entries, start=2):
        ragged = not isinstance(values, _Pairs) or not values
        cells = {meaning: None if ragged else _text(values.get(columns[meaning])) for meaning in numbers}
        rows.append({"line": number, "text": f"{day}: {values}"[:SHOWN_CHARACTERS], "ragged": ragged, "session": day, **cells})
    schema = {"line": pl.Int64, "text": pl.String, "ragged": pl.Boolean, "session": pl.String, **dict.fromkeys(numbers, pl.String)}
    return pl.DataFrame(rows, schema=schema), columns


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _columns(names: list[str]) -> dict[str, int]:
    try:
        return parsing.columns_of(names, "The reply")
    except ConfigurationError as error:
        raise NotASeries(str(error)) from None


def _date_faults(rows: pl.DataFrame, calendar: TradingCalendar, column: str) -> pl.DataFrame:
    """Rows whose date is none in ISO form, or is no session; a date outside the calendar's reach is judged by nobody."""
    sessions = calendar.frame(date.min, date.max).select("session", known=pl.lit(True))
    judged = rows.join(sessions, on="session", how="left", maintain_order="left")
    reach = pl.col("session").is_between(calendar.sessions[0], calendar.sessions[-1])
    suspects = judged.filter(pl.col("session").is_null() | (reach & pl.col("known").is_null()))
    text = pl.col("date").cast(pl.String)
    reason = (
        pl.when(pl.col("session").is_null())
        .then(pl.format("{} '{}' is not a date such as 2015-03-23; a spreadsheet may have changed it", pl.lit(column), text))
        .otherwise(pl.format("{} '{}' is no session of {}", pl.lit(column), text, pl.lit(calendar.name)))
    )
    return parsing.fault(suspects, "session", pl.lit(column), text, reason)


def _repetitions(rows: pl.DataFrame) -> pl.DataFrame:
    """Faults of rows that repeat a date: all but the first where their values are the same, all where they differ."""
    values = pl.struct(pl.col(name).fill_null(-1.0) for name in _SAME)
    judged = rows.sort("line").with_columns(
        first=pl.col("line").first().over("session"),
        times=pl.len().over("session"),
        differing=values.n_unique().over("session") > 1,
    )
    doomed = judged.filter((pl.col("times") > 1) & (pl.col("differing") | (pl.col("line") > pl.col("first"))))
    reason = (
        pl.when("differing")
        .then(pl.format("one of {} rows of this date with other values; which is right cannot be known", "times"))
        .otherwise(pl.format("repeats line {}", "first"))
    )
    return parsing.fault(doomed, "session", pl.lit(None), pl.col("date").cast(pl.String), reason)
