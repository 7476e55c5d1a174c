"""Every predictor's scores in every group, from one table of sums per session and one matrix product per group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from quant_assets.signals.evaluation.bootstrap import MIN_SESSIONS, Floats, block_length, block_weights, intervals
from quant_assets.signals.evaluation.classification import (
    AUC_BINS,
    TENTHS,
    Bools,
    Ints,
    call_sums,
    classification_scores,
    dense_codes,
    equal_count_bins,
    exact_auc,
    probability_sums,
    rank_counts,
)  # fmt: skip
from quant_assets.signals.evaluation.ranking import (
    PER_SESSION,
    average_ranks,
    newey_west_t,
    order_within,
    rank_ics,
    ranking_scores,
    ranking_sums,
    tranches,
)  # fmt: skip
from quant_assets.signals.evaluation.rivals import Predictor, predictors

GROUPS = ("fold", "year", "sector", "regime")

_RANGES = {"rank_ic": (-1.0, 1.0), "log_loss": (0.0, np.inf)} | dict.fromkeys(
    ("auc", "brier", "accuracy", "precision", "recall", "f1", "ece", "turnover"), (0.0, 1.0)
)
_COUNTS = {"rank_ic_t": "rank_ic_count", "icir": "rank_ic_count"} | {name: f"{name}_count" for name in PER_SESSION}


@dataclass(frozen=True)
class Score:
    """A value with its 95 % interval, and how many rows and sessions it rests on; null where it cannot be computed."""

    value: float | None
    low: float | None
    high: float | None
    rows: int
    sessions: int


@dataclass(frozen=True)
class Column:
    """What a predictor says, on the rows (by number) where it says something; what its kind does not give is None."""

    predictor: Predictor
    rows: Ints
    codes: Ints  # whole numbers in the order of the scores
    auc_bins: Ints
    probability: Floats | None
    tenths: Ints | None
    called: Bools | None


@dataclass(frozen=True)
class Panel:
    """Predictions as arrays, sorted by session and symbol, with what scores them."""

    session: Ints
    symbol: Ints
    up: Bools
    forward_return: Floats
    return_codes: Ints
    base_rate: Floats
    columns: list[Column]
    n_sessions: int
    horizon: int
    fee_bps: float
    seed: int
    resamples: int
    weights: dict[int, Floats] = field(default_factory=dict)  # by number of sessions: drawn once

    def drawn(self, n: int) -> Floats:
        """Weights of all resamples of n sessions."""
        if n not in self.weights:
            self.weights[n] = block_weights(n, block_length(n, self.horizon), self.resamples, self.seed)
        return self.weights[n]


@dataclass(frozen=True)
class Grid:
    """Groups whose sums are made together: `groups` holds each group's name, member, its rows (mask) and its units, in session order.

    A unit is a session, or a session of one member where members share sessions; `unit` is each row's, -1 for none. `return_ranks` are
    the forward returns' within their unit, of the rows that have one.
    """

    unit: Ints
    units: int
    return_ranks: Floats
    groups: list[tuple[str, str, Bools, Ints]]


def panel(predictions: pl.DataFrame, horizon: int, fee_bps: float, seed: int, resamples: int) -> Panel:
    """Arrays of checked predictions, sorted by session and symbol."""
    session = dense_codes(predictions["session"])
    return Panel(
        session=session,
        symbol=dense_codes(predictions["symbol"]),
        up=predictions["up"].to_numpy(),
        forward_return=predictions["forward_return"].cast(pl.Float64).to_numpy(),
        return_codes=dense_codes(predictions["forward_return"]),
        base_rate=predictions["train_up_share"].cast(pl.Float64).to_numpy(),
        columns=[_column(predictions, predictor) for predictor in predictors(predictions.columns)],
        n_sessions=int(session[-1]) + 1,
        horizon=horizon,
        fee_bps=fee_bps,
        seed=seed,
        resamples=resamples,
    )


def grids(predictions: pl.DataFrame, made: Panel) -> list[Grid]:
    """The grid of sessions first, with all groups that hold whole sessions; then one for each other kind of group."""
    everything = np.ones(len(predictions), dtype=np.bool_)
    whole = [("all", "all", everything, np.arange(made.n_sessions))]
    split = []
    kinds = predictions.select(
        "session", *(name for name in GROUPS if name in predictions.columns and name != "year"), year=pl.col("session").dt.year()
    )
    for kind in (name for name in GROUPS if name in kinds.columns):
        members = kinds[kind].drop_nulls().unique().sort()
        masks = [(str(member), (kinds[kind] == member).fill_null(value=False).to_numpy()) for member in members]
        if kinds.group_by("session").agg(pl.col(kind).n_unique())[kind].max() == 1:
            whole += [(kind, member, mask, np.unique(made.session[mask])) for member, mask in masks]
            continue
        unit = np.full(len(predictions), -1, dtype=np.int64)
        groups = []
        for number, (member, mask) in enumerate(masks):
            unit[mask] = number * made.n_sessions + made.session[mask]
            groups.append((kind, member, mask, np.unique(unit[mask])))
        split.append(Grid(unit, len(masks) * made.n_sessions, _return_ranks(made, unit, np.flatnonzero(unit >= 0)), groups))
    return [Grid(made.session, made.n_sessions, _return_ranks(made, made.session, np.flatnonzero(everything)), whole), *split]


def per_session(made: Panel, grid: Grid, column: Column) -> dict[str, Floats]:
    """A predictor's `rank_ic`, and spreads and turnover where they are asked of it, per unit; not a number where there is none."""
    if "rank_ic" not in column.predictor.metrics:
        return {}
    inside = grid.unit[column.rows] >= 0
    rows, codes = column.rows[inside], column.codes[inside]
    unit = grid.unit[rows]
    order = order_within(unit, codes)
    returns = grid.return_ranks if len(rows) == len(grid.return_ranks) else _return_ranks(made, grid.unit, rows)
    found = {"rank_ic": rank_ics(unit, grid.units, average_ranks(unit, codes, order), returns)}
    if "spread_gross" in column.predictor.metrics:
        held = made.forward_return[rows]
        found |= tranches(unit, grid.units, made.n_sessions, made.symbol[rows], codes, order, held, made.horizon, made.fee_bps)
    return found


def grid_scores(made: Panel, grid: Grid, ranked: list[dict[str, Floats]]) -> Iterator[tuple[str, str, dict[tuple[str, str], Score]]]:
    """Group, member and the scores by predictor and metric; `ranked` holds `per_session` of every column."""
    tables = [_sums(made, grid, column, values) for column, values in zip(made.columns, ranked, strict=True)]
    wide = np.concatenate([part.reshape(grid.units, -1) for table in tables for part in table.values()], axis=1)
    for kind, member, mask, units in grid.groups:
        chosen = wide[units]
        totals = chosen.sum(axis=0, keepdims=True)
        drawn = made.drawn(len(units)) @ chosen if len(units) >= MIN_SESSIONS else None
        scores: dict[tuple[str, str], Score] = {}
        at = 0
        for column, table, values in zip(made.columns, tables, ranked, strict=True):
            shapes = {name: part.shape[1:] for name, part in table.items()}
            to = at + sum(part[0].size for part in table.values())
            exact = {name: float(value[0]) for name, value in _scores_of(totals[:, at:to], shapes).items()}
            resampled = {} if drawn is None else _scores_of(drawn[:, at:to], shapes)
            if "auc" in exact:
                inside = mask[column.rows]
                binned, exact["auc"] = exact["auc"], exact_auc(column.codes[inside], made.up[column.rows[inside]])
                if drawn is not None:
                    resampled["auc"] = resampled["auc"] + (exact["auc"] - binned)
            if "ece" in resampled:
                resampled["ece"] = 2 * exact["ece"] - resampled["ece"]
            if "rank_ic" in exact:
                ics = values["rank_ic"][units]
                t = newey_west_t(ics[np.isfinite(ics)], 2 * (made.horizon - 1))
                exact["rank_ic_t"] = np.nan if t is None else t
            scores |= _scores(column, units, table, exact, resampled, made.horizon)
            at = to
        yield kind, member, scores


def _return_ranks(made: Panel, unit: Ints, rows: Ints) -> Floats:
    return average_ranks(unit[rows], made.return_codes[rows], order_within(unit[rows], made.return_codes[rows]))


def _column(predictions: pl.DataFrame, predictor: Predictor) -> Column:
    read = predictions.select(predictor.read()).with_row_index("row").drop_nulls()
    codes = dense_codes(read["score"])
    probability = read["probability"] if "probability" in read.columns else None
    return Column(
        predictor=predictor,
        rows=read["row"].cast(pl.Int64).to_numpy(),
        codes=codes,
        auc_bins=equal_count_bins(codes, AUC_BINS),
        probability=None if probability is None else probability.to_numpy(),
        tenths=None if probability is None else equal_count_bins(codes, TENTHS),
        called=read["called"].to_numpy() if "called" in read.columns else None,
    )


def _sums(made: Panel, grid: Grid, column: Column, ranked: dict[str, Floats]) -> dict[str, Floats]:
    """Everything about a predictor that scores are made of, per unit."""
    inside = grid.unit[column.rows] >= 0
    rows = column.rows[inside]
    unit, up = grid.unit[rows], made.up[rows]
    sums = {"rows": np.bincount(unit, minlength=grid.units).astype(np.float64), **ranking_sums(ranked)}
    if "auc" in column.predictor.metrics:
        sums |= rank_counts(unit, grid.units, up, column.auc_bins[inside])
    if column.called is not None:
        sums |= call_sums(unit, grid.units, up, column.called[inside], made.base_rate[rows] >= 0.5)
    if column.probability is not None and column.tenths is not None:
        sums |= probability_sums(unit, grid.units, up, column.probability[inside], column.tenths[inside], made.base_rate[rows])
    return sums


def _scores_of(sums: Floats, shapes: dict[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Scores from the columns of one predictor's sums, one value per row of `sums`."""
    parts, at = {}, 0
    for name, shape in shapes.items():
        width = int(np.prod(shape))
        parts[name] = sums[:, at : at + width].reshape(-1, *shape)
        at += width
    return classification_scores(parts) | ranking_scores(parts)


def _scores(
    column: Column, units: Ints, table: dict[str, Floats], exact: dict[str, float], resampled: dict[str, Floats], horizon: int
) -> dict[tuple[str, str], Score]:
    """A predictor's scores with their intervals; those that rest on too few sessions have none."""
    metrics = column.predictor.metrics
    rows = int(table["rows"][units].sum())
    sessions = [int((table[_COUNTS.get(metric, "rows")][units] > 0).sum()) for metric in metrics]
    ends = np.full((len(metrics), 2), np.nan)
    if resampled:
        unknown = np.full_like(next(iter(resampled.values())), np.nan)  # rank_ic_t has no resamples
        spread = np.array([resampled.get(metric, unknown) for metric in metrics])
        block = block_length(len(units), horizon)
        ends = intervals(np.array([exact[metric] for metric in metrics]), spread, len(units), block, horizon)
    scores = {}
    for metric, n, (low, high) in zip(metrics, sessions, ends.tolist(), strict=True):
        least, most = _RANGES.get(metric, (-np.inf, np.inf))
        known = n >= MIN_SESSIONS and np.isfinite(low)
        reached = max(high, exact[metric]) if metric == "ece" else high
        bounds = (max(low, least), min(reached, most)) if known else (None, None)
        value = exact[metric] if np.isfinite(exact[metric]) else None
        scores[column.predictor.name, metric] = Score(value, bounds[0], bounds[1], rows, sessions=n)
    return scores
