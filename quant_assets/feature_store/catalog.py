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
    """One feature column of a view; it is null in a symbol's first `lookback` sessions at least (of the market's, where it is the market's).

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


# What a symbol's own history says: computed by alpha/history.py.
LEHMANN = "Bruce Lehmann, Fads, Martingales, and Market Efficiency (1990)"
JEGADEESH_TITMAN = "Jegadeesh and Titman, Returns to Buying Winners and Selling Losers (1993)"
LOU_POLK_SKOURAS = "Lou, Polk and Skouras, A Tug of War: Overnight versus Intraday Expected Returns (2019)"
ANG = "Ang, Hodrick, Xing and Zhang, The Cross-Section of Volatility and Expected Returns (2006)"
CORSI = "Fulvio Corsi, A Simple Approximate Long-Memory Model of Realized Volatility (2009)"
AMAYA = "Amaya, Christoffersen, Jacobs and Vasquez, Does Realized Skewness Predict the Cross-Section of Equity Returns? (2015)"
BALI = "Bali, Cakici and Whitelaw, Maxing Out: Stocks as Lotteries and the Cross-Section of Expected Returns (2011)"
WILLIAMS_R = "Larry Williams, How I Made One Million Dollars Last Year Trading Commodities (1973)"
LANE = "George Lane, Lane's Stochastics (1984)"
CHANDE = "Tushar Chande, A Time Price Oscillator (1995)"
NISON = "Steve Nison, Japanese Candlestick Charting Techniques (1991)"
QLIB = "Yang, Liu, Zhou, Bian and Liu, Qlib: An AI-Oriented Quantitative Investment Platform (2020)"
KARPOFF = "Jonathan Karpoff, The Relation Between Price Changes and Trading Volume (1987)"
GERVAIS = "Gervais, Kaniel and Mingelgrin, The High-Volume Return Premium (2001)"
GEORGE_HWANG = "George and Hwang, The 52-Week High and Momentum Investing (2004)"


def _history(
    name: str, definition: str, lookback: int, unit: str, low: float | None, high: float | None, null_rule: str, sentence: str, source: str
) -> Feature:
    scale_free = unit not in ("price", "currency", "1/currency")
    return Feature(name, definition, lookback, unit, low, high, scale_free, null_rule, sentence, source, table="alpha_history_v1")


def _unless(*cases: str) -> str:
    return f"{WARM_UP}, {', '.join(cases[:-1])} and {cases[-1]}" if len(cases) > 1 else f"{WARM_UP} and {cases[0]}"


def _without_volume(n: int) -> str:
    return f"where one of the last {n} sessions has no volume recorded"


def _return(n: int) -> Feature:
    return _history(
        f"return_{n}d", f"close / close[−{n}] − 1", n, "fraction", -1.0, None, WARM_UP, f"Return over the last {n} sessions.", MURPHY,
    )  # fmt: skip


def _momentum(first: int, last: int) -> Feature:
    return _history(
        f"momentum_{first}_{last}", f"close[−{last}] / close[−{first}] − 1", first, "fraction", -1.0, None, WARM_UP,
        f"Return of {first - last} sessions up to {last} sessions ago, which leaves out the reversal of late.", JEGADEESH_TITMAN,
    )  # fmt: skip


def _reversal(n: int) -> Feature:
    return _history(
        f"reversal_{n}", f"−log(close / close[−{n}]) / (return_volatility_60 · √{n})", 60, "ratio", None, None,
        _unless("where return_volatility_60 is 0"),
        f"Fall of the last {n} sessions in units of what {n} sessions usually move: positive after a fall.", LEHMANN,
    )  # fmt: skip


def _part_mean(part: str, lookback: int, n: int) -> Feature:
    return _history(
        f"{part}_return_mean_{n}", f"mean of the last {n} of {part}_return", n - 1 + lookback, "fraction", -1.0, None, WARM_UP,
        f"Average {part} return of the last {n} sessions.", LOU_POLK_SKOURAS,
    )  # fmt: skip


def _return_volatility(n: int) -> Feature:
    return _history(
        f"return_volatility_{n}", f"sample standard deviation of the last {n} one-session log returns", n, "per session", 0.0, None, WARM_UP,
        f"Volatility of the last {n} sessions, per session.", ANG,
    )  # fmt: skip


def _downside_volatility(n: int) -> Feature:
    return _history(
        f"downside_volatility_{n}", f"√ of the mean of min(log return, 0)² over the last {n} sessions", n, "per session", 0.0, None, WARM_UP,
        f"Volatility that the falls of the last {n} sessions make.",
        "Sortino and Price, Performance Measurement in a Downside Risk Framework (1994)",
    )  # fmt: skip


def _volatility_ratio(short: int, long: int) -> Feature:
    return _history(
        f"volatility_ratio_{short}_{long}", f"return_volatility_{short} / return_volatility_{long}", long, "ratio",
        0.0, ((long - 1) / (short - 1)) ** 0.5, _unless(f"where return_volatility_{long} is 0"),
        f"Volatility of the last {short} sessions as a multiple of that of the last {long}.", CORSI,
    )  # fmt: skip


def _range_volatilities(n: int) -> tuple[Feature, ...]:
    k = f"0.34 / (1.34 + {n + 1}/{n - 1})"
    return tuple(
        _history(f"{name}_volatility_{n}", definition, lookback, "per session", 0.0, None, WARM_UP, sentence, source)
        for name, definition, lookback, sentence, source in (
            (
                "parkinson", f"√ of the mean of log(high / low)² / (4 log 2) over the last {n} sessions", n - 1,
                f"Volatility of the last {n} sessions from their highs and lows.",
                "Michael Parkinson, The Extreme Value Method for Estimating the Variance of the Rate of Return (1980)",
            ),
            (
                "garman_klass", f"√ of the mean of log(high / low)² / 2 − (2 log 2 − 1) · log(close / open)² over the last {n} sessions", n - 1,
                f"Volatility of the last {n} sessions from all four prices, without the nights.",
                "Garman and Klass, On the Estimation of Security Price Volatilities from Historical Data (1980)",
            ),
            (
                "rogers_satchell",
                f"√ of the mean of log(high / open) · log(high / close) + log(low / open) · log(low / close) over the last {n} sessions", n - 1,
                f"Volatility of the last {n} sessions, without the nights, that a trend does not raise.",
                "Rogers and Satchell, Estimating Variance from High, Low and Closing Prices (1991)",
            ),
            (
                "yang_zhang",
                f"√ of s²(log(open / close[−1])) + k · s²(log(close / open)) + (1 − k) · rogers_satchell_volatility_{n}², "
                f"s² sample variances of the last {n}, k = {k}", n,
                f"Volatility of the last {n} sessions, nights included, that a trend does not raise.",
                "Yang and Zhang, Drift-Independent Volatility Estimation Based on High, Low, Open, and Close Prices (2000)",
            ),
        )
    )  # fmt: skip


def _return_moments(n: int) -> tuple[Feature, ...]:
    # The bounds of n values, reached by one that differs from all others (Wilkins 1944; Dalén 1987).
    bound, null_rule = (n - 2) / (n - 1) ** 0.5, _unless(f"where return_volatility_{n} is 0")
    return (
        _history(
            f"return_skewness_{n}", f"m₃ / m₂^1.5, central moments of the last {n} log returns", n, "ratio", -bound, bound, null_rule,
            f"Skewness of the last {n} one-session returns: negative where the falls were the larger moves.", AMAYA,
        ),
        _history(
            f"return_kurtosis_{n}", f"m₄ / m₂² − 3, central moments of the last {n} log returns", n, "ratio", -2.0, bound**2 - 2.0, null_rule,
            f"Excess kurtosis of the last {n} one-session returns: high where few large moves made the volatility.", AMAYA,
        ),
    )  # fmt: skip


def _return_autocorrelation(n: int) -> Feature:
    return _history(
        f"return_autocorrelation_{n}", f"correlation of the last {n} log returns with those one session before", n + 1, "correlation",
        -1.0, 1.0, _unless("where one of the two is constant"),
        f"How far one session's return repeated (above 0) or undid (below 0) the last, over {n} sessions.",
        "Lo and MacKinlay, When Are Contrarian Profits Due to Stock Market Overreaction? (1990)",
    )  # fmt: skip


def _return_extreme(which: str, n: int) -> Feature:
    adjective = {"max": "Largest", "min": "Smallest"}[which]
    return _history(
        f"return_{which}_{n}", f"{which}imum of the last {n} one-session returns", n, "fraction", -1.0, None, WARM_UP,
        f"{adjective} one-session return of the last {n} sessions.", BALI,
    )  # fmt: skip


def _up_share(n: int) -> Feature:
    return _history(
        f"up_share_{n}", f"share of the last {n} one-session returns above 0", n, "fraction", 0.0, 1.0, WARM_UP,
        f"Share of the last {n} sessions in which the price rose.",
        "Da, Gurun and Warachka, Frog in the Pan: Continuous Information and Momentum (2014)",
    )  # fmt: skip


def _efficiency_ratio(n: int) -> Feature:
    return _history(
        f"efficiency_ratio_{n}", f"|close − close[−{n}]| / sum of |close − close[−1]| over the last {n} sessions", n, "ratio", 0.0, 1.0,
        _unless(f"where the close did not move for {n} sessions"),
        f"How straight the way of the last {n} sessions was: 1 without a step back.", "Perry Kaufman, Smarter Trading (1995)",
    )  # fmt: skip


def _variance_ratio(q: int, n: int) -> Feature:
    return _history(
        f"variance_ratio_{q}_{n}",
        f"sum of (log return over {q} − {q}μ)² over the last {n - q + 1} / ({q} · {n - q + 1} · (1 − {q}/{n})) / return_volatility_{n}², "
        f"μ the mean of the last {n} log returns", n, "ratio", 0.0, None, _unless(f"where return_volatility_{n} is 0"),
        f"Variance of {q}-session returns against {q} times that of one-session returns: above 1 in trends, below in reversals.",
        "Lo and MacKinlay, Stock Market Prices Do Not Follow Random Walks (1988)",
    )  # fmt: skip


def _directional(sign: str, move: str, versus: str) -> Feature:
    return _history(
        f"{sign}_di_14",
        f"100 · Wilder's average of 14 of ({move} where it is positive and above {versus}, else 0) / that of the true range", 14, "0 to 100",
        0.0, 100.0, _unless("where the price never moved yet"), f"Share of the true range that went {'up' if sign == 'plus' else 'down'}.", WILDER,
    )  # fmt: skip


def _williams_r(n: int) -> Feature:
    return _history(
        f"williams_r_{n}", f"−100 · (highest high − close) / (highest high − lowest low) of {n} sessions", n - 1, "-100 to 0", -100.0, 0.0,
        _unless(f"where the last {n} sessions have no range"), f"How far the close lies below the high of {n} sessions, in parts of their range.", WILLIAMS_R,
    )  # fmt: skip


def _cci(n: int) -> Feature:
    # No value lies further from its mean than half of all distances together.
    return _history(
        f"cci_{n}", f"(typical − mean) / (0.015 · mean distance from the mean) of {n} typical prices (high + low + close) / 3", n - 1, "ratio",
        -n / 0.03, n / 0.03, _unless(f"where the last {n} typical prices are equal"),
        f"Commodity channel index: the typical price against its average of {n} sessions, beyond ±100 where it broke out.",
        "Donald Lambert, Commodity Channel Index (1980)",
    )  # fmt: skip


def _aroon(way: str, extreme: str) -> Feature:
    return _history(
        f"aroon_{way}_25", f"100 · (25 − sessions since the {extreme} of the last 26 sessions) / 25", 25, "0 to 100", 0.0, 100.0, WARM_UP,
        f"How recent the {extreme} of 25 sessions is: 100 today.", CHANDE,
    )  # fmt: skip


def _close_to_sma(n: int) -> Feature:
    return _history(
        f"close_to_sma_{n}", f"close / mean of the last {n} closes − 1", n - 1, "fraction", -1.0, n - 1.0, WARM_UP,
        f"How far the close stands above its average of {n} sessions.", "Han, Zhou and Zhu, A Trend Factor (2016)",
    )  # fmt: skip


def _sma_ratio(short: int, long: int) -> Feature:
    return _history(
        f"sma_ratio_{short}_{long}", f"mean of the last {short} closes / mean of the last {long}", long - 1, "ratio", 0.0, long / short, WARM_UP,
        f"Average close of {short} sessions against that of {long}: above 1 in a rise.",
        "Brock, Lakonishok and LeBaron, Simple Technical Trading Rules and the Stochastic Properties of Stock Returns (1992)",
    )  # fmt: skip


def _trend(n: int) -> tuple[Feature, ...]:
    line = f"least squares of log(close) on the session number over the last {n} sessions"
    return (
        _history(
            f"trend_slope_{n}", f"slope of {line}", n - 1, "per session", None, None, WARM_UP,
            f"Growth per session of the straight line through the last {n} log closes.", QLIB,
        ),
        _history(
            f"trend_r2_{n}", f"R² of {line}", n - 1, "fraction", 0.0, 1.0, _unless(f"where the last {n} closes are equal"),
            f"How well a straight line fits the last {n} log closes.", QLIB,
        ),
        _history(
            f"trend_residual_{n}", f"last residual of {line}", n - 1, "log", None, None, WARM_UP,
            f"How far the close stands above the straight line through the last {n} log closes.", QLIB,
        ),
    )  # fmt: skip


def _volume_correlations(n: int) -> tuple[Feature, ...]:
    return (
        _history(
            f"close_volume_correlation_{n}", f"correlation of the close with log(volume) over the last {n} sessions", n - 1, "correlation",
            -1.0, 1.0, _unless(f"where one of the last {n} sessions has no volume or volume 0", "where closes or volumes are equal"),
            f"Whether high prices went with high volume over {n} sessions.", QLIB,
        ),
        _history(
            f"return_volume_correlation_{n}", f"correlation of the log return with log(volume / volume[−1]) over the last {n} sessions", n,
            "correlation", -1.0, 1.0, _unless(f"where one of the last {n + 1} sessions has no volume or volume 0", "where one of the two is constant"),
            f"Whether rises went with rising volume over {n} sessions.", KARPOFF,
        ),
    )  # fmt: skip


def _volume_ratio(n: int) -> Feature:
    return _history(
        f"volume_ratio_{n}", f"volume / mean of the last {n} volumes", n - 1, "ratio", 0.0, float(n),
        _unless(_without_volume(n), "where all of them are zero"), f"Today's volume as a multiple of its average of {n} sessions.", GERVAIS,
    )  # fmt: skip


def _volume_spread(n: int) -> tuple[Feature, ...]:
    bound = (n - 1) / n**0.5
    return (
        _history(
            f"volume_zscore_{n}", f"(volume − mean) / sample standard deviation of the last {n} volumes", n - 1, "standard deviations",
            -bound, bound, _unless(_without_volume(n), "where all of them are equal"),
            f"Today's volume against the last {n}, in standard deviations.", GERVAIS,
        ),
        _history(
            f"volume_variation_{n}", f"sample standard deviation of the last {n} volumes / their mean", n - 1, "ratio", 0.0, n**0.5,
            _unless(_without_volume(n), "where all of them are zero"), f"How unsteady the volume of the last {n} sessions was.",
            "Chordia, Subrahmanyam and Anshuman, Trading Activity and Expected Stock Returns (2001)",
        ),
    )  # fmt: skip


def _up_volume_share(n: int) -> Feature:
    return _history(
        f"up_volume_share_{n}", f"volume of rising sessions / volume, of the last {n} sessions", n, "fraction", 0.0, 1.0,
        _unless(_without_volume(n), "where all of them are zero"), f"Share of the volume of {n} sessions that fell on rising ones.", GRANVILLE,
    )  # fmt: skip


def _vwap_distance(n: int) -> Feature:
    return _history(
        f"vwap_distance_{n}", f"close / (sum of typical price · volume / sum of volume) − 1 over the last {n} sessions", n - 1, "fraction",
        -1.0, None, _unless(_without_volume(n), "where all of them are zero"),
        f"The close against the average price paid over {n} sessions, approximately.",
        "Berkowitz, Logue and Noser, The Total Cost of Transactions on the NYSE (1988)",
    )  # fmt: skip


def _amihud(n: int) -> Feature:
    return _history(
        f"amihud_illiquidity_{n}", f"mean of |one-session return| / (close · volume) over the last {n} sessions", n, "1/currency", 0.0, None,
        _unless(_without_volume(n), "where one of them is zero"), f"Move of the price per unit of currency traded, over {n} sessions.",
        "Yakov Amihud, Illiquidity and Stock Returns (2002)",
    )  # fmt: skip


def _distances(n: int) -> tuple[Feature, ...]:
    return (
        _history(
            f"distance_from_high_{n}", f"close / highest high of the last {n} sessions − 1", n - 1, "fraction", -1.0, 0.0, WARM_UP,
            f"How far the close stands below the high of {n} sessions.", GEORGE_HWANG,
        ),
        _history(
            f"distance_from_low_{n}", f"close / lowest low of the last {n} sessions − 1", n - 1, "fraction", 0.0, None, WARM_UP,
            f"How far the close stands above the low of {n} sessions.", GEORGE_HWANG,
        ),
    )  # fmt: skip


def _drawdowns(n: int) -> tuple[Feature, ...]:
    source = "Magdon-Ismail and Atiya, Maximum Drawdown (2004)"
    return (
        _history(
            f"drawdown_{n}", f"1 − close / highest close of the last {n} sessions", n - 1, "fraction", 0.0, 1.0, WARM_UP,
            f"Fall from the highest close of {n} sessions.", source,
        ),
        _history(
            f"max_drawdown_{n}", f"largest fall from a close to a later close within the last {n} sessions, as a fraction of the former", n - 1,
            "fraction", 0.0, 1.0, WARM_UP, f"Deepest fall within {n} sessions.", source,
        ),
    )  # fmt: skip


def _sessions_since(extreme: str, superlative: str, n: int) -> Feature:
    return _history(
        f"sessions_since_{extreme}_{n}", f"sessions since the {superlative} {extreme} of the last {n} sessions / {n - 1}", n - 1, "fraction",
        0.0, 1.0, WARM_UP, f"How long ago the {extreme} of {n} sessions was: 0 today, 1 at the start of the window.", CHANDE,
    )  # fmt: skip


def _position_in_range(n: int) -> Feature:
    return _history(
        f"position_in_range_{n}", f"(close − lowest low) / (highest high − lowest low) of the last {n} sessions", n - 1, "fraction", 0.0, 1.0,
        _unless(f"where the last {n} sessions have no range"), f"Where the close stands in the range of {n} sessions: 0 at the low, 1 at the high.", LANE,
    )  # fmt: skip


ALPHA_HISTORY: tuple[Feature, ...] = (
    *map(_return, (2, 3, 10, 40, 60, 120, 180, 252)),
    _momentum(60, 5),
    _momentum(126, 21),
    _momentum(252, 21),
    _reversal(5),
    _reversal(20),
    _history(
        "overnight_return", "open / close[−1] − 1", 1, "fraction", -1.0, None, WARM_UP, "Return from the previous close to the open.", LOU_POLK_SKOURAS,
    ),
    _part_mean("overnight", 1, 20),
    _part_mean("overnight", 1, 60),
    _history("intraday_return", "close / open − 1", 0, "fraction", -1.0, None, NO_NULLS, "Return from the open to the close.", LOU_POLK_SKOURAS),
    _part_mean("intraday", 0, 20),
    _part_mean("intraday", 0, 60),
    _history(
        "gap", "(max(open − high[−1], 0) + min(open − low[−1], 0)) / close[−1]", 1, "fraction", -1.0, None, WARM_UP,
        "How far the open lies above (positive) or below (negative) the previous session's range; 0 inside it.", MURPHY,
    ),
    *map(_return_volatility, (5, 10, 20, 60, 120, 252)),
    *map(_downside_volatility, (20, 60, 120)),
    _volatility_ratio(5, 20),
    _volatility_ratio(20, 60),
    _volatility_ratio(20, 252),
    _history(
        "volatility_of_volatility_20_60", "sample standard deviation of the last 60 of return_volatility_20 / their mean", 79, "ratio", 0.0, 60**0.5,
        _unless("where all of them are 0"), "How unsteady the volatility of the last 60 sessions was.",
        "Baltussen, van Bekkum and van der Grient, Unknown Unknowns: Uncertainty About Risk and Stock Returns (2018)",
    ),
    *(feature for n in (5, 10, 20, 60) for feature in _range_volatilities(n)),
    *(feature for n in (20, 60, 120, 252) for feature in _return_moments(n)),
    *map(_return_autocorrelation, (20, 60, 120)),
    *(_return_extreme(which, n) for n in (20, 60) for which in ("max", "min")),
    *map(_up_share, (10, 20, 60)),
    *map(_efficiency_ratio, (10, 20, 60)),
    _variance_ratio(5, 60),
    _variance_ratio(10, 252),
    _history(
        "atr_14",
        "e += (true range − e) / 14, seeded with the mean of the first 14; true range = max(high, close[−1]) − min(low, close[−1])", 14, "price",
        0.0, None, WARM_UP, "Average true range: what a session moves, nights included.", WILDER,
    ),
    _history("natr_14", "100 · atr_14 / close", 14, "percent", 0.0, None, WARM_UP, "Average true range in percent of the close.", WILDER),
    _directional("plus", "high − high[−1]", "low[−1] − low"),
    _directional("minus", "low[−1] − low", "high − high[−1]"),
    _history(
        "adx_14", "Wilder's average of 14 of 100 · |plus_di_14 − minus_di_14| / (plus_di_14 + minus_di_14), 0 where both are 0", 27, "0 to 100",
        0.0, 100.0, WARM_UP, "Strength of the trend, whichever its direction: above 25 is called a trend.", WILDER,
    ),
    _history(
        "stochastic_k_14", "100 · (close − lowest low) / (highest high − lowest low) of 14 sessions", 13, "0 to 100", 0.0, 100.0,
        _unless("where the last 14 sessions have no range"), "Fast %K: where the close stands in the range of 14 sessions.", LANE,
    ),
    _history(
        "stochastic_d_14_3", "mean of the last 3 of stochastic_k_14", 15, "0 to 100", 0.0, 100.0, _unless("where one of them is null"),
        "Fast %D, which is slow %K: the smoothed place of the close in its range.", LANE,
    ),
    _history(
        "stochastic_slow_d_14_3_3", "mean of the last 3 of stochastic_d_14_3", 17, "0 to 100", 0.0, 100.0, _unless("where one of them is null"),
        "Slow %D: the place of the close in its range, smoothed twice.", LANE,
    ),
    _williams_r(14),
    _williams_r(28),
    _cci(14),
    _cci(20),
    _history(
        "mfi_14", "100 · up / (up + down), sums over 14 sessions of typical price · volume where the typical price rose and where it fell", 14,
        "0 to 100", 0.0, 100.0, _unless(_without_volume(14), "where the sums are zero"),
        "Money flow index: share of the traded value of 14 sessions that moved the price up.",
        "Quong and Soudack, Volume-Weighted RSI: Money Flow (1989)",
    ),
    _aroon("up", "highest high"),
    _aroon("down", "lowest low"),
    _history(
        "ultimate_oscillator_7_14_28",
        "100 · (4a + 2b + c) / 7; a, b, c: sum of close − min(low, close[−1]) / sum of the true range over 7, 14 and 28 sessions", 28, "0 to 100",
        0.0, 100.0, _unless("where the price did not move for 7 sessions"),
        "How much of the true range was closed upward, over three windows.", "Larry Williams, The Ultimate Oscillator (1985)",
    ),
    _history(
        "chaikin_money_flow_20",
        "sum of ((close − low) − (high − close)) / (high − low) · volume / sum of volume, of 20 sessions; 0 for a session without a range", 19,
        "ratio", -1.0, 1.0, _unless(_without_volume(20), "where all of them are zero"),
        "Whether the volume of 20 sessions closed near the highs (above 0) or the lows.", "Steven Achelis, Technical Analysis from A to Z (2000)",
    ),
    _history(
        "balance_of_power", "(close − open) / (high − low)", 0, "ratio", -1.0, 1.0, "null where the session has no range",
        "Share of the session's range that it won.", "Igor Livshin, Balance of Market Power (2001)",
    ),
    _history("candle_body", "|close − open| / close", 0, "fraction", 0.0, None, NO_NULLS, "Body of the session's candle.", NISON),
    _history(
        "candle_upper_shadow", "(high − max(open, close)) / close", 0, "fraction", 0.0, None, NO_NULLS, "What was won in the session and lost again.", NISON,
    ),
    _history(
        "candle_lower_shadow", "(min(open, close) − low) / close", 0, "fraction", 0.0, 1.0, NO_NULLS, "What was lost in the session and won again.", NISON,
    ),
    _history(
        "close_location", "(close − low) / (high − low)", 0, "fraction", 0.0, 1.0, "null where the session has no range",
        "Where the close stands in the session's range: 0 at the low, 1 at the high.", NISON,
    ),
    *map(_close_to_sma, (5, 10, 20, 50, 100, 200)),
    _sma_ratio(5, 20),
    _sma_ratio(50, 200),
    *(feature for n in (20, 60, 120) for feature in _trend(n)),
    *(feature for n in (10, 20, 60) for feature in _volume_correlations(n)),
    _volume_ratio(5),
    _volume_ratio(60),
    *(feature for n in (20, 60) for feature in _volume_spread(n)),
    _up_volume_share(20),
    _up_volume_share(60),
    _vwap_distance(5),
    _vwap_distance(20),
    _amihud(20),
    _amihud(60),
    _history(
        "traded_value_sma_20", "mean of close · volume over the last 20 sessions", 19, "currency", 0.0, None, _unless(_without_volume(20)),
        "Average value traded per session.", "Brennan, Chordia and Subrahmanyam, Alternative Factor Specifications (1998)",
    ),
    _history(
        "corwin_schultz_spread_20",
        "mean over 20 sessions of max(2 (eᵃ − 1) / (eᵃ + 1), 0), a = (√(2β) − √β) / (3 − 2√2) − √(γ / (3 − 2√2)), β: sum of log(high / low)² "
        "of this session and the last, γ: log(high / low)² of both together, the night beyond this session's range taken out", 20, "fraction",
        0.0, 2.0, WARM_UP, "Bid-ask spread as a fraction of the price, estimated from highs and lows.",
        "Corwin and Schultz, A Simple Way to Estimate Bid-Ask Spreads from Daily High and Low Prices (2012)",
    ),
    *(feature for n in (20, 60, 120, 252) for feature in _distances(n)),
    *(feature for n in (60, 252) for feature in _drawdowns(n)),
    *(_sessions_since(*side, n) for n in (60, 252) for side in (("high", "highest"), ("low", "lowest"))),
    *map(_position_in_range, (20, 60, 252)),
)  # fmt: skip

# What it says against the market: computed by alpha_market.py.
SHARPE = "William F. Sharpe, A Simplified Model for Portfolio Analysis (Management Science, 1963)"
BOYER = "Brian Boyer, Todd Mitton and Keith Vorkink, Expected Idiosyncratic Skewness (2010)"
BAWA_LINDENBERG = "Vijay Bawa and Eric Lindenberg, Capital Market Equilibrium in a Mean-Lower Partial Moment Framework (1977)"
ANG_DOWNSIDE = "Andrew Ang, Joseph Chen and Yuhang Xing, Downside Risk (2006)"
HARVEY_SIDDIQUE = "Campbell Harvey and Akhtar Siddique, Conditional Skewness in Asset Pricing Tests (2000)"
JENSEN = "Michael Jensen, The Performance of Mutual Funds in the Period 1945–1964 (1968)"
TREYNOR_BLACK = "Jack Treynor and Fischer Black, How to Use Security Analysis to Improve Portfolio Selection (1973)"
BLITZ = "David Blitz, Joop Huij and Martin Martens, Residual Momentum (2011)"
FRENCH = "Kenneth French, Stock Returns and the Weekend Effect (1980)"
BROWN_WARNER = "Stephen Brown and Jerold Warner, Using Daily Stock Returns: The Case of Event Studies (1985)"
AGAINST_MARKET = "null before warm-up and where a market return in the window is unknown"
MARKET_MOVED = f"{AGAINST_MARKET} or all are equal"
RESIDUALS = f"{MARKET_MOVED}, and where nothing is left beside the market"


def _against_market(
    name: str, definition: str, lookback: int, unit: str, low: float | None, high: float | None, null_rule: str, sentence: str, source: str
) -> Feature:  # fmt: skip
    return Feature(name, definition, lookback, unit, low, high, True, null_rule, sentence, source, "alpha_market_v1")


def _regression(n: int) -> tuple[Feature, ...]:
    return (
        _against_market(
            f"beta_{n}", f"slope of least squares of price_change_1d on market_return_1d over the last {n} sessions", n, "ratio", None, None,
            MARKET_MOVED, f"How far the return moves with the market's, over {n} sessions.", SHARPE,
        ),
        _against_market(
            f"market_correlation_{n}", f"Pearson's correlation of price_change_1d and market_return_1d over the last {n} sessions", n,
            "correlation", -1.0, 1.0, f"{MARKET_MOVED}, or all own returns are",
            f"How closely the return follows the market's, over {n} sessions.", SHARPE,
        ),
        _against_market(
            f"idiosyncratic_volatility_{n}", f"square root of the sum of squared residuals of beta_{n}'s regression / ({n} − 2)", n,
            "fraction per session", 0.0, None, f"{MARKET_MOVED}; 0 where the residuals are below 1/10,000 of the returns' deviation",
            f"Volatility that the market does not explain, over {n} sessions.", ANG,
        ),
        _against_market(
            f"idiosyncratic_skewness_{n}", f"mean cubed residual of beta_{n}'s regression / mean squared residual^1.5", n, "skewness", None, None,
            RESIDUALS, f"Whether what the market does not explain has its extremes above (positive) or below, over {n} sessions.", BOYER,
        ),
    )  # fmt: skip


def _excess_return(n: int) -> Feature:
    return _against_market(
        f"excess_return_{n}", f"Π (1 + price_change_1d) − Π (1 + market_return_1d) over the last {n} sessions" if n > 1 else
        "price_change_1d − market_return_1d", n, "fraction", None, None, AGAINST_MARKET,
        f"Return above the market's over the last {n} session{'s' if n > 1 else ''}.", BROWN_WARNER,
    )  # fmt: skip


def _side_beta(side: str, part: str) -> Feature:
    return _against_market(
        f"{side}_beta_252", f"Σ price_change_1d · part / Σ part², part = {part}(market_return_1d, 0), over the last 252 sessions", 252, "ratio",
        None, None, f"{AGAINST_MARKET} or none is {'below' if side == 'downside' else 'above'} zero",
        f"How far the return moves with the market's when that {'falls' if side == 'downside' else 'rises'}, over a year.",
        BAWA_LINDENBERG if side == "downside" else ANG_DOWNSIDE,
    )  # fmt: skip


ALPHA_MARKET: tuple[Feature, ...] = (
    *(feature for n in (60, 120, 252) for feature in _regression(n)),
    _side_beta("downside", "min"),
    _side_beta("upside", "max"),
    _against_market(
        "coskewness_252", "mean of residual · (market_return_1d − mean)² / (residuals' deviation · market variance), of beta_252's regression",
        252, "skewness", None, None, RESIDUALS, "Whether what the market does not explain comes when the market moves far, over a year.", HARVEY_SIDDIQUE,
    ),
    _against_market(
        "alpha_252", "intercept of beta_252's regression", 252, "fraction per session", None, None, MARKET_MOVED,
        "Average return that the market does not explain, over a year.", JENSEN,
    ),
    _against_market(
        "appraisal_ratio_252", "alpha_252 / idiosyncratic_volatility_252", 252, "ratio", None, None, RESIDUALS,
        "Average return that the market does not explain, per unit of the volatility that it does not explain.", TREYNOR_BLACK,
    ),
    *(_excess_return(n) for n in (1, 5, 20, 60, 120)),
    _against_market(
        "residual_momentum_126_21", "mean of beta_252's residuals 125 to 21 sessions ago / (their standard deviation / √105)", 252, "standard errors",
        None, None, RESIDUALS, "What the market did not explain in the last half year but its latest month, against its own noise.", BLITZ,
    ),
    _against_market(
        # The year's residuals sum to zero, so that those of all but its last month would say no more than the last month's.
        "residual_momentum_252_21",
        "mean of price_change_1d − beta_252 · market_return_1d 251 to 21 sessions ago / (their standard deviation / √231)", 252, "standard errors",
        None, None, RESIDUALS, "Return beyond beta in the last year but its latest month, against its own noise.", BLITZ,
    ),
    # Of the calendar, but only the symbol's own rows tell it: on reading, that would cost all of them.
    _against_market(
        "days_since_previous_session", "calendar days since the symbol's bar before", 1, "days", 1.0, None, "null at the first bar",
        "Calendar days that the one-session return spans: 3 over a weekend, more over holidays and gaps.", FRENCH,
    ),
)  # fmt: skip

# The market itself, the cross-section of the session and the calendar: computed by dbt_features/models/features/alpha_v1.sql.
SOLNIK_ROULET = "Bruno Solnik and Jacques Roulet, Dispersion as Cross-Sectional Correlation (2000)"
OH_WACHTER = "Sangmin Oh and Jessica Wachter, Cross-Sectional Skewness (2022)"
CAMPBELL = "Campbell, Lettau, Malkiel and Xu, Have Individual Stocks Become More Volatile? (2001)"
COOPER = "Cooper, Gutierrez and Hameed, Market States and Momentum (2004)"
MAGDON_ISMAIL = "Malik Magdon-Ismail and Amir Atiya, Maximum Drawdown (2004)"
GU_KELLY_XIU = "Shihao Gu, Bryan Kelly and Dacheng Xiu, Empirical Asset Pricing via Machine Learning (2020)"
IGLEWICZ_HOAGLIN = "Boris Iglewicz and David Hoaglin, How to Detect and Handle Outliers (1993)"
GRINOLD_KAHN = "Richard Grinold and Ronald Kahn, Active Portfolio Management (2000)"
LAKONISHOK_SMIDT = "Josef Lakonishok and Seymour Smidt, Are Seasonal Anomalies Real? (1988)"
ROZEFF_KINNEY = "Michael Rozeff and William Kinney, Capital Market Seasonality (1976)"
OUT_OF_SCOPE = "null out of scope"


def _market(
    name: str, definition: str, lookback: int, unit: str, low: float | None, high: float | None, sentence: str, source: str,
    null_rule: str | None = None, table: str = "alpha_v1",
) -> Feature:  # fmt: skip
    rule = null_rule or f"null in the market's first {lookback} session{'s' if lookback > 1 else ''}"
    return Feature(name, definition, lookback, unit, low, high, True, rule, sentence, source, table)


def _market_1d(
    name: str, definition: str, unit: str, low: float | None, high: float | None, null_rule: str, sentence: str, source: str
) -> Feature:
    return _market(name, f"{definition}, over the symbols in scope with a bar on the session before too", 1, unit, low, high, sentence, source, null_rule, "market_v1")  # fmt: skip


def _market_return(n: int) -> Feature:
    return _market(
        f"market_return_{n}d", f"Π (1 + market_return_1d) − 1 over the last {n} sessions", n, "fraction", -1.0, None,
        f"Return of the equally weighted market over the last {n} sessions.", COOPER,
    )  # fmt: skip


def _market_volatility(n: int) -> Feature:
    return _market(
        f"market_volatility_{n}", f"sample standard deviation of the last {n} market_return_1d", n, "fraction per session", 0.0, None,
        f"Volatility of the market over the last {n} sessions.", CAMPBELL,
    )  # fmt: skip


def _average_correlation(n: int) -> Feature:
    return _market(
        f"market_average_correlation_{n}", f"v / (v + mean of the last {n} market_dispersion_1d²), v = market_volatility_{n}²", n,
        "correlation", 0.0, 1.0, f"How closely symbols moved with each other over the last {n} sessions.", SOLNIK_ROULET,
        f"null in the market's first {n} sessions, where one of the last {n} has fewer than two symbols, and where nothing moved",
    )  # fmt: skip


def _share(name: str, rule: str, lookback: int, sentence: str) -> Feature:
    return _market(
        name, f"share of the symbols in scope with {rule}, of those where that is known", lookback, "share", 0.0, 1.0, sentence, MURPHY,
        "null where it is known of no symbol in scope",
    )  # fmt: skip


def _within_session(
    prefix: str, of: Feature, definition: str, unit: str, low: float, high: float, null_rule: str, sentence: str, source: str
) -> Feature:
    return Feature(f"{prefix}_{of.name}", definition, of.lookback, unit, low, high, True, null_rule, sentence, source, "alpha_v1")  # fmt: skip


def _rank(name: str) -> Feature:
    return _within_session(
        "rank", _BY_NAME[name], f"(rank of {name} among the symbols in scope of the session − 1/2) / their number, ties at the mean of their ranks",
        "rank", 0.0, 1.0, f"{OUT_OF_SCOPE} and where {name} is null",
        f"Where {name} stands among the symbols of the session, from 0 (lowest) to 1 (highest).", GU_KELLY_XIU,
    )  # fmt: skip


def _zscore(name: str) -> Feature:
    value = f"ln {name}" if name in _LOGARITHMIC else name
    return _within_session(
        "zscore", _BY_NAME[name], f"({value} − median) / (1.4826 · median distance from the median) of the symbols in scope, clipped to ±3",
        "deviations", -3.0, 3.0, f"{OUT_OF_SCOPE}, where {value} is null{' or zero' if value != name else ''}, and where more than half of the symbols are level",
        f"How far {value} stands from the session's median, in robust standard deviations.", IGLEWICZ_HOAGLIN,
    )  # fmt: skip


def _exposure(style: str, names: tuple[str, ...], sentence: str) -> Feature:
    parts = " and ".join(f"{'minus ' if name in _OPPOSITE else ''}zscore_{name}" for name in names)
    return Feature(
        f"exposure_{style}", f"mean of {parts}", max(_BY_NAME[name].lookback for name in names), "deviations", -3.0, 3.0, True,
        "null where one of them is", sentence, GRINOLD_KAHN, "alpha_v1",
    )  # fmt: skip


def _calendar(name: str, definition: str, unit: str, low: float, high: float, sentence: str, source: str) -> Feature:
    return Feature(name, definition, 0, unit, low, high, True, NO_NULLS, sentence, source, "alpha_v1")


_BY_NAME = {feature.name: feature for feature in (*TECHNICAL_V1, *ALPHA_HISTORY, *ALPHA_MARKET)}
_LOGARITHMIC = ("traded_value_sma_20", "amihud_illiquidity_20")
_OPPOSITE = ("amihud_illiquidity_20",)
_RANKED = (
    "price_change_1d", "rsi_14", "volume_ratio", "reversal_5", "reversal_20", "momentum_126_21", "momentum_252_21", "close_to_sma_50",
    "close_to_sma_200", "trend_slope_60", "distance_from_high_252", "return_volatility_20", "parkinson_volatility_20", "return_max_20",
    "return_skewness_60", "volume_zscore_20", "amihud_illiquidity_20", "traded_value_sma_20", "return_volume_correlation_20", "beta_252",
    "idiosyncratic_volatility_60", "residual_momentum_126_21",
)  # fmt: skip
_STANDARDISED = (
    "momentum_252_21", "momentum_126_21", "residual_momentum_126_21", "reversal_5", "reversal_20", "return_volatility_60",
    "idiosyncratic_volatility_252", "beta_252", "downside_beta_252", "traded_value_sma_20", "amihud_illiquidity_20", "close_to_sma_200",
    "trend_slope_60", "return_max_20", "idiosyncratic_skewness_252",
)  # fmt: skip

ALPHA_CROSS_SECTION: tuple[Feature, ...] = (
    _market_1d(
        "market_return_1d", "mean of price_change_1d", "fraction", -1.0, None, "null where no symbol counts",
        "Return of the equally weighted market.", CAMPBELL,
    ),
    _market_1d(
        "market_dispersion_1d", "sample standard deviation of price_change_1d", "fraction", 0.0, None, "null below two symbols",
        "How far apart the session's returns lie.", SOLNIK_ROULET,
    ),
    _market_1d(
        "market_breadth_1d", "share of symbols with price_change_1d > 0", "share", 0.0, 1.0, "null where no symbol counts",
        "Share of symbols that rose.", MURPHY,
    ),
    _market_1d(
        "market_skewness_1d", "m₃ / m₂^1.5, central moments of price_change_1d", "skewness", None, None,
        "null below three symbols and where all returns are equal",
        "Whether the session's extremes lie above (positive) or below.", OH_WACHTER,
    ),
    *map(_market_return, (5, 20, 60, 252)),
    *map(_market_volatility, (20, 60, 252)),
    _market(
        "market_drawdown_252", "1 − level / highest level of the last 252 sessions and the one before, level = Π (1 + market_return_1d)", 252, "fraction",
        0.0, 1.0, "How far the market stands below its high of a year.", MAGDON_ISMAIL,
    ),
    _market(
        "market_dispersion_20", "mean of the last 20 market_dispersion_1d", 20, "fraction", 0.0, None,
        "How far apart returns lay over the last 20 sessions.", SOLNIK_ROULET,
        "null in the market's first 20 sessions and where one of the last 20 has fewer than two symbols",
    ),
    _market(
        "market_breadth_20", "mean of the last 20 market_breadth_1d", 20, "share", 0.0, 1.0, "Share of symbols that rose, over the last 20 sessions.", MURPHY,
    ),
    *map(_average_correlation, (20, 60)),
    _share("market_share_above_sma_50", "close_to_sma_50 > 0", 49, "Share of symbols that closed above their 50-session average."),
    _share("market_share_above_sma_200", "close_to_sma_200 > 0", 199, "Share of symbols that closed above their 200-session average."),
    _share("market_share_at_high_252", "sessions_since_high_252 = 0", 251, "Share of symbols that made a new high of a year."),
    _share("market_share_at_low_252", "sessions_since_low_252 = 0", 251, "Share of symbols that made a new low of a year."),
    *map(_rank, _RANKED),
    *map(_zscore, _STANDARDISED),
    _exposure("momentum", ("momentum_252_21", "momentum_126_21", "residual_momentum_126_21"), "Whether the symbol is one of those that rose, against the others."),
    _exposure("reversal", ("reversal_5", "reversal_20"), "Whether the symbol fell lately, against the others."),
    _exposure("volatility", ("return_volatility_60", "idiosyncratic_volatility_252"), "Whether the symbol moves much, against the others."),
    _exposure("beta", ("beta_252", "downside_beta_252"), "Whether the symbol moves with the market, against the others."),
    _exposure("liquidity", ("traded_value_sma_20", "amihud_illiquidity_20"), "Whether much of the symbol is traded at little cost in price, against the others."),
    _exposure("trend", ("close_to_sma_200", "trend_slope_60"), "Whether the symbol's price is in an upward trend, against the others."),
    _exposure("lottery", ("return_max_20", "idiosyncratic_skewness_252"), "Whether the symbol has rare large gains, against the others."),
    _market(
        "traded_value_share_20", "traded_value_sma_20 / its sum over the symbols in scope", 19, "share", 0.0, 1.0,
        "The symbol's share of the value that is traded.", GRINOLD_KAHN, f"{OUT_OF_SCOPE} and where traded_value_sma_20 is null or above 1e30; the sum is of the others",
    ),
    _calendar("day_of_week", "1 (Monday) to 7", "day", 1.0, 7.0, "Day of the week of the session.", FRENCH),
    _calendar("day_of_month", "1 to 31", "day", 1.0, 31.0, "Day of the month of the session.", LAKONISHOK_SMIDT),
    _calendar("week_of_year", "ISO week, 1 to 53", "week", 1.0, 53.0, "Week of the year of the session.", LAKONISHOK_SMIDT),
    _calendar("month", "1 to 12", "month", 1.0, 12.0, "Month of the session.", ROZEFF_KINNEY),
    _calendar("month_sine", "sin(π · month / 6)", "ratio", -1.0, 1.0, "Month as a place on a circle, so that December is next to January.", ROZEFF_KINNEY),
    _calendar("month_cosine", "cos(π · month / 6)", "ratio", -1.0, 1.0, "Month as a place on a circle, so that December is next to January.", ROZEFF_KINNEY),
)  # fmt: skip

ALPHA_V1: tuple[Feature, ...] = (*TECHNICAL_V1, *ALPHA_HISTORY, *ALPHA_MARKET, *ALPHA_CROSS_SECTION)

VIEWS: dict[str, tuple[Feature, ...]] = {"technical_v1": TECHNICAL_V1, "alpha_v1": ALPHA_V1}
"""The feature views by name, each with its features in order."""


def model_columns(view: str = "technical_v1") -> list[str]:
    """Names of the features of a view that a model may use, in the view's order: the scale-free ones, whatever the basis of prices.

    In `raw` basis price and share levels cannot be compared between symbols; in `restated` basis they would also give
    away splits that came later. Raises `KeyError` for an unknown view.
    """
    return [feature.name for feature in VIEWS[view] if feature.scale_free]
