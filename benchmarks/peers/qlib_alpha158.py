"""qlib's own Alpha158 handler and LGBModel on given bars, in a process of its own: `python -m benchmarks.peers.qlib_alpha158 BARS OUT`.

Its published configuration for LightGBM on Alpha158 (examples/benchmarks/LightGBM of its repository) with 2 threads: no processor
for the features, the label Ref($close, -2)/Ref($close, -1) - 1 (from the next close to the one after) standardised per session,
1,000 rounds at most with early stopping after 50 on 2016. Needs `pyqlib` and nothing of ours. Prints one JSON line of seconds.

BARS is a parquet file of `symbol, session, open, high, low, close, volume`; OUT, a parquet file of `symbol, session`, qlib's own
`label` and `score_0`, `score_1`, … by seed, for every session from 2016 on (validation and test). There is no volume-weighted
price in the bars, so VWAP0 is empty, as in qlib's own data of the US market. `--rounds` and `--leaves` fix the work of the fit.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pandas as pd

FIELDS = ("open", "high", "low", "close", "volume")
SEGMENTS = {"train": ("2013-01-01", "2015-12-31"), "valid": ("2016-01-01", "2016-12-31"), "test": ("2017-01-01", "2018-12-31")}
PUBLISHED = {
    "loss": "mse", "colsample_bytree": 0.8879, "learning_rate": 0.2, "subsample": 0.8789, "lambda_l1": 205.6999,
    "lambda_l2": 580.9768, "max_depth": 8, "num_leaves": 210, "num_threads": 2,
}  # fmt: skip


def dump(bars: pd.DataFrame, folder: Path) -> None:
    """Write bars in qlib's format: a calendar, the symbols' spans, and float32 files that begin with the first session's number."""
    sessions = np.sort(bars["session"].unique())
    number = {session: index for index, session in enumerate(sessions)}
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir()
    (folder / "calendars" / "day.txt").write_text("\n".join(str(session)[:10] for session in sessions))
    spans = []
    for symbol, rows in bars.sort_values("session").set_index("session").groupby("symbol"):
        spans.append(f"{symbol}\t{str(rows.index[0])[:10]}\t{str(rows.index[-1])[:10]}")
        first, last = number[rows.index.to_numpy()[0]], number[rows.index.to_numpy()[-1]]
        filled = rows.reindex(sessions[first : last + 1])
        (home := folder / "features" / str(symbol).lower()).mkdir()
        for field in FIELDS:
            np.hstack([first, filled[field].to_numpy()]).astype("<f").tofile(home / f"{field}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(spans))


def cpu_seconds() -> float:
    """Processor time of this process and of the workers that it has seen end."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def main() -> None:
    """Dump, compute the features, fit, predict; then print the seconds of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bars", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--leaves", type=int)
    given = parser.parse_args()

    import qlib
    from qlib.contrib.data.handler import Alpha158
    from qlib.contrib.model import gbdt
    from qlib.data.dataset import DatasetH

    # It logs every round to a tracking server; neither that server nor its time is wanted here.
    gbdt.R = SimpleNamespace(log_metrics=lambda **_: None)
    with tempfile.TemporaryDirectory() as folder:
        bars = pd.read_parquet(given.bars)
        bars["session"] = pd.to_datetime(bars["session"]).astype("datetime64[ns]")
        dump(bars, Path(folder))
        qlib.init(provider_uri=folder, region="us", kernels=2, logging_level=30)
        span = {"start_time": "2013-01-01", "end_time": "2018-12-31", "fit_start_time": "2013-01-01", "fit_end_time": "2015-12-31"}
        leaves = {} if given.leaves is None else {"num_leaves": given.leaves}
        rounds = {} if given.rounds is None else {"num_boost_round": given.rounds, "early_stopping_rounds": given.rounds}
        times, cpu = [perf_counter()], [cpu_seconds()]
        handler = Alpha158(instruments="all", **span)
        times.append(perf_counter())
        cpu.append(cpu_seconds())
        dataset, scores = DatasetH(handler, SEGMENTS), []
        for seed in range(given.seeds):
            model = gbdt.LGBModel(**PUBLISHED | leaves | {"seed": seed}, **rounds)
            told: dict[str, dict[str, list[float]]] = {}
            model.fit(dataset, verbose_eval=0, evals_result=told)
            times.append(perf_counter())
            cpu.append(cpu_seconds())
            scores.append(pd.concat([model.predict(dataset, part) for part in ("valid", "test")]).rename(f"score_{seed}"))
        label = dataset.prepare(slice("2016-01-01", None), col_set="label", data_key="raw")["LABEL0"].rename("label")
        rows = pd.concat([label.reindex(scores[0].index), *scores], axis=1).reset_index()
    rows.rename(columns={"instrument": "symbol", "datetime": "session"}).to_parquet(given.out, index=False)
    trees = model.model.dump_model()["tree_info"]
    line: dict[str, object] = {"rounds": len(told["valid"]["l2"])}
    for part, name in enumerate(("handler", "fit")):
        line |= {name: round(times[part + 1] - times[part], 2), f"{name}_cpu": round(cpu[part + 1] - cpu[part], 2)}
    line |= {"kept_rounds": len(trees), "grown": round(float(np.mean([tree["num_leaves"] for tree in trees])), 1)}
    print(json.dumps(line | {"columns": model.model.num_feature(), "rows": len(bars), "qlib": qlib.__version__}))


if __name__ == "__main__":
    main()
