"""Bars that are there twice, are missing, or stand where none belongs: single ones, and whole sessions of a delivery.

A missing bar has no version of its own: its finding stands on the instant at which it was missed.
"""

from __future__ import annotations

import warnings
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.findings import CRITICAL_RATE, NOTHING, WARNING_RATE, findings
from quant_assets.data_quality.suspicion.panel_features import FIELDS, PanelFeatures, shifted

PAST = 120
"""Sessions before a hole from which is taken how often its symbol has no bar."""
SELDOM_MISSES, OFTEN_MISSES = 0.05, 0.2
"""Share of past sessions without a bar up to which a hole is a fault, and from which on it is the symbol's nature."""
NAMED = 5
"""Missing sessions of one hole that are found one by one; a longer hole is one finding at its first session."""
CROWD, PARTIAL, REPEATED = 10, 0.05, 0.1
"""Symbols, and shares of a session's symbols, from which on what they have in common is the delivery's fault."""
ABSENCE = 20
"""Sessions without a bar after which a symbol may have become another company's."""
OTHER_LEVEL, FAR_LEVEL = 1.5, 3.0
"""Ratio of two price levels across an absence that is a warning, and critical."""
FORWARD = 2.0
"""How much wider than usual the gap into a session must be before its bars are taken for those of the session after it."""

MONTH = 21


def one_per_session(bars: pl.DataFrame) -> pl.DataFrame:
    """The bars on sessions, of duplicates the last: what rules about neighbours look at."""
    last = (pl.col("symbol") != pl.col("symbol").shift(-1)) | (pl.col("session") != pl.col("session").shift(-1))
    return bars.filter(pl.col("ordinal").is_not_null() & last.fill_null(value=True))


def duplicate_bar(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars of which there are several with one symbol and session; one finding for each version."""
    same = (pl.col("symbol") == pl.col("symbol").shift(1)) & (pl.col("session") == pl.col("session").shift(1))
    twice = bars.filter(same.fill_null(value=False)).select("symbol", "session").unique()
    rows = bars.join(twice, on=["symbol", "session"], how="semi", maintain_order="left").with_columns(
        rows=pl.len().over("symbol", "session"), all_known=pl.col("known_at").max().over("symbol", "session")
    )
    versions = rows.unique(["symbol", "session", "known_at"], keep="last", maintain_order=True)
    return findings(versions, "duplicate_bar", pl.format("{} bars of one symbol in one session", "rows"), known_at="all_known")


def closed_session(bars: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """Bars on days that are no session of the calendar, which knows the special ones; days outside of it are not judged."""
    closed = pl.col("ordinal").is_null() & pl.col("session").is_between(calendar.sessions[0], calendar.sessions[-1])
    versions = bars.filter(closed).unique(["symbol", "session", "known_at"], keep="last", maintain_order=True)
    detail = pl.format("{} is closed on {}", pl.lit(calendar.name), pl.col("session").dt.strftime("%A %Y-%m-%d"))
    return findings(versions, "closed_session", detail)


def partial_session(bars: pl.DataFrame) -> pl.DataFrame:
    """Symbols without a bar in a session that many others lack too, of those that had one the session before.

    One finding for each missing symbol, known when the session's last bar was: a warning, for there is no bar to hold back,
    and what a vendor owes comes later. A session without any bar is none here: `missing_session` finds it for each symbol.
    """
    regular = one_per_session(bars)
    follows = (pl.col("symbol") == pl.col("symbol").shift(-1)) & (pl.col("ordinal").shift(-1) == pl.col("ordinal") + 1)
    gone = regular.select("symbol", "ordinal", gone=~follows.fill_null(value=False))
    before = gone.group_by("ordinal").agg(had=pl.len(), lack=pl.col("gone").sum()).with_columns(pl.col("ordinal") + 1)
    sessions = regular.group_by("ordinal", "session").agg(pl.col("known_at").max())
    partial = sessions.join(before, on="ordinal").filter((pl.col("lack") >= CROWD) & (pl.col("lack") >= PARTIAL * pl.col("had")))
    found = gone.filter("gone").with_columns(pl.col("ordinal") + 1).join(partial, on="ordinal", how="inner", maintain_order="left")
    detail = pl.format("no bar, like {} of the {} symbols that had one the session before: the delivery is partial", "lack", "had")
    return findings(found, "partial_session", detail, score=1 - WARNING_RATE)


def missing_session(bars: pl.DataFrame, calendar: TradingCalendar, listings: pl.DataFrame | None = None) -> pl.DataFrame:
    """Sessions without a bar while a symbol is listed, or between two of its bars where that is not known.

    A hole of a symbol that practically never misses a session is a fact; the score falls with the share of past sessions that
    it missed, and one that trades now and then is not judged. Without a listing a hole is found when the symbol's next bar
    arrives; up to five sessions one by one, a longer one as a whole at its first. With one (`symbol`, `valid_from`,
    `valid_to`, null while it is listed) each of its first five sessions is found when the session's other bars are known.
    Sessions that `partial_session` names are left to it.
    """
    regular = one_per_session(bars)
    if regular.is_empty():
        return NOTHING
    places = calendar.frame(calendar.sessions[0], calendar.sessions[-1]).select("session", "ordinal")
    holes = _holes(regular)
    if listings is None:
        holes = holes.with_columns(until=pl.lit(None, pl.Int32)).filter(pl.col("end").is_not_null())
    else:
        listed = _listed(listings, places, regular)
        firsts = regular.group_by("symbol").agg(first=pl.col("ordinal").min())
        before = listed.join(firsts, on="symbol", how="left").select("symbol", start="from", end=pl.col("first") - 1, share=pl.lit(0.0))
        holes = pl.concat([holes, before], how="diagonal").join(listed, on="symbol", how="left")
        holes = holes.with_columns(start=pl.max_horizontal("start", "from"), end=pl.min_horizontal("end", "until"))
    listed_now = pl.col("until").is_not_null()
    named = listed_now | (pl.col("sessions") <= NAMED)
    missing = (
        holes.with_columns(sessions=pl.col("end") - pl.col("start") + 1)
        .filter((pl.col("sessions") > 0) & (pl.col("share") <= OFTEN_MISSES))
        .with_columns(
            ordinal=pl.int_ranges("start", pl.col("start") + pl.when(named).then(pl.min_horizontal("sessions", NAMED)).otherwise(1))
        )
        .explode("ordinal")
        .with_columns(pl.col("ordinal").cast(pl.Int32))
        .join(places, on="ordinal")
        .join(regular.group_by("ordinal").agg(others_known_at=pl.col("known_at").max()), on="ordinal", how="left")
        .with_columns(known_at=pl.when(listed_now).then(pl.coalesce("others_known_at", "next_known_at")).otherwise("next_known_at"))
        .filter(pl.col("known_at").is_not_null())
        .join(partial_session(bars), on=["symbol", "session"], how="anti")
        .sort("symbol", "session")
    )
    score = pl.when(pl.col("share") <= SELDOM_MISSES).then(1.0).otherwise(1 - pl.col("share"))
    rate = (100 * pl.col("share")).round(1)
    late = (
        pl.when(pl.col("others_known_at").is_null())
        .then(pl.lit("no symbol has a bar in this session: the delivery is missing"))
        .otherwise(pl.format("no bar for {} sessions from this one on; {} % of those before had none", "sessions", rate))
    )
    own = pl.format("no bar while it is listed; {} % of the sessions before had none", rate)
    return pl.concat(
        [
            findings(missing.filter(listed_now), "missing_session", own, score=score),
            findings(missing.filter(~listed_now), "missing_session", late, score=score, detector="rules_next_session"),
        ]
    )


def repeated_session(bars: pl.DataFrame, features: PanelFeatures) -> pl.DataFrame:
    """Bars that many symbols share with the session before to the last share: a stale delivery, or one that ran ahead.

    Which of the two sessions holds the other's bars is told by the gap into the first: where that is far wider than usual,
    the first ran ahead, and its bars are found once the second is known (`rules_next_session`).
    """
    raw = features.raw
    with np.errstate(invalid="ignore"):
        same = np.all([raw[name] == shifted(raw[name], 1) for name in FIELDS], axis=0)
    traded = np.isfinite(raw["volume"]).sum(1)
    stale, ahead = np.zeros_like(same), np.zeros_like(same)
    for row in np.flatnonzero((same.sum(1) >= CROWD) & (same.sum(1) >= REPEATED * traded)):
        columns = np.flatnonzero(same[row])
        if stale[row - 1].any() or _gap_into(features, int(row) - 1, columns) < FORWARD:
            stale[row, columns] = True
        else:
            ahead[row - 1, columns] = True
    regular = one_per_session(bars)
    same_symbol = pl.col("symbol") == pl.col("symbol").shift(1)
    last = pl.when(same_symbol).then(pl.col("known_at").shift(1))
    following = pl.when(same_symbol.shift(-1)).then(pl.col("known_at").shift(-1))
    known = regular.with_columns(known_so_far=pl.max_horizontal("known_at", last), known_next=pl.max_horizontal("known_at", following))
    parts = []
    for marked, known_at, detector, other in (
        (stale, "known_so_far", "rules", "the session before"),
        (ahead, "known_next", "rules_next_session", "the session after"),
    ):
        rows, columns = np.nonzero(marked)
        where = pl.DataFrame(
            {
                "symbol": features.symbols.gather(columns),
                "session": features.sessions.gather(rows),
                "symbols": marked.sum(1)[rows],
            }
        )
        found = known.join(where, on=["symbol", "session"], how="inner", maintain_order="left")
        detail = pl.format("the bar of {}, as for {} symbols of this session", pl.lit(other), "symbols")
        # Just critical: that bars were repeated is a fact, but not which of the two sessions they belong to.
        parts.append(findings(found, "repeated_session", detail, score=1 - CRITICAL_RATE, known_at=known_at, detector=detector))
    return pl.concat(parts)


def ticker_reuse(bars: pl.DataFrame, listings: pl.DataFrame | None = None) -> pl.DataFrame:
    """Bars outside the life of their instrument, and the first bar after a long absence if it stands on another price level.

    Listings have `symbol`, `valid_from`, `valid_to` (null while it is listed), one row for each life; a symbol without any is
    judged by its absence alone, for which both bars must lie in the panel.
    """
    regular = one_per_session(bars)
    same_symbol = pl.col("symbol") == pl.col("symbol").shift(1)
    level = (pl.col("adj_close") / pl.col("adj_close").shift(1)).log().abs().exp()
    back = regular.with_columns(
        absent=pl.when(same_symbol).then(pl.col("ordinal") - pl.col("ordinal").shift(1) - 1),
        level=level,
        last_known_at=pl.col("known_at").shift(1),
    ).filter((pl.col("absent") >= ABSENCE) & pl.col("level").is_between(OTHER_LEVEL, float("inf"), closed="left"))
    detail = pl.format("{} times the price or a part of it, after {} sessions without a bar", pl.col("level").round(2), "absent")
    score = pl.when(pl.col("level") >= FAR_LEVEL).then(1.0).otherwise(1 - WARNING_RATE)
    known = pl.max_horizontal("known_at", "last_known_at")
    returned = findings(back, "ticker_reuse", detail, score=score, known_at=known)
    if listings is None:
        return returned
    lives = listings.select("symbol", "valid_from", "valid_to")
    alive = pl.col("session").is_between("valid_from", pl.col("valid_to").fill_null(date.max))
    outside = (
        regular.select("symbol", "session", "known_at")
        .join(lives, on="symbol", how="inner")
        .group_by("symbol", "session", "known_at")
        .agg(alive=alive.any(), first=pl.col("valid_from").min(), last=pl.col("valid_to").max(), open=pl.col("valid_to").is_null().any())
        .filter(~pl.col("alive"))
        .sort("symbol", "session")
    )
    until = pl.when("open").then(pl.lit("now")).otherwise(pl.col("last").cast(pl.String))
    found = findings(outside, "ticker_reuse", pl.format("outside the life of its instrument, {} to {}", "first", until))
    return pl.concat([found, returned.join(found, on=["symbol", "session"], how="anti")])


def _holes(regular: pl.DataFrame) -> pl.DataFrame:
    """Runs of sessions after a bar without another of its symbol, the last with a null `end`, and the share it missed before."""
    following = regular.select(
        same=(pl.col("symbol") == pl.col("symbol").shift(-1)).fill_null(value=False), next=pl.col("ordinal").shift(-1)
    )
    same, ordinals = following["same"].to_numpy(), regular["ordinal"].to_numpy()
    place = np.arange(len(same))
    starts = np.concatenate([[True], ~same[:-1]])
    row = np.flatnonzero(~same | (following["next"].fill_null(0).to_numpy() > ordinals + 1))
    past = np.maximum(np.maximum.accumulate(np.where(starts, place, 0))[row], row - PAST)
    span = ordinals[row] - ordinals[past]
    known = pl.Series(same[row])
    after = regular["known_at"].shift(-1)[row]
    return regular[row].select(
        "symbol",
        start=pl.col("ordinal") + 1,
        end=pl.when(known).then(following["next"][row] - 1),
        share=pl.Series((span - (row - past)) / np.maximum(span, ABSENCE)),
        next_known_at=pl.when(known).then(after),
    )


def _listed(listings: pl.DataFrame, places: pl.DataFrame, regular: pl.DataFrame) -> pl.DataFrame:
    """First and last ordinal of each symbol's listing inside the panel (`from`, `until`)."""
    first, last = regular["session"].min(), regular["session"].max()
    within = places.filter(pl.col("session").is_between(first, last))
    lives = listings.group_by("symbol").agg(
        pl.col("valid_from").min(),
        pl.when(pl.col("valid_to").is_null().any()).then(None).otherwise(pl.col("valid_to").max()).alias("valid_to"),
    )
    return (
        lives.with_columns(
            pl.max_horizontal("valid_from", pl.lit(first)), pl.min_horizontal(pl.col("valid_to").fill_null(last), pl.lit(last))
        )
        .filter(pl.col("valid_from") <= pl.col("valid_to"))
        .sort("valid_from")
        .join_asof(within.rename({"ordinal": "from"}).sort("session"), left_on="valid_from", right_on="session", strategy="forward")
        .sort("valid_to")
        .join_asof(within.rename({"ordinal": "until"}).sort("session"), left_on="valid_to", right_on="session", strategy="backward")
        .select("symbol", "from", "until")
    )


def _gap_into(features: PanelFeatures, row: int, columns: NDArray[np.int64]) -> float:
    """Median gap into a session of some symbols against their medians of the month before; 0 where there is none to compare with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a session in which none of them has a gap
        sizes = np.nanmedian(np.abs(features.gap[max(row - MONTH, 0) : row + 1, columns]), axis=1)
    usual = np.median(sizes[:-1][np.isfinite(sizes[:-1])]) if np.isfinite(sizes[:-1]).any() else np.nan
    return float(sizes[-1] / usual) if usual > 0 and np.isfinite(sizes[-1]) else 0.0
