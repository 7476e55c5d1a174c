"""A market made from a seed: hidden states, fat tails, clustered volatility, and one planted signal of known strength.

**Growth.** Sessions are drawn in order, each from a random stream of its own (Philox, keyed by seed and date), and every
draw is made whether or not it is used. So a later end, another window or another `rank_ic` changes no draw, and a
longer history repeats a shorter one exactly.

**Returns.** The log return of symbol i is drift(state) + h · (β·m + 0.7·f(sector) + σ·e + vol·kappa·score), in which m is
normal, f and e are Student-t with 5 degrees of freedom, all of unit variance; h is the state's volatility times a log-AR(1), vol² =
β² + 0.7² + σ², and `score` is the oracle score of the session before. Drift is the same for all symbols, so that the
cross-section holds nothing to find but the score. Open, high and low are a Brownian bridge around that return: a quarter
of the variance falls overnight, and the extremes follow the exact law of the bridge's maximum.

**The planted signal.** `oracle_score` is the cross-sectional z-score (population deviation) of `Σ weight · column` over
`ORACLE_WEIGHTS`, of columns of `technical_v1` on forward-adjusted bars, those being the rounded bars as delivered, before
faults. It exists from a symbol's 20th bar on. `kappa` follows before anything of the next session is drawn: for a small
signal, the expected rank of symbol i rises by Σj wij·(ai − aj)·kappa, where wij is the density at 0 of the difference of the
two noises and a = vol·score. Kappa is what makes the expected Spearman correlation equal `rank_ic`; the step from a small
to a large signal is Pearson's, ρ = 2·sin(π/6·ρs), for normal variables (K. Pearson, 1907).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.clock import TradingCalendar, utc_now
from quant_assets.errors import ConfigurationError
from quant_assets.market_data.delivery import ACTIONS, BARS, RECEIPTS, REJECTED, Delivery, Holdings
from quant_assets.market_data.synthetic.faults import Floats, plan_faults, plant_faults, stream
from quant_assets.schemas import SYNTHETIC_TRUTH_FAULTS, SYNTHETIC_TRUTH_SIGNAL, SYNTHETIC_TRUTH_STATES

ORACLE_WEIGHTS = {"price_change_5d": -8.0, "bb_position": -1.0, "log(volume_ratio)": 1.0}
"""The planted combination; the natural logarithm of `volume_ratio`, the other columns as `technical_v1` has them."""

STATES = ("bull", "bear", "sideways", "high_volatility")
DRIFTS = np.array([0.0008, -0.0010, 0.0001, -0.0004])
"""Log return per session of every symbol in each state."""
VOLATILITIES = np.array([0.0055, 0.0090, 0.0042, 0.0150])
"""Standard deviation per session of the market factor in each state."""
TRANSITIONS = np.array(
    [
        [0.985, 0.004, 0.009, 0.002],
        [0.012, 0.970, 0.010, 0.008],
        [0.012, 0.005, 0.981, 0.002],
        [0.014, 0.014, 0.012, 0.960],
    ]
)
"""Row: state of one session, column: of the next. States last 25 to 67 sessions on average; the market is in them 45, 15, 33 and 7 % of the time."""

WARM_UP = 20
_SECTORS, _SECTOR_LOADING, _OVERNIGHT = 8, 0.7, 0.25
_QUARTER = 63  # sessions between a payer's dividends
_LATE_DAYS = (30, 912)  # calendar days after the start in which the late listings fall
_PILOT = 128  # symbols from which kappa is worked out; more of them would cost time and change it by less than a percent


@dataclass
class SyntheticSource:
    """The synthetic market as a source of raw bars; the same arguments give the same market, whenever it is asked.

    `start` is the market's first date (its first session is the first on or after it), `rank_ic` the mean Spearman
    correlation per session between `oracle_score` and the next close-to-close adjusted return, 0 for nothing to find.
    `now` (naive UTC) says which sessions are known already. Raises `ConfigurationError` when no session is.
    """

    calendar: TradingCalendar
    start: date
    n_symbols: int = 30
    seed: int = 7
    rank_ic: float = 0.08
    now: datetime = field(default_factory=utc_now)
    name: str = field(default="synthetic", init=False)
    live: bool = field(default=False, init=False)

    def last_session(self) -> date:
        """The last session that has closed, the vendor's delay included, at `now`."""
        last = self.calendar.last_known_session(self.now)
        if (self.calendar.sessions[0] - self.start).days > 14:  # more than the longest holiday of an exchange
            raise ConfigurationError(
                f"The calendar {self.calendar.name} begins on {self.calendar.sessions[0]}, after the synthetic market's start {self.start}; "
                "load it from that date, or set QUANT_SYNTHETIC_START later."
            )
        if last < self.start:
            raise ConfigurationError(
                f"The synthetic market starts on {self.start}, but {last} is the last session known at {self.now} UTC; "
                "set QUANT_SYNTHETIC_START earlier."
            )
        return last

    def deliveries(self, first: date, last: date, as_of: datetime, holdings: Holdings) -> Iterator[Delivery]:
        """One delivery: the market is made anew each time, and tells the same."""
        yield self.deliver(first, last)

    def deliver(self, first: date, last: date) -> Delivery:
        """All known bars, actions and truth from first to last session; what lies outside the known market is left out.

        Bars are ordered by session and symbol and have no nulls but `adj_close`, which a source of raw prices does not have.
        The truth about the signal has no row before a symbol's 20th bar.
        """
        sessions = self.calendar.between(self.start, min(last, self.last_session()))
        offset = sum(session < first for session in sessions)
        symbols = [f"SYN{number:03d}" for number in range(1, self.n_symbols + 1)]
        traits = _Traits(self.seed, self.start, self.n_symbols)
        market = _simulate(sessions, traits, self.seed, self.rank_ic, offset)
        faults = plan_faults(self.seed, sessions, traits.listed_from)
        truth_faults = plant_faults(market.bars, faults, sessions, offset, symbols)

        window = sessions[offset:]
        ordinals = np.array([session.toordinal() for session in window], dtype=np.int64)
        listed = ordinals[:, None] >= traits.listed_from
        bars = _long(window, symbols, listed, market.bars).with_columns(adj_close=pl.lit(None, pl.Float64)).select(*BARS)
        signal = _long(window, symbols, np.isfinite(market.score), {"oracle_score": market.score})
        actions = pl.DataFrame(
            [(symbols[symbol], sessions[at], kind, value) for at, symbol, kind, value in market.actions], schema=ACTIONS, orient="row"
        )
        states = pl.DataFrame({"session": list(window), "state": market.states}, schema=SYNTHETIC_TRUTH_STATES.polars_schema)
        digest = sha256()
        for part in (*bars.iter_slices(), actions):
            digest.update(part.write_csv(include_header=False).encode())
        content = digest.hexdigest()
        detail = f"seed {self.seed}, {self.n_symbols} symbols, {len(window)} sessions, rank IC {self.rank_ic}"
        return Delivery(
            source=self.name,
            basis="raw",
            batch_id=f"synthetic-{content[:16]}",
            bars=bars,
            actions=actions,
            rejected=pl.DataFrame(schema=REJECTED),
            receipts=pl.DataFrame(
                [{"status": "landed", "rows": bars.height, "payload_sha256": content, "detail": detail}], schema=RECEIPTS
            ),
            truth={
                SYNTHETIC_TRUTH_STATES.full_name: states,
                SYNTHETIC_TRUTH_FAULTS.full_name: truth_faults,
                SYNTHETIC_TRUTH_SIGNAL.full_name: signal,
            },
        )


@dataclass(frozen=True)
class _Market:
    """What came of a simulation; arrays have the shape (sessions from the offset on, symbols)."""

    states: list[str]
    bars: dict[str, Floats]
    score: Floats
    actions: list[tuple[int, int, str, float]]


class _Traits:
    """What a symbol is and stays; drawn once from the seed."""

    def __init__(self, seed: int, start: date, n: int) -> None:
        rng = stream(seed, 0)
        self.sector = np.arange(n) % _SECTORS
        self.beta = np.clip(rng.normal(1.0, 0.25, n), 0.3, 1.8)
        self.sigma = np.exp(rng.normal(np.log(2.2), 0.2, n))
        self.vol = np.sqrt(self.beta**2 + _SECTOR_LOADING**2 + self.sigma**2)
        self.shares = np.exp(rng.normal(np.log(2e6), 0.9, n))
        self.split_above = rng.uniform(90.0, 160.0, n)
        self.price = np.round(np.minimum(np.exp(rng.normal(np.log(65.0), 0.7, n)), 0.9 * self.split_above), 2)
        self.phase = rng.integers(0, _QUARTER, n)
        self.dividend_yield = np.where(rng.random(n) < 0.6, rng.uniform(0.002, 0.009, n), 0.0)
        days = rng.integers(*_LATE_DAYS, n)
        late = rng.permutation(n) < (n + 5) // 10
        self.listed_from = np.where(late, start.toordinal() + days, 0).astype(np.int64)

    def rank_weights(self) -> Floats:
        """The density at 0 of the difference of two symbols' noises, in units of 1 / h, for the pilot's pairs.

        By inversion of the characteristic function; that of t(5) with unit variance is e^-z · (1 + z + z²/3), z = √3·|u|.
        """
        beta, sigma, sector = self.beta[:_PILOT], self.sigma[:_PILOT], self.sector[:_PILOT]
        gap, apart = beta[:, None] - beta, sector[:, None] != sector
        step, weights = 0.08, np.full(gap.shape, 0.04)
        for u in np.arange(step, 10.0, step):
            own = _t5(sigma * u)
            sectors = np.where(apart, _t5(np.array(_SECTOR_LOADING * u)) ** 2, 1.0)
            weights += step * np.outer(own, own) * np.exp(-0.5 * (gap * u) ** 2) * sectors
        return weights / np.pi


def _t5(u: Floats) -> Floats:
    z = np.sqrt(3.0) * u
    return np.asarray(np.exp(-z) * (1.0 + z + z * z / 3.0))


def _simulate(sessions: Sequence[date], traits: _Traits, seed: int, rank_ic: float, offset: int) -> _Market:
    n = len(traits.beta)
    weights = traits.rank_weights()
    rho = 2.0 * np.sin(np.pi / 6.0 * rank_ic)
    target = 3.0 / np.pi * rho / np.sqrt(1.0 - rho**2)
    vol, paid = traits.vol, traits.dividend_yield > 0
    kept = len(sessions) - offset
    bars = {name: np.zeros((kept, n)) for name in ("open", "high", "low", "close", "volume")}
    scores = np.full((kept, n), np.nan)
    actions: list[tuple[int, int, str, float]] = []
    states: list[str] = []

    state, log_h, crowd = 0, 0.0, np.zeros(n)
    raw, price_factor, share_factor = traits.price.copy(), np.ones(n), np.ones(n)
    age, score, ring = np.zeros(n, dtype=np.int64), np.full(n, np.nan), np.ones((2, WARM_UP, n))
    for at, session in enumerate(sessions):
        rng = stream(seed, session.toordinal())
        uniform, chance = rng.random(), rng.random((4, n))
        normal, (shock, factor) = rng.standard_normal((2, n)), rng.standard_normal(2)
        heavy = rng.standard_t(5, _SECTORS + n) * np.sqrt(0.6)

        state = min(int(np.searchsorted(TRANSITIONS[state].cumsum(), uniform, side="right")), len(STATES) - 1)
        log_h = 0.95 * log_h + 0.08 * shock
        h = VOLATILITIES[state] * np.exp(log_h)
        noise = traits.beta * factor + _SECTOR_LOADING * heavy[traits.sector] + traits.sigma * heavy[_SECTORS:]
        signal = vol * np.nan_to_num(score)
        move = DRIFTS[state] + h * (noise + signal * (target / _rank_slope(score, signal, weights) if rank_ic else 0.0))

        listed = session.toordinal() >= traits.listed_from
        before = age > 0
        age += listed
        wanted = np.where(raw > traits.split_above, np.where(chance[2] < 0.7, 2.0, 3.0), np.where(raw < 10.0, 0.2, 1.0))
        ratio = np.where(before & (chance[3] < 0.1), wanted, 1.0)
        payday = before & paid & (at % _QUARTER == traits.phase) & (ratio == 1.0)
        dividend = np.where(payday, np.round(traits.dividend_yield * raw, 2), 0.0)
        base = (raw - dividend) / ratio
        price_factor *= ratio / (1.0 - dividend / raw)
        share_factor *= ratio

        # The Brownian bridge from the last close over the open to this close.
        gap = _OVERNIGHT * move + np.sqrt(_OVERNIGHT * (1.0 - _OVERNIGHT)) * h * vol * normal[0]
        spread = np.sqrt((move - gap) ** 2 - 2.0 * (1.0 - _OVERNIGHT) * (h * vol) ** 2 * np.log1p(-chance[:2]))
        edges = np.stack([gap, 0.5 * (gap + move + spread[0]), 0.5 * (gap + move - spread[1]), move])
        opened, high, low, close = np.maximum(np.round(base * np.exp(edges), 2), 0.01)
        high, low = np.maximum(high, np.maximum(opened, close)), np.minimum(low, np.minimum(opened, close))

        crowd = 0.8 * crowd + 0.15 * normal[1]
        heat = 0.5 * np.log(h / VOLATILITIES[0]) + 0.3 * np.minimum(np.abs(noise) / vol, 6.0) + crowd
        volume = np.maximum(np.round(traits.shares * share_factor * np.exp(heat)), 1.0)

        raw = np.where(listed, close, raw)
        ring[:, at % WARM_UP] = raw * price_factor, volume / share_factor
        score = _oracle_score(ring, at, age >= WARM_UP)
        if at >= offset:
            for name, values in zip(bars, (opened, high, low, close, volume), strict=True):
                bars[name][at - offset] = values
            scores[at - offset] = score
            states.append(STATES[state])
            actions += [(at, int(i), "split", float(ratio[i])) for i in np.flatnonzero(ratio != 1.0)]
            actions += [(at, int(i), "dividend", float(dividend[i])) for i in np.flatnonzero(dividend)]
    return _Market(states, bars, scores, actions)


def _oracle_score(ring: Floats, at: int, warm: NDArray[np.bool_]) -> Floats:
    """The z-score of the planted combination at position `at`, NaN where it is not warm; all 0 where symbols do not differ."""
    (close, volume), now = ring, at % WARM_UP
    deviation = close.std(axis=0)
    warm = warm & (deviation > 0)
    score = np.full(warm.shape, np.nan)
    if not warm.any():
        return score
    change = close[now] / close[now - 5] - 1.0
    position = 0.5 + (close[now] - close.mean(axis=0)) / (4.0 * np.where(warm, deviation, 1.0))
    columns = {"price_change_5d": change, "bb_position": position, "log(volume_ratio)": np.log(volume[now] / volume.mean(axis=0))}
    mix = sum((weight * columns[name] for name, weight in ORACLE_WEIGHTS.items()), np.zeros(warm.shape))[warm]
    score[warm] = (mix - mix.mean()) / mix.std() if len(mix) > 1 and mix.std() > 0 else 0.0
    return score


def _rank_slope(score: Floats, signal: Floats, weights: Floats) -> float:
    """How fast the expected Spearman correlation of score and next return rises with kappa; see the module's first lines."""
    score, signal = score[:_PILOT], signal[:_PILOT]
    there = np.isfinite(score)
    n = int(there.sum())
    if n < 2:
        return np.inf
    ranks = np.zeros(len(score))
    ranks[there] = score[there].argsort().argsort() - (n - 1) / 2.0
    slope = 12.0 / (n * (n * n - 1)) * (ranks @ ((weights @ there) * signal - weights @ (signal * there)))
    return max(float(slope), 0.2)  # two or three symbols of unlike volatility may have next to no slope


def _long(sessions: Sequence[date], symbols: list[str], there: NDArray[np.bool_], columns: dict[str, Floats]) -> pl.DataFrame:
    """One row per session and symbol where `there` is true, in that order."""
    row, column = np.nonzero(there)
    keys = {
        "symbol": pl.Series(symbols, dtype=pl.String).gather(column),
        "session": pl.Series(list(sessions), dtype=pl.Date).gather(row),
    }
    return pl.DataFrame(keys | {name: values[there] for name, values in columns.items()})
