"""The data-quality sentinel: `python -m benchmarks.sentinel`.

On the real panel where it is at hand, else on generated bars of the same shape. The peers are the z-score of a close's
return over its last 60, and scikit-learn's Isolation Forest on how far the next open takes the session's move back, both
without the market's and in scales of the symbol: of the features tried for a forest alone, those that ranked best. JSON lines:

- `judge_panel`: the whole panel judged from nothing by all rules and detectors, in seconds, with the peak of memory and the
  processor's seconds (on a machine at other work the truer measure), beside both peers together;
- `judge_session`: one new session judged with the window it needs, medians of five turns, beside a forest grown on the
  same window;
- `precision_0.5`, `precision_3`: average precision on planted closes that are wrong by over 0.5 and 3 % (one in 1,000,
  seed 1), with the next session known; `peer` is the forest, `z_score` the other. The panel's own errors count as false;
  with `_confirmed` only bars count that another vendor confirms to 0.2 %.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import polars as pl

from quant_assets.clock import trading_calendar
from quant_assets.data_quality.calibration_report.report import as_panel
from quant_assets.data_quality.judge import DETECTOR_SIGHT, LOOKBACK, judge
from quant_assets_tests.data_quality.market import market, with_wrong_closes
from quant_assets_tests.lookahead import NO_ACTIONS, sp500_panel, stocknet_panel

CALENDAR = trading_calendar("XNYS", date(2010, 1, 4))
KEY = ["symbol", "session"]


def panel() -> pl.DataFrame:
    """505 symbols on 1,259 sessions."""
    bars = sp500_panel()
    if bars is None:
        sessions = CALENDAR.between(date(2013, 2, 8), date(2018, 2, 7))
        made = market(seed=1, symbols=505, n=len(sessions))
        bars = made.with_columns(session=pl.lit(pl.Series(sessions)).gather(pl.col("session").rank("dense") - 1)).with_columns(
            basis=pl.lit("restated")
        )
    return as_panel(bars.drop("known_at", strict=False), CALENDAR).sort(KEY)


def z_score(bars: pl.DataFrame) -> np.ndarray[Any, Any]:
    """How many standard deviations each return is from the mean of the 60 before it; 0 where there are too few."""
    moves = bars.select("symbol", move=pl.col("close").log().diff().over("symbol"))
    before = pl.col("move").shift(1)
    mean, deviation = before.rolling_mean(60, min_samples=20).over("symbol"), before.rolling_std(60, min_samples=20).over("symbol")
    return moves.select(((pl.col("move") - mean) / deviation).abs().fill_nan(0).fill_null(0).alias("z"))["z"].to_numpy()


def forest(bars: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Isolation Forest on the next open's gap and on what it takes back of the session's move."""
    from sklearn.ensemble import IsolationForest

    opened, closed = (pl.when(pl.col(name) > 0).then(name).log() for name in ("open", "close"))
    features = (
        bars.select(*KEY, within=closed - opened, next_gap=opened.shift(-1).over("symbol") - closed)
        .with_columns(pl.col(name) - pl.col(name).median().over("session") for name in ("within", "next_gap"))
        .with_columns(pl.col(name) / pl.col(name).abs().median().over("symbol") for name in ("within", "next_gap"))
        .select("next_gap", back=pl.when(pl.col("within") * pl.col("next_gap") < 0).then(pl.min_horizontal(pl.all().exclude(KEY).abs())))
    )
    matrix = features.fill_nan(None).fill_null(0).to_numpy()
    matrix = np.sign(matrix) * np.log1p(np.abs(matrix))
    usual: np.ndarray[Any, Any] = IsolationForest(max_samples=1024, random_state=0).fit(matrix).score_samples(matrix)
    return -usual


def ours(bars: pl.DataFrame, sight: int) -> np.ndarray[Any, Any]:
    """The highest score of each bar with so many later sessions known; 0 where nothing was found."""
    found = judge(bars, NO_ACTIONS, CALENDAR).findings
    seen = found.filter(pl.col("detector").replace_strict(DETECTOR_SIGHT, default=0) <= sight).group_by(KEY).agg(pl.col("score").max())
    return bars.select(KEY).join(seen, on=KEY, how="left", maintain_order="left")["score"].fill_null(0).to_numpy()


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def line(bench: str, own: float, peer: float, **further: float) -> None:
    """Print one comparison."""
    print(json.dumps({"bench": bench, "ours": round(own, 3), "peer": round(peer, 3), "ratio": round(own / peer, 3), **further}), flush=True)


def judge_panel() -> None:
    """The whole panel, once, in this process."""
    bars = panel()
    spent = process_time()
    own = seconds(lambda: judge(bars, NO_ACTIONS, CALENDAR))
    spent = process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    peer = seconds(lambda: (z_score(bars), forest(bars)))
    line("judge_panel", own, peer, bars=bars.height, limit=20, cpu=round(spent, 1), peak_mib=peak, limit_mib=2048)


def judge_session() -> None:
    """The last session, with what a night reads before it."""
    bars = panel()
    window = bars["session"].unique().sort().tail(LOOKBACK + 1)
    bars = bars.filter(pl.col("session").is_in(window.implode()))
    today = [window[-1]]
    judge(bars, NO_ACTIONS, CALENDAR, today)  # imports
    own = [seconds(lambda: judge(bars, NO_ACTIONS, CALENDAR, today)) for _ in range(5)]
    peer = [seconds(lambda: forest(bars)) for _ in range(5)]
    symbols = bars.filter(pl.col("session").is_in(today)).height
    line("judge_session", median(own), median(peer), symbols=symbols, limit=2)


def precision() -> None:
    """Ranking of planted wrong closes; planted errors below the limit count as neither right nor wrong."""
    from sklearn.metrics import average_precision_score

    bars = panel()
    wrong = with_wrong_closes(bars, seed=1, n=bars.height // 1000)
    wrong = wrong.with_columns(factor=wrong["close"] / bars["close"])
    scores = {"ours": ours(wrong, 1), "forest": forest(wrong), "z_score": z_score(wrong)}
    error = wrong["error"].to_numpy()
    for suffix, among in {"": np.ones(len(error), bool), "_confirmed": confirmed(wrong)}.items():
        for limit in (0.005, 0.03) if among.any() else ():
            counted = among & ((error == 0) | (error > limit))
            reached = {name: float(average_precision_score(error[counted] > limit, score[counted])) for name, score in scores.items()}
            line(f"precision_{100 * limit:g}{suffix}", reached["ours"], reached["forest"], z_score=round(reached["z_score"], 3))


def confirmed(bars: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Which bars the other vendor confirms: its open and its close, this as it was before an error was planted."""
    other = stocknet_panel()
    if other is None:
        return np.zeros(bars.height, bool)
    both = bars.join(other, on=KEY, how="left", suffix="_other", maintain_order="left")
    close = pl.col("close") / pl.col("factor")
    agree = [(close / pl.col("close_other") - 1).abs(), (pl.col("open") / pl.col("open_other") - 1).abs()]
    return both.select((pl.max_horizontal(agree) < 0.002).fill_null(value=False).alias("agree"))["agree"].to_numpy()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"judge_panel": judge_panel, "judge_session": judge_session, "precision": precision}[sys.argv[1]]()
    else:
        # Each in a process of its own, so that memory is its own too.
        for name in ("judge_panel", "judge_session", "precision"):
            subprocess.run([sys.executable, "-m", "benchmarks.sentinel", name], check=True)
