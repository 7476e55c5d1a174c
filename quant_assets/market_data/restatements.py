"""What vendors have changed after the fact: one row per bar version that replaced another, and a night's summary of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.schemas import INSTANT, SESSION, SYMBOL, Column, Kind, Table
from quant_assets.warehouse import Connection, query, scalar

ROUNDING = 1e-4
"""Prices that all moved by a smaller share than this were rounded otherwise, not corrected."""
SHOWN_SYMBOLS = 20

RESTATEMENTS = Table(
    "market_data", "restatements", Kind.VERSIONS, "one version of a bar that replaced another", ("symbol", "session", "source", "known_at"),
    "known_at", "Bars that a vendor changed after the fact: what stood there before, what stands there since, and from when.",
    (
        SYMBOL,
        SESSION,
        Column("source", pl.String, "Vendor or kind of source"),
        Column("known_at", INSTANT, "Instant from which the new version was known to us", "UTC"),
        Column("previous_known_at", INSTANT, "Instant from which the replaced version was known", "UTC"),
        Column("old_close", pl.Float64, "Close before", "listing currency"),
        Column("new_close", pl.Float64, "Close since", "listing currency"),
        Column("close_change", pl.Float64, "new_close / old_close − 1; null where the old close is zero", "fraction", nullable=True),
        Column("price_change", pl.Float64, "Largest relative change among open, high, low and close, without its sign", "fraction", nullable=True),
        Column("changed", pl.String, "Which of open, high, low, close, volume and basis changed, by comma"),
        Column("batch_id", pl.String, "Delivery that brought the new version"),
    ),
)  # fmt: skip
"""A view over `daily_bars` (see `migrations`), with the macro `restatements_between(since, until)` for one stretch of time."""


@dataclass(frozen=True)
class Restated:
    """The restatements seen in some nights, and how many there are in all (of every source).

    `rows` are the view's, with the session in whose night each was seen (`night`). `numbers` are plain: `restated`,
    `restated_symbols`, `restated_in_all`, and, where there was any, `median_price_change`, `largest_price_change` and
    `share_rounding_only` (all fractions). `by_symbol`: the symbols with most of them, at most `SHOWN_SYMBOLS` rows.
    """

    rows: pl.DataFrame
    in_all: int

    @property
    def numbers(self) -> dict[str, int | float]:
        counts: dict[str, int | float] = {
            "restated": self.rows.height,
            "restated_symbols": self.rows["symbol"].n_unique(),
            "restated_in_all": self.in_all,
        }
        sizes = self.rows.select(
            median_price_change=pl.col("price_change").median(),
            largest_price_change=pl.col("price_change").max(),
            share_rounding_only=_rounding_only().mean(),
        ).row(0, named=True)
        return counts | {name: size for name, size in sizes.items() if size is not None}

    @property
    def by_symbol(self) -> pl.DataFrame:
        largest = pl.col("price_change").max().alias("largest_price_change")
        spans = pl.col("session").min().alias("first_session"), pl.col("session").max().alias("last_session")
        fields = pl.col("changed").str.split(", ").explode().unique().sort().str.join(", ")
        grouped = self.rows.group_by("symbol").agg(pl.len().alias("restated"), largest, *spans, fields)
        return grouped.sort(["restated", "largest_price_change", "symbol"], descending=[True, True, False], nulls_last=True).head(
            SHOWN_SYMBOLS
        )

    @property
    def rows_per_night(self) -> pl.DataFrame:
        """How many were seen in each night (`session`, `rows`)."""
        return self.rows.group_by(session="night").len("rows").sort("session")


def restated_in(connection: Connection, source: str, calendar: TradingCalendar, first: date, last: date) -> Restated:
    """The restatements of a source that were seen in the nights of the sessions from first to last.

    A session's night lasts from when its bars are known until those of the next one are. Reads the bars that became
    known in these nights and the other versions of the same ones; only the count of all goes over every bar.
    """
    after = calendar.session_after(last)
    rows = query(
        connection,
        "select * from market_data.restatements_between($since, $until) where source = $source order by known_at, symbol, session",
        {
            "source": source,
            "since": calendar.known_at(first),
            "until": calendar.known_at(after) if after else calendar.known_at(last).replace(year=9999),
        },
    )
    nights = {instant: calendar.last_known_session(instant) for instant in rows["known_at"].unique()}
    rows = rows.with_columns(night=pl.col("known_at").replace_strict(nights, return_dtype=pl.Date))
    return Restated(rows, int(scalar(connection, f"select count(*) from {RESTATEMENTS.full_name}")))


def _rounding_only() -> pl.Expr:
    """Whether prices changed and all of them by next to nothing."""
    return pl.col("price_change").is_between(0, ROUNDING, closed="none").fill_null(value=False)
