"""Every feature of a symbol's own history written out over its windows, one symbol at a time: the oracle of the compiled ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]


def naive_features(bars: pl.DataFrame) -> dict[str, Floats]:
    """The features of one symbol's bars in session order, NaN where there is none."""
    with np.errstate(all="ignore"):
        return {**_prices(bars), **_returns(bars), **_volumes(bars), **_wilder(bars)}


def _column(bars: pl.DataFrame, name: str) -> Floats:
    return bars[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _windows(values: Floats, n: int) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(n - 1, np.nan), values]), n)


def _lag(values: Floats, n: int = 1) -> Floats:
    return np.concatenate([np.full(n, np.nan), values])[: len(values)]


def _mean(values: Floats, n: int) -> Floats:
    return _windows(values, n).mean(axis=1)


def _deviation(values: Floats, n: int) -> Floats:
    return _windows(values, n).std(axis=1, ddof=1)


def _correlation(x: Floats, y: Floats, n: int) -> Floats:
    a, b = (w - w.mean(axis=1, keepdims=True) for w in (_windows(x, n), _windows(y, n)))
    return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def _age_of_top(values: Floats, n: int) -> Floats:
    newest_first = _windows(values, n)[:, ::-1]
    return np.where(np.isnan(newest_first).any(axis=1), np.nan, newest_first.argmax(axis=1))


def _prices(bars: pl.DataFrame) -> dict[str, Floats]:
    opened, high, low, close = (_column(bars, f"adj_{name}") for name in ("open", "high", "low", "close"))
    before, found = _lag(close), {}
    for n in (2, 3, 10, 40, 60, 120, 180, 252):
        found[f"return_{n}d"] = close / _lag(close, n) - 1
    for first, last in ((60, 5), (126, 21), (252, 21)):
        found[f"momentum_{first}_{last}"] = _lag(close, last) / _lag(close, first) - 1
    for name, part in (("overnight", opened / before - 1), ("intraday", close / opened - 1)):
        found |= {f"{name}_return": part, **{f"{name}_return_mean_{n}": _mean(part, n) for n in (20, 60)}}
    above, below = opened > _lag(high), opened < _lag(low)
    found["gap"] = (
        np.where(np.isnan(before), np.nan, np.where(above, opened - _lag(high), np.where(below, opened - _lag(low), 0.0))) / before
    )
    hl, co, hc, ho, lc, lo = (
        np.log(a / b) for a, b in ((high, low), (close, opened), (high, close), (high, opened), (low, close), (low, opened))
    )
    for n in (5, 10, 20, 60):
        found[f"parkinson_volatility_{n}"] = np.sqrt(_mean(hl**2, n) / (4 * np.log(2)))
        found[f"garman_klass_volatility_{n}"] = np.sqrt(_mean(hl**2 / 2 - (2 * np.log(2) - 1) * co**2, n))
        found[f"rogers_satchell_volatility_{n}"] = np.sqrt(_mean(hc * ho + lc * lo, n))
        k = 0.34 / (1.34 + (n + 1) / (n - 1))
        within = found[f"rogers_satchell_volatility_{n}"] ** 2
        found[f"yang_zhang_volatility_{n}"] = np.sqrt(
            _deviation(np.log(opened / before), n) ** 2 + k * _deviation(co, n) ** 2 + (1 - k) * within
        )
    step = close - before
    for n in (10, 20, 60):
        found[f"efficiency_ratio_{n}"] = np.abs(close - _lag(close, n)) / _windows(np.abs(step), n).sum(axis=1)
    span = high - low
    found |= {
        "balance_of_power": (close - opened) / span,
        "candle_body": np.abs(close - opened) / close,
        "candle_upper_shadow": (high - np.maximum(opened, close)) / close,
        "candle_lower_shadow": (np.minimum(opened, close) - low) / close,
        "close_location": (close - low) / span,
    }
    top, bottom = {}, {}
    for n in (14, 20, 28, 60, 120, 252):
        top[n], bottom[n] = _windows(high, n).max(axis=1), _windows(low, n).min(axis=1)
    place = {n: (close - bottom[n]) / (top[n] - bottom[n]) for n in top}
    found |= {f"position_in_range_{n}": place[n] for n in (20, 60, 252)} | {f"williams_r_{n}": 100 * place[n] - 100 for n in (14, 28)}
    found["stochastic_k_14"] = 100 * place[14]
    found["stochastic_d_14_3"] = _mean(found["stochastic_k_14"], 3)
    found["stochastic_slow_d_14_3_3"] = _mean(found["stochastic_d_14_3"], 3)
    typical = (high + low + close) / 3
    for n in (14, 20):
        window = _windows(typical, n)
        distance = np.abs(window - window.mean(axis=1, keepdims=True)).mean(axis=1)
        found[f"cci_{n}"] = (typical - window.mean(axis=1)) / (0.015 * distance)
    found["aroon_up_25"] = 100 * (25 - _age_of_top(high, 26)) / 25
    found["aroon_down_25"] = 100 * (25 - _age_of_top(-low, 26)) / 25
    reach, bought = np.maximum(high, before) - np.minimum(low, before), close - np.minimum(low, before)
    a, b, c = (_windows(bought, n).sum(axis=1) / _windows(reach, n).sum(axis=1) for n in (7, 14, 28))
    found["ultimate_oscillator_7_14_28"] = 100 * (4 * a + 2 * b + c) / 7
    found |= {f"close_to_sma_{n}": close / _mean(close, n) - 1 for n in (5, 10, 20, 50, 100, 200)}
    found |= {f"sma_ratio_{a}_{b}": _mean(close, a) / _mean(close, b) for a, b in ((5, 20), (50, 200))}
    for n in (20, 60, 120):
        time, window = np.arange(n) - (n - 1) / 2, _windows(np.log(close), n)
        found[f"trend_slope_{n}"] = window @ time / (time @ time)
        fitted = window.mean(axis=1, keepdims=True) + np.outer(found[f"trend_slope_{n}"], time)
        about = ((window - window.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        found[f"trend_r2_{n}"] = 1 - ((window - fitted) ** 2).sum(axis=1) / about
        found[f"trend_residual_{n}"] = (window - fitted)[:, -1]
    for n in (20, 60, 120, 252):
        found[f"distance_from_high_{n}"], found[f"distance_from_low_{n}"] = close / top[n] - 1, close / bottom[n] - 1
    for n in (60, 252):
        window = _windows(close, n)
        found[f"drawdown_{n}"] = 1 - close / window.max(axis=1)
        found[f"max_drawdown_{n}"] = (1 - window / np.maximum.accumulate(window, axis=1)).max(axis=1)
        found[f"sessions_since_high_{n}"], found[f"sessions_since_low_{n}"] = _age_of_top(high, n) / (n - 1), _age_of_top(-low, n) / (n - 1)
    h, l, c = np.log(high), np.log(low), np.log(before)  # noqa: E741
    night = np.where(l > c, l - c, np.where(h < c, h - c, 0.0))
    gamma = (np.maximum(h - night, _lag(h)) - np.minimum(l - night, _lag(l))) ** 2
    beta, root = hl**2 + _lag(hl) ** 2, 3 - 2 * np.sqrt(2)
    alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / root - np.sqrt(gamma / root)
    found["corwin_schultz_spread_20"] = _mean(np.maximum(2 * (np.exp(alpha) - 1) / (1 + np.exp(alpha)), 0.0), 20)
    return found


def _returns(bars: pl.DataFrame) -> dict[str, Floats]:
    change = _column(bars, "price_change_1d")
    change = np.where(np.abs(change) <= 1e-12, 0.0, change)
    log_return, found = np.log1p(change), {}
    volatility = {n: _deviation(log_return, n) for n in (5, 10, 20, 60, 120, 252)}
    found |= {f"return_volatility_{n}": values for n, values in volatility.items()}
    for n in (20, 60, 120):
        found[f"downside_volatility_{n}"] = np.sqrt(_mean(np.minimum(log_return, 0.0) ** 2, n))
        found[f"return_autocorrelation_{n}"] = _correlation(log_return, _lag(log_return), n)
    found |= {f"volatility_ratio_{a}_{b}": volatility[a] / volatility[b] for a, b in ((5, 20), (20, 60), (20, 252))}
    found["volatility_of_volatility_20_60"] = _deviation(volatility[20], 60) / _mean(volatility[20], 60)
    for n in (5, 20):
        found[f"reversal_{n}"] = -_windows(log_return, n).sum(axis=1) / (volatility[60] * np.sqrt(n))
    for n in (20, 60, 120, 252):
        about = _windows(log_return, n) - _mean(log_return, n)[:, None]
        second, third, fourth = ((about**power).mean(axis=1) for power in (2, 3, 4))
        found[f"return_skewness_{n}"], found[f"return_kurtosis_{n}"] = third / second**1.5, fourth / second**2 - 3
    for n in (20, 60):
        found[f"return_max_{n}"], found[f"return_min_{n}"] = _windows(change, n).max(axis=1), _windows(change, n).min(axis=1)
    rises = np.where(np.isnan(change), np.nan, change > 0)
    found |= {f"up_share_{n}": _mean(rises, n) for n in (10, 20, 60)}
    for q, n in ((5, 60), (10, 252)):
        sums, mean = _windows(_windows(log_return, q).sum(axis=1), n - q + 1), _mean(log_return, n)
        spread = ((sums - q * mean[:, None]) ** 2).sum(axis=1) / (q * (n - q + 1) * (1 - q / n))
        found[f"variance_ratio_{q}_{n}"] = spread / volatility[n] ** 2
    return found


def _volumes(bars: pl.DataFrame) -> dict[str, Floats]:
    change, volume, close, traded = (_column(bars, name) for name in ("price_change_1d", "adj_volume", "adj_close", "volume"))
    high, low = _column(bars, "adj_high"), _column(bars, "adj_low")
    traded = traded * _column(bars, "close")
    change = np.where(np.abs(change) <= 1e-12, 0.0, change)
    logs, found = np.where(volume > 0, np.log(volume), np.nan), {}
    for n in (10, 20, 60):
        found[f"close_volume_correlation_{n}"] = _correlation(close, logs, n)
        found[f"return_volume_correlation_{n}"] = _correlation(np.log1p(change), logs - _lag(logs), n)
    for n in (5, 60):
        found[f"volume_ratio_{n}"] = volume / _mean(volume, n)
    risen = np.where(np.isnan(change), np.nan, volume * (change > 0))
    for n in (20, 60):
        found[f"volume_zscore_{n}"] = (volume - _mean(volume, n)) / _deviation(volume, n)
        found[f"volume_variation_{n}"] = _deviation(volume, n) / _mean(volume, n)
        found[f"up_volume_share_{n}"] = _mean(risen, n) / _mean(volume, n)
        found[f"amihud_illiquidity_{n}"] = _mean(np.abs(change) / traded, n)
    typical = (high + low + close) / 3
    for n in (5, 20):
        found[f"vwap_distance_{n}"] = close / (_mean(typical * volume, n) / _mean(volume, n)) - 1
    found["traded_value_sma_20"] = _mean(traded, 20)
    step = typical - _lag(typical)
    step = np.where(np.abs(step) <= 1e-12 * typical, 0.0, step)
    up, down = (_windows(np.where(np.isnan(step), np.nan, typical * volume * side), 14).sum(axis=1) for side in (step > 0, step < 0))
    found["mfi_14"] = 100 * up / (up + down)
    location = np.where(high > low, (2 * close - high - low) / (high - low), 0.0)
    found["chaikin_money_flow_20"] = _mean(location * volume, 20) / _mean(volume, 20)
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def _smoothed(values: Floats, first: int) -> Floats:
    """Wilder's average of 14, seeded with the mean of the 14 values from row `first` on."""
    smoothed = np.full(len(values), np.nan)
    for row in range(first + 13, len(values)):
        smoothed[row] = values[first : first + 14].mean() if row == first + 13 else (smoothed[row - 1] * 13 + values[row]) / 14
    return smoothed


def _wilder(bars: pl.DataFrame) -> dict[str, Floats]:
    high, low, close = (_column(bars, f"adj_{name}") for name in ("high", "low", "close"))
    before = _lag(close)
    up, down = high - _lag(high), _lag(low) - low
    ahead = 1e-12 * close
    plus, minus = (_smoothed(np.where((a > 0) & (a - b > ahead), a, 0.0), 1) for a, b in ((up, down), (down, up)))
    reach = _smoothed(np.maximum(high - low, np.maximum(np.abs(high - before), np.abs(low - before))), 1)
    plus_di, minus_di = 100 * plus / reach, 100 * minus / reach
    return {
        "atr_14": reach / _column(bars, "price_factor"),
        "natr_14": 100 * reach / close,
        "plus_di_14": plus_di,
        "minus_di_14": minus_di,
        "adx_14": _smoothed(100 * np.abs(plus - minus) / (plus + minus), 14),
    }
