"""What a bar touched, for a person at a terminal: how far it reached, and the signals that it moved most."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quant_assets.report import wide_console
from quant_assets.warehouse import Warehouse

SHOWN = 10


def show(warehouse: Warehouse, measured: pl.DataFrame, symbol: str, session: date, as_of: datetime, console: Console | None = None) -> None:
    """Print what `blast_radius.impact` returned: each version of the bar and where it stands, counts per edge, the largest moves."""
    console = console or wide_console()
    console.print(f"{symbol} {session}, as of {as_of:%Y-%m-%d %H:%M} UTC", markup=False)
    for line in _versions(warehouse, symbol, session, as_of):
        console.print(line, markup=False, soft_wrap=True)
    if measured.is_empty():
        console.print("Nothing rests on it.")
        return
    console.print(_counts(measured))
    moves = measured.filter(pl.col("edge") == "signal").with_columns(move=pl.col("value_with") - pl.col("value_without"))
    untold = moves.filter(pl.col("move").is_null())
    largest = moves.drop_nulls("move").sort(pl.col("move").abs(), "item_session", descending=True)
    if largest.height:
        console.print(_signals(largest))
    if untold.height:
        console.print(
            f"No move can be told of {untold.height:,} signals; the column detail of data_quality.blast_radius says why.", soft_wrap=True
        )


def _versions(warehouse: Warehouse, symbol: str, session: date, as_of: datetime) -> list[str]:
    """Each version of the bar in one line: its close, and whether it is clean, held back (by which rules) or replaced."""
    rows = warehouse.read(
        """
        select bar.known_at, bar.close, clean.known_at is not null as is_clean, bar.known_at = max(bar.known_at) over () as is_newest,
            (
                select string_agg(distinct rule, ', ' order by rule) from data_quality.anomalies as anomaly
                where anomaly.symbol = bar.symbol and anomaly.session = bar.session and anomaly.source = bar.source and bar_known_at = bar.known_at
                  and severity = 'critical' and anomaly.known_at <= $as_of
            ) as rules
        from market_data.daily_bars as bar
        left join data_quality.clean_bars_as_of($as_of) as clean
            on clean.symbol = bar.symbol and clean.session = bar.session and clean.known_at = bar.known_at
        where bar.symbol = $symbol and bar.session = $session and bar.source = $source and bar.known_at <= $as_of
        order by bar.known_at
        """,
        {"symbol": symbol, "session": session, "source": warehouse.preferred_source, "as_of": as_of},
    )
    lines = []
    for known_at, close, is_clean, is_newest, rules in rows.iter_rows():
        standing = "replaced by a later version" if not is_newest else "in clean_bars" if is_clean else "held back"
        standing += ", released" if is_clean and rules else ""
        lines.append(f"Version known from {known_at} UTC, close {close:g}: {standing}{f' (critical: {rules})' if rules else ''}.")
    return lines


def _counts(measured: pl.DataFrame) -> Table:
    table = Table(box=SIMPLE_HEAD, title="What it reached", title_justify="left")
    for heading in ("edge", "things", "first session", "last session", "largest change"):
        table.add_column(heading, justify="right" if heading in ("things", "largest change") else "left")
    change = (pl.col("value_with") - pl.col("value_without")).abs().max()
    for edge, things, first, last, largest in (
        measured.group_by("edge", maintain_order=True)
        .agg(
            pl.len(),
            pl.col("item_session").min().cast(pl.String).alias("first").fill_null("–"),
            pl.col("item_session").max().cast(pl.String).alias("last").fill_null("–"),
            change.alias("largest"),
        )
        .iter_rows()
    ):
        # A feature row's values are of whichever feature moves most: their sizes have no common unit.
        told = "–" if largest is None or edge == "feature_row" else f"{largest:.6g}"
        table.add_row(edge, f"{things:,}", first, last, told)
    return table


def _signals(largest: pl.DataFrame) -> Table:
    table = Table(
        box=SIMPLE_HEAD, title=f"Signals that move most ({min(SHOWN, largest.height)} of {largest.height:,})", title_justify="left"
    )
    for heading in ("signal", "with", "without", "move", ""):
        table.add_column(heading, justify="right" if heading in ("with", "without", "move") else "left")
    for row in largest.head(SHOWN).iter_rows(named=True):
        numbers = (f"{row['value_with']:.4f}", f"{row['value_without']:.4f}", f"{0.0 - row['move']:+.4f}")
        table.add_row(escape(row["item"].rpartition("@")[0]), *numbers, escape(row["detail"]))
    return table
