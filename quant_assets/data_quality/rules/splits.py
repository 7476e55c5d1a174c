"""Splits that the prices contradict: forgotten, applied twice, or in a restated history by halves.

A split moves the price by its ratio between two sessions and the volume the other way.
"""

from __future__ import annotations

import math

import polars as pl

from quant_assets.data_quality.findings import NOTHING, findings, suggested
from quant_assets.data_quality.rules.actions import NEARBY, by_sight, moves, number

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
EARLIER = ("symbol", "session", "known_at", "detail", "score", "found_at", "sight", "proposed_close")


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
    told = pl.format("close {} after {}: a {}-for-1 split that no action tells of", "close", "before", number("ratio"))
    proposal = suggested("split", pl.col("ratio"), told)
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
        "a split of {} new shares per old one, but close {} after {}", number("split"), "close", pl.col("before") * pl.col("split")
    )
    proposal = suggested("split", pl.lit(1.0), told)
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
        detail=pl.format(words, "close", "last_close", number("told"), "at"),
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
    return by_sight(sides, "split_in_history", suggested("close", pl.col("proposed_close"), pl.col("detail")))
