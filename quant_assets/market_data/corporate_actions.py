"""Splits and dividends where a vendor tells only adjusted closes, and each split once where it tells it twice.

Between two sessions of one delivery the ratio adj_close / close changes exactly where something was paid or split: the
later ratio over the earlier one is the factor of the ex-session, r new shares per old one for a split, 1 / (1 − d / previous
close) for a dividend d (the multiplier behind CRSP's and Yahoo's adjusted closes).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl

from quant_assets.market_data.delivery import ACTIONS

RATIOS = sorted(
    (
        {Fraction(new, old) for new in range(1, 11) for old in range(1, 11)}
        | {Fraction(many, 1) for many in range(1, 101)}
        | {Fraction(1, many) for many in range(1, 1001)}
    )
    - {Fraction(1)},
    key=lambda ratio: ratio.numerator + ratio.denominator,
)
"""The ratios in which shares are split or merged, the simplest first."""
LARGE = 1.2
"""A factor this far from 1, or its inverse, shows in the prices; one that they do not follow is not believed (yet)."""
RATIO_SLACK = 2e-5
"""Vendors compute in single precision and round in between: a ratio this near to a simple one is that one."""
NEIGHBOURS = 5
"""Sessions within which a split of the same ratio is the same split, told twice."""


def infer_actions(bars: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read splits and dividends out of a delivery's adjusted closes; returns actions and what is not believed.

    Takes one row per symbol and session (`symbol`, `session`, `close`, `adj_close`; rows where either is null or not
    positive say nothing). Returns the actions (`delivery.ACTIONS`: a split in new shares per old one, a dividend in
    currency per share as held before the ex-session) and the doubtful ones with a `reason`: a large factor that the
    prices did not follow on its session, as when a vendor tells a split some days early and then again.

    A factor below 1 is a merger of shares; one above 1 a split where it is a simple ratio from 5:4 on, else a dividend.
    A ratio is matched, and a dividend rounded, within what the digits of the adjusted close can tell.
    """
    steps = _steps(bars)
    if steps.is_empty():
        return pl.DataFrame(schema=ACTIONS), pl.DataFrame(schema={**ACTIONS, "reason": pl.String})
    exact = _simple_ratio(steps["factor"].to_numpy(), steps["slack"].to_numpy())
    steps = steps.with_columns(ratio=pl.Series(exact, dtype=pl.Float64).fill_nan(None))
    is_split = (pl.col("factor") < 1) | ((pl.col("factor") >= LARGE) & pl.col("ratio").is_not_null())
    paid = pl.col("previous_close") * (1 - 1 / pl.col("factor"))
    rounded = pl.when((paid - paid.round(4)).abs() <= pl.col("slack") * pl.col("previous_close") + 1e-9).then(paid.round(4)).otherwise(paid)
    moved, explained = pl.col("move").log().abs(), (pl.col("move") * pl.col("factor")).log().abs()
    large = (pl.col("factor") >= LARGE) | (pl.col("factor") <= 1 / LARGE)
    found = steps.with_columns(
        kind=pl.when(is_split).then(pl.lit("split")).otherwise(pl.lit("dividend")),
        value=pl.when(is_split).then(pl.coalesce("ratio", "factor")).otherwise(rounded.round(6)),
        believed=~large | (explained < moved),
        reason=pl.format("a factor of {}, but the close went from {} to {}", pl.col("factor").round(4), "previous_close", "close"),
    )
    return (
        found.filter("believed").select(*ACTIONS).sort("symbol", "session", "kind"),
        found.filter(~pl.col("believed")).select(*ACTIONS, "reason").sort("symbol", "session", "kind"),
    )


def _steps(bars: pl.DataFrame) -> pl.DataFrame:
    """One row per pair of neighbouring sessions between which the ratio changed by more than rounding."""
    ordered = (
        bars.filter((pl.col("close") > 0) & (pl.col("adj_close") > 0))
        .select("symbol", "session", "close", "adj_close", ratio=pl.col("adj_close") / pl.col("close"))
        .sort("symbol", "session")
    )
    # Of thousands of symbols a handful has a step: the others are left alone early.
    stepped = (pl.col("ratio") != pl.col("ratio").shift(1)) & (pl.col("symbol") == pl.col("symbol").shift(1))
    ordered = ordered.join(ordered.filter(stepped).select("symbol").unique(), on="symbol", how="semi", maintain_order="left")
    # Digits after the point, as far as this symbol's adjusted closes show them; at least cents.
    digits = pl.max_horizontal(
        *(pl.when((pl.col("adj_close") - pl.col("adj_close").round(n - 1)).abs() > 10.0**-n / 2).then(n).otherwise(2) for n in range(3, 8))
    )
    # Closes that are their own adjusted closes up to the end are exact; any other one is rounded at the last digit.
    rounding = pl.when("exact").then(0.0).otherwise(0.5 * 10.0 ** -pl.col("digits") / pl.col("adj_close"))
    before = {name: pl.col(name).shift(1).over("symbol") for name in ("close", "ratio", "rounding")}
    return (
        ordered.with_columns(digits=digits.max().over("symbol").cast(pl.Float64))
        .with_columns(exact=(pl.col("ratio") == 1).cum_min(reverse=True).over("symbol"))
        .with_columns(rounding=rounding)
        .with_columns(
            factor=pl.col("ratio") / before["ratio"],
            move=pl.col("close") / before["close"],
            previous_close=before["close"],
            slack=1.1 * (pl.col("rounding") + before["rounding"]),
        )
        .filter(
            (pl.col("ratio") != pl.col("ratio").shift(1).over("symbol"))
            & (
                ((pl.col("factor") - 1).abs() > pl.col("slack"))
                # Exact from here to the end and not before: no rounding makes a difference where there is no action. In
                # between it does, where a small factor now and then rounds a price to itself.
                | (pl.col("exact") & (pl.col("ratio").shift(1).over("symbol") != 1))
            )
            & pl.col("factor").is_finite()
        )
    )


def _simple_ratio(factors: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """The simplest ratio within the slack of each factor; NaN where there is none."""
    ratios = np.array([float(ratio) for ratio in RATIOS])
    near = np.abs(factors[:, None] / ratios[None, :] - 1) <= np.maximum(2 * slack, RATIO_SLACK)[:, None]
    return np.where(near.any(axis=1), ratios[near.argmax(axis=1)], np.nan)


def without_repeats(actions: pl.DataFrame, bars: pl.DataFrame, stored: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """Leave out splits that repeat one of nearly the same ratio on a neighbouring session: a split told twice is applied once.

    `actions` and `bars` are a delivery's, `stored` the actions that are known already (`symbol`, `session`, `kind`,
    `value`), `sessions` the calendar (`session`, `ordinal`). Of the tellings within `NEIGHBOURS` sessions the one stays
    that is stored, else the one that the prices follow, else the first.
    """
    splits = actions.filter(pl.col("kind") == "split")
    if splits.is_empty():
        return actions
    move = (pl.col("close") / pl.col("close").shift(1).over("symbol")).log()
    moves = bars.filter(pl.col("close") > 0).sort("symbol", "session").select("symbol", "session", move=move)
    told = pl.concat(
        [
            splits.with_columns(stored=pl.lit(False)).join(
                stored.select("symbol", "session", "kind"), on=["symbol", "session", "kind"], how="anti"
            ),
            stored.filter(pl.col("kind") == "split")
            .select(*ACTIONS, stored=pl.lit(True))
            .join(splits.select("symbol").unique(), on="symbol"),
        ]
    )
    miss = (pl.col("move") + pl.col("value").log()).abs() - pl.col("move").abs()  # below 0 where the prices follow the split
    told = (
        told.join(moves, on=["symbol", "session"], how="left")
        .join(sessions.select("session", "ordinal"), on="session", how="left")
        .with_columns(miss=miss.fill_null(0.0))
    )
    same = (pl.col("value") / pl.col("value_other") - 1).abs() < 0.005
    near = (pl.col("ordinal") - pl.col("ordinal_other")).abs().is_between(1, NEIGHBOURS)
    better = (
        (pl.col("stored_other") & ~pl.col("stored"))
        | ((pl.col("stored_other") == pl.col("stored")) & (pl.col("miss_other") < pl.col("miss")))
        | (
            (pl.col("stored_other") == pl.col("stored"))
            & (pl.col("miss_other") == pl.col("miss"))
            & (pl.col("session_other") < pl.col("session"))
        )
    )
    repeats = told.filter(~pl.col("stored")).join(told, on="symbol", suffix="_other").filter(same & near & better)
    return actions.join(repeats.select("symbol", "session", "kind"), on=["symbol", "session", "kind"], how="anti", maintain_order="left")
