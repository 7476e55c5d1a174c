"""Our signal model beside qlib's LightGBM configuration on Alpha158, on the real panel: `python -m benchmarks.real_panel`.

Both see the same bars: trained to 2015, 2016 to stop or to calibrate on, scored from 2017. Ours is the default
configuration (that of the settings) on the features of a view, from the door that training uses, and looks at nothing known after its period;
qlib's is its published one in its own code (`benchmarks/peers/qlib_alpha158.py`). Ten seeds each, paired seed by seed.
The labels differ: ours is the return from a session's close to the next close, qlib's from the next close to the one
after it, so both are scored on both.

Prints JSON lines. `rank_ic`: mean over seeds and sessions of the rank correlation with the return, and its difference
with a 95 % interval from blocks of sessions, for the test and, for those who would choose a setting, for 2016 (which qlib has
seen). `probability`: means over seeds on our label in the test; the gain in log loss over the base rate of the training (a
constant), with its interval; qlib's AUC and accuracy (of the sign) are those of its score. `differing`: the mean standard deviation
of the probability within a session. `--views` and `--seeds` shorten it. Nothing is chosen on the test.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.feature_store import bars_of, refreshes_of
from benchmarks.peers.asking import peer
from quant_assets.clock import TradingCalendar, trading_calendar
from quant_assets.feature_store.training_sets import training_set
from quant_assets.settings import load_settings
from quant_assets.signals.calibration import fit_calibration
from quant_assets.signals.evaluation import auc
from quant_assets.signals.evaluation.bootstrap import block_length, paired_difference
from quant_assets.signals.fitting import telling_features
from quant_assets.signals.models import estimator
from quant_assets.signals.signal_model import SignalModel
from quant_assets.signals.training import TrainingSetup
from quant_assets.signals.training_run import setup_of
from quant_assets.warehouse import Warehouse
from quant_assets_tests.lookahead import sp500_panel

KEYS = ("symbol", "session")
VALIDATED, TESTED = date(2016, 1, 1), date(2017, 1, 1)


def filled_warehouse(bars: pl.DataFrame, folder: Path, calendar: TradingCalendar) -> Warehouse:
    """A warehouse of the source `files` with those bars and every feature table."""
    warehouse = Warehouse(folder / "quant.duckdb", "files")
    with warehouse.transaction() as connection:
        connection.register("bars", bars_of(bars))
        connection.execute("insert into market_data.daily_bars by name select * from bars order by symbol, session")
    for refresh in refreshes_of(warehouse, calendar).values():
        refresh()
    return warehouse


def model(frame: pl.DataFrame, setup: TrainingSetup, seed: int) -> SignalModel:
    """A set-up's model, trained on outcomes known before 2016 and calibrated on those of 2016."""
    train = frame.filter(pl.col("known_at") < VALIDATED)
    later = frame.filter(pl.col("session") >= VALIDATED, pl.col("known_at") < TESTED)
    fitted = estimator.fit(train, setup.features, "up", setup.config, seed, "weight")
    z = later.select("session", fitted.log_odds(later)).select(pl.col("log_odds") - pl.col("log_odds").mean().over("session"))
    base_rate = float(train["up"].mean())  # type: ignore[arg-type]
    calibration = fit_calibration(setup.config.calibration, z["log_odds"].to_numpy(), later["up"].to_numpy(), base_rate)
    return SignalModel(fitted, calibration, centred=True)


def session_rank_ics(rows: pl.DataFrame, score: str, label: str) -> pl.Series:
    """Rank correlation of a score with a return, per session in order; 0 where all scores of a session are alike, for it orders nothing."""
    ranked = pl.corr(pl.col(score).rank(), pl.col(label).rank())
    alike = pl.col(score).n_unique() == 1
    return rows.group_by("session").agg(ic=pl.when(alike).then(0.0).otherwise(ranked)).sort("session")["ic"]


def rank_ic_lines(rows: pl.DataFrame, view: str, seeds: int) -> None:
    """Both on both labels, before and from 2017; `rows` has `ours_<seed>`, `score_<seed>` and both labels."""
    for period, inside in {"validation 2016": pl.col("session") < TESTED, "test": pl.col("session") >= TESTED}.items():
        for label, meaning in {
            "forward_return": "to the next close (ours)",
            "label": "from the next close to the one after (qlib's)",
        }.items():
            some = rows.filter(inside, pl.col(label).is_finite())
            ours, theirs = (
                np.mean([session_rank_ics(some, f"{name}_{seed}", label).to_numpy() for seed in range(seeds)], axis=0)
                for name in ("ours", "score")
            )
            apart = paired_difference(ours, theirs, block_length(len(ours), 1))
            alone = [paired_difference(each, np.zeros_like(each), block_length(len(each), 1)) for each in (ours, theirs)]
            print(json.dumps({
                "bench": "rank_ic", "view": view, "period": period, "return": meaning, "ours": round(float(ours.mean()), 4),
                "peer": round(float(theirs.mean()), 4), "difference": rounded(apart.mean), "low": rounded(apart.low), "high": rounded(apart.high),
                "limit_low": -0.005, **{f"{who}_interval": [rounded(each.low), rounded(each.high)] for who, each in zip(("ours", "peer"), alone, strict=True)},
                "sessions": len(ours), "rows": len(some), "seeds": seeds,
            }), flush=True)  # fmt: skip


def probability_line(rows: pl.DataFrame, view: str, seeds: int, base_rate: float) -> None:
    """What our probabilities are worth in the test, beside the majority class and the base rate."""
    test = rows.filter(pl.col("session") >= TESTED)
    up = pl.col("up").cast(pl.Float64)

    def loss(probability: pl.Expr) -> pl.Expr:
        return -(up * probability.log() + (1 - up) * (1 - probability).log())

    found: dict[str, list[float]] = {
        name: [] for name in ("auc", "peer_auc", "accuracy", "peer_accuracy", "interdecile", "differing", "log_loss")
    }
    gains = []
    for seed in range(seeds):
        p, score = pl.col(f"ours_{seed}"), pl.col(f"score_{seed}")
        found["auc"].append(auc(test[f"ours_{seed}"], test["up"]) or 0.5)
        found["peer_auc"].append(auc(test[f"score_{seed}"], test["up"]) or 0.5)
        row = test.select(
            accuracy=((p >= 0.5) == pl.col("up")).mean(),
            peer_accuracy=((score >= 0) == pl.col("up")).mean(),
            interdecile=p.quantile(0.9) - p.quantile(0.1),
            log_loss=loss(p).mean(),
        ).row(0, named=True)
        row["differing"] = test.group_by("session").agg(p.std())[f"ours_{seed}"].mean()
        for name, value in row.items():
            found[name].append(value)
        gain = test.group_by("session").agg(gain=(loss(pl.lit(base_rate)) - loss(p)).sum() * pl.lit(1.0)).sort("session")["gain"]
        gains.append(gain.to_numpy())
    # Sums over a session, so that every row counts alike: divided by the rows of a mean session.
    per_session = np.mean(gains, axis=0) / (len(test) / len(gains[0]))
    apart = paired_difference(per_session, np.zeros_like(per_session), block_length(len(per_session), 1))
    print(json.dumps({
        "bench": "probability", "view": view, **{name: round(float(np.mean(values)), 5) for name, values in found.items()},
        "majority": round(float(test.select((pl.col("up") == (base_rate >= 0.5)).mean()).item()), 5),
        "base_rate": round(base_rate, 5), "base_rate_log_loss": round(float(test.select(loss(pl.lit(base_rate)).mean()).item()), 5),
        "log_loss_gain": rounded(apart.mean, 6), "low": rounded(apart.low, 6), "high": rounded(apart.high, 6),
        "limit_interdecile": 0.005, "sessions": len(per_session), "rows": len(test), "seeds": seeds,
    }), flush=True)  # fmt: skip


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number for a line, or null."""
    return None if value is None else round(value, digits)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--views", nargs="+", default=["technical_v1", "alpha_v1"])
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    load_settings().export()  # as every command does: threads that wait do not spin
    bars = sp500_panel()
    if bars is None:
        print(json.dumps({"bench": "rank_ic", "skipped": "the real panel is not at hand (shared/data/sp500_2013_2018)"}))
        return
    with tempfile.TemporaryDirectory() as folder:
        told, reason = peer(bars, out := Path(folder) / "peer.parquet", "--seeds", str(given.seeds))
        if told is None:
            print(json.dumps({"bench": "rank_ic", "skipped": reason}))
            return
        print(json.dumps({"bench": "peer", **told}), flush=True)
        theirs = pl.read_parquet(out).with_columns(pl.col("session").cast(pl.Date))
        calendar = trading_calendar("XNYS", date(2013, 1, 2))
        warehouse = filled_warehouse(bars, Path(folder), calendar)
        span = (bars["session"].min(), bars["session"].max())
        for view in given.views:
            found = training_set(warehouse, calendar, view, None, span, 1, datetime(2018, 3, 1))  # type: ignore[arg-type]
            known, setup = found.frame, setup_of(load_settings(feature_view=view), found.definition_hash)
            setup = replace(setup, features=telling_features(known.filter(pl.col("known_at") < VALIDATED), setup.features))
            later = known.filter(pl.col("session") >= VALIDATED)
            scored = [model(known, setup, seed).predict(later).rename(f"ours_{seed}") for seed in range(given.seeds)]
            rows = later.select(*KEYS, "forward_return", "up").with_columns(scored).join(theirs, on=KEYS).sort("session", "symbol")
            rank_ic_lines(rows, view, given.seeds)
            base_rate = known.filter(pl.col("known_at") < VALIDATED)["up"].mean()
            probability_line(rows, view, given.seeds, float(base_rate))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
