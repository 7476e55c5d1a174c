"""Small pictures of the drift of features, as PNG bytes: how far each has shifted, and the path that took the farthest there."""

from __future__ import annotations

import io
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"critical": "#c44e52", "warning": "#dd8452", "info": "#e5c26b", "none": "#8c9bab"}
BLUE, GREY = "#4c72b0", "#999999"
BARS, PANELS = 20, 6


def shifts_png(drift: pl.DataFrame, session: date) -> bytes:
    """Bars of the shift of the 20 most shifted features of one session, coloured by severity, their p values beside them.

    Takes the result of `drift`. Features of which nothing can be told are counted under the picture. Without any of which
    something can be told it says so.
    """
    from matplotlib.patches import Patch

    here = drift.filter(pl.col("session") == session)
    told = _most_shifted(here)
    untold = here.height - told.height
    if told.is_empty():
        return _sentence(f"Nothing can be told of the {untold} features in session {session}.")
    shown = told.head(BARS).reverse()
    figure, (axes,) = _figure(9, 0.3 * shown.height + 1.5)
    severities = shown["severity"].fill_null("none").to_list()
    axes.barh(shown["feature"].to_list(), shown["shift"].to_list(), color=[COLOURS[severity] for severity in severities])
    numbers = axes.twinx()
    numbers.set_ylim(axes.get_ylim())
    numbers.set_yticks(range(shown.height), [_label(row) for row in shown.iter_rows(named=True)], fontsize=7.5, color="#444444")
    numbers.tick_params(length=0)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(f"Most shifted features, window to {session}", loc="left", fontsize=10)
    below = f"; {untold} more cannot be told" if untold else ""
    axes.set_xlabel(f"shift of the mean, in standard deviations of the reference; n: effective sessions{below}", fontsize=8.5)
    patches = [Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in severities]
    figure.legend(handles=patches, fontsize=8, loc="outside lower center", ncols=len(patches), frameon=False)
    return _png(figure)


def paths_png(pooled: pl.DataFrame, drift: pl.DataFrame, session: date) -> bytes:
    """The pooled location of the six most shifted features through time, the reference's middle 95 % as a band, the window shaded.

    Takes the results of `pooled` and `drift`. Sessions after the one shown are left out, and so are those between the
    reference and the window where `pooled` has none. Without any feature of which something can be told it says so.
    """
    told = _most_shifted(drift.filter(pl.col("session") == session)).head(PANELS)
    if told.is_empty():
        return _sentence(f"Nothing can be told of any feature in session {session}.")
    figure, panels = _figure(9, 1.35 * told.height + 0.7, rows=told.height)
    for axes, row in zip(panels, told.iter_rows(named=True), strict=True):
        own = pooled.filter((pl.col("feature") == row["feature"]) & (pl.col("session") <= session)).sort("session")
        seen = own.filter(pl.col("location").is_not_null())
        reference = seen.filter(pl.col("session").is_between(row["reference_from"], row["reference_to"]))
        after = seen.filter(pl.col("session") > row["reference_to"])
        window = after.tail(row["window_sessions"])
        low, high = (reference["location"].quantile(q, "linear") for q in (0.025, 0.975))
        axes.axhspan(low, high, color=BLUE, alpha=0.12, linewidth=0)
        axes.axvspan(window["session"][0], window["session"][-1], color=COLOURS[row["severity"] or "none"], alpha=0.25, linewidth=0)
        for part in (reference, after):
            axes.plot(part["session"].to_list(), part["location"].to_list(), color=BLUE, linewidth=0.8)
        middle = reference["location"].mean()
        for part, level in ((reference, middle), (window, middle + row["shift"])):
            axes.plot([part["session"][0], part["session"][-1]], [level, level], color="black", linewidth=1.1)
        axes.axvline(row["reference_to"], color=GREY, linewidth=0.8, linestyle=":")
        axes.set_title(
            f"{row['feature']}: shift {row['shift']:+.2f}, p {_p(row['p_value'])}, {row['effective_sessions']:.3g} effective sessions",
            loc="left", fontsize=8.5, pad=3,
        )  # fmt: skip
        axes.tick_params(labelsize=8)
        axes.margins(x=0.01)
    figure.supylabel("mean normal score", fontsize=9)
    figure.supxlabel(
        "band: the reference's middle 95 %; shaded: the window; black: the reference's mean, and the same with the shift",
        fontsize=8.5,
        color="#444444",
    )
    return _png(figure)


def _most_shifted(drift: pl.DataFrame) -> pl.DataFrame:
    """Those of which something can be told, by severity and then by the size of the shift."""
    rank = pl.col("severity").replace_strict(["critical", "warning", "info"], [0, 1, 2], default=3)
    return drift.filter(pl.col("p_value").is_not_null()).sort(rank, -pl.col("shift").abs(), "feature")


def _label(row: dict[str, Any]) -> str:
    spread = f", spread ×{row['spread_ratio']:.2f} (p {_p(row['spread_p_value'])})" if row["verdict"] == "spread changed" else ""
    return f"p {_p(row['p_value'])}, adjusted {_p(row['p_adjusted'])}, n {row['effective_sessions']:.3g}{spread}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _sentence(text: str) -> bytes:
    figure, (axes,) = _figure(8, 1.2)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    axes.set_axis_off()
    return _png(figure)


def _figure(width: float, height: float, rows: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True, squeeze=False)[:, 0]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
