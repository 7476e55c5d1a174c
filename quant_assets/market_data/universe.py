"""Who is in scope, and when: `QUANT_UNIVERSE` as a list of symbols or as a file of memberships with their dates."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import polars as pl

from quant_assets.errors import ConfigurationError
from quant_assets.market_data.delivery import MEMBERS
from quant_assets.settings import Settings

HEADINGS = {
    "symbol": ("symbol",),
    "valid_from": ("valid_from", "from", "start"),
    "valid_to": ("valid_to", "to", "end"),
}
"""What each column may be called, in any order and case; other columns are left alone."""


@dataclass(frozen=True)
class _Stretch:
    """One line of a membership file; `valid_to` is None while the symbol is in scope."""

    symbol: str
    valid_from: date
    valid_to: date | None
    line: int

    def __str__(self) -> str:
        return f"{self.symbol} from {self.valid_from} to {self.valid_to or 'now'}"


def universe(settings: Settings) -> tuple[str, ...]:
    """The symbols that `QUANT_UNIVERSE` lists, in its order, by comma or in a file; empty means all.

    Of a membership file, everybody who ever was in scope. Raises `ConfigurationError` for a file that cannot be read.
    """
    text, path = _text(settings)
    stretches = _stretches(text, path)
    if stretches is not None:
        return tuple(dict.fromkeys(stretch.symbol for stretch in stretches))
    return tuple(dict.fromkeys(symbol.strip() for symbol in text.replace("\n", ",").split(",") if symbol.strip()))


def members_frame(settings: Settings) -> pl.DataFrame | None:
    """The stretches of time in which symbols were in scope (`delivery.MEMBERS`), or None where `QUANT_UNIVERSE` gives no dates.

    One row per stretch, sorted by symbol and `valid_from`; `valid_to` is the last date in scope, null while there is none.
    Stretches of one symbol do not overlap. Raises `ConfigurationError` naming file, line and value for what is no such file.
    """
    stretches = _stretches(*_text(settings))
    if stretches is None:
        return None
    rows = [(stretch.symbol, stretch.valid_from, stretch.valid_to) for stretch in sorted(stretches, key=_by_symbol)]
    return pl.DataFrame(rows, schema=MEMBERS, orient="row")


def _text(settings: Settings) -> tuple[str, Path | None]:
    """What the setting says, and the file it stands in, if it names one."""
    text = settings.universe.strip()
    path = Path(text).expanduser()
    if not text or "," in text or not (path.suffix or "/" in text):  # a symbol such as BRK.B or BTC/USD looks like a file, too
        return text, None
    try:
        return path.read_text(encoding="utf-8-sig"), path
    except (OSError, UnicodeDecodeError) as error:
        if path.exists() or path.suffix in {".txt", ".csv"} or text.startswith(("/", "./", "../", "~")):
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise ConfigurationError(f"QUANT_UNIVERSE={text!r} cannot be read: {reason}; give a file or a comma list.") from None
    return text, None


def _stretches(text: str, path: Path | None) -> list[_Stretch] | None:
    """The lines of a membership file in its order; None for what has no header with `symbol` and so is a mere list."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    header = next((row for row in rows if any(cell.strip() for cell in row)), [])
    names = [cell.strip().lower() for cell in header]
    if path is None or "symbol" not in names:
        return None
    position = {column: [names.index(name) for name in accepted if name in names] for column, accepted in HEADINGS.items()}
    for column, found in position.items():
        if len(found) != 1:
            problem = "has no column" if not found else "has several columns"
            raise ConfigurationError(
                f"QUANT_UNIVERSE={path}: the header {','.join(header)!r} {problem} {' or '.join(HEADINGS[column])}; "
                "write symbol,valid_from,valid_to, or a list of symbols without a header."
            )
    stretches = []
    for row in rows:
        line = rows.line_num
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise ConfigurationError(
                f"QUANT_UNIVERSE={path}, line {line}: {len(row)} cells where the header has {len(header)}: {','.join(row)!r}; "
                "give every column, and leave valid_to empty while the symbol is in scope."
            )
        symbol, valid_from, valid_to = (row[found[0]].strip() for found in position.values())
        if not symbol:
            raise ConfigurationError(f"QUANT_UNIVERSE={path}, line {line}: no symbol in {','.join(row)!r}; name it, or remove the line.")
        begins = _date(valid_from, "valid_from", symbol, line, path)
        ends = _date(valid_to, "valid_to", symbol, line, path) if valid_to else None
        if ends is not None and ends < begins:
            raise ConfigurationError(
                f"QUANT_UNIVERSE={path}, line {line}: {symbol} ends on {ends}, before it begins on {begins}; exchange or correct the dates."
            )
        stretches.append(_Stretch(symbol, begins, ends, line))
    if not stretches:
        raise ConfigurationError(f"QUANT_UNIVERSE={path} has a header and no line: nobody would be in scope; list who is.")
    _refuse_overlaps(stretches, path)
    return stretches


def _date(text: str, column: str, symbol: str, line: int, path: Path) -> date:
    """An ISO date; `date.fromisoformat` alone would take week dates and dates without hyphens, too."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        remedy = "or leave it empty while the symbol is in scope" if column == "valid_to" else "the first session in scope"
        raise ConfigurationError(
            f"QUANT_UNIVERSE={path}, line {line}: {column} {text!r} of {symbol} is no date like 2015-03-27; write it so, {remedy}."
        )
    return found


def _refuse_overlaps(stretches: list[_Stretch], path: Path) -> None:
    for first, second in pairwise(sorted(stretches, key=_by_symbol)):
        if first.symbol != second.symbol or (first.valid_to is not None and first.valid_to < second.valid_from):
            continue
        if (first.valid_from, first.valid_to) == (second.valid_from, second.valid_to):
            raise ConfigurationError(f"QUANT_UNIVERSE={path}, line {second.line} repeats line {first.line}: {second}; remove one of them.")
        raise ConfigurationError(
            f"QUANT_UNIVERSE={path}, line {second.line}: {second} overlaps {first} of line {first.line}; "
            "let each stretch end before the next one begins, or make them one."
        )


def _by_symbol(stretch: _Stretch) -> tuple[str, date, int]:
    return stretch.symbol, stretch.valid_from, stretch.line
