"""Small pictures of a model, as PNG bytes: for MLflow's artifacts and for Dagster's pages."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from quant_assets.signals.evaluation.bootstrap import MIN_SESSIONS, Floats, block_length, paired_difference
from quant_assets.signals.explaining.explanation import features_of, values_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, DARK = "#4c72b0", "#dd8452", "#999999", "#444444"
BARS, SWARMS, PANELS, BINS = 25, 15, 6, 20
ENDS, RESAMPLES = 60, 500
POINTS = 2_000
"""How many rows are drawn as points; means and ranks are taken over all."""


def importance_png(importance: pl.DataFrame) -> bytes:
    """Bars of gain per feature (`feature`, `gain`), the 25 most important of them, the most important on top.

    Those left out are counted under the picture with their share of the gain.
    """
    ordered = importance.sort(["gain", "feature"], descending=[True, False])
    shown, rest = ordered.head(BARS), ordered.tail(max(0, len(ordered) - BARS))
    figure, axes = _figure(8, 0.27 * len(shown) + 1.3)
    axes.barh(shown["feature"].to_list(), shown["gain"].to_list(), color=BLUE)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_title("Feature importance of the final model", loc="left", fontsize=10)
    left_out = ""
    if len(rest):
        share = float(rest["gain"].sum()) / (float(ordered["gain"].sum()) or 1.0)
        left_out = f"; {len(rest)} more hold {share:.0%}, {rest.filter(pl.col('gain') == 0).height} of them none"
    axes.set_xlabel(f"gain in training, in the model family's unit{left_out}", fontsize=8.5)
    axes.tick_params(labelsize=8)
    return _png(figure)


def calibration_png(calibration: pl.DataFrame) -> bytes:
    """What was claimed against what came, before and after calibration, beside the line of perfect calibration.

    Takes `Evaluation.calibration` (`stage` raw or calibrated, `bin`, `rows`, `probability`, `up_share`). Below stand the rows
    of each bin. The legend gives the mean distance between claim and share, weighted by rows.
    """
    if calibration.is_empty():
        return _sentence("There are no out-of-sample predictions to calibrate.")
    figure, (axes, counts) = _figure(6.5, 5.5, 2, sharex=True, height_ratios=[4, 1])
    ends = np.array(_bounds(calibration["probability"].to_numpy(), 0.0))
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="perfect")
    width = 0.006 * max(float(np.ptp(ends)), 1e-6)
    for stage, colour, marker, side in (("raw", ORANGE, "s", -width), ("calibrated", BLUE, "o", width)):
        part = calibration.filter(pl.col("stage") == stage).sort("probability")
        if part.is_empty():
            continue
        claimed, observed, rows = (part[name].to_numpy() for name in ("probability", "up_share", "rows"))
        error = float(np.average(np.abs(claimed - observed), weights=rows))
        words = {"raw": "before", "calibrated": "after calibration"}[stage]
        axes.plot(claimed, observed, marker=marker, markersize=4.5, color=colour, label=f"{words}: off by {100 * error:.2f} points")
        counts.bar(claimed + side, rows, width=2 * width, color=colour, alpha=0.8)
    axes.set_title("Calibration out of sample, by tenth of the rows", loc="left", fontsize=10)
    axes.set_ylabel("share whose label came true", fontsize=8.5)
    axes.legend(fontsize=8.5, frameon=False)
    counts.set_ylabel("rows", fontsize=8.5)
    counts.yaxis.set_major_formatter("{x:,.0f}")
    counts.set_ylim(0)
    counts.set_xlabel("probability claimed (mean of the bin)", fontsize=8.5)
    for each in (axes, counts):
        each.tick_params(labelsize=8)
    return _png(figure)


def shap_summary_png(contributions: pl.DataFrame, frame: pl.DataFrame) -> bytes:
    """Swarms of the contributions of the 15 features with the largest mean, coloured by the rank of the feature's value.

    Takes the result of `shap_values` and the frame it was made of. Of many rows an evenly spaced 2,000 are drawn; the means
    beside the names are over all. An unknown value is grey.
    """
    sizes = _sizes(contributions)
    shown = sizes.head(SWARMS)
    if shown.is_empty():
        return _sentence("There are no contributions to show.")
    names = shown["feature"].to_list()
    ranks = values_beside(contributions.select("symbol", "session", *names), frame).select(
        (pl.col(names).rank() - 1) / (pl.col(names).count() - 1).clip(1)
    )
    drawn = _evenly(len(contributions))
    figure, axes = _figure(9, 0.38 * len(names) + 1.5)
    ends = [_bounds(contributions[name].to_numpy()) for name in names]
    low, high = min(each[0] for each in ends), max(each[1] for each in ends)
    for place, name in enumerate(names):
        amounts, rank = contributions[name].to_numpy()[drawn].clip(low, high), ranks[name].fill_null(math.nan).to_numpy()[drawn]
        unknown = np.isnan(rank)
        heights = place + _swarm(amounts, (low, high))
        axes.scatter(amounts[unknown], heights[unknown], color=GREY, s=4, linewidths=0)
        points = axes.scatter(amounts[~unknown], heights[~unknown], c=rank[~unknown], cmap="coolwarm", vmin=0, vmax=1, s=4, linewidths=0)
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(names)), [f"{name}  {mean:.4f}" for name, mean in zip(names, shown["size"], strict=True)])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(labelsize=8)
    axes.set_title("What features add to the log-odds", loc="left", fontsize=10)
    rest = float(sizes["size"].tail(len(sizes) - len(shown)).sum())
    more = f"; the other {len(sizes) - len(shown)} together {rest:.4f}" if len(sizes) > len(shown) else ""
    axes.set_xlabel(
        f"contribution in log-odds; beside each name the mean size{more}\n"
        f"{len(drawn):,} of {len(contributions):,} rows drawn; what lies beyond the picture stands at its edge",
        fontsize=8.5,
    )
    bar = figure.colorbar(points, ax=axes, ticks=[0, 0.5, 1], aspect=30, pad=0.01)
    bar.set_ticklabels(["lowest", "median", "highest"], fontsize=8)
    bar.set_label("rank of the feature's value (grey: unknown)", fontsize=8.5)
    bar.outline.set_visible(False)
    return _png(figure)


def dependence_png(contributions: pl.DataFrame, frame: pl.DataFrame, units: Mapping[str, str] | None = None) -> bytes:
    """Value against contribution of the six features with the largest mean, with the mean of each twentieth of the rows.

    Takes the result of `shap_values`, the frame it was made of and the features' units (the contract's). The outermost 0.5 %
    of values at each end are left out of the picture, and unknown values, whose share and mean the title tells.
    """
    shown = _sizes(contributions).filter(pl.col("size") > 0).head(PANELS)
    names = shown["feature"].to_list()
    if not names:
        return _sentence("There are no contributions to show.")
    values, drawn = values_beside(contributions.select("symbol", "session", *names), frame), _evenly(len(contributions))
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, panels = _figure(3.3 * columns, 2.7 * rows + 0.5, rows, columns, squeeze=False)
    figure.suptitle("Value of a feature against what it adds to the log-odds", x=0.01, ha="left", fontsize=10)
    figure.supylabel("contribution, log-odds", fontsize=8.5)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name, size in zip(panels.flat, names, shown["size"], strict=False):
        both = pl.DataFrame({"value": values[name], "amount": contributions[name]})
        known = both.drop_nulls("value")
        told = f"{name}, mean size {size:.4f}"
        if len(known) < len(both):
            unknown = float(both["amount"].filter(both["value"].is_null()).to_numpy().mean())
            told += f"\n{1 - len(known) / len(both):.1%} unknown, adding {unknown:+.4f} on average"
        axes.set_title(told, fontsize=8.5, loc="left")
        axes.set_xlabel((units or {}).get(name, "value"), fontsize=8)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.tick_params(labelsize=7.5)
        axes.locator_params(axis="x", nbins=5)
        if known.is_empty():
            continue
        points = both[drawn].drop_nulls("value")
        axes.scatter(points["value"], points["amount"], s=4, color=BLUE, alpha=0.35, linewidths=0)
        rank = (pl.col("value").rank("ordinal") - 1) * BINS // pl.len()
        means = known.group_by(rank.alias("bin")).agg(pl.all().mean()).sort("bin")
        axes.plot(means["value"], means["amount"], color=ORANGE, linewidth=1.8, marker="o", markersize=2.5)
        low, high = _bounds(known["value"].to_numpy(), 0.005)
        if low < high:
            axes.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    return _png(figure)


def rank_ic_png(sessions: pl.DataFrame, horizon: int, seed: int = 7) -> bytes:
    """The mean rank IC up to each session, of the model, the heuristic and the shuffled-label control.

    Takes `Evaluation.sessions` (`session`, `fold`, `rank_ic`, `heuristic_rank_ic`, `control_rank_ic`) and the label's horizon
    in sessions. The band is the 95 % block-bootstrap interval of the model's mean up to there, made as `evaluate` makes it, so that with
    one seed it ends on that interval. Dotted lines part the folds.
    """
    ordered = sessions.sort("session")
    seen = ordered.drop_nulls("rank_ic")
    if len(seen) < MIN_SESSIONS:
        return _sentence(f"Only {len(seen)} sessions have a rank IC; a running mean needs {MIN_SESSIONS}.")
    figure, axes = _figure(9, 4)
    values = seen["rank_ic"].to_numpy()
    ends = np.unique(np.linspace(MIN_SESSIONS, len(values), ENDS).astype(int))
    found = [paired_difference(values[:end], np.zeros(end), block_length(end, horizon), RESAMPLES, seed) for end in ends.tolist()]
    band = np.array([(each.low, each.high) for each in found])
    days = seen["session"].gather(ends - 1).to_list()
    axes.fill_between(days, band[:, 0], band[:, 1], color=BLUE, alpha=0.15, linewidth=0, label="95 % interval of the model's")
    for column, words, colour in (
        ("rank_ic", "model", BLUE),
        ("heuristic_rank_ic", "heuristic", ORANGE),
        ("control_rank_ic", "control", GREY),
    ):
        known = ordered.drop_nulls(column) if column in ordered.columns else ordered.clear()
        running = known.select("session", mean=pl.col(column).cum_sum() / pl.int_range(1, pl.len() + 1)) if len(known) else None
        if running is None or len(running) < MIN_SESSIONS:
            continue
        shown = running.tail(len(running) - MIN_SESSIONS + 1)
        axes.plot(
            shown["session"].to_list(), shown["mean"].to_list(), color=colour, linewidth=1.4, label=f"{words}: {shown['mean'][-1]:+.4f}"
        )
    for start in ordered.group_by("fold").agg(pl.col("session").min())["session"].sort().to_list()[1:]:
        axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(x=0.01)
    axes.tick_params(labelsize=8)
    axes.set_title(f"Rank IC out of sample, mean up to each session ({len(seen):,} sessions, horizon {horizon})", loc="left", fontsize=10)
    axes.set_ylabel("mean rank IC", fontsize=8.5)
    axes.set_xlabel(f"session; from the {MIN_SESSIONS}th on, dotted: where a fold begins", fontsize=8.5)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8.5, loc="outside lower center", ncols=4, frameon=False)
    return _png(figure)


def _sizes(contributions: pl.DataFrame) -> pl.DataFrame:
    """Mean size of each `feature`'s contributions, the largest first; nothing where there are no rows."""
    names = features_of(contributions) if len(contributions) else []
    sizes = contributions.select(pl.col(names).abs().mean()).row(0) if names else []
    table = pl.DataFrame({"feature": names, "size": sizes}, schema={"feature": pl.String, "size": pl.Float64})
    return table.sort(["size", "feature"], descending=[True, False])


def _swarm(amounts: Floats, bounds: tuple[float, float]) -> Floats:
    """How far each point moves off its line, so that where many have one contribution the swarm is wide."""
    low, high = bounds
    place = ((amounts - low) / max(high - low, 1e-12) * 99).astype(int)
    order = np.argsort(place, kind="stable")
    counts = np.bincount(place, minlength=100)
    nth = np.empty(len(place))
    nth[order] = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
    side = np.where(nth % 2 == 0, 1, -1) * np.ceil(nth / 2)
    # The crowd at zero would flatten every other swarm: widths grow with the root of the count.
    offsets: Floats = 0.38 * side / (np.sqrt(counts[place] * counts.max()) / 2).clip(4)
    return offsets


def _bounds(values: Floats, tail: float = 0.001) -> tuple[float, float]:
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _evenly(rows: int) -> Any:
    return np.unique(np.linspace(0, rows - 1, min(rows, POINTS)).astype(int))


def _sentence(text: str) -> bytes:
    figure, axes = _figure(8, 1.2)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=DARK)
    axes.set_axis_off()
    return _png(figure)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
