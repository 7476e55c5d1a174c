"""A small market of our own in files as a vendor writes them: one CSV per symbol, the same for everyone who asks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from quant_assets.clock import trading_calendar

FIRST = date(2016, 10, 17)
LONGEST = 400
HEADER = ("Date", "Open", "High", "Low", "Close", "Adj Close", "Volume")
SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE", "TRUE")


def sessions(count: int, first: date = FIRST) -> Sequence[date]:
    """The first sessions of the market, on the calendar of New York."""
    calendar = trading_calendar("XNYS", first)
    return calendar.sessions[: calendar.sessions.index(first) + count][-count:]


def bars(count: int, symbols: Sequence[str] = SYMBOLS, seed: int = 7, first: date = FIRST) -> pl.DataFrame:
    """Random walks under the vendor's column names, with `symbol`; more sessions leave the earlier ones as they are."""
    frames = []
    for number, symbol in enumerate(symbols):
        draw = np.random.default_rng([seed, number])
        close = 50 * np.exp(np.cumsum(draw.normal(0, 0.015, LONGEST)))
        opening = np.concatenate([[50.0], close[:-1]]) * (1 + draw.normal(0, 0.004, LONGEST))
        high = np.maximum(opening, close) * (1 + np.abs(draw.normal(0, 0.005, LONGEST)))
        low = np.minimum(opening, close) * (1 - np.abs(draw.normal(0, 0.005, LONGEST)))
        volume = draw.integers(1_000_000, 9_000_000, LONGEST)
        prices = {name: np.round(values, 4)[:count] for name, values in zip(HEADER[1:5], (opening, high, low, close), strict=True)}
        frames.append(
            pl.DataFrame({"Date": sessions(count, first), **prices, "Adj Close": prices["Close"], "Volume": volume[:count]}).with_columns(
                symbol=pl.lit(symbol)
            )
        )
    return pl.concat(frames)


def write(folder: Path, market: pl.DataFrame) -> Path:
    """One file per symbol, `AAA.csv` and so on; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for (symbol,), rows in market.group_by("symbol"):
        rows.sort("Date").select(HEADER).write_csv(folder / f"{symbol}.csv")
    return folder


def set_cell(file: Path, session: date, column: str, text: str) -> int:
    """Write something else into one cell of one session's row; returns the line it stands on, the header being 1."""
    lines = file.read_text().splitlines()
    line = next(number for number, content in enumerate(lines) if content.startswith(session.isoformat()))
    cells = lines[line].split(",")
    cells[HEADER.index(column)] = text
    lines[line] = ",".join(cells)
    file.write_text("\n".join(lines) + "\n")
    return line + 1


def read(file: Path) -> dict[date, dict[str, str]]:
    """The rows of one file as the standard library reads them, by session."""
    with file.open(newline="") as lines:
        return {date.fromisoformat(row["Date"]): row for row in csv.DictReader(lines)}
