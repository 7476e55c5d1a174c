"""Training frames of the synthetic market, with the oracle that it was made with: the product's own bars, features and labels."""

from __future__ import annotations

from datetime import date
from functools import cache

import polars as pl

from quant_assets.clock import trading_calendar
from quant_assets.feature_store.adjustment import forward_adjusted
from quant_assets.feature_store.catalog import model_columns
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.labels import labels, uniqueness_weights
from quant_assets.market_data.synthetic.market import SyntheticSource
from quant_assets.signals.heuristic import Heuristic
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.training import TrainingSetup

START = date(2020, 1, 2)
SESSIONS = 1260
FEATURES = tuple(model_columns("technical_v1"))


@cache
def market(seed: int, rank_ic: float = 0.08, horizon: int = 1, columns: tuple[str, ...] = FEATURES) -> pl.DataFrame:
    """Thirty symbols over 1,260 sessions: columns of `technical_v1`, outcomes at a horizon, and `oracle_score`; faulty bars are left out."""
    calendar = trading_calendar("XNYS", START)
    days = calendar.sessions[:SESSIONS]
    source = SyntheticSource(calendar, START, 30, seed, rank_ic, calendar.known_at(days[-1]))
    delivery = source.deliver(days[0], days[-1])
    known = calendar.frame(days[0], days[-1])
    faults = delivery.truth["market_data.synthetic_truth_faults"].select("symbol", "session")
    bars = delivery.bars.drop("adj_close").with_columns(basis=pl.lit("raw")).join(faults, on=["symbol", "session"], how="anti")
    instants = known.select("session", "known_at")
    adjusted = forward_adjusted(bars.join(instants, on="session"), delivery.actions.join(instants, on="session"))
    outcomes = labels(adjusted.select("symbol", "session", "adj_close", "known_at"), known, [horizon])
    rows = adjusted.select("symbol", "session").hstack(technical_v1(adjusted).select(sorted({*columns, *Heuristic.reads})))
    frame = uniqueness_weights(rows.join(outcomes.drop("horizon"), on=["symbol", "session"]), known, horizon)
    oracle = delivery.truth["market_data.synthetic_truth_signal"].select("symbol", "session", "oracle_score")
    return frame.join(oracle, on=["symbol", "session"], how="left").sort("session", "symbol")


def setup(horizon: int = 1, config: ModelConfig | None = None) -> TrainingSetup:
    """A training with 756 sessions out of sample, in six folds."""
    return TrainingSetup(FEATURES, horizon, "abc", config or ModelConfig(), n_folds=6, test_sessions=756)
