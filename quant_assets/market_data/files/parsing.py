"""A vendor's words into bars: what a column means, which day a text is, whether a cell is a number.

Everything arrives as text, so that a symbol called `TRUE`, `INF` or `005930` stays what it is. Nothing is guessed
that could be read two ways: a date order, a decimal comma and a thousands separator are refused with the remedy.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

import polars as pl

from quant_assets.errors import ConfigurationError, NotBarsError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "name", "tickersymbol", "stocksymbol", "stock", "instrument", "tic", "code"),
    "session": ("session", "date", "datetime", "timestamp", "time", "day", "tradedate", "tradingdate", "tradingday", "sessiondate"),
    "open": ("open", "openprice", "openingprice"),
    "high": ("high", "highprice"),
    "low": ("low", "lowprice"),
    "close": ("close", "closeprice", "closingprice"),
    "volume": ("volume", "vol", "tradedvolume", "sharestraded"),
    "adj_close": ("adjclose", "adjustedclose", "closeadj", "closeadjusted", "adjcloseprice", "adjustedcloseprice", "adjclosing"),
    "dividend": ("dividend", "dividends", "dividendamount", "divcash", "cashdividend", "cashdividends"),
    "split": ("split", "splits", "stocksplit", "stocksplits", "splitcoefficient", "splitfactor", "splitratio"),
}
"""Meaning → header names, compared without case, spaces, punctuation and a leading number ('1. open')."""

WANTED = ("session", "open", "high", "low", "close")
PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume", "adj_close", "dividend", "split")
SEPARATORS = (",", ";", "\t")
RECENT_DAYS = 10
"""Calendar days within which the bars of a daily delivery lie."""

ROWS = {"file": pl.UInt32, "line": pl.Int64, "symbol": pl.Categorical, "date": pl.Categorical} | dict.fromkeys(NUMBERS, pl.Float64)
FAULTS = {"file": pl.UInt32, "line": pl.Int64, "rank": pl.Int32, "column_name": pl.String, "value": pl.String, "reason": pl.String}

_MEANING = {synonym: meaning for meaning, synonyms in SYNONYMS.items() for synonym in synonyms}
# Beside `Symbol`, a `Name` is the company's; beside `Date`, a `Time` is the clock's. Alone, they are what we look for.
_YIELDS = ("name", "time")
_MISSING = ("", "nan", "null", "none", "na", "n/a", "#n/a", "nat")
_TIME = r"(?:[T ]\s*\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?\s*(?:[AaPp][Mm])?\s*(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?$"
_UNAMBIGUOUS = (
    (r"^\d{4}-\d{1,2}-\d{1,2}$", "%Y-%m-%d"),
    (r"^\d{1,2}-[A-Za-z]{3}-\d{4}$", "%d-%b-%Y"),
    (r"^\d{4}/\d{1,2}/\d{1,2}$", "%Y/%m/%d"),
    (r"^\d{4}\.\d{1,2}\.\d{1,2}$", "%Y.%m.%d"),
    (r"^(?:19|20)\d{6}$", "%Y%m%d"),
    (r"^\d{1,2}-[A-Za-z]{3}-\d{2}$", "%d-%b-%y"),
    (r"^\d{1,2} [A-Za-z]{3} \d{4}$", "%d %b %Y"),
    (r"^[A-Za-z]{3} \d{1,2}, \d{4}$", "%b %d, %Y"),
)


def columns_of(header: Sequence[str], file: str) -> dict[str, int]:
    """Tell which column means what: meaning → position in the header, in the order of `SYNONYMS`.

    Columns of no known meaning are left out. Raises `NotBarsError` (columns found and wanted) when a date or a price
    column is missing, `ConfigurationError` when two columns claim one meaning.
    """
    plain = [re.sub(r"[\W_]", "", re.sub(r"^\s*\d+\s*[.):]\s*", "", name.lower())) for name in header]
    found: dict[str, int] = {}
    for meaning in SYNONYMS:
        claims = [at for at, name in enumerate(plain) if _MEANING.get(name) == meaning]
        if len(claims) > 1:
            claims = [at for at in claims if plain[at] not in _YIELDS] or claims
        if len(claims) > 1:
            both = " and ".join(repr(header[at]) for at in claims)
            raise ConfigurationError(f"{file}: the columns {both} both mean {meaning}; remove or rename all but one.")
        if claims:
            found[meaning] = claims[0]
    if missing := [meaning for meaning in WANTED if meaning not in found]:
        words = {"session": "date"}
        shown = ", ".join(header[:20]) + (", …" if len(header) > 20 else "")
        raise NotBarsError(
            f"{file} holds no bars: found the columns {shown[:300]}; wanted date, open, high, low, close (and, where there are any, "
            f"symbol, volume, adj close, dividends, stock splits). Missing: {', '.join(words.get(name, name) for name in missing)}."
        )
    return found


def split_header(line: str) -> tuple[str, list[str]]:
    """Find the separator (comma, semicolon or tab) that makes most sense of a header line, and split it."""
    candidates = [(separator, next(csv.reader([line], delimiter=separator, skipinitialspace=True))) for separator in SEPARATORS]
    separator, names = max(candidates, key=lambda candidate: len(candidate[1]))
    return separator, [name.strip().lstrip("\ufeff") for name in names]


def split_lines(lines: pl.DataFrame, separator: str, width: int) -> pl.DataFrame:
    """Split lines (`text` among their columns) into `width` text columns `field_0` …, and add `fields`, how many there were.

    Quotes are understood within one line; a line whose quotes do not close (a line break inside quotes) has `fields` 0.
    Where `fields` differs from `width`, the values are those of no known column.
    """
    mark = re.escape(separator)
    plain_cell = rf'(?:"[^"{mark}]*"|[^"{mark}]*)'
    quoted = pl.col("text").str.contains('"', literal=True)
    # Where quotes enclose no separator and no quote, dropping them is exact, and far faster than reading line by line.
    simple = ~quoted | pl.col("text").str.contains(f"^{plain_cell}(?:{mark}{plain_cell})*$")
    bare = pl.when(quoted).then(pl.col("text").str.replace_all('"', "", literal=True)).otherwise("text")
    parts = [_fields(lines.filter(simple).with_columns(cells=bare), separator, width)]
    intricate = lines.filter(~simple)
    if intricate.height:
        # The unit separator stands between the fields, since these may hold the file's own separator.
        cells = pl.Series("cells", [_read_quoted(text, separator) for text in intricate["text"]], dtype=pl.String)
        parts.append(_fields(intricate.with_columns(cells), "\x1f", width))
    return pl.concat(parts).drop("cells")


def _read_quoted(text: str, separator: str) -> str | None:
    if text.count('"') % 2:
        return None  # a quote opened here closes on another line, or the other way round
    try:
        return "\x1f".join(next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True)))
    except csv.Error:
        return None


def _fields(lines: pl.DataFrame, separator: str, width: int) -> pl.DataFrame:
    names = [f"field_{at}" for at in range(width)]
    count = pl.col("cells").str.count_matches(separator, literal=True).cast(pl.Int64) + 1
    split = pl.col("cells").str.split_exact(separator, width - 1).struct.rename_fields(names)
    return lines.with_columns(fields=count.fill_null(0), split=split).unnest("split")


def is_missing(cells: pl.Expr) -> pl.Expr:
    """Whether a text cell says that there is no value: empty, nan, null, none, n/a."""
    return cells.is_null() | cells.str.strip_chars().str.to_lowercase().is_in(_MISSING)


def is_blank(cells: pl.Expr) -> pl.Expr:
    """Whether nothing stands in a text cell; `NA` is something, since a symbol may be called so."""
    return cells.is_null() | (cells.str.strip_chars() == "")


def read_cells(cells: pl.DataFrame, spelled: Mapping[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read text cells into numbers, and say which cell is at fault and why.

    `cells` has `file`, `line`, `symbol` and text columns named by meaning; `spelled` says how the file names them.
    Returns rows (`ROWS`; dates stay text until the whole delivery is seen) and faults (`FAULTS`, one row per cell at
    fault). Prices must be finite numbers; volume, adj_close, dividend and split may be missing (null), and all but
    adj_close must not be negative. A price that is not positive is a bar here: judging it is data quality's.
    """
    table = cells.with_columns(_number(meaning).alias(f"{meaning}_number") for meaning in NUMBERS if meaning in spelled)
    faults = []
    for meaning in (name for name in NUMBERS if name in spelled):
        text, number = pl.col(meaning), pl.col(f"{meaning}_number")
        sound = number.is_finite().fill_null(False) & (pl.lit(meaning in (*PRICES, "adj_close")) | (number >= 0))
        suspects = table.filter(~sound if meaning in PRICES else ~sound & ~is_missing(text))
        said = pl.format("{} '{}'", pl.lit(spelled[meaning]), text)
        reason = (
            pl.when(is_missing(text)).then(pl.lit(f"{spelled[meaning]} is missing"))
            .when(number.is_finite()).then(pl.format("{} is negative", said))
            .when(number.is_not_null()).then(pl.format("{} is not finite", said))
            .when(text.str.contains(r"\d,\d")).then(pl.format("{} is not a number: what its comma means is not guessed; write 1234.5", said))
            .otherwise(pl.format("{} is not a number", said))
        )  # fmt: skip
        faults.append(fault(suspects, meaning, pl.lit(spelled[meaning]), text, reason))
    symbol = pl.col("symbol").str.strip_chars()
    unnamed = cells.filter(is_blank(pl.col("symbol")))
    faults.append(fault(unnamed, "symbol", pl.lit(spelled.get("symbol")), pl.col("symbol"), pl.lit("the symbol is missing")))
    rows = table.select(
        "file",
        "line",
        pl.when(~is_blank(pl.col("symbol"))).then(symbol).cast(pl.Categorical).alias("symbol"),
        pl.col("session").str.strip_chars().cast(pl.Categorical).alias("date"),
        *(
            pl.col(f"{name}_number").fill_nan(None).alias(name) if name in spelled else pl.lit(None, pl.Float64).alias(name)
            for name in NUMBERS
        ),
    )
    return rows, pl.concat(faults)


def _number(meaning: str) -> pl.Expr:
    text = pl.col(meaning).str.strip_chars()
    number = text.cast(pl.Float64, strict=False)
    if meaning != "split":
        return number
    ratio = text.str.extract_groups(r"^(?<new>\d+(?:\.\d+)?)\s*[:/]\s*(?<old>\d+(?:\.\d+)?)$").struct
    return pl.coalesce(number, ratio.field("new").cast(pl.Float64) / ratio.field("old").cast(pl.Float64))


def fault(rows: pl.DataFrame, meaning: str, column_name: pl.Expr, value: pl.Expr, reason: pl.Expr) -> pl.DataFrame:
    """State one fault per row (`FAULTS`); `meaning` orders the faults of one row, the empty one comes first."""
    rank = list(SYNONYMS).index(meaning) if meaning else -1
    cells = [pl.lit(rank, pl.Int32).alias("rank"), column_name.alias("column_name"), value.alias("value"), reason.alias("reason")]
    return rows.select("file", "line", *cells).cast(FAULTS)  # type: ignore[arg-type]


def read_dates(texts: pl.Series, date_format: str = "", delivered: date | None = None) -> pl.DataFrame:
    """Read the distinct date texts of a whole delivery: one row per text, `text` and `session` (null where it is no date).

    A time of day and its zone are passed over: the calendar date counts as it is written. Without a stated format,
    ISO and other year-first or month-name forms are read, and a day-and-month order that at least one text decides, or
    the day on which the texts were `delivered`: the order in which more of them lie just before it.
    With one (as in `strptime`), the texts must match it or be ISO. Raises `ConfigurationError`, naming
    QUANT_FILES_DATE_FORMAT and an example, when the order stays open or no text is a date.
    """
    table = pl.DataFrame({"text": texts.cast(pl.String)}).filter(~is_missing(pl.col("text"))).unique().sort("text")
    day = pl.col("text").str.replace(_TIME, "").str.replace(r"([A-Za-z]{3})[A-Za-z]+", "${1}")  # March is Mar
    read: list[pl.Expr] = [pl.when(day.str.contains(form)).then(day.str.to_date(pattern, strict=False)) for form, pattern in _UNAMBIGUOUS]
    if date_format:
        stated = pl.Series(
            [_strptime(text, date_format) or _strptime(re.sub(_TIME, "", text), date_format) for text in table["text"]], dtype=pl.Date
        )
        # ISO stays readable beside a stated form, unless that gives its shape another order; so do a Parquet file's typed dates.
        read = [pl.lit(stated), *read[date_format.startswith("%Y-%d") : 2]]
    table = table.with_columns(session=pl.coalesce(read))
    if not date_format and table["session"].null_count():
        for mark in "/.-":
            table = _decide_order(table, day, mark, delivered)
    if table.height and table["session"].null_count() == table.height:
        form = f"has the form {date_format}" if date_format else "has a known form"
        raise ConfigurationError(
            f"No date {form}, such as {table['text'][0]!r}; state their form in QUANT_FILES_DATE_FORMAT, e.g. %d/%m/%Y for 23/03/2015."
        )
    return table


def _strptime(text: str, date_format: str) -> date | None:
    try:
        return datetime.strptime(text, date_format).date()
    except (ValueError, re.error):  # the second where a format names one part twice
        return None


def _decide_order(table: pl.DataFrame, day: pl.Expr, mark: str, delivered: date | None) -> pl.DataFrame:
    """Read dates such as 23/03/2015, where the texts themselves show which number is the day."""
    in_form = day.str.contains(rf"^\d{{1,2}}{re.escape(mark)}\d{{1,2}}{re.escape(mark)}\d{{4}}$")
    orders = {f"%d{mark}%m{mark}%Y": "day_first", f"%m{mark}%d{mark}%Y": "month_first"}
    both = table.filter(in_form).select("text", **{name: day.str.to_date(form, strict=False) for form, name in orders.items()})
    only_day = both.filter(pl.col("month_first").is_null() & pl.col("day_first").is_not_null())
    only_month = both.filter(pl.col("day_first").is_null() & pl.col("month_first").is_not_null())
    if both.filter(pl.col("day_first").ne_missing(pl.col("month_first"))).is_empty():
        order = "day_first"  # each text is one and the same day in both orders, or no date in either
    elif delivered and only_day.is_empty() and only_month.is_empty() and (likelier := _just_before(both, delivered)):
        order = likelier
    elif only_day.is_empty() == only_month.is_empty():
        example = both["text"][0] if only_day.is_empty() else f"{only_day['text'][0]}' and '{only_month['text'][0]}"
        raise ConfigurationError(
            f"The order of day and month in '{example}' cannot be known; state it: QUANT_FILES_DATE_FORMAT={' or '.join(orders)}."
        )
    else:
        order = "month_first" if only_day.is_empty() else "day_first"
    chosen = both.select("text", chosen=order)
    return table.join(chosen, on="text", how="left", maintain_order="left").select(
        "text", pl.coalesce("session", "chosen").alias("session")
    )


def _just_before(both: pl.DataFrame, delivered: date) -> str | None:
    """The order in which more dates lie in the days before a delivery: swapping day and month moves a date by a month or more."""
    near = {
        order: both[order].is_between(delivered - timedelta(days=RECENT_DAYS), delivered).sum() for order in ("day_first", "month_first")
    }
    return None if near["day_first"] == near["month_first"] else max(near, key=near.__getitem__)
