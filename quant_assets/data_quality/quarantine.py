"""Findings into `data_quality.anomalies`: what is critical there is not in `clean_bars`."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from quant_assets.clock import utc_now
from quant_assets.data_quality.rules import judge, judge_versions
from quant_assets.schemas import ANOMALIES
from quant_assets.warehouse import Warehouse, append_versions, query


def quarantine(warehouse: Warehouse, source: str, as_of: datetime) -> pl.DataFrame:
    """Judge the bars known as of an instant, and those known since, and store what is new; returns the new findings.

    A bar may be known just after the run's own instant (a second change in one evening), and stands in `clean_bars`: no
    bar goes there unjudged. Judging again stores nothing: a finding is told by its rule, its detector and the version
    of the bar.
    """
    columns = "symbol, session, known_at, open, high, low, close, volume"
    with warehouse.connect() as connection:
        known, newest = (
            query(connection, f"select {columns} from {bars} where source = $source", {"source": source, **instant})
            for bars, instant in (
                ("market_data.daily_bars_as_of($as_of)", {"as_of": as_of}),
                ("market_data.latest_daily_bars", {}),
            )
        )
        # Versions that a range of nights replaced again are judged too, as their own night would have done.
        replaced = query(
            connection,
            f"select {columns} from market_data.daily_bars where source = $source qualify count(*) over (partition by symbol, session) > 1",
            {"source": source},
        )
    judged = [judge(known), judge_versions(replaced)]
    if newest.select((pl.col("known_at") > as_of).any()).item():
        judged.append(judge(newest))
    findings = pl.concat(judged).unique(ANOMALIES.key, keep="first", maintain_order=True)
    findings = findings.with_columns(recorded_at=pl.lit(utc_now(), pl.Datetime("us")))
    with warehouse.transaction() as connection:
        stored = connection.sql("select symbol, session, rule, detector, bar_known_at from data_quality.anomalies").pl()
        fresh = findings.join(stored, on=ANOMALIES.key, how="anti")
        append_versions(connection, ANOMALIES, fresh)
    return fresh
