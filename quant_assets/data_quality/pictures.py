"""Small pictures of findings, as PNG bytes: counts over time, and the price around one suspicious bar."""

from __future__ import annotations

import base64
import io
import json
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY, GREEN = "#4c72b0", "#999999", "#2e8b57"
SEVERITIES = {"critical": "#c44e52", "warning": "#dd8452", "info": "#8c9bab"}
LEAST_SHADE = {"critical": 0.6, "warning": 0.4, "info": 0.2}
STRETCHES = 50
"""Columns of the picture by rule: sessions are put together until there are no more than these."""
RULES = 20


def counts_png(counts: pl.DataFrame) -> bytes:
    """Findings per session by severity, above findings by rule through the same time (`session`, `rule`, `severity`, `findings`).

    Each severity has a scale of its own, since they differ by design a hundredfold. The rules are at most 20, those
    with most findings of warning or worse first, coloured by the worst severity of a stretch and shaded by the logarithm of the
    number. Without any finding it says so.
    """
    found = counts.filter(pl.col("findings") > 0)
    sessions = counts["session"].unique().sort()
    if found.is_empty():
        figure, axes = _figure(8, 1.2)
        axes.text(0.5, 0.5, f"Nothing was found in {len(sessions)} sessions.", ha="center", va="center", color=GREY)
        axes.set_axis_off()
        return _png(figure)
    places = pl.DataFrame({"session": sessions, "place": range(len(sessions))})
    totals = (
        found.group_by("rule")
        .agg(total=pl.col("findings").sum(), severe=(pl.col("severity") != "info").cast(pl.Int64).dot("findings"))
        .sort("severe", "total", "rule", descending=[True, True, False])
        .head(RULES)
    )
    shown = [name for name in SEVERITIES if (found["severity"] == name).any()]
    heights = [*(1.0 for _ in shown), 0.5 + 0.3 * len(totals)]
    figure, panels = _figure(9, 0.9 + sum(heights), rows=len(heights), height_ratios=heights, sharex=True)
    panels[0].set_title(f"Findings per session, {sessions[0]} to {sessions[-1]}", loc="left", fontsize=10)
    for panel, name in zip(panels, shown, strict=False):
        per_session = places.join(
            found.filter(pl.col("severity") == name).group_by("session").agg(pl.col("findings").sum()), on="session", how="left"
        )
        heights_of = per_session["findings"].fill_null(0).to_list()
        middles = (per_session["place"] + 0.5).to_list()
        panel.bar(middles, heights_of, width=1.0 if len(sessions) > STRETCHES else 0.94, color=SEVERITIES[name])
        panel.set_ylim(0, 1.15 * max(heights_of))
        panel.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        panel.set_ylabel(f"{name}\n{sum(heights_of):,}", rotation=0, ha="right", va="center", color=SEVERITIES[name], fontsize=9)
    _rules_through_time(panels[-1], found.join(places, on="session"), totals, len(sessions))
    _date_axis(panels[-1], sessions)
    return _png(figure)


def bar_png(bars: pl.DataFrame, session: date, suggested: float | None = None) -> bytes:
    """Closes around one bar (`session`, `high`, `low`, `close`, sorted), it marked red, a suggested value as a green ring.

    Grey strokes reach from low to high. A session without a bar is a red line; prices that are null or not finite are left out.
    """
    figure, axes = _figure(2.4, 0.62, dpi=100)
    sound = bars.with_row_index("place").with_columns(
        pl.when(pl.col(name).is_finite()).then(name).alias(name) for name in ("high", "low", "close")
    )
    before = sound.filter(pl.col("session") < session).height
    marked = sound.filter(pl.col("session") == session)
    place = before if marked.height else before - 0.5
    closes = sound.filter(pl.col("close").is_not_null())
    ranges = sound.filter(pl.col("high").is_not_null() & pl.col("low").is_not_null())
    axes.vlines(ranges["place"].to_list(), ranges["low"].to_list(), ranges["high"].to_list(), color="#c8ccd2", linewidth=1.6)
    axes.plot(closes["place"].to_list(), closes["close"].to_list(), color=BLUE, linewidth=1.1)
    value = marked["close"].item() if marked.height else None
    if value is None:
        axes.axvline(place, color=SEVERITIES["critical"], linewidth=2)
    else:
        own = ranges.filter(pl.col("session") == session)
        axes.vlines(own["place"].to_list(), own["low"].to_list(), own["high"].to_list(), color=SEVERITIES["critical"], linewidth=1.6)
        axes.plot([place], [value], marker="o", markersize=4.5, color=SEVERITIES["critical"], zorder=3)
    if suggested is not None:
        axes.plot(
            [place], [suggested], marker="o", markersize=6, markerfacecolor="none", markeredgecolor=GREEN, markeredgewidth=1.3, zorder=4
        )
    axes.margins(x=0.03, y=0.14)
    axes.set_axis_off()
    return _png(figure)


def worst_table(worst: pl.DataFrame, around: pl.DataFrame) -> pl.DataFrame:
    """Findings as a table for people: one row each, with the price around its bar as an embedded picture in Markdown.

    `worst` and `around` are those of `data_quality.summary`. Columns `symbol`, `session`, `rule`, `severity`, `score`, `finding`,
    `suggestion`, `price` (closes of 15 sessions on either side).
    """
    rows = []
    for row in worst.iter_rows(named=True):
        bars = around.filter((pl.col("symbol") == row["symbol"]) & (pl.col("marked") == row["session"]))
        suggestion = json.loads(row["suggestion"]) if row["suggestion"] else {}
        png = bar_png(bars, row["session"], suggested_price(suggestion))
        rows.append(
            {
                "symbol": row["symbol"],
                "session": row["session"],
                "rule": row["rule"],
                "severity": row["severity"],
                "score": f"{row['score']:.5f}",
                "finding": " ".join(row["detail"].split()),
                "suggestion": _in_words(suggestion),
                "price": f"![bars around](data:image/png;base64,{base64.b64encode(png).decode()})",
            }
        )
    columns = ("symbol", "session", "rule", "severity", "score", "finding", "suggestion", "price")
    return pl.DataFrame(rows, schema={name: pl.Date if name == "session" else pl.String for name in columns})


def suggested_price(suggestion: dict[str, Any]) -> float | None:
    """The price that a suggestion proposes; None where it proposes something else, such as a volume or a split."""
    value = suggestion.get("value")
    is_price = suggestion.get("column") in {"open", "high", "low", "close"} and isinstance(value, int | float)
    return float(value) if is_price and value is not None else None


def _in_words(suggestion: dict[str, Any]) -> str:
    value = suggestion.get("value")
    return f"{suggestion['column']} {value:.6g}" if isinstance(value, int | float) else ""


def _rules_through_time(axes: Any, found: pl.DataFrame, totals: pl.DataFrame, length: int) -> None:
    import numpy as np
    from matplotlib.colors import to_rgb

    step = -(-length // STRETCHES)
    rules = totals["rule"].to_list()
    cells = (
        found.filter(pl.col("rule").is_in(rules))
        .with_columns(pl.col("severity").cast(pl.Enum(list(SEVERITIES))))
        .group_by(pl.col("rule").replace_strict(rules, list(range(len(rules))), return_dtype=pl.Int64), stretch=pl.col("place") // step)
        .agg(pl.col("findings").sum(), pl.col("severity").min())
    )
    shade = np.log1p(cells["findings"].to_numpy())
    least = cells["severity"].cast(pl.String).replace_strict(LEAST_SHADE).to_numpy()
    colours = np.zeros((len(rules), -(-length // step), 4))
    colours[cells["rule"].to_numpy(), cells["stretch"].to_numpy()] = np.column_stack(
        [[to_rgb(SEVERITIES[name]) for name in cells["severity"]], least + (1 - least) * shade / shade.max()]
    )
    edges = np.minimum(np.arange(colours.shape[1] + 1) * step, length)
    axes.pcolormesh(edges, np.arange(len(rules) + 1), colours, edgecolors="white", linewidth=0.6)
    axes.set_yticks([row + 0.5 for row in range(len(rules))], rules)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(rules), 0), xlim=(0, length))
    for row, total in enumerate(totals["total"]):
        axes.text(1.01, row + 0.5, f"{total:,}", transform=axes.get_yaxis_transform(), va="center", fontsize=8, color="#555555")
    unit = "session" if step == 1 else f"{step} sessions"
    words = f"By rule, per {unit}: coloured by the worst, darker the more (at most {cells.select(pl.col('findings').max()).item():,}); sums at the right"
    axes.set_title(words, loc="left", fontsize=9)


def _date_axis(axes: Any, sessions: pl.Series) -> None:
    """At most eight dates under an axis that counts sessions."""
    step = max(1, -(-len(sessions) // 8))
    ticks = range(0, len(sessions), step)
    axes.set_xticks([place + 0.5 for place in ticks], [str(sessions[place]) for place in ticks], fontsize=8)


def _figure(
    width: float, height: float, rows: int = 1, dpi: int = 110, sharex: bool = False, height_ratios: list[float] | None = None
) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    panels = figure.subplots(rows, 1, sharex=sharex, height_ratios=height_ratios)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure, panels


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
