"""All rules and detectors over one panel of bars: what is suspicious in it, and what could not be judged.

The panel holds the bars of one exchange as they were known at one instant, one version of each. Nothing here reads or
writes a table: the nightly quarantine, the calibration report and a single file all judge through the same door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.catalog import FACTS
from quant_assets.data_quality.findings import CRITICAL_RATE, WARNING_RATE, severity
from quant_assets.data_quality.rules import actions as actions_told
from quant_assets.data_quality.rules import coverage, dividends, identity, moves, prices, splits, units, volumes
from quant_assets.data_quality.rules.seasonal_volume import VolumeModel, seasonal_volume
from quant_assets.data_quality.suspicion.closes import suspicious_closes, trades_thinly
from quant_assets.data_quality.suspicion.panel_features import MIN_CROSS_SECTION
from quant_assets.data_quality.suspicion.scores import SIGHT
from quant_assets.feature_store.adjustment import forward_adjusted

BAR_COLUMNS = ("symbol", "session", "known_at", "open", "high", "low", "close", "volume", "adj_close", "basis")
"""What a panel of bars must have; `adj_close` is the vendor's, null where it has none."""
LOOKBACK = 250
"""Sessions before the judged ones that a panel should hold, so that the findings are those of the whole history."""
DETECTOR_SIGHT: dict[str, int] = {
    "rules": 0,
    "rules_next_session": 1,
    "rules_later_sessions": 10,
    "mstl": 0,
    "prophet": 0,
    **{str(name): sight for name, sight in SIGHT.items()},
}
"""Sessions after its own that each detector looks at, at most."""


@dataclass(frozen=True)
class Judgement:
    """Findings (as `data_quality.anomalies` holds them) and what could not be judged (`reason`, `bars`)."""

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
        .rechunk()  # a large query comes in pieces, and Polars 2.1 panics where texts are put together from unlike ones
    )


def judge(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    calendar: TradingCalendar,
    sessions: Sequence[date] | None = None,
    rates: tuple[float, float] = (CRITICAL_RATE, WARNING_RATE),
    volume_model: VolumeModel | None = None,
) -> Judgement:
    """Every finding about the bars of a panel, each by a detector whose sight is known.

    With `sessions` (sorted), those whose bars are new, the costly detectors judge only these and what they tell of earlier ones;
    what the rules say of other sessions is told as well.
    `rates` are the shares of clean bars that may be called critical, and at least a warning; `volume_model` replaces the default one.
    """
    panel = prepared(bars, actions, calendar)
    features = moves.adjusted_features(panel)
    learned, scores = suspicious_closes(panel, features, sessions)
    found = pl.concat(
        [
            prices.ohlc_order(panel),
            prices.non_positive_price(panel),
            coverage.duplicate_bar(panel),
            coverage.closed_session(panel, calendar),
            coverage.missing_session(panel, calendar),
            coverage.partial_session(panel),
            coverage.repeated_session(panel, features),
            coverage.ticker_reuse(panel),
            identity.identical_series(panel),
            units.unit_errors(panel),
            actions_told.impossible_actions(panel, actions),
            splits.splits(panel, actions),
            dividends.dividends(panel, actions),
            moves.jump_without_cause(panel, features),
            moves.spike_and_revert(panel, features),
            moves.close_off_next_open(panel, features),
            volumes.stale_close(panel),
            volumes.zero_volume_move(panel),
            volumes.volume_spike(panel, features),
            seasonal_volume(panel, features, calendar, sessions, volume_model),
            *learned,
        ]
    )
    severe = pl.when(pl.col("rule").is_in(FACTS)).then(pl.lit("critical")).otherwise(severity("score", rates)).alias("severity")
    return Judgement(found.with_columns(severe), _not_judged(panel, scores))


def _not_judged(panel: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """What could not be said of the bars of the judged sessions, or not as it should, and of how many of them."""
    bars = (
        panel.with_columns(bars_before=pl.int_range(pl.len()).over("symbol"), symbols=pl.len().over("session"), thin=trades_thinly())
        .join(scores.select("symbol", "session", "note"), on=["symbol", "session"], how="left")
        .filter(pl.col("session").is_in(scores["session"].unique().implode()) | pl.col("ordinal").is_null())
    )
    few = f"fewer than {MIN_CROSS_SECTION} symbols in the session: what the market did cannot be told, and a learned score is no warning"
    reasons = {
        "volume is not known: volumes, stale closes and jumps are not judged": pl.col("volume").is_null(),
        f"fewer than {moves.HISTORY} earlier bars: moves and unusual volumes are not judged": pl.col("bars_before") < moves.HISTORY,
        few: pl.col("symbols") < MIN_CROSS_SECTION,
        "of symbols that trade thinly: a learned score holds none back": pl.col("thin"),
    }
    counted = bars.select(where.sum().cast(pl.Int64).alias(reason) for reason, where in reasons.items())
    noted = bars.select(reason=pl.col("note").drop_nulls().str.split("; ")).explode("reason")
    told = noted.with_columns(pl.col("reason").str.strip_prefix("not judged: ")).filter(pl.col("reason") != "volume is not known")
    return pl.concat(
        [
            told.group_by("reason").agg(bars=pl.len().cast(pl.Int64)).sort("reason"),
            counted.unpivot(variable_name="reason", value_name="bars").filter(pl.col("bars") > 0),
        ]
    )
