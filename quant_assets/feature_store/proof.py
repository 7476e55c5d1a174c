"""The proof, night after night, that stored features do not peek: random rows are computed again from what was known then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.feature_store.inputs import adjusted_bars
from quant_assets.feature_store.training_sets import ALPHA_SQL, features_as_of
from quant_assets.feature_store.views import features_of, model_sql
from quant_assets.lookahead import differences
from quant_assets.warehouse import Warehouse, query

ROWS = 12
CUT_SYMBOLS = 5


@dataclass(frozen=True)
class Proof:
    """What was compared: `rows` of them, chosen by `seed`; `offending` has one row per value that came out otherwise."""

    seed: int
    rows: int
    offending: pl.DataFrame


def recomputed_as_of(warehouse: Warehouse, calendar: TradingCalendar, view: str, seed: int) -> Proof:
    """Compute random stored rows again from what was known as of their `known_at`; they must come out equal, bit by bit.

    Of `technical_v1` some rows anywhere; of `alpha_v1`, whose rows need the whole cross-section, all rows of one session
    that carry the same `known_at`.
    """
    sampled = _sampled_rows(warehouse, view, seed)
    columns = ["symbol", "session", *(feature.name for feature in features_of(view)), "known_at"]
    parts = []
    for (known_at,), rows in sampled.group_by("known_at", maintain_order=True):
        first, last = rows.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        again = features_as_of(warehouse, calendar, view, known_at, first, last, rows["symbol"].unique().to_list(), recompute=True)  # type: ignore[arg-type]
        wanted = again.join(rows, on=["symbol", "session"], how="semi")
        parts.append(differences(rows.select(columns), wanted.select(columns)))
    return Proof(seed, sampled.height, pl.concat(parts) if parts else pl.DataFrame(schema=_OFFENDING))


def cut_changes_nothing(warehouse: Warehouse, seed: int) -> Proof:
    """Cut some symbols' bars after a random session and compute `technical_v1` again: the stored rows before the cut must be these."""
    from quant_assets.feature_store.indicators import technical_v1

    names = [feature.name for feature in features_of("technical_v1")]
    with warehouse.connect() as connection:
        chosen = query(
            connection,
            f"""
            with sessions as (select distinct session from feature_store.technical_v1),
            symbols as (select distinct symbol from feature_store.technical_v1)
            select symbol, (select session from sessions order by hash(session, {seed}) limit 1) as cut
            from symbols order by hash(symbol, {seed}) limit {CUT_SYMBOLS}
            """,
        )
        if chosen.is_empty():
            return Proof(seed, 0, pl.DataFrame(schema=_OFFENDING))
        symbols, cut = chosen["symbol"].to_list(), chosen["cut"][0]
        bars = adjusted_bars(connection, warehouse.preferred_source, symbols).filter(pl.col("session") <= cut)
        stored = query(
            connection,
            "select * from feature_store.technical_v1 where symbol in (select unnest($symbols)) and session <= $cut",
            {"symbols": symbols, "cut": cut},
        )
    return Proof(seed, stored.height, differences(stored.select("symbol", "session", *names), technical_v1(bars)))


_OFFENDING = {"symbol": pl.String, "session": pl.Date, "column": pl.String, "stored": pl.String, "recomputed": pl.String}


def _sampled_rows(warehouse: Warehouse, view: str, seed: int) -> pl.DataFrame:
    """Random stored rows: their order by a hash with the seed is as good as random, and the same on every machine."""
    if view == "technical_v1":
        return warehouse.read(f"select * from feature_store.technical_v1 order by hash(symbol, session, {seed}) limit {ROWS}")
    session: list[date] = warehouse.read(
        f"select session from (select distinct session from feature_store.alpha_history_v1) order by hash(session, {seed}) limit 1"
    )["session"].to_list()
    if not session:
        return pl.DataFrame(schema={"known_at": pl.Datetime("us")})
    rows = warehouse.read(f"select * from ({model_sql(ALPHA_SQL, {})}) where session = $session", {"session": session[0]})
    return rows.filter(pl.col("known_at") == rows["known_at"].max())
