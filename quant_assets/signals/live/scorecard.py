"""The scorecard: what signals said before the outcome, beside the outcome, and what that says of who made them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.feature_store.labels import exceeds
from quant_assets.schemas import INSTANT, SIGNAL_SCORECARD
from quant_assets.signals.evaluation import per_session
from quant_assets.warehouse import Warehouse, query, rewrite_current

MAKER = ("mode", "horizon", "label_threshold", "scorer", "model_version")
"""Who spoke, and whether before the outcome (live) or afterwards with a model of the time (replayed)."""


@dataclass(frozen=True)
class ScorecardRefresh:
    """Rows written and rows taken away (a changed row is both); live signals that came too late to count; that in words."""

    written: int
    removed: int
    late: int
    note: str = ""


def refresh_scorecard(warehouse: Warehouse, calendar: TradingCalendar, as_of: datetime, run_id: str) -> ScorecardRefresh:
    """Bring `signals.scorecard` up to date with signals and labels as of an instant; the same again writes nothing.

    Of a live signal counts the last version known before the close of the next session, since later ones may know the
    outcome; where there is none, the signal is left out and counted as late. Of a replayed one counts the newest version.
    A restated outcome changes its row, a label that is withdrawn takes it away. Versions and outcomes known after `as_of`
    are not looked at, and rows that rest on such stand, so that a night run again takes nothing from later ones. Signals
    of sessions that the calendar does not have are left out.
    """
    # Compared are keys, instants and returns alone: a version is never updated, so its instant stands for what it said.
    with warehouse.transaction() as connection:
        connection.register("closings", _next_closes(calendar))
        found = query(
            connection,
            """
            with said as (
                select mode, horizon, symbol, session, max(known_at) filter (where mode = 'replayed' or known_at < next_close) as signal_known_at
                from signals.daily_signals join closings using (session) where known_at <= $as_of group by mode, horizon, symbol, session
            ), outcomes as (
                select said.*, label.forward_return, label.known_at
                from said join feature_store.labels as label using (symbol, session, horizon)
            )
            select mode, horizon, symbol, session, new.signal_known_at, new.forward_return, new.known_at,
                new.symbol is not null and new.signal_known_at is null and new.known_at <= $as_of as late,
                new.signal_known_at is not null and new.known_at <= $as_of as counts, old.symbol is not null as stored
            from outcomes as new full join signals.scorecard as old using (mode, horizon, symbol, session)
            where (old.symbol is null or (old.signal_known_at <= $as_of and old.known_at <= $as_of))
                and (new.symbol is null or new.known_at <= $as_of)
                and (new.signal_known_at, new.forward_return, new.known_at)
                    is distinct from (old.signal_known_at, old.forward_return, old.known_at)
            """,
            {"as_of": as_of},
        )
        connection.unregister("closings")
        late = int(found["late"].sum())
        note = f"{late} live signals with an outcome came only after the next session's close and do not count" if late else ""
        changed = found.filter(pl.col("counts") | pl.col("stored"))
        if changed.is_empty():
            return ScorecardRefresh(0, 0, late, note)
        connection.register("counting", changed.filter("counts"))
        first, last = changed.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
        rows = query(
            connection,
            """
            select counting.* exclude (late, counts, stored), label_threshold, probability, recommendation, scorer, model_version
            from counting join signals.daily_signals as signal
                on signal.symbol = counting.symbol and signal.session = counting.session and signal.horizon = counting.horizon
                and signal.known_at = counting.signal_known_at
            where signal.session between $first and $last order by mode, horizon, symbol, session
            """,
            {"first": first, "last": last},
        )
        connection.unregister("counting")
        whole = rows.with_columns(_up(rows), run_id=pl.lit(run_id), recorded_at=pl.lit(utc_now(), INSTANT))
        written, removed = rewrite_current(
            connection, SIGNAL_SCORECARD, whole.select(SIGNAL_SCORECARD.column_names), changed.select(SIGNAL_SCORECARD.key)
        )
    return ScorecardRefresh(written, removed, late, note)


def scorecard_as_of(warehouse: Warehouse, horizon: int, as_of: datetime) -> pl.DataFrame:
    """One horizon's rows of `signals.scorecard` that rest on nothing known after an instant, in any order."""
    return warehouse.read(
        "select * from signals.scorecard where horizon = $horizon and known_at <= $as_of and signal_known_at <= $as_of",
        {"horizon": horizon, "as_of": as_of},
    )


def performance(scorecard: pl.DataFrame) -> pl.DataFrame:
    """How each maker of signals did in each session; sorted by mode, horizon, scorer, model version, session.

    Takes rows of `signals.scorecard`. One row per `mode`, `horizon`, `scorer`, `model_version` (null: the heuristic) and
    `session`: `signals`; `rank_ic`, the Spearman correlation of probability and forward return (null under three signals
    and where one side is constant); `hit_rate`, the share of signals on the right side of 0.5, beside `up_share`, the
    share whose return exceeded the threshold; `log_loss` and `brier` of the probability; `buys` and `sells`, strong ones
    included, with their mean forward returns `buy_return` and `sell_return` (null without any), before costs, beside
    `mean_return` of all. Horizons above 1 overlap: their sessions are no independent trials.
    """
    p, up = pl.col("probability").clip(1e-15, 1 - 1e-15), pl.col("up").cast(pl.Float64)
    bought, sold = (pl.col("recommendation").is_in([side, f"strong_{side}"]) for side in ("buy", "sell"))
    return (
        scorecard.group_by(*MAKER, "session")
        .agg(
            signals=pl.len(),
            rank_ic=rank_ic(),
            hit_rate=((pl.col("probability") >= 0.5) == pl.col("up")).mean(),
            up_share=up.mean(),
            log_loss=-(up * p.log() + (1 - up) * (1 - p).log()).mean(),
            brier=((pl.col("probability") - up) ** 2).mean(),
            buys=bought.sum(),
            buy_return=pl.col("forward_return").filter(bought).mean(),
            sells=sold.sum(),
            sell_return=pl.col("forward_return").filter(sold).mean(),
            mean_return=pl.col("forward_return").mean(),
        )
        .sort(*MAKER, "session")
    )


def rank_ic() -> pl.Expr:
    """Spearman correlation of `probability` and `forward_return` in a group; null under three rows and where one side is constant."""
    return pl.when(pl.len() >= 3).then(per_session.rank_ic("probability").fill_nan(None))


def by_month(performance: pl.DataFrame) -> pl.DataFrame:
    """The same by calendar month, for people: newest month first, live before replayed.

    Takes `performance`. One row per `month` (text, 2025-03), `mode`, `horizon`, `scorer`, `model_version`: `sessions`,
    `signals`; `rank_ic`, the mean over sessions; the others over signals, with `spread`, buys' return less sells', and
    `constant_log_loss`, the log loss of the month's own `up_share` for all: the best constant, which nobody knew.
    """
    of_all = ("hit_rate", "up_share", "log_loss")
    share = pl.col("up_share")
    return (
        performance.with_columns(month=pl.col("session").dt.strftime("%Y-%m"))
        .group_by("month", *MAKER)
        .agg(
            pl.len().alias("sessions"),
            pl.col("signals").sum(),
            pl.col("rank_ic").mean(),
            *(_weighted(name, "signals") for name in of_all),
            _weighted("buy_return", "buys"),
            _weighted("sell_return", "sells"),
        )
        .with_columns(
            spread=pl.col("buy_return") - pl.col("sell_return"),
            constant_log_loss=-(_times_log(share) + _times_log(1 - share)),
        )
        .sort(pl.col("month"), pl.col("mode"), *MAKER[1:], descending=[True, *[False] * len(MAKER)])
    )


def _next_closes(calendar: TradingCalendar) -> pl.DataFrame:
    """Each session with the close of the one after it; the calendar's last has none, and no outcome either."""
    return calendar.frame(date.min, date.max).select("session", next_close=pl.col("close_at").shift(-1)).drop_nulls()


def _up(rows: pl.DataFrame) -> pl.Expr:
    """Whether each return exceeds its own signal's threshold."""
    own = (pl.when(label_threshold=value).then(exceeds(value)) for value in rows["label_threshold"].unique())
    return pl.coalesce(pl.lit(None, pl.Boolean), *own).alias("up")


def _weighted(name: str, count: str) -> pl.Expr:
    """The mean over signals of what is a mean over sessions' signals; null where there are none."""
    total = pl.col(count).filter(pl.col(name).is_not_null()).sum()
    return pl.when(total > 0).then((pl.col(name) * pl.col(count)).sum() / total).alias(name)


def _times_log(share: pl.Expr) -> pl.Expr:
    return pl.when(share > 0).then(share * share.log()).otherwise(0.0)
