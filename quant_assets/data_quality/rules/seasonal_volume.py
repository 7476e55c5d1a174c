"""Volumes that the symbol's own pattern does not foresee: what a seasonal model of its past leaves of the last one.

A model is fitted to what a symbol traded beyond the market: from the logarithm of every volume the cross-section's median
excess is taken out first, so that half-days, expiries and index days, on which all volumes rise or fall, are ordinary ones.
Fitting every bar would take hours, so a robust residual against the trailing median names the few bars worth a model.

Source of the default model: Bandara, Hyndman and Bergmeir, MSTL: A Seasonal-Trend Decomposition Algorithm for Time Series
with Multiple Seasonal Patterns (2021).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.findings import BELOW_CRITICAL, findings
from quant_assets.data_quality.rules.coverage import one_per_session
from quant_assets.data_quality.rules.moves import tail_score
from quant_assets.data_quality.suspicion.panel_features import MIN_CROSS_SECTION, Matrix, PanelFeatures
from quant_assets.errors import ConfigurationError

Vector = NDArray[np.float64]
Days = NDArray[np.datetime64]

SCREEN = 7.0
"""Unusual volume (`PanelFeatures.volume`) from which on a bar is worth a model."""
MOST = 8
"""Bars of one session for which a model is fitted, the most unusual first."""
LEVEL, WINDOW, LEAST = 42, 150, 63
"""Sessions of the market's usual volume, of a model's history, and the known volumes that it must hold."""
RESIDUAL = (8.0, 16.0, 26.0, 40.0)  # in the usual scatter, what the shares `RATES` of clean bars exceed
_MAD_TO_SIGMA, _LEAST_SCATTER = 1.4826, 0.15
_SEASON = 2.0  # log volume: what a season may lift a session by is no spike


class VolumeModel(Protocol):
    """Foresees a symbol's log volume from its earlier ones."""

    @property
    def name(self) -> str:
        """What the findings name as their `detector`."""
        ...

    def forecast(self, days: Days, log_volume: Vector, day: np.datetime64) -> tuple[float, float]:
        """Expected log volume of a later day and its usual scatter (one sigma); takes volumes on rising days, none of them NaN."""
        ...


@dataclass(frozen=True)
class MSTLVolume:
    """Trend and seasons of a week and a month of weekdays, carried forward from the last day; the scatter is what they leave."""

    periods: tuple[int, ...] = (5, 21)
    name: str = "mstl"

    def forecast(self, days: Days, log_volume: Vector, day: np.datetime64) -> tuple[float, float]:
        """As `VolumeModel` says; the last season of each period stands for the next one."""
        from statsmodels.tsa.seasonal import MSTL

        # On a grid of weekdays the week keeps its phase over a holiday; what is missing lies on the line between its neighbours.
        places = np.busday_count(days[0], days)
        values = np.interp(np.arange(places[-1] + 1), places, log_volume)
        ahead = int(np.busday_count(days[-1], day)) - 1
        # Its own robust weights cost ten times as long; a past spike is bounded instead.
        usual = np.median(values)
        bound = max(4 * _scatter(values - usual), _SEASON)
        fitted = MSTL(np.clip(values, usual - bound, usual + bound), periods=self.periods, iterate=1).fit()
        seasons = zip(fitted.seasonal.T, self.periods, strict=True)
        return float(fitted.trend[-1] + sum(season[ahead % period - period] for season, period in seasons)), _scatter(fitted.resid)


@dataclass(frozen=True)
class ProphetVolume:
    """Prophet's trend with the seasons of a week and a month; needs the extra `prophet`."""

    name: str = "prophet"

    def forecast(self, days: Days, log_volume: Vector, day: np.datetime64) -> tuple[float, float]:
        """As `VolumeModel` says; the scatter is what the fitted days leave."""
        import pandas as pd
        from prophet import Prophet

        for library in ("cmdstanpy", "prophet"):
            logging.getLogger(library).setLevel(logging.WARNING)  # else each tells of every fit
        model = Prophet(weekly_seasonality=True, yearly_seasonality=False, daily_seasonality=False, uncertainty_samples=0)
        model.add_seasonality("monthly", period=30.5, fourier_order=3)
        model.fit(pd.DataFrame({"ds": days, "y": log_volume}))
        expected = model.predict(pd.DataFrame({"ds": np.append(days, day)}))["yhat"].to_numpy()
        return float(expected[-1]), _scatter(log_volume - expected[:-1])


def volume_model(name: str) -> VolumeModel:
    """The model of a name; raises `ConfigurationError` for one that does not exist or whose library is not installed."""
    if name == "mstl":
        return MSTLVolume()
    if name != "prophet":
        raise ConfigurationError(f"There is no volume model {name!r}; use mstl or prophet.")
    if find_spec("prophet") is None:
        raise ConfigurationError("The volume model prophet needs the library prophet, an extra: pip install 'quant-assets[prophet]'.")
    return ProphetVolume()


def seasonal_volume(
    bars: pl.DataFrame,
    features: PanelFeatures,
    calendar: TradingCalendar,
    sessions: Collection[date] | None = None,
    model: VolumeModel | None = None,
) -> pl.DataFrame:
    """Volumes far from what a seasonal model of the symbol's earlier ones foresees, in the given sessions (else all).

    At most a warning: a volume alone holds no bar back. Looks at the bar's own session and earlier ones. A symbol with too
    short a history is not judged; where there are too few symbols to tell what the market did, half-days and the quarterly
    expiries are not either.
    """
    model = MSTLVolume() if model is None else model
    beyond_market, crowded = _beyond_market(features)
    days = features.sessions.to_numpy().astype("datetime64[D]")
    special = marketwide_days(calendar)
    judged = crowded | np.array([day not in special for day in features.sessions], bool)
    if sessions is not None:
        judged &= features.sessions.is_in(list(sessions)).to_numpy()
    unusual = np.where(judged[:, None], np.nan_to_num(np.abs(features.volume)), 0.0)
    told = []
    for row in map(int, np.flatnonzero((unusual >= SCREEN).any(1))):
        columns = np.argsort(-unusual[row], kind="stable")[:MOST]
        start = max(row - WINDOW, 0)
        for column in map(int, columns[unusual[row, columns] >= SCREEN]):
            history = beyond_market[start:row, column]
            known = np.isfinite(history)
            if known.sum() < LEAST:
                continue
            expected, scatter = model.forecast(days[start:row][known], history[known], days[row])
            residual = float(beyond_market[row, column]) - expected
            told.append((features.symbols[column], features.sessions[row], residual, abs(residual) / scatter))
    schema = {"symbol": pl.String, "session": pl.Date, "residual": pl.Float64, "sigmas": pl.Float64}
    far = pl.DataFrame(told, schema=schema, orient="row").filter(pl.col("sigmas") >= RESIDUAL[0])
    far = far.with_columns(score=pl.Series(np.minimum(tail_score(far["sigmas"].to_numpy(), RESIDUAL), BELOW_CRITICAL), dtype=pl.Float64))
    found = one_per_session(bars).join(far, on=["symbol", "session"], how="inner", maintain_order="left")
    times, sigmas = pl.col("residual").exp().round(3), pl.col("sigmas").round(1)
    detail = pl.format("volume {}: {} times what its seasons foresee beyond the market, {} sigmas", "volume", times, sigmas)
    return findings(found, "seasonal_volume", detail, score=pl.col("score"), detector=model.name)


def marketwide_days(calendar: TradingCalendar) -> set[date]:
    """Half-days, and the sessions of quarterly expiries: the whole market's volume is unusual on them."""
    clock = np.array([close.hour * 60 + close.minute for close in calendar.closes])
    # Summer time moves a close by one hour; a half-day by more, against the closes around it.
    around = pl.Series(clock).rolling_median(11, center=True, min_samples=1).to_numpy()
    early = {calendar.sessions[place] for place in np.flatnonzero(around - clock > 90)}
    years = range(calendar.sessions[0].year, calendar.sessions[-1].year + 1)
    fridays = (
        date(year, month, 1) + timedelta(days=(4 - date(year, month, 1).weekday()) % 7 + 14) for year in years for month in (3, 6, 9, 12)
    )
    return early | {max(filter(calendar.is_session, (friday, friday - timedelta(days=1))), default=friday) for friday in fridays}


def _beyond_market(features: PanelFeatures) -> tuple[Matrix, NDArray[np.bool_]]:
    """Log volumes less the cross-section's median excess over its usual level, and in which sessions there is a cross-section."""
    with np.errstate(divide="ignore"):
        log_volume = np.log(features.raw["volume"])
    rolled = pl.DataFrame(log_volume).select(pl.all().fill_nan(None).rolling_median(LEVEL, min_samples=8).shift(1))
    excess = log_volume - rolled.to_numpy().astype(np.float64)
    crowded = np.isfinite(excess).sum(1) >= MIN_CROSS_SECTION
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a session in which nothing is known
        market = np.where(crowded, np.nanmedian(excess, axis=1), 0.0)
    return log_volume - market[:, None], crowded


def _scatter(residuals: Vector) -> float:
    return max(float(np.median(np.abs(residuals))) * _MAD_TO_SIGMA, _LEAST_SCATTER)
