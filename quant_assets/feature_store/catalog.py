"""What each feature is: name, definition, look-back, unit, range, null rule, one sentence, source.

The one place about features: table descriptions, contracts, tests and docs are taken from here. It imports
nothing of the package, so that everything may import it.
"""

from __future__ import annotations

from dataclasses import dataclass

WILDER = "J. Welles Wilder, New Concepts in Technical Trading Systems (1978)"
APPEL = "Gerald Appel, Technical Analysis: Power Tools for Active Investors (2005)"
BOLLINGER = "John Bollinger, Bollinger on Bollinger Bands (2001)"
GRANVILLE = "Joseph Granville, New Key to Stock Market Profits (1963)"
MURPHY = "John J. Murphy, Technical Analysis of the Financial Markets (1999)"
NO_NULLS = "never null"
WARM_UP = "null before warm-up"


@dataclass(frozen=True)
class Feature:
    """One feature column of a view; it is null in a symbol's first `lookback` sessions at least.

    `unit` is the column's unit; `low` and `high` bound its values (both included, `None`: unbounded). `scale_free`
    features can be compared between symbols and are untouched by splits: they serve models. The others stand in the
    price or share basis of their own session and serve people.
    """

    name: str
    definition: str
    lookback: int
    unit: str
    low: float | None
    high: float | None
    scale_free: bool
    null_rule: str
    sentence: str
    source: str
    table: str = "technical_v1"
    """Where it is stored; what is computed across symbols on reading is stored nowhere and names the view itself."""


def _sma(n: int) -> Feature:
    return Feature(
        f"sma_{n}", f"mean of the last {n} closes", n - 1, "price", 0.0, None, False, WARM_UP,
        f"Average close of the last {n} sessions.", MURPHY,
    )  # fmt: skip


def _ema(n: int) -> Feature:
    return Feature(
        f"ema_{n}", f"e += 2/({n} + 1) · (close − e), seeded with the mean of the first {n} closes", n - 1, "price", 0.0, None, False, WARM_UP,
        f"Exponentially weighted average close with a span of {n} sessions.", MURPHY,
    )  # fmt: skip


def _price_change(n: int) -> Feature:
    return Feature(
        f"price_change_{n}d", f"close / close[−{n}] − 1", n, "fraction", -1.0, None, True, WARM_UP,
        f"Return over the last {n} session{'s' if n > 1 else ''}, dividends included where they are known.", MURPHY,
    )  # fmt: skip


TECHNICAL_V1: tuple[Feature, ...] = (
    Feature(
        "rsi_14", "100 · gain / (gain + loss), Wilder's averages of 14 gains and 14 losses, seeded with the means of the first 14", 14,
        "0 to 100", 0.0, 100.0, True, "null before warm-up; 50 where the close never moved yet",
        "Share of upward moves among the recent moves: above 70 is called overbought, below 30 oversold.", WILDER,
    ),
    Feature(
        "macd", "ema_12 − ema_26", 25, "price", None, None, False, WARM_UP,
        "How far the fast average of the close stands above the slow one.", APPEL,
    ),
    Feature(
        "macd_signal", "e += 2/(9 + 1) · (macd − e), seeded with the mean of the first 9 values of macd", 33, "price", None, None, False, WARM_UP,
        "Smoothed MACD, whose crossing is read as a turn.", APPEL,
    ),
    Feature(
        "macd_hist", "macd − macd_signal", 33, "price", None, None, False, WARM_UP,
        "MACD above its own smoothed line: momentum gaining or fading.", APPEL,
    ),
    Feature(
        "bb_upper", "sma_20 + 2 · population standard deviation of the last 20 closes", 19, "price", 0.0, None, False, WARM_UP,
        "Upper Bollinger band.", BOLLINGER,
    ),
    Feature("bb_middle", "sma_20", 19, "price", 0.0, None, False, WARM_UP, "Middle Bollinger band.", BOLLINGER),
    Feature(
        "bb_lower", "sma_20 − 2 · population standard deviation of the last 20 closes", 19, "price", None, None, False, WARM_UP,
        "Lower Bollinger band.", BOLLINGER,
    ),
    Feature(
        "bb_width", "(bb_upper − bb_lower) / bb_middle", 19, "ratio", 0.0, None, True, WARM_UP,
        "Width of the Bollinger bands relative to the price: a measure of recent volatility.", BOLLINGER,
    ),
    Feature(
        # A member of 20 values lies at most √19 population standard deviations from their mean (Samuelson 1968).
        "bb_position", "(close − bb_lower) / (bb_upper − bb_lower)", 19, "ratio", 0.5 - 19**0.5 / 4, 0.5 + 19**0.5 / 4, True,
        "null before warm-up and where the last 20 closes are equal",
        "Where the close stands between the bands: 0 at the lower, 1 at the upper, beyond them outside.", BOLLINGER,
    ),
    _sma(5),
    _sma(10),
    _sma(20),
    _sma(50),
    _ema(12),
    _ema(26),
    Feature(
        "volume_ratio", "volume / volume_sma_20", 19, "ratio", 0.0, 20.0, True,
        "null before warm-up, where one of the last 20 sessions has no volume recorded, and where all 20 volumes are zero",
        "Today's volume as a multiple of its recent average.", MURPHY,
    ),
    Feature(
        "volume_sma_20", "mean of the last 20 volumes", 19, "shares", 0.0, None, False,
        "null before warm-up and where one of the last 20 sessions has no volume recorded",
        "Average volume of the last 20 sessions.", MURPHY,
    ),
    Feature(
        "obv", "sum of volume · sign(close − close[−1]), from 0 at the first bar", 0, "shares", None, None, False,
        "null on a session without a volume, which counts as zero in later sums",
        "On-balance volume: volume of rising sessions less that of falling ones since the first bar.", GRANVILLE,
    ),
    _price_change(1),
    _price_change(5),
    _price_change(20),
    Feature(
        "high_low_range", "(high − low) / close", 0, "fraction", 0.0, None, True, NO_NULLS,
        "The session's range relative to its close.", MURPHY,
    ),
)  # fmt: skip


# What a symbol's own history says: computed by alpha_history.py.
ALPHA_HISTORY: tuple[Feature, ...] = ()

# What it says against the market: computed by alpha_market.py.
ALPHA_MARKET: tuple[Feature, ...] = ()

# The market itself, the cross-section of the session and the calendar: computed by dbt_features/models/features/alpha_v1.sql.
ALPHA_CROSS_SECTION: tuple[Feature, ...] = ()

ALPHA_V1: tuple[Feature, ...] = (*TECHNICAL_V1, *ALPHA_HISTORY, *ALPHA_MARKET, *ALPHA_CROSS_SECTION)

def model_columns(basis: str = "raw") -> list[str]:
    """Names of the features a model may use, in the view's order: the scale-free ones, for either basis of prices.

    In `raw` basis price and share levels cannot be compared between symbols; in `restated` basis they would also give
    away splits that came later. Raises `ValueError` for another basis.
    """
    if basis not in ("raw", "restated"):
        raise ValueError(f"basis {basis!r} is neither 'raw' nor 'restated'")
    return [feature.name for feature in TECHNICAL_V1 if feature.scale_free]
