"""Two model versions side by side: as each was judged at its training, and paired on the sessions that both predicted."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import polars as pl

from quant_assets.errors import ConfigurationError
from quant_assets.feature_store.labels import exceeds
from quant_assets.signals.champions import MODEL
from quant_assets.signals.evaluation.per_session import log_loss, rank_ic
from quant_assets.signals.registry.desk import DecisionRefused, ModelDesk, facts_of

PAIRED = ("rank_ic", "log_loss")
RESAMPLES, SEED = 2000, 7


@dataclass(frozen=True)
class Comparison:
    """Versions `a` and `b` compared.

    `judged`: `metric`, `a`, `a_low`, `a_high`, `b`, `b_low`, `b_high`, each version on its own out-of-sample sessions, where
    the registry or the ledger knows it. `paired`: the same and `difference` (a - b), `difference_low`, `difference_high`
    on the common symbols and sessions, 95 % block-bootstrap intervals, null where there are too few. `notes`: what was left out.
    """

    a: str
    b: str
    judged: pl.DataFrame
    paired: pl.DataFrame
    sessions: int
    rows: int
    notes: tuple[str, ...]


def compare_versions(desk: ModelDesk, a: str, b: str, metrics: Collection[str] = ()) -> Comparison:
    """Compare two versions of one horizon, on all metrics or some; reads only.

    The paired differences take the walk-forward predictions of both and the labels as they stand now; a session's rank IC is
    Spearman's over the symbols that both predicted, its log loss their mean. Raises `DecisionRefused` for a version that
    nobody knows and for different horizons, `ConfigurationError` for a metric that neither has.
    """
    facts = {version: facts_of(desk, version) for version in (a, b)}
    horizon, other = facts[a]["horizon"], facts[b]["horizon"]
    if horizon != other:
        raise DecisionRefused(f"Version {a} is for horizon {horizon}, version {b} for {other}: their outcomes are not the same.")
    thresholds = [facts[version]["label_threshold"] for version in (a, b)]
    same = thresholds[0] == thresholds[1]
    notes = [] if same else [f"Their labels have different thresholds ({thresholds[0]:g}, {thresholds[1]:g}), so log loss is not compared."]
    known = desk.registered()
    found = {
        version: {**json.loads(facts[version]["evidence"]), **(known[version].metrics if version in known else {})} for version in (a, b)
    }
    judged = _judged(found[a], found[b])
    both = _both(desk, a, b, horizon)
    if both.is_empty():
        notes.append("No session was predicted by both out of sample with a known outcome, so nothing is paired.")
    paired = _paired(both, horizon, thresholds[0], PAIRED if same else PAIRED[:1])
    if metrics:
        there = {*judged["metric"], *paired["metric"]}
        if missing := [name for name in metrics if name not in there]:
            raise ConfigurationError(f"Neither version has the metric {', '.join(missing)}; there are {', '.join(sorted(there))}.")
        judged, paired = (table.filter(pl.col("metric").is_in(list(metrics))) for table in (judged, paired))
    return Comparison(a, b, judged, paired, both["session"].n_unique(), both.height, tuple(notes))


def _judged(a: dict[str, Any], b: dict[str, Any]) -> pl.DataFrame:
    """Every metric that either version has, with its interval where there is one; folds' own scores are left out."""
    numbers = {name for name, value in {**a, **b}.items() if isinstance(value, int | float) and not name.startswith("fold_")}
    ends = {f"{name}{end}" for name in numbers for end in ("_low", "_high")}
    rows = [(name, *(of.get(f"{name}{end}") for of in (a, b) for end in ("", "_low", "_high"))) for name in sorted(numbers - ends)]
    columns = ("a", "a_low", "a_high", "b", "b_low", "b_high")
    return pl.DataFrame(rows, schema={"metric": pl.String, **dict.fromkeys(columns, pl.Float64)}, orient="row")


def _both(desk: ModelDesk, a: str, b: str, horizon: int) -> pl.DataFrame:
    """Both versions' out-of-sample probabilities beside the outcome: `symbol`, `session`, `a`, `b`, `forward_return`."""
    return desk.warehouse.read(
        """
        with walked as (
            select model_version, symbol, session, probability from signals.predictions
            where model = $model and horizon = $horizon and model_version in ($a, $b)
            qualify row_number() over (partition by model_version, symbol, session order by known_at desc, fold desc) = 1
        )
        select symbol, session, one.probability as a, other.probability as b, forward_return
        from (select * from walked where model_version = $a) as one
        join (select * from walked where model_version = $b) as other using (symbol, session)
        join (select * from feature_store.labels where horizon = $horizon and forward_return is not null) using (symbol, session)
        order by session, symbol
        """,
        {"model": MODEL, "horizon": horizon, "a": a, "b": b},
    )


def _paired(both: pl.DataFrame, horizon: int, threshold: float, metrics: Collection[str]) -> pl.DataFrame:
    from quant_assets.signals.evaluation.bootstrap import block_length, paired_difference

    sides = ("a", "b")
    sessions = (
        both.with_columns(exceeds(threshold).alias("up"))
        .group_by("session")
        .agg(
            *(rank_ic(side).alias(f"rank_ic_{side}") for side in sides),
            *(log_loss(side).mean().alias(f"log_loss_{side}") for side in sides),
        )
        .sort("session")
        .with_columns(pl.lit(0.0).alias("nothing"))
    )
    block = block_length(len(sessions), horizon)
    rows = []
    for metric in metrics if len(sessions) else ():
        defined = sessions.filter(pl.all_horizontal(pl.col(f"{metric}_{side}").is_finite() for side in sides))
        one, other, nothing = defined[f"{metric}_a"], defined[f"{metric}_b"], defined["nothing"]
        pairs = ((one, nothing), (other, nothing), (one, other))
        rows.append((metric, *(end for pair in pairs for end in paired_difference(*pair, block, RESAMPLES, SEED)[:3])))
    columns = ("a", "a_low", "a_high", "b", "b_low", "b_high", "difference", "difference_low", "difference_high")
    return pl.DataFrame(rows, schema={"metric": pl.String, **dict.fromkeys(columns, pl.Float64)}, orient="row")
