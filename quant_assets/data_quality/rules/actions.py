"""Splits and dividends that the prices contradict: forgotten, applied twice, in another unit, told twice, not adjusted for.

A split moves the price by its ratio between two sessions and the volume the other way; a dividend lowers the open by
about its amount. What moved is measured against what was told, in units of the symbol's own usual move.
"""

from __future__ import annotations

import math

import polars as pl

from quant_assets.data_quality.findings import NOTHING, findings
from quant_assets.feature_store.adjustment import unusable_actions

SPLITS = sorted({*range(2, 11), 12, 15, 20, 25, 30, 40, 50, 100, 200, 500, 1000, 1.5})
"""Ratios, or their inverses, that a forgotten split is looked for in."""
LEAST_SPLIT = 0.33
"""Splits smaller than about 7:5 (log ratio) are not looked for in the prices: moves hide them."""
COARSE = 0.1
"""Of the price: where the least move of late was larger, the price is in so few digits that a ratio says little."""
BEYOND = 20
"""A jump by less than so many usual moves may be a real one, however near to a ratio."""
UNITS = math.log(60)
"""From this ratio (log) on the volume must follow, if it is known, for a jump to be a split's."""
LEAST_JUMP = 0.3
"""A smaller jump (log) is no forgotten split."""
NEARBY = 10
"""Sessions around a split within which a jump by its ratio has to do with it."""
HISTORY = 63
"""Sessions before a bar whose moves say what is usual."""
USUAL_UNKNOWN, USUAL_FLOOR = 0.02, 0.004
"""The usual move where too little came before, and the least it is taken to be: quiet series are rounded."""
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


def splits(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Splits that nobody told, that were told but are no longer in the prices, and that are in a restated history by halves.

    Rules `unadjusted_split` (a jump by a ratio of `SPLITS` that lasts and that no action explains), `split_without_move` (a
    split in raw prices at which they do not move: the vendor had adjusted them already) and `split_in_history` (restated
    prices that jump by a split's ratio near its session: adjusted in part, or twice).
    """
    told = actions.filter(pl.col("kind") == "split").select("symbol")
    close = pl.when(pl.col("close") > 0).then("close").forward_fill().over("symbol")
    jumped = bars.filter(close.log().diff().over("symbol").abs() > LEAST_JUMP).select("symbol")
    # Nothing can be said of the symbols that neither jump nor split: most of them, in no time.
    moved = moves(bars.join(pl.concat([told, jumped]).unique(), on="symbol", how="semi", maintain_order="left"), actions)
    return pl.concat([NOTHING, _unadjusted(moved), _without_move(moved), _in_history(moved)])


def _unadjusted(moved: pl.DataFrame) -> pl.DataFrame:
    """A jump by a split's ratio: a warning on its session, critical once the next one stays there and the volume fits."""
    jumped = moved.with_columns(
        next_move=pl.col("move").shift(-1).over("symbol"),
        next_volume=pl.col("adj_volume").shift(-1).over("symbol"),
        last_session=pl.col("session").shift(1).over("symbol"),
        last_known_at=pl.col("known_at").shift(1).over("symbol"),
        known_next=pl.max_horizontal("known_here", pl.col("known_at").shift(-1).over("symbol")),
    ).filter((pl.min_horizontal(pl.col("move").abs(), pl.col("raw_move").abs()) > LEAST_JUMP) & (pl.col("split") == 1.0))
    grid = [value for ratio in SPLITS for value in (math.log(ratio), -math.log(ratio))]
    ratios = pl.DataFrame({"log_ratio": grid}, schema={"log_ratio": pl.Float64}).sort("log_ratio")
    jumped = jumped.with_columns(wanted=-pl.col("move")).sort("wanted")
    near = jumped.join_asof(ratios, left_on="wanted", right_on="log_ratio", strategy="nearest").sort("symbol", "session")
    size = pl.col("log_ratio").abs()
    # The larger the ratio, the less a real move can be mistaken for it.
    slack = pl.max_horizontal(0.04, 4 * pl.col("usual")).clip(None, pl.when(size < 1).then(0.1).otherwise(0.2))
    left, left_open = pl.col("move") + pl.col("log_ratio"), pl.col("open_move") + pl.col("log_ratio")
    # What the volume rose by beyond the split, for a real jump is much traded; null where nothing is known.
    near = near.with_columns(
        pl.when(pl.col(name) > 0).then((pl.col(name) / pl.col("usual_volume")).log() - pl.col("log_ratio")).alias(rise)
        for name, rise in (("adj_volume", "rise"), ("next_volume", "next_rise"))
    )
    most = pl.when(pl.col("log_ratio") < -1).then(2.3).otherwise(1.3)
    volume = pl.col("rise")
    quiet = (volume < most).fill_null(True)
    stays_quiet = (volume < most + 0.3).fill_null(True) & (pl.min_horizontal("rise", "next_rise") < most).fill_null(True)
    # Where the shares stay as many, a hundredth of the price is a question of units.
    answered = volume.is_null() | (volume.abs() < size / 2) | (size < UNITS)
    # The way back from a wrong bar or stretch ends where the price was before: no split.
    elsewhere = ((pl.col("adj_close") / pl.col("usual_close")).log().abs() > size / 2).fill_null(True)
    fits = (left.abs() <= slack) & (left_open.is_null() | (left_open.abs() <= slack)) & answered & elsewhere
    near = near.with_columns(ratio=pl.col("log_ratio").exp()).filter(fits & (pl.col("place") > 2))
    told = pl.format("close {} after {}: a {}-for-1 split that no action tells of", "close", "before", _number("ratio"))
    proposal = _suggested("split", pl.col("ratio"), told)
    # Within reach of the symbol's own moves, or of one tick, a ratio says little.
    fine = (pl.col("least_step") <= COARSE * pl.min_horizontal("close", "before")).fill_null(True)
    unlikely = fine & (pl.col("move").abs() >= BEYOND * pl.col("usual"))
    suspected = pl.when(unlikely).then(0.9995).otherwise(0.995)
    at_once = findings(near.filter(quiet), "unadjusted_split", told, score=suspected, known_at="known_here", suggestion=proposal)
    lasting = near.filter(stays_quiet & (pl.col("next_move").abs() <= size / 3))
    later = pl.format("{}; the next session stays there", told)
    score = pl.when((size < 0.5) | ~unlikely).then(suspected).otherwise(0.99995)
    found = findings(lasting, "unadjusted_split", later, score=score, known_at="known_next", suggestion=proposal, detector="rules_next_session")  # fmt: skip
    # What the vendor restates it restates up to a session: the side before it is as doubtful.
    earlier = lasting.filter((pl.col("basis") == "restated") & pl.col("last_session").is_not_null()).with_columns(
        session="last_session", known_at="last_known_at"
    )
    before = pl.format("{} (the session after this one)", later)
    doubted = findings(earlier, "unadjusted_split", before, score=suspected, known_at="known_next", suggestion=proposal, detector="rules_later_sessions")  # fmt: skip
    return pl.concat([at_once, found, doubted])


def _without_move(moved: pl.DataFrame) -> pl.DataFrame:
    """Splits of 7:5 and more in raw prices that move less than half as far as they should: critical on the session."""
    expected = -pl.col("split").log()
    still = moved.filter((pl.col("basis") == "raw") & pl.col("before").is_not_null() & (expected.abs() > LEAST_SPLIT)).filter(
        (pl.col("raw_move").abs() < (pl.col("raw_move") - expected).abs()) & ((pl.col("raw_move") - expected).abs() > 6 * pl.col("usual"))
    )
    told = pl.format(
        "a split of {} new shares per old one, but close {} after {}", _number("split"), "close", pl.col("before") * pl.col("split")
    )
    proposal = _suggested("split", pl.lit(1.0), told)
    return findings(still, "split_without_move", told, score=1.0, known_at="known_here", suggestion=proposal)


def _in_history(moved: pl.DataFrame) -> pl.DataFrame:
    """Restated prices that jump by the ratio of a split within `NEARBY` sessions of it: what the split restated, it restated in part.

    Critical where the jump is the ratio within the usual moves, a warning from half of it on. Told of the bar that jumps and, once the
    price stays there, of the bar before it and of the split's own session: which side is right cannot be told from the prices.
    """
    restated = moved.filter(pl.col("basis") == "restated")
    symbols = restated.filter(pl.col("split").log().abs() > LEAST_SPLIT).select("symbol").unique()
    restated = restated.join(symbols, on="symbol", how="semi", maintain_order="left")
    told = restated.filter(pl.col("split").log().abs() > LEAST_SPLIT).select(
        "symbol", told="split", at="session", at_place="place", at_bar_known="known_at", at_known="known_here"
    )
    around = {"last": 1, "next": -1}
    neighbours = {
        f"{side}_{name}": pl.col(name).shift(n).over("symbol")
        for side, n in around.items()
        for name in ("move", "session", "known_at", "close")
    }
    size, apart = pl.col("told").log().abs(), pl.col("place") - pl.col("at_place")
    undone = {side: (pl.col("move") + pl.col(f"{side}_move")).abs() < size / 2 for side in around}
    jumps = (
        restated.with_columns(**neighbours)
        .join(told, on="symbol")
        .filter((apart.abs() <= NEARBY) & (pl.col("move").abs() >= pl.max_horizontal(size / 2, 6 * pl.col("usual"))))
        # The way back from a single wrong bar is no jump of its own.
        .filter(~(undone["last"] & (pl.col("last_move").abs() >= size / 2)).fill_null(False))
    )
    other = pl.when(pl.col("move") * pl.col("told").log() < 0).then(1 / pl.col("told")).otherwise("told")
    precise = (pl.col("move").abs() - size).abs() <= pl.max_horizontal(0.1, 5 * pl.col("usual")).clip(None, 0.25)
    words = "close {} after {} in restated prices, near the {}-for-1 split of {}"
    here = pl.max_horizontal("known_here", "at_known")
    jumps = jumps.with_columns(
        detail=pl.format(words, "close", "last_close", _number("told"), "at"),
        proposed_close=pl.col("close") / other,
        score=pl.when(precise).then(0.99995).otherwise(0.9995),
        found_at=here,
        sight=(-apart).clip(0),
    )
    stays = jumps.filter(~undone["next"]).with_columns(found_at=pl.max_horizontal(here, "next_known_at"))
    earlier = stays.with_columns(
        session="last_session", known_at="last_known_at", proposed_close=pl.col("last_close") * other,
        score=pl.lit(0.9995), sight=pl.max_horizontal(pl.lit(2), 1 - apart),
    )  # fmt: skip
    acted = stays.filter(apart != 0).with_columns(session="at", known_at="at_bar_known", sight=(apart + 1).clip(0))
    sides = pl.concat([frame.select(EARLIER) for frame in (jumps, earlier, acted)]).drop_nulls("session")
    return _by_sight(sides, "split_in_history", _suggested("close", pl.col("proposed_close"), pl.col("detail")))


EARLIER = ("symbol", "session", "known_at", "detail", "score", "found_at", "sight", "proposed_close")


def _by_sight(offenders: pl.DataFrame, rule: str, suggestion: pl.Expr) -> pl.DataFrame:
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
    told = pl.format("a dividend of {} on {}, but open {} and close {}", _number("dividend"), "before", "open", "close")
    score = pl.when((gain >= CERTAIN) & (pl.col("share") >= 0.05)).then(0.99995).otherwise(0.9995)
    return findings(large, "dividend_too_large", told, score=score, known_at="known_here", suggestion=_suggested("dividend", amount, told))


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
        _number("dividend"),
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
        suggestion=_suggested("dividend", 100 * pl.col("dividend"), told),
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
        detail=pl.format(words, _number("first_dividend"), "first_session", _number("dividend"), "session"),
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
    return _by_sight(both, "dividend_repeated", _suggested("dividend", kept, pl.col("detail")))


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
    told = pl.format("a dividend of {} on {}, but the adjusted closes are for {}", _number("dividend"), "before", _number("implied"))
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
            _number("dividend"), _number("capital_gain"), _number("implied"), "open", "close", "before",
        )  # fmt: skip
        found.append(
            findings(
                counted, "capital_gain_twice", told, score=score, known_at="known_here", suggestion=_suggested("adj_close", right, told)
            )
        )
    return pl.concat(found)


def _number(name: str) -> pl.Expr:
    return pl.col(name).round_sig_figs(5).cast(pl.String)


def _suggested(column: str, value: pl.Expr, evidence: pl.Expr) -> pl.Expr:
    return pl.struct(column=pl.lit(column), value=value, evidence=evidence).struct.json_encode()
