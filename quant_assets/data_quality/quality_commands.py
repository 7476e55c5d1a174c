"""`quant-assets quality`: what the sentinel found, what a bar reached, how good it is on the desk's bars, and one file judged alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import polars as pl

from quant_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from quant_assets.clock import TradingCalendar
    from quant_assets.data_quality.one_file import FileJudgement
    from quant_assets.settings import Settings
    from quant_assets.warehouse import Warehouse

DAY = click.DateTime(["%Y-%m-%d"])
REFUSED = 1
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FILES = click.Path(exists=True, path_type=Path)


@click.group()
def quality() -> None:
    """The quality of the bars: what was found, what a bar reached, how far the findings can be trusted."""


@quality.command()
@click.option("--as-of", "as_of", metavar="DATE", help="As it was known on the evening of this date, or at this instant (UTC).")
def report(as_of: str | None) -> None:
    """Show what was found: by rule and severity, the worst that nobody has decided about, and what the desk steers by."""
    from quant_assets.cli import exit_codes
    from quant_assets.data_quality.summary_report import show
    from quant_assets.settings import load_settings

    with exit_codes():
        settings = load_settings()
        warehouse, _, instant = _desk(settings, as_of)
        show(warehouse, settings.source, instant)


@quality.command()
@click.argument("symbol")
@click.argument("session", type=DAY)
@click.option("--as-of", "as_of", metavar="DATE", help="As it was known on the evening of this date, or at this instant (UTC).")
def impact(symbol: str, session: datetime, as_of: str | None) -> None:
    """Show what a bar touched: features, labels, trainings, models, signals and documents, and how far signals move without it.

    The same is kept in the table data_quality.blast_radius.
    """
    from quant_assets.cli import exit_codes
    from quant_assets.data_quality.blast_radius.edges import impact as reached
    from quant_assets.data_quality.blast_radius.edges import record
    from quant_assets.data_quality.blast_radius.report import show
    from quant_assets.settings import load_settings

    with exit_codes():
        settings = load_settings()
        warehouse, calendar, instant = _desk(settings, as_of)
        measured = reached(warehouse, settings, calendar, symbol, session.date(), instant)
        record(warehouse, measured)
        warehouse.refresh_read_copy()
        show(warehouse, measured, symbol, session.date(), instant)


@quality.command()
@click.option("--file", "path", type=FILES, help="Bars of this CSV or Parquet file, or a folder of such, instead of the clean bars.")
@click.option("--symbols", metavar="LIST", help="Only these symbols, by comma.")
@click.option("--from", "first", type=DAY, metavar="DATE", help="Only sessions from this one on.")
@click.option("--to", "last", type=DAY, metavar="DATE", help="Only sessions up to this one.")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    metavar="KIND=RATE",
    help="Faults of a kind per 10,000 bars (of deliveries per 1,000 sessions); may be given again for other kinds.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the faults.")
def calibrate(
    path: Path | None, symbols: str | None, first: datetime | None, last: datetime | None, rates: tuple[str, ...], seed: int
) -> None:
    """Put faults of every kind into the desk's own bars, and show what is found of them, when, and at what price in false alarms."""
    from quant_assets.cli import exit_codes
    from quant_assets.data_quality.calibration_report.report import report as calibrated
    from quant_assets.data_quality.calibration_report.report import show
    from quant_assets.report import wide_console
    from quant_assets.settings import load_settings

    with exit_codes():
        settings = load_settings()
        bars, actions, calendar = _panel(settings, path)
        found = calibrated(
            bars,
            actions,
            calendar,
            rates=_rates(rates),
            seed=seed,
            symbols=[part.strip() for part in symbols.split(",")] if symbols else None,
            first=first.date() if first else None,
            last=last.date() if last else None,
            severities=settings.anomaly_rates,
        )
        show(found, wide_console())


@quality.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--calendar", help="Exchange calendar; default: that of the symbol's suffix in the file's name, such as 1398.HK.")
@click.option("--symbol", help="The symbol; default: from the file's name.")
def inspect(files: tuple[Path, ...], calendar: str | None, symbol: str | None) -> None:
    """Judge files of daily bars of one symbol each (Yahoo's columns), under their own exchange's calendar; stores nothing.

    Exit code 1 when a file was refused.
    """
    from quant_assets.data_quality.one_file import judge_file

    judged = [judge_file(path, calendar, symbol) for path in files]
    for path, told in zip(files, judged, strict=True):
        _show(path, told)
    sys.exit(REFUSED if any(told.refused for told in judged) else 0)


def _desk(settings: Settings, as_of: str | None) -> tuple[Warehouse, TradingCalendar, datetime]:
    """The warehouse, the calendar, and the instant that a run would work as of now, or that is asked for."""
    from quant_assets.clock import utc_now
    from quant_assets.data_quality.quarantine_commands import opened
    from quant_assets.data_quality.reviews import desk_clock
    from quant_assets.market_data.sources import make_source

    warehouse, calendar = opened(settings)
    return warehouse, calendar, desk_clock(warehouse, calendar, make_source(settings, calendar, utc_now()).live, as_of)


def _panel(settings: Settings, path: Path | None) -> tuple[pl.DataFrame, pl.DataFrame, TradingCalendar]:
    """The bars to put faults into, with their actions: the clean ones, or a file's."""
    from quant_assets.clock import calendar_of
    from quant_assets.data_quality.calibration_report.report import as_panel
    from quant_assets.data_quality.judge import BAR_COLUMNS
    from quant_assets.data_quality.quarantine_commands import opened
    from quant_assets.market_data.files.source import FilesSource

    if path is not None:
        calendar = calendar_of(settings)
        source = FilesSource(str(path), calendar, settings.files_basis, settings.files_date_format, start=settings.first_session_floor)
        delivery = source.deliver(settings.first_session_floor, source.last_session())
        bars = as_panel(delivery.bars.with_columns(basis=pl.lit(settings.files_basis)), calendar)
        sessions = calendar.frame(source.start, source.last_session()).select("session", "known_at")
        return bars, delivery.actions.join(sessions, on="session"), calendar
    warehouse, calendar = opened(settings)
    bars = warehouse.read(f"select {', '.join(BAR_COLUMNS)} from data_quality.clean_bars")
    actions = warehouse.read(
        "select symbol, session, kind, value, known_at from market_data.latest_corporate_actions where source = $source",
        {"source": settings.source},
    )
    return bars, actions, calendar


def _rates(texts: tuple[str, ...]) -> dict[str, float] | None:
    """Faults per bar by kind, from KIND=RATE; None where none are given, for the report has its own."""
    rates = {}
    for text in texts:
        kind, _, rate = text.partition("=")
        try:
            rates[kind] = float(rate)
        except ValueError:
            raise ConfigurationError(f"--rate {text!r} is not KIND=RATE; write it as unit_100=2.") from None
    return rates or None


def _show(path: Path, told: FileJudgement) -> None:
    """What a file is judged to be, worst first."""
    click.echo(f"{path.name}: {told.symbol}, {told.calendar or 'no calendar'}")
    if told.refused:
        click.echo(f"  refused: {told.refused}")
        return
    worth_reading = told.findings.filter(pl.col("severity") != "info").sort("score", descending=True)
    for row in worth_reading.iter_rows(named=True):
        click.echo(f"  {row['severity']:<8} {row['session']}  {row['rule']} ({row['detector']}): {row['detail']}")
        if row["suggestion"]:
            click.echo(f"           suggested: {row['suggestion']}")
    if worth_reading.is_empty():
        click.echo("  nothing critical and no warning")
    for reason, bars in told.not_judged.select("reason", "bars").iter_rows():
        click.echo(f"  not judged: {bars} bars, {reason}")
