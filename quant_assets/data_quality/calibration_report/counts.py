"""What was found of faults whose place is known, and what was found besides: the counts of the calibration report.

Findings on the bars as given are called `before` (those of them that count as false: `alarms`), those with faults in the
bars `after`; all in the form of `flags`.
"""

from __future__ import annotations

import polars as pl

from quant_assets.data_quality.calibration_report.injection import CONTROLS
from quant_assets.data_quality.judge import DETECTOR_SIGHT
from quant_assets.data_quality.shares import wilson

SIGHTS = {"same": 0, "next": 1, "later": 10}
"""Sessions after the bar's own that a finding may look at."""
LEVELS = {"critical": 3, "warning": 2, "info": 1}
RATES = (1e-2, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5, 1e-5, 1e-6)
"""One less each is a least score of the threshold curve."""
NEAR_DAYS = 18
"""Calendar days around a fault, some twelve sessions, in which what is found is put down to it."""


def sessions_known(instant: str, instants: pl.Series) -> pl.Expr:
    """Sessions known at an instant: differences of it are sessions."""
    return pl.lit(instants).search_sorted(pl.col(instant), side="right").cast(pl.Int64)


def flags(findings: pl.DataFrame, instants: pl.Series) -> pl.DataFrame:
    """Findings with `sight`, `level` (3 critical to 1 info) and `place` (of the session in which the finding was made)."""
    placed = findings.with_columns(place=sessions_known("known_at", instants), own=sessions_known("bar_known_at", instants))
    late = pl.col("place") - pl.col("own")
    # What was known later than its detector's name says is of that later sight.
    named = pl.col("detector").replace_strict(DETECTOR_SIGHT, default=0, return_dtype=pl.Int64)
    sight = pl.max_horizontal(named, pl.when(late > 1).then(10).when(late == 1).then(1).otherwise(0))
    level = pl.col("severity").replace_strict(LEVELS, return_dtype=pl.Int64)
    return placed.select("symbol", "session", "rule", "detector", "score", "place", sight=sight.cast(pl.Int64), level=level)


def per_fault(faults: pl.DataFrame, flags: pl.DataFrame) -> pl.DataFrame:
    """Per fault the highest level and score by sight on any of its bars (0 for none), and by level the first `delay`."""
    within = {name: pl.col("sight") <= sight for name, sight in SIGHTS.items()}
    return (
        faults.join(flags.rename({"place": "found"}), on=["symbol", "session"], how="left")
        .group_by("kind", "fault")
        .agg(
            *(pl.col("level").filter(seen).max().fill_null(0).alias(f"level_{name}") for name, seen in within.items()),
            *(pl.col("score").filter(seen).max().fill_null(0.0).alias(f"score_{name}") for name, seen in within.items()),
            *(
                (pl.col("found").filter(pl.col("level") >= level).min() - pl.col("place").min()).alias(f"delay_{name}")
                for name, level in LEVELS.items()
            ),
        )
    )


def kinds(found: pl.DataFrame, faults: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Recall by sight, median delay and precision per kind of fault and severity."""
    parts = []
    for name, level in LEVELS.items():
        recall = found.group_by("kind").agg(
            pl.lit(name).alias("severity"),
            pl.len().alias("faults"),
            *((pl.col(f"level_{sight}") >= level).mean().alias(f"recall_{sight}") for sight in SIGHTS),
            pl.col(f"delay_{name}").median().alias("delay"),
        )
        reached = _bars(after, level, SIGHTS["next"]).with_columns(reached=pl.lit(value=True))
        bars = faults.join(reached, on=["symbol", "session"], how="left").group_by("kind")
        because = _told(faults, before, after, level).filter(pl.col("what").is_in(["faulty", "beside"]))
        precision = because.group_by("kind").agg(precision=(pl.col("what") == "faulty").mean())
        reach = bars.agg(bars_next=pl.col("reached").fill_null(value=False).mean())
        parts.append(recall.join(reach, on="kind").join(precision, on="kind", how="left"))
    return pl.concat(parts).sort("kind", pl.col("severity").replace_strict(LEVELS), descending=[False, True])


def _told(faults: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame, level: int, sight: int = 10) -> pl.DataFrame:
    """Bars found with faults in, and what they are: `faulty`, found `as_given` too, `beside` a fault (with its `kind`), or `elsewhere`."""
    key = ["symbol", "session"]
    flagged, without = (_bars(flags, level, sight) for flags in (after, before))
    marked = faults.select(*key, "kind", fault_session="session").unique(key).sort(key)
    return (
        flagged.sort(key)
        .join_asof(marked, on="session", by="symbol", strategy="nearest", tolerance=f"{NEAR_DAYS}d", check_sortedness=False)
        .join(without.with_columns(as_given=pl.lit(value=True)), on=key, how="left")
        .with_columns(
            what=pl.when(pl.col("session") == pl.col("fault_session"))
            .then(pl.lit("faulty"))
            .when("as_given")
            .then(pl.lit("as_given"))
            .when(pl.col("kind").is_not_null())
            .then(pl.lit("beside"))
            .otherwise(pl.lit("elsewhere"))
        )
        .select(*key, "kind", "what")
    )


def _bars(flags: pl.DataFrame, level: int, sight: int) -> pl.DataFrame:
    return flags.filter(pl.col("level") >= level, pl.col("sight") <= sight).select("symbol", "session").unique()


def severities(bars: int, faults: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame, alarms: pl.DataFrame) -> pl.DataFrame:
    """False alarms per 1,000 of so many bars, and what the bars found with faults in are, per severity and sight."""
    rows = []
    for severity, level in LEVELS.items():
        for name, sight in SIGHTS.items():
            told = _told(faults, before, after, level, sight)["what"]
            counts = {what: int((told == what).sum()) for what in ("faulty", "beside", "elsewhere", "as_given")}
            false = 1_000 * _bars(alarms, level, sight).height / bars
            precision = counts["faulty"] / len(told) if len(told) else None
            rows.append({"severity": severity, "sight": name, "false_alarms_per_1000": false, "precision": precision, **counts})
    return pl.DataFrame(rows, schema_overrides={"precision": pl.Float64})


def curve(bars: int, found: pl.DataFrame, alarms: pl.DataFrame) -> pl.DataFrame:
    """Recall over all faults, and false alarms per 10,000 of so many bars, per least score and sight."""
    rows = []
    for rate in RATES:
        threshold = 1 - rate
        for name, sight in SIGHTS.items():
            false = alarms.filter(pl.col("score") >= threshold, pl.col("sight") <= sight).select("symbol", "session").n_unique()
            recall = found.select((pl.col(f"score_{name}") >= threshold).mean()).item()
            rows.append(
                {"least_score": threshold, "rate": rate, "sight": name, "recall": recall, "false_alarms_per_10000": 1e4 * false / bars}
            )
    return pl.DataFrame(rows, schema_overrides={"recall": pl.Float64})


def events(genuine: pl.DataFrame, injected: pl.DataFrame, alarms: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Critical bars among the genuine events, in the bars as given, and among recorded actions, put in with what records them."""
    recorded = injected.filter(pl.col("kind").is_in(CONTROLS)).select("symbol", "session", "kind")
    rows = []
    for where, flags in ((genuine, alarms), (recorded, after)):
        for name in ("next", "later"):
            critical = _bars(flags, LEVELS["critical"], SIGHTS[name]).with_columns(critical=pl.lit(value=True))
            counts = where.join(critical, on=["symbol", "session"], how="left").group_by("kind").agg(pl.len(), pl.col("critical").sum())
            share, low, high = wilson(pl.col("critical"), pl.col("len"))
            rates = {"per_10000": 1e4 * share, "low": 1e4 * low, "high": 1e4 * high}
            rows.append(
                counts.sort("kind").select(
                    pl.col("kind").alias("event"), pl.lit(name).alias("sight"), pl.col("len").alias("bars"), "critical", **rates
                )
            )
    return pl.concat(rows)


def rules(faults: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Bars found per rule and detector, critical and at least warning."""
    key = ["symbol", "session"]
    by = ["rule", "detector"]
    marked = faults.select(*key).unique().with_columns(faulty=pl.lit(value=True))
    counts = [
        flags.join(marked, on=key, how="left")
        .group_by(by)
        .agg(
            (pl.struct(key).filter(pl.col("level") >= LEVELS[severity], *wanted).n_unique()).alias(f"{severity}_{name}")
            for severity in ("critical", "warning")
            for wanted, name in columns
        )
        for flags, columns in (
            (before, [((), "as_given")]),
            (after, [((pl.col("faulty"),), "on_faults"), ((pl.col("faulty").is_null(),), "on_others")]),
        )
    ]
    return counts[0].join(counts[1], on=by, how="full", coalesce=True).fill_null(0).sort(by)
