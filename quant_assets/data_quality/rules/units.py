"""Prices in another unit than their neighbours': pence for pounds, cents for dollars, a shifted decimal point.

A price is measured against the median close of the sessions before, in powers of ten. What corporate actions explain is
taken out first, and a lasting change by a factor of ten is a question of splits (`rules/actions.py`), not of units.
"""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.findings import CRITICAL_RATE, findings, suggested
from quant_assets.data_quality.rules.prices import PRICES

MEMORY = 21
"""Sessions before a bar whose median close says in which unit the symbol is quoted; a wrong stretch of ten does not turn it."""
STRETCH = 10
"""Sessions that a stretch in another unit may last and still be told from a change for good."""
LASTING = 5
"""Sessions after which a change of unit counts as one for good, so that the bars before it are doubtful too."""
NEAR = 0.18
"""How near a factor must come to 10 or 1/10, in powers of ten (by a factor of 1.5): what the price moved besides."""
NEAR_LARGE = 0.35
"""The same for 100 and more, where no move comes near."""
FLOOR = 0.6
"""A move between two sessions smaller than this, in powers of ten (by a factor of 4), changes no unit."""


def unit_errors(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars, or single prices of a bar, that stand a power of ten away from where the symbol is quoted.

    By the session alone: ×10, and ×100 or /100 and further as long as the stretch is short, unless the volume moved the
    other way as in a split (critical); /10 is a warning, for a share can lose nine tenths in a day. Once the price is back
    within `STRETCH` sessions, every bar of the stretch is critical. The last bar before a change that lasts is a
    warning where the vendor restates its history, for either side can be the wrong one.

    Takes bars as `judge.prepared` gives them; those without a positive close are passed over. Proposes the close in the
    other unit.
    """
    valid = pl.all_horizontal(pl.col(name).is_finite() & (pl.col(name) > 0) for name in ("close", "adj_close"))
    measured = bars.filter(valid).with_columns(level=pl.col("adj_close").log10(), raw_level=pl.col("close").log10())
    steps = [pl.col(name).diff().over("symbol").abs() for name in ("level", "raw_level")]
    within = pl.max_horizontal(PRICES) / pl.min_horizontal(PRICES) >= 10**FLOOR
    suspects = measured.filter((pl.min_horizontal(steps) >= FLOOR) | within).select("symbol").unique()
    measured = measured.join(suspects, on="symbol", how="semi", maintain_order="left")
    before = pl.col("level").shift(1)
    measured = measured.with_columns(
        usual=before.rolling_median(MEMORY, min_samples=1).over("symbol"),
        usual_from=before.is_not_null().cum_sum().over("symbol"),
        usual_volume=pl.col("adj_volume").shift(1).rolling_median(MEMORY, min_samples=1).over("symbol"),
        step=pl.min_horizontal(steps).fill_null(0.0),
    ).with_columns(off=pl.col("level") - pl.col("usual"))
    return pl.concat([_single_prices(measured), _whole_bars(measured)]).unique(
        ["symbol", "session", "detector"], keep="first", maintain_order=True
    )


def _whole_bars(measured: pl.DataFrame) -> pl.DataFrame:
    power = pl.col("off").round(0)
    ends = [
        ((pl.col("level").shift(-n) - pl.col("usual")).abs() < NEAR_LARGE).over("symbol")
        & (pl.col("step").shift(-n) >= FLOOR).over("symbol")
        for n in range(1, STRETCH + 1)
    ]
    stays = pl.all_horizontal(
        ((pl.col("off") - (pl.col("level").shift(-n) - pl.col("usual"))).abs() < NEAR_LARGE).over("symbol") for n in range(1, LASTING)
    )
    # Shares move against the price in a split, and not at all when only the unit changes.
    shift = (pl.col("adj_volume") / pl.col("usual_volume")).log10()
    inverse = (shift * power.sign() <= -0.5 * power.abs()) & shift.is_finite()
    judged = measured.with_columns(
        power=power,
        inverse=inverse.fill_null(False),
        back_after=pl.coalesce(pl.when(end).then(n) for n, end in enumerate(ends, 1)),
        stays=stays.fill_null(False),
        # The step into the stretch, seen from each of its bars.
        entered=pl.col("step").rolling_max(STRETCH, min_samples=1).over("symbol") >= FLOOR,
        known_before=pl.col("known_at").shift(1).rolling_max(MEMORY, min_samples=1).over("symbol"),
        known_lasting=pl.max_horizontal(pl.col("known_at").shift(-n).over("symbol") for n in range(LASTING)),
        known_back=pl.coalesce(
            pl.when(end).then(pl.max_horizontal(pl.col("known_at").shift(-k).over("symbol") for k in range(n + 1)))
            for n, end in enumerate(ends, 1)
        ),
        before_session=pl.col("session").shift(1).over("symbol"),
        before_known_at=pl.col("known_at").shift(1).over("symbol"),
        before_close=pl.col("close").shift(1).over("symbol"),
    )
    ten = power.abs() == 1
    near = (pl.col("off") - power).abs() <= pl.when(ten).then(NEAR).otherwise(NEAR_LARGE)
    off = judged.filter((power != 0) & near & pl.col("entered"))
    # A bar that is far off and then back can be rough about its power: no price does that.
    rough = judged.filter((power.abs() >= 2) & (pl.col("back_after") == 1) & ~near & pl.col("entered"))
    detail = pl.format("close {} is {} times the median close of up to {} sessions before", "close", _factor(), pl.lit(MEMORY))
    proposed = suggested(pl.lit("close"), pl.col("close") / 10 ** pl.col("power"), detail)
    here = pl.max_horizontal("known_at", "known_before")
    sure = ~pl.col("inverse") & (pl.col("usual_from") >= 3) & (pl.col("power") != -1)
    # A tenfold level that lasts is a question of splits from its second session on.
    alone = off.filter(~pl.col("inverse") & (~ten | (pl.col("step") >= FLOOR)))
    score = pl.when(sure).then(0.99995).otherwise(0.9995)
    found = [findings(alone, "unit_error", detail, score=score, known_at=here, suggestion=proposed)]
    back = pl.concat([off, rough]).filter(pl.col("back_after").is_not_null())
    for detector, which in (("rules_next_session", pl.col("back_after") == 1), ("rules_later_sessions", pl.col("back_after") > 1)):
        told = pl.format("{}; back after {} sessions", detail, "back_after")
        known = pl.max_horizontal(here, "known_back")
        found.append(findings(back.filter(which), "unit_error", told, score=1.0, known_at=known, suggestion=proposed, detector=detector))
    lasting = off.filter(pl.col("stays") & ~pl.col("inverse") & (pl.col("step") >= FLOOR) & (pl.col("basis") == "restated"))
    lasting = lasting.filter(pl.col("before_session").is_not_null()).with_columns(
        late=pl.max_horizontal(here, "known_lasting"),
        session="before_session", known_at="before_known_at", close="before_close",
    )  # fmt: skip
    told = pl.format("close {}, and {} times that from the next session on: one side is in another unit", "close", _factor())
    other = suggested(pl.lit("close"), pl.col("close") * 10 ** pl.col("power"), told)
    found.append(findings(lasting, "unit_error", told, score=0.9995, known_at="late", suggestion=other, detector="rules_later_sessions"))
    return pl.concat(found)


def _single_prices(measured: pl.DataFrame) -> pl.DataFrame:
    """Bars within which some prices stand where they should and others a power of ten away."""
    away = {name: pl.col(f"adj_{name}").log10() - pl.col("usual") for name in PRICES}
    sound = pl.all_horizontal(pl.col(name).is_finite() & (pl.col(name) > 0) for name in PRICES)
    mixed = measured.filter(sound & pl.col("usual").is_not_null()).with_columns(
        **{f"away_{name}": value for name, value in away.items()},
        known_before=pl.col("known_at").shift(1).rolling_max(MEMORY, min_samples=1).over("symbol"),
    )
    powers = {name: pl.col(f"away_{name}").round(0) for name in PRICES}
    near = [(pl.col(f"away_{name}") - powers[name]).abs() <= NEAR for name in PRICES]
    right = [powers[name] == 0 for name in PRICES]
    mixed = mixed.filter(pl.all_horizontal(near) & pl.any_horizontal(right) & ~pl.all_horizontal(right)).with_columns(
        column=pl.coalesce(pl.when(~is_right).then(pl.lit(name)) for name, is_right in zip(PRICES, right, strict=True)),
        value=pl.coalesce(
            pl.when(~is_right).then(pl.col(name) / 10.0 ** powers[name]) for name, is_right in zip(PRICES, right, strict=True)
        ),
        power=pl.coalesce(pl.when(~is_right).then(powers[name]) for name, is_right in zip(PRICES, right, strict=True)),
    )
    detail = pl.format(
        "open {}, high {}, low {}, close {}: the {} is {} times what the others and the sessions before say", *PRICES, "column", _factor()
    )
    known = pl.max_horizontal("known_at", "known_before")
    suggestion = suggested(pl.col("column"), pl.col("value"), detail)
    score = pl.when(pl.col("column") == "close").then(0.99995).otherwise(1 - CRITICAL_RATE)  # else the close may be right
    return findings(mixed, "unit_error", detail, score=score, known_at=known, suggestion=suggestion)


def _factor() -> pl.Expr:
    return (
        pl.when(pl.col("power") > 0)
        .then((10 ** pl.col("power")).cast(pl.Int64).cast(pl.String))
        .otherwise(pl.format("1/{}", (10 ** -pl.col("power")).cast(pl.Int64)))
    )
