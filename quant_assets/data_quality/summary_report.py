"""What the sentinel found, for a person at a terminal: the figures a desk steers by, findings by rule, the worst of them."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quant_assets.data_quality.summary import WINDOW, Steering, Summary
from quant_assets.report import wide_console
from quant_assets.warehouse import Warehouse


def show(warehouse: Warehouse, source: str, as_of: datetime, console: Console | None = None) -> None:
    """Print the summary of a source's findings as of an instant."""
    console = console or wide_console()
    with warehouse.connect() as connection:
        summary = Summary(connection, source, as_of)
        steering, by_rule, worst = summary.steering(), summary.by_rule(), summary.worst()
    console.print(f"Findings about {source} bars, as of {as_of:%Y-%m-%d %H:%M} UTC", markup=False)
    for line in _figures(steering):
        console.print(line, markup=False, soft_wrap=True)
    if by_rule.is_empty():
        console.print(f"Nothing was found in the last {WINDOW} sessions.")
        return
    console.print(_rules(by_rule))
    if worst.height:
        console.print(_worst(worst))
        console.print(
            "Next: `quant-assets quarantine list`, then release or confirm; `quant-assets quality impact` shows what a bar reached."
        )


def _figures(told: Steering) -> list[str]:
    lines = [f"Open: {told.open_critical:,} critical, {told.open_warning:,} warnings."]
    if told.anomalies_per_delivery is not None:
        lines.append(
            f"Warnings and worse per delivery: {told.anomalies_per_delivery:,.1f} over the last {told.deliveries} "
            f"({told.anomalies_per_1000_bars:.2f} per 1,000 bars)."
        )
    if told.false_alarm_share is None:
        lines.append("Nothing has been decided yet.")
    else:
        lines.append(
            f"Decided: {told.decided:,}, of them false alarms {told.false_alarm_share:.0%} "
            f"({told.false_alarm_low:.0%} to {told.false_alarm_high:.0%}); days to a decision: "
            f"median {told.days_to_resolution_median:.1f}, nine in ten within {told.days_to_resolution_p90:.1f}."
        )
    return lines


def _rules(by_rule: pl.DataFrame) -> Table:
    table = Table(box=SIMPLE_HEAD, title=f"By rule, over the last {WINDOW} sessions", title_justify="left")
    columns = ("critical", "warning", "info", "open", "decided", "released")
    for heading in ("rule", *columns):
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for row in by_rule.iter_rows(named=True):
        table.add_row(row["rule"], *(f"{row[name]:,}" for name in columns))
    return table


def _worst(worst: pl.DataFrame) -> Table:
    table = Table(box=SIMPLE_HEAD, title="The worst that nobody has decided about", title_justify="left")
    for heading in ("symbol", "session", "rule", "detector", "severity", "finding"):
        table.add_column(heading, overflow="fold")
    for row in worst.iter_rows(named=True):
        table.add_row(escape(row["symbol"]), str(row["session"]), row["rule"], row["detector"], row["severity"], escape(row["detail"]))
    return table
