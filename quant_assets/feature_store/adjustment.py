"""Forward adjustment: raw prices × the cumulative factor of the corporate actions up to each session.

A split of r new shares per old one multiplies the factor by r from its ex-session on; a dividend d multiplies it by
1 / (1 − d / previous raw close), the multiplier behind CRSP's and Yahoo's adjusted closes, applied forward instead of
backward. The factor is 1 at a symbol's first bar, so that a later action never changes an earlier row.

Where several actions meet on one bar, they apply in the order of their ex-sessions, a split before a dividend of the
same ex-session: a dividend is an amount per share as held on its own ex-session, that is, after that session's split.
"""

from __future__ import annotations

import polars as pl

_PRICES = ("open", "high", "low", "close")


def forward_adjusted(bars: pl.DataFrame, actions: pl.DataFrame, carried: pl.DataFrame | None = None) -> pl.DataFrame:
    """Add adjusted prices and volumes, and the two factors between raw and adjusted.

    Takes one row per symbol and session (`symbol`, `session`, `open`, `high`, `low`, `close`, `volume`, `basis`,
    `known_at`, in any order, other columns are kept) and one row per action (`symbol`, `session`, `kind`, `value`,
    `known_at`). Returns the bars sorted by symbol and session with `adj_open`, `adj_high`, `adj_low`, `adj_close`
    (raw × `price_factor`), `adj_volume` (raw / `share_factor`, null where the volume is null), `price_factor` (splits
    and dividends), `share_factor` (splits only) and `price_step` (the price factor's step at this bar, 1 without an
    action); no factor is null.

    `known_at` becomes the instant from which the adjusted row was known: the latest of its own bar, all earlier bars
    of the symbol and all actions applied so far.

    An action on a session without a bar applies at the symbol's next bar; one on or before the first bar, or after
    the last, changes nothing. Bars with `basis = restated` were adjusted by their vendor: actions pass them by.
    An action that cannot be right counts as factor 1; `unusable_actions` returns these.

    `carried` lets a symbol go on where its earlier bars are left out: `symbol`, `price_factor`, `share_factor` and
    `known_at` of its first bar here, instead of 1, 1 and the bar's own; the rows after it come out as from all bars.
    """
    ordered = in_order(bars).with_columns(pl.col(*_PRICES, "volume").cast(pl.Float64))
    applied = _applied(ordered, actions).filter(pl.col("reason").is_null())
    split, dividend = pl.col("split"), pl.col("dividend_of_previous_close")
    steps = applied.group_by("symbol", "bar_session").agg(
        (split.product() / (1.0 - dividend.sum())).alias("price_factor"),
        split.product().alias("share_factor"),
        pl.col("known_at").max().alias("action_known_at"),
    )
    joined = ordered.join(steps, left_on=["symbol", "session"], right_on=["symbol", "bar_session"], how="left", maintain_order="left")
    joined = joined.with_columns(pl.col("price_factor").fill_null(1.0).alias("price_step"))
    if carried is not None:
        beside = joined.select("symbol").join(carried, on="symbol", how="left", maintain_order="left")
        is_first = joined["symbol"] != joined["symbol"].shift(1)
        joined = joined.with_columns(
            pl.when(is_first.fill_null(value=True)).then(pl.coalesce(beside[name], name)).otherwise(name).alias(name)
            for name in ("price_factor", "share_factor", "known_at")
        )
    factors = pl.col("price_factor", "share_factor").fill_null(1.0)
    return (
        joined.with_columns(
            factors if steps.is_empty() and carried is None else factors.cum_prod().over("symbol"),
            pl.max_horizontal("known_at", "action_known_at").cum_max().over("symbol").alias("known_at"),
        )
        .pipe(with_adjusted)
        .select(*bars.columns, *(f"adj_{name}" for name in _PRICES), "adj_volume", "price_factor", "share_factor", "price_step")
    )


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows sorted by symbol and session; those that are already are not sorted again."""
    symbol, session = pl.col("symbol"), pl.col("session")
    follows = (symbol > symbol.shift(1)) | ((symbol == symbol.shift(1)) & (session >= session.shift(1)))
    return rows if rows.select(follows.all(ignore_nulls=True)).item() else rows.sort("symbol", "session")


def with_adjusted(rows: pl.DataFrame) -> pl.DataFrame:
    """Add adjusted prices and volumes to raw ones that stand beside their factors: `adj_open`, …, `adj_volume`."""
    prices = ((pl.col(name) * pl.col("price_factor")).alias(f"adj_{name}") for name in _PRICES)
    return rows.with_columns(*prices, (pl.col("volume") / pl.col("share_factor")).alias("adj_volume"))


def unusable_actions(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """The actions that `forward_adjusted` leaves out because they cannot be right, with a `reason` that gives the numbers.

    Same input; returns `symbol`, `session`, `kind`, `value`, `known_at`, `reason`, sorted. Unusable are: an unknown
    kind, a split ratio or dividend that is not a number or not positive, and a dividend that would take the whole
    previous close (together with those before it on the same bar).
    """
    bad = _applied(in_order(bars), actions).filter(pl.col("reason").is_not_null())
    return bad.select("symbol", "session", "kind", "value", "known_at", "reason").sort("symbol", "session", "kind", "value")


def _applied(ordered: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """One row per action that meets a bar: `bar_session`, `split`, `dividend_of_previous_close`, `reason` (null when usable)."""
    previous = pl.col("close").cast(pl.Float64).shift(1).over("symbol").alias("previous_close")
    targets = ordered.filter(pl.col("symbol").is_in(actions["symbol"].unique().implode())).select(
        "symbol", "basis", pl.col("session").alias("bar_session"), previous
    )
    value, is_split, is_dividend = pl.col("value").cast(pl.Float64), pl.col("kind") == "split", pl.col("kind") == "dividend"
    sound = (value.is_finite() & (value > 0)).fill_null(value=False)
    ratio = pl.when(is_split & sound).then(value).otherwise(1.0)
    on_bar = ["symbol", "bar_session"]
    # "split" sorts after "dividend", hence the descending order of kinds.
    met = (
        actions.select("symbol", "session", "kind", "value", "known_at")
        .sort("symbol", "session", "kind", "value", descending=[False, False, True, False])
        .join_asof(
            targets, left_on="session", right_on="bar_session", by="symbol", strategy="forward", check_sortedness=False, coalesce=False
        )
        .filter(pl.col("previous_close").is_not_null() & (pl.col("basis") == "raw"))
        .sort(*on_bar, maintain_order=True)
    )
    # A dividend per new share is dividend × (splits so far) per share of the previous close.
    share = pl.when(is_dividend & sound).then(value * ratio.cum_prod().over(on_bar) / pl.col("previous_close")).otherwise(0.0)
    number, close = value.cast(pl.String).fill_null("null"), pl.col("previous_close").cast(pl.String)
    return (
        met.with_columns(ratio.alias("split"), share.alias("dividend_of_previous_close"))
        .with_columns(pl.col("dividend_of_previous_close").cum_sum().over(on_bar).alias("taken"))
        .with_columns(
            pl.when(~(is_split | is_dividend))
            .then(pl.format("kind {} is neither split nor dividend", "kind"))
            .when(~sound)
            .then(pl.format("{} of {} is not a positive number", "kind", number))
            .when(is_dividend & (pl.col("taken") >= 1.0))
            .then(pl.format("dividend of {} leaves nothing of the previous close {}", number, close))
            .alias("reason")
        )
    )
