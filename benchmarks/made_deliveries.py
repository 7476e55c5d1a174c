"""Dated deliveries made from a seed, in the shape of the real ones: about 6,000 symbols, days T and T−1, lists of symbols."""

from __future__ import annotations

import io
import tarfile
from datetime import date
from pathlib import Path

import numpy as np

from quant_assets.clock import trading_calendar

SYMBOLS, SESSIONS, SEED = 6_000, 199, 7


def make_deliveries(folder: Path, symbols: int = SYMBOLS, sessions: int = SESSIONS) -> Path:
    """Write one archive per session from 2015-03-23 on; returns the folder."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    names = [f"S{number:04d}" for number in range(symbols)]
    days = trading_calendar("XNYS", date(2015, 1, 2)).between(date(2015, 3, 20), date.max)[: sessions + 1]
    close = np.round(draw.uniform(5, 200, symbols), 2)
    before: list[str] = []
    for day in days:
        close = np.maximum(np.round(close * np.exp(draw.normal(0, 0.02, symbols)), 2), 0.01)
        high, low = np.round(close * 1.01, 2), np.round(close * 0.99, 2)
        volume = draw.integers(100, 10_000_000, symbols)
        rows = [f"{name},{day},{c},{h},{lo},{c},{v},{c}\n" for name, c, h, lo, v in zip(names, close, high, low, volume, strict=True)]
        if before:
            prices = "symbol,date,open,high,low,close,volume,adj_close\n" + "".join(rows) + "".join(before)
            texts = {"symbols.txt": "".join(f"{name}\tCompany {name}\n" for name in names), "prices.csv": prices, "reports.csv": ""}
            with tarfile.open(folder / f"{day:%Y%m%d}.tar.gz", "w:gz") as archive:
                for name, text in texts.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(data := text.encode())
                    archive.addfile(member, io.BytesIO(data))
        before = rows
    return folder
