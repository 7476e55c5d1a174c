"""Small pictures of a model, as PNG bytes: for MLflow's artifacts and for Dagster's pages."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY = "#4c72b0", "#999999"


def importance_png(importance: pl.DataFrame) -> bytes:
    """Bars of total gain per feature (`feature`, `gain`), the most important on top."""
    shown = importance.reverse()
    figure, axes = _figure(7, 0.4 * len(shown) + 1.2)
    axes.barh(shown["feature"].to_list(), shown["gain"].to_list(), color=BLUE)
    axes.set(title="Feature importance", xlabel="gain (total loss saved by splits on the feature)")
    return _png(figure)


def calibration_png(calibration: pl.DataFrame) -> bytes:
    """What was claimed against what came (`probability`, `up_share` per bin), beside the line of perfect calibration."""
    claimed, observed = calibration["probability"].to_list(), calibration["up_share"].to_list()
    ends = [min(claimed), max(claimed)] if claimed else []
    figure, axes = _figure(5, 4.5)
    axes.plot(ends, ends, color=GREY, linewidth=1, label="perfect")
    axes.plot(claimed, observed, marker="o", color=BLUE, label="walk-forward, by tenth")
    axes.set(title="Calibration, out of sample", xlabel="probability claimed", ylabel="share that was up")
    axes.legend()
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
