"""Findings into `data_quality.anomalies`: what is critical there is not in `clean_bars`.

Each version of a bar is judged once by each detector, with what was known when the last session in the detector's sight
became known. A range of nights is walked as its nights would have been: bars that only add a session to what was known
are judged together, and a corrected or late bar at its own instant, beside the bars as they stood then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.data_quality.findings import CRITICAL_RATE, NOTHING, WARNING_RATE
from quant_assets.data_quality.judge import BAR_COLUMNS, DETECTOR_SIGHT, LOOKBACK, judge
from quant_assets.data_quality.rules.seasonal_volume import VolumeModel
from quant_assets.schemas import ANOMALIES, JUDGED_BATCHES
from quant_assets.warehouse import Warehouse, append_ledger, append_versions, query

_REACH = max(DETECTOR_SIGHT.values())


def quarantine(
    warehouse: Warehouse,
    source: str,
    calendar: TradingCalendar,
    run_id: str,
    rates: tuple[float, float] = (CRITICAL_RATE, WARNING_RATE),
    volume_model: VolumeModel | None = None,
) -> pl.DataFrame:
    """Judge every version of a bar that has not been judged, and what it may tell of the bars before it; returns the new findings.

    What is critical and what a warning is told by `rates`, shares of clean bars. Findings and the note that a delivery has
    been judged are written together; judging again finds nothing to judge.
    """
    landed = _unjudged(warehouse, source)
    if landed.is_empty():
        return NOTHING
    found, notes = [NOTHING], [pl.DataFrame(schema={"reason": pl.String, "bars": pl.Int64})]
    for stretch in _stretches(warehouse, source, landed):
        fresh, not_judged = _judged(warehouse, source, calendar, landed, stretch, rates, volume_model)
        found.append(fresh)
        notes.append(not_judged)
    findings = pl.concat(found).with_columns(source=pl.lit(source)).unique(ANOMALIES.key, keep="first", maintain_order=True)
    stamp = pl.lit(utc_now(), pl.Datetime("us"))
    batches = (
        landed.group_by("batch_id", "landed_at")
        .agg(bars=pl.len().cast(pl.Int64), first_session=pl.col("session").min(), last_session=pl.col("session").max())
        .with_columns(
            source=pl.lit(source), not_judged=pl.lit(_in_words(pl.concat(notes)), pl.String), run_id=pl.lit(run_id), recorded_at=stamp
        )
    )
    with warehouse.transaction() as connection:
        stored = query(connection, f"select {', '.join(ANOMALIES.key)} from data_quality.anomalies")
        fresh = findings.join(stored, on=ANOMALIES.key, how="anti")
        append_versions(connection, ANOMALIES, fresh.with_columns(recorded_at=stamp).select(ANOMALIES.column_names))
        append_ledger(connection, JUDGED_BATCHES, batches.select(JUDGED_BATCHES.column_names))
    return fresh


@dataclass(frozen=True)
class _Stretch:
    """Instants whose bars can be judged together: what is known at an earlier one is what is known at the last, cut there."""

    first: datetime
    last: datetime
    sessions: tuple[date, date]


def _unjudged(warehouse: Warehouse, source: str) -> pl.DataFrame:
    return warehouse.read(
        """
        select symbol, session, known_at, batch_id, recorded_at as landed_at from market_data.daily_bars as bar
        where source = $source and not exists (
            select 1 from data_quality.judged_batches as judged where judged.batch_id = bar.batch_id and judged.landed_at = bar.recorded_at
        )
        """,
        {"source": source},
    )


def _stretches(warehouse: Warehouse, source: str, landed: pl.DataFrame) -> Iterator[_Stretch]:
    """The instants from the first unjudged bar on, in order, cut where a bar was corrected, came late, or an action did."""
    bars = (
        "select known_at, session, row_number() over (partition by symbol, session order by known_at) > 1 as corrected"
        " from market_data.daily_bars where source = $source"
    )
    instants = warehouse.read(
        f"""
        with bars as ({bars}),
        told as (
            select known_at, min(session) as first_session, max(session) as last_session, bool_or(corrected) as corrected from bars group by known_at
            union all
            select known_at, min(session), null, false from market_data.corporate_actions where source = $source group by known_at
        ),
        instants as (
            select known_at, min(first_session) as first_session, max(last_session) as last_session, bool_or(corrected) as corrected
            from told group by known_at
        ),
        ordered as (
            select *, max(last_session) over (order by known_at rows between unbounded preceding and 1 preceding) as before from instants
        )
        select known_at, corrected or coalesce(first_session <= before, false) as alone from ordered where known_at >= $first order by known_at
        """,
        {"source": source, "first": landed["known_at"].min()},
    )
    of_instant = landed.group_by("known_at").agg(first=pl.col("session").min(), last=pl.col("session").max())
    numbered = instants.with_columns(stretch=(pl.col("alone") | pl.col("alone").shift(1, fill_value=True)).cum_sum())
    stretches = (
        numbered.join(of_instant, on="known_at")
        .group_by("stretch")
        .agg(pl.col("known_at").min().alias("from"), pl.col("known_at").max().alias("to"), pl.col("first").min(), pl.col("last").max())
        .sort("stretch")
    )
    for row in stretches.iter_rows(named=True):
        yield _Stretch(row["from"], row["to"], (row["first"], row["last"]))


def _judged(
    warehouse: Warehouse,
    source: str,
    calendar: TradingCalendar,
    landed: pl.DataFrame,
    stretch: _Stretch,
    rates: tuple[float, float],
    volume_model: VolumeModel | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The findings about a stretch's bars, and about those before them in whose sight they are; and what could not be judged."""
    with warehouse.connect() as connection:
        days = query(
            connection,
            "select distinct session from market_data.daily_bars where source = $source and known_at <= $last order by session",
            {"source": source, "last": stretch.last},
        )["session"]
        first, last = (int((days < session).sum()) for session in stretch.sessions)
        since = days[max(0, first - _REACH - LOOKBACK)]
        known = {"source": source, "last": stretch.last, "since": since}
        bars = query(
            connection,
            f"select {', '.join(BAR_COLUMNS)} from market_data.daily_bars_as_of($last) where source = $source and session >= $since",
            known,
        )
        actions = query(
            connection,
            "select symbol, session, kind, value, known_at from market_data.corporate_actions_as_of($last)"
            " where source = $source and session >= $since",
            known,
        )
    # What a corrected bar tells of those after it was not known when they were judged: they stand.
    judgement = judge(bars, actions, calendar, days[first : last + 1].to_list(), rates, volume_model)
    order = (
        bars.select("symbol", "session").sort("symbol", "session").with_columns(nth=pl.int_range(pl.len()).over("symbol")).sort("session")
    )
    mine = landed.filter(pl.col("known_at").is_between(stretch.first, stretch.last)).select("symbol", "session").unique()
    mine = order.join(mine, on=["symbol", "session"], maintain_order="left").rename({"nth": "nth_unjudged"})
    # A rule may find a bar by what came of another symbol; what is learned from the cross-section is said of the new bars alone.
    sight = pl.col("detector").replace_strict(DETECTOR_SIGHT, return_dtype=pl.Int64)
    near = pl.col("nth_unjudged") - pl.col("nth").fill_null(-1) <= sight
    news = (
        judgement.findings.filter(pl.col("known_at") >= stretch.first)
        .sort("session")
        .join_asof(order, on="session", by="symbol", strategy="backward", check_sortedness=False)
        .join_asof(mine, on="session", by="symbol", strategy="forward", check_sortedness=False)
        .filter(near.fill_null(value=False) | pl.col("detector").str.starts_with("rules"))
    )
    return news.select(NOTHING.columns), judgement.not_judged


def _in_words(not_judged: pl.DataFrame) -> str | None:
    counts = not_judged.group_by("reason").agg(pl.col("bars").sum()).sort("bars", "reason", descending=[True, False])
    return "; ".join(f"{bars} bars {reason}" for reason, bars in counts.select("reason", "bars").iter_rows()) or None
