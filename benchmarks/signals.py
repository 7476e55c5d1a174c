"""What signals cost, beside qlib: `python -m benchmarks.signals [--only peer|walk|scale]`.

Prints JSON lines, times in seconds. `features_and_fit`: from stored bars to a fitted LightGBM on the sessions to 2015, ours with 172
columns (22 of technical_v1, 150 of alpha_history_v1) beside qlib's Alpha158 handler and LGBModel in a process of its own, its start and
its writing of the bars not counted, at the same rounds and leaves (`grown`: leaves that a tree came to have): once at our defaults, once
at qlib's published leaves with the rounds that it runs until it stops. `walk_forward`: five folds on the same columns with controls,
calibration, scores with intervals, and the final model. `log_training`, `load_model`, `score_session`: what follows from it. `fit_time`: over
rounds and over rows, medians of three. `load` is the machine's one-minute load average per core, for a busy machine is a slow one; `cpu_ratio` is that of processor time.
The real panel where it is at hand, otherwise 505 generated symbols.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import polars as pl

from benchmarks.feature_store import bars_of, seconds
from benchmarks.peers.asking import peer
from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.feature_store.alpha.history import alpha_history
from quant_assets.feature_store.catalog import ALPHA_V1
from quant_assets.feature_store.contract import FeatureContract
from quant_assets.feature_store.indicators import technical_v1
from quant_assets.feature_store.inputs import adjusted_bars
from quant_assets.feature_store.labels import labels
from quant_assets.feature_store.views import definition_hash
from quant_assets.settings import load_settings
from quant_assets.signals.models import estimator
from quant_assets.signals.models.config import ModelConfig
from quant_assets.signals.registry import local_copies
from quant_assets.signals.registry.tracking import Registry
from quant_assets.signals.scoring import score
from quant_assets.signals.training import TrainingSetup, train
from quant_assets.warehouse import Warehouse
from quant_assets_tests.lookahead import sp500_panel

COLUMNS = [feature for feature in ALPHA_V1 if feature.table in ("technical_v1", "alpha_history_v1")]
NAMES = tuple(feature.name for feature in COLUMNS)
VIEW, LAST_TRAINED = "alpha_v1", date(2015, 12, 31)
WORK = ((100, 4), (51, 210))
"""Rounds and leaves: our defaults; qlib's leaves, and the rounds that it runs here before it stops."""


def say(bench: str, **values: object) -> None:
    """Print one line."""
    print(json.dumps({"bench": bench, **values, "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)}), flush=True)


def training_frame(warehouse: Warehouse, calendar: TradingCalendar) -> pl.DataFrame:
    """Bars from the store, 172 columns, and the outcome of the next session."""
    with warehouse.connect() as connection:
        adjusted = adjusted_bars(connection, warehouse.preferred_source)
    technical = technical_v1(adjusted)
    history = alpha_history(adjusted.hstack(technical.select("price_change_1d")))
    features = technical.hstack(history.drop("symbol", "session"))
    first, last = adjusted.select(first=pl.col("session").min(), last=pl.col("session").max()).row(0)
    outcomes = labels(adjusted, calendar.frame(first, last), [1])
    return features.join(outcomes, on=["symbol", "session"]).with_columns(weight=pl.lit(1.0)).sort("session", "symbol")


def features_and_fit(warehouse: Warehouse, calendar: TradingCalendar, bars: pl.DataFrame, folder: Path) -> None:
    """The whole way from bars to a model, beside the peer's."""
    for rounds, leaves in WORK:
        told, reason = peer(bars, folder / "peer.parquet", "--rounds", str(rounds), "--leaves", str(leaves))
        started, cpu = perf_counter(), process_time()
        frame = training_frame(warehouse, calendar)
        computed = perf_counter()
        train_rows = frame.filter(pl.col("session") <= LAST_TRAINED)
        fitted = estimator.fit(train_rows, NAMES, "up", ModelConfig(rounds=rounds, leaves=leaves), 7)
        ours, cpu = perf_counter() - started, process_time() - cpu
        mine = {"features": round(computed - started, 2), "fit": round(ours - (computed - started), 2)}
        grown = 1 + fitted.importance["splits"].sum() / rounds
        if told is None:
            say("features_and_fit", ours=round(ours, 2), **mine, skipped=reason)
            continue
        theirs, their_cpu = told["handler"] + told["fit"], told["handler_cpu"] + told["fit_cpu"]
        say(
            "features_and_fit", ours=round(ours, 2), peer=round(theirs, 2), ratio=round(ours / theirs, 3), limit_ratio=0.333, cpu_ratio=round(cpu / their_cpu, 3), cpu=round(cpu, 2), rounds=rounds,
            leaves=leaves, **mine, grown=round(grown, 1), peer_parts=told, columns=len(NAMES), rows=len(frame),
        )  # fmt: skip


def walk_forward(frame: pl.DataFrame, home: Path) -> None:
    """Train as the product does; then log, load and score."""
    definition = definition_hash(VIEW)
    setup = TrainingSetup(NAMES, 1, definition)
    started, cpu = perf_counter(), process_time()
    result = train(frame, setup)
    took, cpu = perf_counter() - started, process_time() - cpu
    say("walk_forward", ours=round(took, 2), limit=90, cpu=round(cpu, 2), folds=setup.n_folds, columns=len(NAMES), rows=len(frame))
    contract = FeatureContract.of(VIEW, definition, COLUMNS)
    registry = Registry.open(load_settings(home=home))
    log = partial(registry.log_training, result, contract, "benchmark", "signals/model")
    say("log_training", ours=round(seconds(log), 2), again=round(seconds(log), 2), limit=3)
    sha256 = local_copies.save_local_copy(home / "models", "1", result.model, contract)
    load = partial(local_copies.load_local_copy, home / "models", "1", sha256, VIEW, definition)

    def load_anew() -> None:
        local_copies._read.cache_clear()
        load()

    say("load_model", ours=round(median_seconds(load_anew), 4), cached=round(median_seconds(load), 5), limit=0.2)
    model, _ = load()
    tonight = frame.filter(pl.col("session") == pl.col("session").max()).select("symbol", "session", *NAMES)
    scored = partial(score, tonight, model, contract, VIEW, definition)
    say("score_session", ours=round(median_seconds(scored), 4), limit=0.3, symbols=len(tonight), columns=len(NAMES))


def fit_time(frame: pl.DataFrame) -> None:
    """The cost of a fit by rounds and by rows: more is never cheaper."""

    def fit(rows: int, rounds: int) -> float:
        return median_seconds(lambda: estimator.fit(frame.head(rows), NAMES, "up", ModelConfig(rounds=rounds), 7))

    half = len(frame) // 2
    by_rounds = {rounds: fit(half, rounds) for rounds in (50, 100, 200)}
    by_rows = {half // 4: fit(half // 4, 100), half // 2: fit(half // 2, 100), half: by_rounds[100]}
    for over, times in {"rounds": by_rounds, "rows": by_rows}.items():
        took = list(times.values())
        say("fit_time", over=over, seconds={size: round(each, 2) for size, each in times.items()}, monotone=took == sorted(took))


def median_seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median of some calls."""
    return median(seconds(call) for _ in range(repeats))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["peer", "walk", "scale"])
    wanted = parser.parse_args().only
    load_settings().export()  # as every command does: threads that wait do not spin
    bars = sp500_panel()
    if bars is None:
        say("features_and_fit", skipped="the real panel is not at hand (shared/data/sp500_2013_2018)")
        return
    with tempfile.TemporaryDirectory() as folder:
        calendar, home = trading_calendar("XNYS", date(2013, 1, 2)), Path(folder)
        warehouse = Warehouse(home / "quant.duckdb", "files")
        with warehouse.transaction() as connection:
            connection.register("bars", bars_of(bars))
            connection.execute("insert into market_data.daily_bars by name select * from bars order by symbol, session")
        training_frame(warehouse, calendar)  # compiles and warms up
        if wanted in (None, "peer"):
            features_and_fit(warehouse, calendar, bars, home)
        frame = training_frame(warehouse, calendar)
        if wanted in (None, "walk"):
            walk_forward(frame, home)
        if wanted in (None, "scale"):
            fit_time(frame)


if __name__ == "__main__":
    main()
