"""Panels as the rules take them: generated bars on New York's sessions, bars of a few words, and values that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date

import numpy as np
import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.judge import prepared
from quant_assets.lookahead import offending_rows
from quant_assets_tests.data_quality.market import market
from quant_assets_tests.lookahead import NO_ACTIONS, evening, sp500_panel

FIRST = date(2021, 1, 4)
COLUMNS = {"symbol": pl.String, "session": pl.Date, **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)}
Rule = Callable[[pl.DataFrame], pl.DataFrame]


def panel(bars: pl.DataFrame, calendar: TradingCalendar, actions: pl.DataFrame = NO_ACTIONS) -> pl.DataFrame:
    """Bars (`symbol`, `session`, prices, `volume`, perhaps `basis` and `known_at`) prepared for the rules."""
    given = {"basis": pl.lit("raw"), "known_at": evening(), "adj_close": pl.lit(None, pl.Float64)}
    return prepared(bars.with_columns(value.alias(name) for name, value in given.items() if name not in bars.columns), actions, calendar)


def sessions(calendar: TradingCalendar, n: int) -> list[date]:
    """The first n sessions of 2021."""
    start = calendar.sessions.index(FIRST)
    return list(calendar.sessions[start : start + n])


def traded(seed: int, calendar: TradingCalendar, symbols: int = 30, n: int = 160) -> pl.DataFrame:
    """Generated bars of a liquid market on the calendar's sessions, to cent and share."""
    bars = market(seed, symbols, n)
    days = pl.DataFrame({"session": bars["session"].unique().sort(), "day": sessions(calendar, n)})
    moved = bars.join(days, on="session", maintain_order="left").drop("session").rename({"day": "session"})
    return moved.select(pl.col(name).round(2) if name in ("open", "high", "low", "close") else pl.col(name) for name in COLUMNS)


def rows(*bars: tuple[object, ...]) -> pl.DataFrame:
    """Bars as tuples of symbol, session, open, high, low, close, volume."""
    return pl.DataFrame(list(bars), schema=COLUMNS, orient="row")


def real(calendar_first: date, symbols: int, last: date) -> pl.DataFrame | None:
    """Bars of some real symbols between two sessions, None where the data is not at hand."""
    bars = sp500_panel()
    if bars is None:
        return None
    some = bars["symbol"].unique().sort().gather_every(max(bars["symbol"].n_unique() // symbols, 1))
    return bars.filter(pl.col("symbol").is_in(some.implode()) & pl.col("session").is_between(calendar_first, last))


def changed(bars: pl.DataFrame, symbol: str, session: date, **values: float | pl.Expr) -> pl.DataFrame:
    """The bars with other values in one of them."""
    there = (pl.col("symbol") == symbol) & (pl.col("session") == session)
    return bars.with_columns(pl.when(there).then(value).otherwise(pl.col(name)).alias(name) for name, value in values.items())


def found(findings: pl.DataFrame) -> list[tuple[str, date]]:
    """Symbols and sessions of findings, in order."""
    return sorted(findings.select("symbol", "session").rows())


def hostile(seed: int, calendar: TradingCalendar) -> Iterable[pl.DataFrame]:
    """Panels that cannot be judged, or hardly: empty, of one bar, without volume, constant, and with values that cannot be."""
    bars = traded(seed, calendar, 12, 90)
    yield bars.clear()
    yield bars.head(1)
    yield bars.head(5)
    yield bars.filter(pl.col("symbol") == "S00")
    yield bars.with_columns(volume=pl.lit(None, pl.Float64))
    yield bars.with_columns(volume=pl.lit(0.0))
    yield bars.with_columns(pl.lit(10.0).alias(name) for name in ("open", "high", "low", "close"))
    yield bars.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("open", "high", "low", "close", "volume"))
    random = np.random.default_rng(seed)
    for name in ("open", "high", "low", "close", "volume"):
        values = pl.Series(random.choice([0.0, -3.0, np.nan, np.inf, 1e300, 1e-300], bars.height))
        bars = bars.with_columns(pl.when(pl.Series(random.random(bars.height) < 0.1)).then(values).otherwise(name).alias(name))
        nothing = pl.Series(random.random(bars.height) < 0.1)
        bars = bars.with_columns(pl.when(~nothing).then(name).alias(name))
    yield bars
    yield pl.concat([bars, bars.sample(200, seed=seed)])


def assert_sound(findings: pl.DataFrame) -> None:
    """Scores lie between 0 and 1, nothing that must be known is null, and no row is there twice."""
    assert findings["score"].is_finite().all()
    assert findings["score"].is_between(0, 1).all()
    assert findings.select(pl.all().exclude("suggestion").is_null().any()).row(0).count(True) == 0
    assert not findings.select(pl.struct("symbol", "session", "rule", "detector", "bar_known_at").is_duplicated().any()).item()


def assert_no_look_ahead(rule: Rule, bars: pl.DataFrame, calendar: TradingCalendar, cuts: Iterable[date]) -> pl.DataFrame:
    """What a finding says is the same when nothing after its `known_at` is there; returns the findings of the whole panel."""

    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        return rule(panel(bars, calendar)).drop("suggestion")

    known = bars.with_columns(evening())
    instants = [pl.Series([cut]).to_frame("session").select(evening()).item() for cut in cuts]
    key = ("symbol", "session", "rule", "detector", "bar_known_at")
    offending = offending_rows(compute, {"bars": known}, instants, key=key, clock="known_at", tolerance=1e-9)
    assert offending.is_empty(), offending.rows()[:5]
    return compute(known)
