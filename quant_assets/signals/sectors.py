"""Sectors of symbols, where the desk knows them: a small file, for scores by sector."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from quant_assets.errors import ConfigurationError


def with_sectors(frame: pl.DataFrame, path: str) -> pl.DataFrame:
    """Add `sector` from a CSV of `symbol,sector`, one line per symbol; null for symbols that it lacks. No path: as it came.

    Raises `ConfigurationError` for a file that is missing, lacks a column or names a symbol twice.
    """
    if not path:
        return frame
    if not Path(path).is_file():
        raise ConfigurationError(f"QUANT_SECTORS_PATH={path} is no file; give a CSV of symbol,sector, or leave it empty.")
    sectors = pl.read_csv(path, infer_schema=False)
    if missing := [name for name in ("symbol", "sector") if name not in sectors.columns]:
        raise ConfigurationError(
            f"QUANT_SECTORS_PATH={path} lacks the column {' and '.join(missing)}; its header is {','.join(sectors.columns)}."
        )
    named = sectors.select(pl.col("symbol", "sector").str.strip_chars()).drop_nulls()
    if twice := named.filter(pl.col("symbol").is_duplicated())["symbol"].unique().sort().to_list():
        raise ConfigurationError(f"QUANT_SECTORS_PATH={path} names {', '.join(twice[:5])} more than once; keep one line per symbol.")
    return frame.join(named, on="symbol", how="left", maintain_order="left")
