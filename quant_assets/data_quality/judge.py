"""All rules and detectors over one panel of bars: what is suspicious in it, and what could not be judged.

The panel holds the bars of one exchange as they were known at one instant, one version of each. Nothing here reads or
writes a table: the nightly quarantine, the calibration report and a single file all judge through the same door.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.findings import NOTHING
from quant_assets.data_quality.rules import identity, prices
from quant_assets.feature_store.adjustment import forward_adjusted

BAR_COLUMNS = ("symbol", "session", "known_at", "open", "high", "low", "close", "volume", "adj_close", "basis")
"""What a panel of bars must have; `adj_close` is the vendor's, null where it has none."""
LOOKBACK = 250
"""Sessions before the judged ones that a panel should hold, so that the findings are those of the whole history."""


@dataclass(frozen=True)
class Judgement:
    """Findings (as `data_quality.anomalies` holds them) and what could not be judged (`what`, `why`, `bars`)."""

    findings: pl.DataFrame
    not_judged: pl.DataFrame


def prepared(bars: pl.DataFrame, actions: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """Bars as every rule takes them: sorted by symbol and session, raw and forward-adjusted, with their place in the calendar.

    Adds `ordinal` (sessions since the calendar's first, null on a closed day), `vendor_adj_close` (the vendor's own), and from
    `forward_adjusted` `adj_open`, `adj_high`, `adj_low`, `adj_close`, `adj_volume`, `price_factor`, `share_factor`. `known_at`
    stays the bar's own: it names its version.
    """
    renamed = bars.rename({"adj_close": "vendor_adj_close"}).with_columns(version=pl.col("known_at"))
    places = calendar.frame(calendar.sessions[0], calendar.sessions[-1]).select("session", "ordinal")
    return (
        forward_adjusted(renamed, actions)
        .with_columns(known_at=pl.col("version"))
        .drop("version")
        .join(places, on="session", how="left", maintain_order="left")
    )


def judge(bars: pl.DataFrame, actions: pl.DataFrame, calendar: TradingCalendar, sessions: Collection[date] | None = None) -> Judgement:
    """Every finding of every rule about the bars of the given sessions (else all)."""
    panel = prepared(bars, actions, calendar)
    found = pl.concat([NOTHING, prices.ohlc_order(panel), prices.non_positive_price(panel), identity.identical_series(panel)])
    if sessions is not None:
        found = found.filter(pl.col("session").is_in(list(sessions)))
    return Judgement(found, pl.DataFrame(schema={"what": pl.String, "why": pl.String, "bars": pl.Int64}))
