"""What the prices did beside what was told of splits and dividends, and the actions that cannot be right.

What moved is measured against what was told, in units of the symbol's own usual move.
"""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.findings import findings
from quant_assets.feature_store.adjustment import unusable_actions

NEARBY = 10
"""Sessions around a split within which a jump by its ratio has to do with it."""
HISTORY = 63
"""Sessions before a bar whose moves say what is usual."""
USUAL_UNKNOWN, USUAL_FLOOR = 0.02, 0.004
"""The usual move where too little came before, and the least it is taken to be: quiet series are rounded."""


def moves(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Bars with a positive close and what was told of each: one row per bar, sorted by symbol and session.

    Adds `split` (product, 1 where none), `dividend` and `capital_gain` (sums, 0 where none), `told_at` (when the last of
    them was known), `place` (the bar's number within its symbol), `before` (the last close before, per share as of this
    session), `raw_move` (close to close, log), `move` and `open_move` (the same with the split taken out; the dividend too
    where that makes it smaller), `usual` (median absolute move × 1.4826 over the `HISTORY` sessions before, overnight in
    `usual_open`), `usual_volume` and `usual_close` (medians of the 21 before), `least_step` (the smallest change of the close in them) and `known_here` (when all of this was known). An action on a session without such a bar counts at the next one.
    """
    valid = bars.filter(pl.col("close").is_finite() & (pl.col("close") > 0)).with_columns(
        open=pl.when(pl.col("open").is_finite() & (pl.col("open") > 0)).then("open"), bar_session="session"
    )
    sound = actions.filter(pl.col("value").is_finite() & (pl.col("value") > 0))
    at = sound.sort("symbol", "session").join_asof(
        valid.select("symbol", "session", "bar_session").sort("symbol", "session"),
        on="session", by="symbol", strategy="forward", check_sortedness=False,
    )  # fmt: skip

    def of(kind: str) -> pl.Expr:
        return pl.col("value").filter(pl.col("kind") == kind)

    told = (
        at.drop_nulls("bar_session")
        .group_by("symbol", "bar_session")
        .agg(
            split=of("split").product(),
            dividend=of("dividend").sum(),
            capital_gain=of("capital_gain").sum(),
            told_at=pl.col("known_at").max(),
        )
    )
    previous = pl.col("close").shift(1).over("symbol")
    joined = valid.join(told, on=["symbol", "bar_session"], how="left", maintain_order="left").with_columns(
        pl.col("split").fill_null(1.0), pl.col("dividend", "capital_gain").fill_null(0.0)
    )
    shares = pl.when(pl.col("basis") == "raw").then("split").otherwise(1.0)
    joined = joined.with_columns(
        place=pl.int_range(pl.len(), dtype=pl.Int64).over("symbol"),
        before=previous / shares,
        raw_move=(pl.col("close") / previous).log(),
    )
    joined = joined.with_columns(move=_explained("close"), open_move=_explained("open"))
    steps = pl.col("close").diff().abs().over("symbol")
    spread = {"usual": "move", "usual_open": "open_move"}
    return joined.with_columns(
        *(
            (pl.col(move).abs().shift(1).rolling_median(HISTORY, min_samples=5) * 1.4826)
            .over("symbol")
            .fill_null(USUAL_UNKNOWN)
            .clip(USUAL_FLOOR)
            .alias(name)
            for name, move in spread.items()
        ),
        usual_volume=pl.when(pl.col("adj_volume") > 0).then("adj_volume").shift(1).rolling_median(21, min_samples=3).over("symbol"),
        least_step=pl.when(steps > 0).then(steps).shift(1).rolling_min(21, min_samples=1).over("symbol"),
        usual_close=pl.col("adj_close").shift(1).rolling_median(21, min_samples=1).over("symbol"),
        known_before=pl.max_horizontal("known_at", "told_at").shift(1).rolling_max(HISTORY, min_samples=1).over("symbol"),
    ).with_columns(known_here=pl.max_horizontal("known_at", "told_at", "known_before"))


def _explained(price: str) -> pl.Expr:
    """Log move from the close before to this price, with the dividend added back where that explains it better."""
    plain = (pl.col(price) / pl.col("before")).log()
    paid = ((pl.col(price) + pl.col("dividend")) / pl.col("before")).log()
    return pl.when(paid.abs() < plain.abs()).then(paid).otherwise(plain)


def impossible_actions(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Bars at which an action stands that cannot be right: not a positive number, or a dividend of the whole price."""
    told = actions.filter(pl.col("kind") != "capital_gain")
    bad = unusable_actions(bars, told).rename({"known_at": "told_at"}).sort("session")
    on = bars.select("symbol", "session", "known_at", bar_session="session").sort("session")
    met = bad.join_asof(on, on="session", by="symbol", strategy="forward", check_sortedness=False).drop_nulls("bar_session")
    met = met.with_columns(session="bar_session").unique(["symbol", "session"], keep="first", maintain_order=True)
    return findings(met, "impossible_action", pl.col("reason"), known_at=pl.max_horizontal("known_at", "told_at"))


def by_sight(offenders: pl.DataFrame, rule: str, suggestion: pl.Expr) -> pl.DataFrame:
    """Findings with `detail`, `score`, `found_at` of the frame, each under the detector that sees `sight` sessions ahead."""
    once = offenders.sort("found_at", "score", descending=[False, True], maintain_order=True)
    seen = {
        "rules": pl.col("sight") == 0,
        "rules_next_session": pl.col("sight") == 1,
        "rules_later_sessions": pl.col("sight").is_between(2, 10),
    }
    return pl.concat(
        findings(
            once.filter(ahead).unique(["symbol", "session"], keep="first", maintain_order=True),
            rule, pl.col("detail"), score=pl.col("score"), known_at="found_at", suggestion=suggestion, detector=detector,
        )
        for detector, ahead in seen.items()
    )  # fmt: skip


def number(name: str) -> pl.Expr:
    return pl.col(name).round_sig_figs(5).cast(pl.String)
