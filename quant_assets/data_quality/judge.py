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
from quant_assets.data_quality.findings import CRITICAL_RATE, INFO_RATE, WARNING_RATE, findings, severity
from quant_assets.data_quality.rules import actions as actions_told
from quant_assets.data_quality.rules import coverage, dividends, identity, moves, prices, splits, units, volumes
from quant_assets.data_quality.rules.coverage import one_per_session
from quant_assets.data_quality.rules.seasonal_volume import VolumeModel, seasonal_volume
from quant_assets.data_quality.suspicion.panel_features import MIN_CROSS_SECTION, PanelFeatures
from quant_assets.data_quality.suspicion.scores import SIGHT, Variant, suspicions
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
SHARES: dict[Variant, float] = {"same_session": 0.1, "next_session": 0.7, "later_sessions": 0.5}
"""Of the clean bars that may be called critical, those that each detector may call so: together, for they overlap, about
nine in ten (measured on 150,000 bars that another vendor confirms), which leaves one to the rules."""


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
    )


def judge(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    calendar: TradingCalendar,
    sessions: Sequence[date] | None = None,
    rates: tuple[float, float] = (CRITICAL_RATE, WARNING_RATE),
    listings: pl.DataFrame | None = None,
    volume_model: VolumeModel | None = None,
) -> Judgement:
    """Every finding about the bars of a panel, each by a detector whose sight is known.

    With `sessions` (sorted), those whose bars are new, the costly detectors judge only these and what they tell of earlier ones;
    what the rules say of other sessions is told as well.
    `rates` are the shares of clean bars that may be called critical, and at least a warning. `listings` (`symbol`, `ticker`,
    `valid_from`, `valid_to`) say who was listed when, where that is known; `volume_model` replaces the default one.
    """
    panel = prepared(bars, actions, calendar)
    features = moves.adjusted_features(panel)
    learned, not_judged = suspicious_closes(panel, features, sessions)
    found = pl.concat(
        [
            prices.ohlc_order(panel),
            prices.non_positive_price(panel),
            coverage.duplicate_bar(panel),
            coverage.closed_session(panel, calendar),
            coverage.missing_session(panel, calendar, listings),
            coverage.partial_session(panel),
            coverage.repeated_session(panel, features),
            coverage.ticker_reuse(panel, listings),
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
    return Judgement(found.with_columns(severity("score", rates)), not_judged)


def suspicious_closes(
    panel: pl.DataFrame, features: PanelFeatures, sessions: Sequence[date] | None = None
) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """What the learned scores say, by each detector: all that is rarer than one clean bar in a hundred, and a session's highest 1 %."""
    days, regular = features.sessions, one_per_session(panel)
    first, last = (0, len(days)) if sessions is None else (int((days < sessions[0]).sum()), int((days <= sessions[-1]).sum()))
    # A session is judged once all that a detector looks at is there.
    wanted = {detector: days[max(0, first - sight) : min(last, max(0, len(days) - sight))].to_list() for detector, sight in SIGHT.items()}
    told, notes = [], [pl.DataFrame(schema={"reason": pl.String, "bars": pl.get_index_type()})]
    for detector, scores in suspicions(features, wanted).items():
        share = SHARES[detector]
        scored = scores.with_columns(score=(1 - (1 - pl.col("score")) / share).clip(0.0, 1.0))
        # So few symbols tell nothing of the market: what it did and took back is then each symbol's own, and no error.
        alone = pl.len().over("session") < MIN_CROSS_SECTION
        scored = scored.with_columns(score=pl.when(alone).then(pl.min_horizontal("score", pl.lit(1 - 2 * WARNING_RATE))).otherwise("score"))
        highest = pl.col("log_odds").rank("ordinal", descending=True).over("session") <= (pl.len().over("session") * INFO_RATE).ceil()
        kept = scored.filter(pl.col("error_size").is_not_null(), (pl.col("score") >= 1 - INFO_RATE) | highest)
        offenders = kept.join(regular.select("symbol", "session", "known_at", "close"), on=["symbol", "session"])
        offenders = _in_sight(offenders, regular, SIGHT[detector])
        told.append(findings(offenders, "suspicious_close", _IN_WORDS, score=pl.col("score"), known_at="found_at", detector=detector))
        if detector == "next_session":
            few = scores.group_by("session").len().filter(pl.col("len") < MIN_CROSS_SECTION)["len"].sum()
            told_so = f"closes among fewer than {MIN_CROSS_SECTION} symbols: their learned scores are no warnings"
            notes.append(
                pl.DataFrame([(told_so, few)] if few else [], schema={"reason": pl.String, "bars": pl.get_index_type()}, orient="row")
            )
            notes.append(
                scores.filter(pl.col("score") == 0, pl.col("note").is_not_null())
                .group_by(reason=pl.col("note").str.strip_prefix("not judged: "))
                .len("bars")
            )
    return told, pl.concat(notes).sort("reason").cast({"bars": pl.Int64})


_WHY = {
    "close_only": "its neighbours do not go with it",
    "whole_bar": "the whole bar looks like another session's",
    "copied_bar": "the bar repeats another session's",
}
_IN_WORDS = pl.format(
    "close {} may be off by {} %: {}{}",
    "close",
    (100 * pl.col("error_size")).round(1),
    pl.col("reason").replace_strict(_WHY, return_dtype=pl.String),
    pl.format(" ({})", "note").fill_null(""),
)


def _in_sight(offenders: pl.DataFrame, bars: pl.DataFrame, sight: int) -> pl.DataFrame:
    """Those whose sessions in sight have begun, by a bar of their own then or later; `found_at` is when that became known.

    A later session is known once its first bars are: those that came late or were corrected are of later nights.
    """
    own = bars.select(
        "symbol", "session", found_at=pl.max_horizontal(pl.col("known_at").shift(-n).over("symbol") for n in range(sight + 1))
    )
    opened = bars.group_by("session").agg(opened=pl.col("known_at").min()).sort("session")
    furthest = opened.select(session=pl.col("session").shift(sight), opened="opened").drop_nulls()
    joined = offenders.join(own, on=["symbol", "session"], how="left").join(furthest, on="session", how="left")
    return joined.filter(pl.col("found_at") >= pl.col("opened"))
