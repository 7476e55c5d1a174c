"""Dividends that the prices contradict: in another unit, told twice, not adjusted for.

A dividend lowers the open by about its amount.
"""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.findings import NOTHING, findings, suggested
from quant_assets.data_quality.rules.actions import NEARBY, by_sight, moves, number

POOLED = 185
"""Sessions back over which dividends of one size are judged together."""
REPEATED = 3
"""Sessions within which the same dividend is not paid twice; up to `NEARBY` it is doubted where the price confirms only one."""
LIKELY, CERTAIN = 3.5, 6.0
"""Gains in log likelihood from which another amount is believed: a warning, critical."""
LIKELY_POOLED = 2.0
"""The same for several dividends together. Of 3,872 real dividends below `TINY` one reaches it."""
LIKELY_ALIKE = 0.5
"""The same where a hundred times the dividend is what was paid before (within a factor of 1.5)."""
TINY = 0.005
"""Of the price: only smaller dividends can be a hundredth of what was paid."""
SLIGHT = 3e-4
"""Of the price: a smaller step of the adjusted closes without a dividend is left alone."""


def dividends(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Bars at which a dividend is told that the price does not confirm.

    Rules `dividend_too_large` (the price falls as for a hundredth of it, or for none), `dividend_too_small` (the dividends of
    the last `POOLED` sessions are tiny, and together the price falls as for a hundred times as much, or one of them is a
    hundredth of those before it) and `dividend_repeated`
    (the same amount, or a hundred times it, within a few sessions). How well an amount fits is the log likelihood (Student's
    t, 3 degrees of freedom) of the fall to the open or to the close, whichever fits it better, in units of the usual move.
    """
    told = actions.filter(pl.col("kind") == "dividend").select("symbol").unique()
    moved = moves(bars.join(told, on="symbol", how="semi", maintain_order="left"), actions)
    paid = moved.filter((pl.col("dividend") > 0) & pl.col("before").is_not_null())
    paid = paid.with_columns(
        share=pl.col("dividend") / pl.col("before"),
        as_told=_fit(pl.col("dividend")), hundredth=_fit(pl.col("dividend") / 100), hundredfold=_fit(pl.col("dividend") * 100), none=_fit(pl.lit(0.0)),
    )  # fmt: skip
    return pl.concat([NOTHING, _too_large(paid), _too_small(paid), _repeated(paid)])


def _fit(amount: pl.Expr) -> pl.Expr:
    """Log likelihood of the fall in price, given that this amount was paid."""
    return pl.max_horizontal(
        -2 * (((1 - pl.col(price) / pl.col("before") - amount / pl.col("before")) / pl.col(usual)) ** 2 / 3).log1p()
        for price, usual in (("open", "usual_open"), ("close", "usual"))
    )


def _too_large(paid: pl.DataFrame) -> pl.DataFrame:
    other = pl.max_horizontal("hundredth", "none")
    gain = other - pl.col("as_told")
    # A price that did not move at all was not made that day.
    stood = (pl.col("close") == pl.col("before")) & (pl.col("open") == pl.col("before")) & (pl.col("share") < 0.1)
    large = paid.filter(~stood & (gain >= LIKELY) & (1 - pl.col("close") / pl.col("before") < pl.col("share") / 2))
    amount = pl.when(pl.col("hundredth") >= pl.col("none") - 0.5).then(pl.col("dividend") / 100).otherwise(0.0)
    told = pl.format("a dividend of {} on {}, but open {} and close {}", number("dividend"), "before", "open", "close")
    score = pl.when((gain >= CERTAIN) & (pl.col("share") >= 0.05)).then(0.99995).otherwise(0.9995)
    return findings(large, "dividend_too_large", told, score=score, known_at="known_here", suggestion=suggested("dividend", amount, told))


def _too_small(paid: pl.DataFrame) -> pl.DataFrame:
    ratios = (
        pl.when(pl.col("place") - pl.col("place").shift(n) <= POOLED)
        .then(100 * pl.col("dividend") / pl.col("dividend").shift(n))
        .over("symbol")
        for n in range(1, 5)
    )
    alike = pl.any_horizontal(ratio.is_between(1 / 1.5, 1.5) for ratio in ratios).fill_null(False)
    tiny = paid.with_columns(alike=alike, gain=pl.col("hundredfold") - pl.col("as_told")).filter(pl.col("share") <= TINY)
    if tiny.is_empty():
        return NOTHING
    pooled = tiny.rolling("place", period=f"{POOLED}i", group_by="symbol").agg(
        pl.col("session").last(),
        pl.col("gain").sum().alias("pooled"),
        pl.col("known_here").max().alias("pooled_known"),
        pl.len().alias("n"),
    )
    likely = pl.col("pooled") >= pl.when(pl.col("n") > 1).then(LIKELY_POOLED).otherwise(LIKELY)
    small = tiny.join(pooled, on=["symbol", "session"]).filter(likely | (pl.col("alike") & (pl.col("gain") >= LIKELY_ALIKE)))
    told = pl.format(
        "a dividend of {} on {} ({} such in {} sessions): the price fell as for a hundred times as much",
        number("dividend"),
        "before",
        "n",
        pl.lit(POOLED),
    )
    score = pl.when(pl.col("pooled") >= CERTAIN).then(0.99995).otherwise(0.9995)
    return findings(
        small,
        "dividend_too_small",
        told,
        score=score,
        known_at="pooled_known",
        suggestion=suggested("dividend", 100 * pl.col("dividend"), told),
    )


def _repeated(paid: pl.DataFrame) -> pl.DataFrame:
    """Pairs of dividends too near each other: the one that the price confirms less is critical, the other a warning."""
    seen = paid.with_columns(confirmed=pl.col("as_told") - pl.col("none"))
    fields = ("session", "known_at", "known_here", "dividend", "confirmed", "place")
    pairs = seen.with_columns(pl.col(name).shift(1).over("symbol").alias(f"first_{name}") for name in fields)
    apart = pl.col("place") - pl.col("first_place")
    ratio = pl.col("dividend") / pl.col("first_dividend")
    same = pl.any_horizontal((ratio / factor - 1).abs() <= 0.01 for factor in (0.01, 1.0, 100.0))
    clear = (pl.col("confirmed") - pl.col("first_confirmed")).abs() >= 2
    worse = pl.col("confirmed") <= pl.col("first_confirmed")
    near, words = apart <= REPEATED, "a dividend of {} on {} and of {} on {}"
    pairs = pairs.filter(same & (near | (clear & (apart <= NEARBY)))).with_columns(
        detail=pl.format(words, number("first_dividend"), "first_session", number("dividend"), "session"),
        found_at=pl.max_horizontal("known_here", "first_known_here"),
        sight=pl.lit(0, pl.Int64),
        phantom=worse,
        near=near,
    )
    first = pairs.with_columns(
        session="first_session", known_at="first_known_at", dividend="first_dividend", sight=apart, phantom=~pl.col("phantom")
    )
    both = pl.concat([pairs, first]).filter(pl.col("phantom") | pl.col("near"))
    both = both.with_columns(score=pl.when(pl.col("phantom") & pl.col("near")).then(0.99995).otherwise(0.9995))
    kept = pl.when("phantom").then(0.0).otherwise("dividend")
    return by_sight(both, "dividend_repeated", suggested("dividend", kept, pl.col("detail")))


def adjusted_closes(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Bars at which the vendor's adjusted closes and the dividends told contradict each other.

    Only for bars of one delivery: its adjusted closes are all of one day's basis. Between two bars of it adj_close / close
    changes by 1 − dividend / close before (and 1 / split where prices are raw), within rounding. Rules
    `dividend_adjustment` (for another amount, or where no dividend is told) and `capital_gain_twice` (the adjustment is for the
    dividend and the capital gain in it). Critical from a tenth of a percent of the price on, else a warning. Proposed is
    the amount that the price confirms better: as the dividend, or as what to adjust for (`adj_close`).
    """
    moved = moves(bars.filter(pl.col("vendor_adj_close").is_finite() & (pl.col("vendor_adj_close") > 0)), actions)
    adjusted = pl.col("vendor_adj_close")
    digits = [((adjusted * 10**n - (adjusted * 10**n).round()).abs() < 1e-6 * 10**n * 1e-2).all().over("symbol") for n in (2, 3, 4)]
    rounding = pl.coalesce(*(pl.when(exact).then(0.5 * 10.0**-n) for n, exact in zip((2, 3, 4), digits, strict=True)), pl.lit(0.0))
    moved = moved.with_columns(rounding=rounding / adjusted + 3e-7, ratio=adjusted / pl.col("close"))
    shares = pl.when(pl.col("basis") == "raw").then("split").otherwise(1.0)
    factor = pl.col("ratio").shift(1).over("symbol") / pl.col("ratio") * shares
    slack = pl.col("before") * 2 * (pl.col("rounding") + pl.col("rounding").shift(1).over("symbol"))
    stepped = moved.with_columns(implied=pl.col("before") * (1 - factor), slack=slack, last_adjusted=adjusted.shift(1).over("symbol"))
    stepped = stepped.filter((pl.col("implied") - pl.col("dividend")).abs() > pl.max_horizontal("slack", 0.02 * pl.col("dividend")))
    stepped = stepped.with_columns(
        gap=(pl.col("implied") - pl.col("dividend")).abs() / pl.col("before"),
        as_told=_fit(pl.col("dividend")),
        as_adjusted=_fit(pl.col("implied")),
    ).filter((pl.col("gap") >= SLIGHT) | (pl.col("dividend") > 0))
    both = pl.col("dividend") + pl.col("capital_gain")
    twice = (pl.col("capital_gain") > 0) & (pl.col("capital_gain") <= 1.001 * pl.col("dividend"))
    twice &= (pl.col("implied") - both).abs() <= pl.max_horizontal("slack", 0.02 * both)
    score = pl.when(pl.col("gap") >= 1e-3).then(1.0).otherwise(0.9995)
    told = pl.format("a dividend of {} on {}, but the adjusted closes are for {}", number("dividend"), "before", number("implied"))
    # A dividend that is told and not adjusted for is more often forgotten than made up.
    of_price = (pl.col("implied") > pl.col("slack")) & ((pl.col("as_adjusted") > pl.col("as_told")) | (pl.col("dividend") == 0))
    column = pl.when(of_price).then(pl.lit("dividend")).otherwise(pl.lit("adj_close"))
    right = pl.col("last_adjusted") * (1 - pl.col("dividend") / pl.col("before")) / (1 - pl.col("implied") / pl.col("before"))
    proposal = pl.struct(column=column, value=pl.when(of_price).then("implied").otherwise(right), evidence=told).struct.json_encode()
    found = [findings(stepped.filter(~twice), "dividend_adjustment", told, score=score, known_at="known_here", suggestion=proposal)]
    counted = stepped.filter(twice)
    if counted.height:
        gain = pl.col("as_told") - pl.col("as_adjusted")
        pooled = counted.with_columns(gain=gain).rolling("place", period=f"{POOLED}i", group_by="symbol").agg(
            pl.col("session").last(), pl.col("gain").sum().alias("pooled")
        )  # fmt: skip
        counted = counted.join(pooled, on=["symbol", "session"]).filter(pl.col("pooled") > 0)
        told = pl.format(
            "a dividend of {}, {} of it capital gain, but the adjusted closes are for {}; open {}, close {} after {}",
            number("dividend"), number("capital_gain"), number("implied"), "open", "close", "before",
        )  # fmt: skip
        found.append(
            findings(
                counted, "capital_gain_twice", told, score=score, known_at="known_here", suggestion=suggested("adj_close", right, told)
            )
        )
    return pl.concat(found)
