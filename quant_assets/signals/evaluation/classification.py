"""How good probabilities and calls of `up` are: every score a function of sums over sessions.

With n rows, y = 1 where `up` and else 0, p the probability, and `up` called at p >= 0.5 (TP, FP, FN: true and false calls, misses):

- `auc`: chance that an up outranks a down, ties half (Hanley and McNeil, Radiology 143, 1982); null with one class only
- `log_loss`: mean of -(y ln p + (1 - y) ln(1 - p)), p kept 1e-15 from 0 and 1 (Good, J. Royal Stat. Soc. B 14, 1952)
- `brier`: mean of (p - y)² (Brier, Monthly Weather Review 78, 1950)
- `accuracy`: share of rows called rightly; `precision` = TP / (TP + FP); `recall` = TP / (TP + FN); `f1` = 2 TP / (2 TP + FP + FN)
- `ece`: Σ over tenths of rows / n · |mean p - mean y| (Naeini, Cooper and Hauskrecht, AAAI 2015), the tenths of `equal_count_bins`
- `log_loss_gain`: log loss of the training's base rate less one's own; `accuracy_gain`: accuracy less that of the training's majority class
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_assets.signals.evaluation.bootstrap import Floats

AUC_BINS = 32  # of a resample's AUC, which only has to say how far it strays from the exact one
TENTHS = 10

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def auc(score: pl.Series, up: pl.Series) -> float | None:
    """Area under the ROC curve by ranks, ties counting half; null where only one class is there."""
    value = exact_auc(dense_codes(score), up.to_numpy())
    return value if np.isfinite(value) else None


def exact_auc(codes: Ints, up: Bools) -> float:
    """The same from codes that grow with the score and are equal where it is; not a number where only one class is there."""
    every = np.bincount(codes)
    ups = np.bincount(codes[up], minlength=len(every))
    return float(auc_of_counts(ups, every - ups))


def auc_of_counts(ups: Floats | Ints, downs: Floats | Ints) -> Floats:
    """AUC from counts per bin (last axis, lowest score first); rows of one bin are ties. Not a number with one class."""
    won_twice = (ups * (2 * downs.cumsum(axis=-1) - downs)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = won_twice / (2.0 * ups.sum(axis=-1) * downs.sum(axis=-1))
    return result


def dense_codes(score: pl.Series) -> Ints:
    """Whole numbers from 0 in the order of the scores, equal where they are."""
    return (score.rank("dense").cast(pl.Int64) - 1).to_numpy()


def equal_count_bins(codes: Ints, bins: int) -> Ints:
    """Number of each row's bin, 0 to bins - 1, as many rows to each as ties allow: equal scores share a bin, whatever their order."""
    counts = np.bincount(codes)
    middle = 2 * counts.cumsum() - counts  # twice the mean place of a code's rows, less a half
    bin_of_code: Ints = middle * bins // (2 * max(len(codes), 1))
    return bin_of_code[codes]


def calibration(predictions: pl.DataFrame, bins: int = TENTHS, column: str = "probability") -> pl.DataFrame:
    """Reliability by equal-count bins of `column`: `bin`, `rows`, `probability` (mean claimed), `up_share` (observed), both shares.

    Rows without a probability are left out; a bin that ties have emptied has no row.
    """
    known = predictions.select(pl.col(column).fill_nan(None).alias("probability"), "up").drop_nulls()
    place = equal_count_bins(dense_codes(known["probability"]), bins)
    rows = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        claimed, came = (_total(place, bins, known[name].to_numpy()) / rows for name in ("probability", "up"))
    table = {"bin": np.arange(bins, dtype=np.int32), "rows": rows, "probability": claimed, "up_share": came}
    return pl.DataFrame(table).filter(pl.col("rows") > 0)


def log_losses(probability: Floats, up: Bools) -> Floats:
    """Each row's log loss, in nats."""
    losses: Floats = -np.log(np.clip(np.where(up, probability, 1 - probability), 1e-15, 1.0))
    return losses


def call_sums(unit: Ints, units: int, up: Bools, called: Bools, majority: Bools) -> dict[str, Floats]:
    """Per unit (a session, or one of a sector): what the scores of calls need."""
    parts = {"rows": np.ones(len(unit)), "ups": up, "called": called, "true_calls": called & up, "right": called == up}
    parts["majority_right"] = majority == up
    return {name: _total(unit, units, values) for name, values in parts.items()}


def probability_sums(unit: Ints, units: int, up: Bools, probability: Floats, tenth: Ints, base_rate: Floats) -> dict[str, Floats]:
    """Per unit: what the scores of probabilities need; `tenth` is each row's bin of calibration."""
    own, base = log_losses(probability, up), log_losses(base_rate, up)
    return {
        "rows": _total(unit, units, np.ones(len(unit))),
        "log_loss": _total(unit, units, own),
        "log_loss_gain": _total(unit, units, base - own),
        "squared_error": _total(unit, units, (probability - up) ** 2),
        "overclaimed": _total(unit * TENTHS + tenth, units * TENTHS, probability - up).reshape(units, TENTHS),
    }


def rank_counts(unit: Ints, units: int, up: Bools, bins: Ints) -> dict[str, Floats]:
    """Per unit: ups and downs by bin of the score, for a resample's AUC."""
    place, width = unit * AUC_BINS + bins, units * AUC_BINS
    return {
        "ups_by_score": _total(place, width, up).reshape(units, AUC_BINS),
        "downs_by_score": _total(place, width, ~up).reshape(units, AUC_BINS),
    }


def classification_scores(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """The scores that given sums (over sessions; one entry per resample) allow; not a number where one cannot be computed."""
    scores: dict[str, Floats] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        if "log_loss" in sums:
            rows = sums["rows"]
            scores["log_loss"] = sums["log_loss"] / rows
            scores["log_loss_gain"] = sums["log_loss_gain"] / rows
            scores["brier"] = sums["squared_error"] / rows
            scores["ece"] = np.abs(sums["overclaimed"]).sum(axis=-1) / rows
        if "called" in sums:
            rows, ups, called, true = (sums[name] for name in ("rows", "ups", "called", "true_calls"))
            scores["accuracy"] = sums["right"] / rows
            scores["accuracy_gain"] = (sums["right"] - sums["majority_right"]) / rows
            scores["precision"], scores["recall"], scores["f1"] = true / called, true / ups, 2 * true / (called + ups)
    if "ups_by_score" in sums:
        scores["auc"] = auc_of_counts(sums["ups_by_score"], sums["downs_by_score"])
    return scores


def _total(place: Ints, places: int, values: npt.NDArray[np.generic]) -> Floats:
    return np.bincount(place, weights=values, minlength=places).astype(np.float64, copy=False)
