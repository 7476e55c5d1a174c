"""`quant-assets model`: the versions there are, what speaks for them, and people's decisions about them; cli.py adds `train`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import polars as pl

    from quant_assets.settings import Settings
    from quant_assets.signals.registry.actions import Outcome
    from quant_assets.signals.registry.desk import ModelDesk

PLAIN_WIDTH, NARROW = 180, 140
REASON = click.option("--reason", required=True, help="Why; kept in the ledger.")
BY = click.option("--by", help="Who decides; without it, the user of this machine.")
AS_OF = click.option("--as-of", "as_of", metavar="DATE", help="Decide as of the evening of this date, or this instant (UTC).")


@click.group()
def model() -> None:
    """The signal models: list and compare them, train one, decide which one scores."""


@model.command("list")
@click.option("--all", "everything", is_flag=True, help="Deleted versions too.")
def list_command(everything: bool) -> None:
    """Show the versions, the newest first; a star marks the one that scores what the settings ask for."""
    from quant_assets.cli import exit_codes
    from quant_assets.settings import load_settings
    from quant_assets.signals.registry.desk import list_versions

    with exit_codes():
        desk = _desk(load_settings())
        versions = list_versions(desk)
    shown = [row for row in versions.iter_rows(named=True) if everything or row["decision"] != "deleted"]
    if not shown:
        click.echo("No model version is registered yet: `quant-assets model train` makes one.")
    else:
        _table(
            ("", "version", "trained until", "family", "view", "label", "decision", "rank IC", "log loss (base rate)", "local copy"),
            [
                (
                    "*" if row["in_use"] else "",
                    row["version"],
                    f"{row['trained_until']:%Y-%m-%d %H:%M}",
                    row["family"] or "?",
                    row["feature_view"],
                    f"{row['horizon']} session{'s' if row['horizon'] > 1 else ''}, > {row['label_threshold']:g}",
                    _decided(row),
                    _interval(row["rank_ic"], row["rank_ic_low"], row["rank_ic_high"]),
                    f"{_interval(row['log_loss'], row['log_loss_low'], row['log_loss_high'], 5)} ({_number(row['base_rate_log_loss'], 5)})",
                    row["local_copy"] or "?",
                )
                for row in shown
            ],
            wide_only=("view", "local copy"),
        )
    for row in shown:
        if row["aliases"] is not None and row["in_use"] != ("champion" in row["aliases"].split(", ")):
            click.echo(f"MLflow's alias champion does not follow the ledger at version {row['version']}; the next action moves it.")
    _say_what_is_missing(desk)


@model.command()
@click.argument("version")
def show(version: str) -> None:
    """Show a version's model card and the decisions about it."""
    from quant_assets.cli import exit_codes
    from quant_assets.settings import load_settings
    from quant_assets.signals.registry.desk import show_version

    with exit_codes():
        desk = _desk(load_settings())
        card, decisions = show_version(desk, version)
    click.echo(card if card is not None else f"There is no model card of version {version} at hand.")
    _decisions(decisions)
    _say_what_is_missing(desk)


@model.command()
@click.argument("a")
@click.argument("b")
@click.option("--metric", "metrics", multiple=True, help="Only this metric; may be given again.")
def compare(a: str, b: str, metrics: tuple[str, ...]) -> None:
    """Hold version A against version B: as each was judged, and paired on the sessions that both predicted."""
    from quant_assets.cli import exit_codes
    from quant_assets.settings import load_settings
    from quant_assets.signals.registry.comparison import compare_versions

    with exit_codes():
        desk = _desk(load_settings())
        found = compare_versions(desk, a, b, metrics)
    if found.judged.height:
        click.echo("As each was judged, on its own out-of-sample sessions:")
        _table(("metric", f"version {a}", f"version {b}"), [(row["metric"], *_sides(row)) for row in found.judged.iter_rows(named=True)])
    if found.paired.height:
        click.echo(f"On the {found.sessions:,} sessions ({found.rows:,} rows) that both predicted out of sample, with 95 % intervals:")
        _table(
            ("metric", f"version {a}", f"version {b}", "difference"),
            [
                (row["metric"], *_sides(row), _interval(row["difference"], row["difference_low"], row["difference_high"], 6))
                for row in found.paired.iter_rows(named=True)
            ],
        )
    for note in found.notes:
        click.echo(note)
    _say_what_is_missing(desk)


@model.command()
@click.argument("version")
@REASON
@BY
@AS_OF
def promote(version: str, reason: str, by: str | None, as_of: str | None) -> None:
    """Make VERSION champion, whatever its evidence says."""
    from quant_assets.signals.registry import actions

    _decide(as_of, lambda desk, instant: actions.promote(desk, version, reason, by or actions.this_person(), instant))


@model.command()
@REASON
@BY
@click.option("--from", "expected", metavar="VERSION", help="Refuse unless this is the champion, so that a repeat does not go back twice.")
@AS_OF
def rollback(reason: str, by: str | None, expected: str | None, as_of: str | None) -> None:
    """Go back to the champion before the present one; again, and it goes further back."""
    from quant_assets.signals.registry import actions

    _decide(as_of, lambda desk, instant: actions.rollback(desk, reason, by or actions.this_person(), instant, expected))


@model.command()
@click.argument("version")
@REASON
@BY
@AS_OF
def delete(version: str, reason: str, by: str | None, as_of: str | None) -> None:
    """Remove VERSION from the registry, with its local copy; its predictions and decisions stay."""
    from quant_assets.signals.registry import actions

    _decide(as_of, lambda desk, instant: actions.delete(desk, version, reason, by or actions.this_person(), instant))


def _decide(as_of: str | None, action: Callable[[ModelDesk, datetime], Outcome]) -> None:
    """Take a decision on the desk's clock, bring the readers' copy up to date, and say what was done."""
    from quant_assets.cli import exit_codes
    from quant_assets.clock import calendar_of, utc_now
    from quant_assets.data_quality.reviews import desk_clock
    from quant_assets.market_data.sources import make_source
    from quant_assets.settings import load_settings

    with exit_codes():
        settings = load_settings()
        desk, calendar = _desk(settings), calendar_of(settings)
        instant = desk_clock(desk.warehouse, calendar, make_source(settings, calendar, utc_now()).live, as_of)
        outcome = action(desk, instant)
        desk.warehouse.refresh_read_copy()
    for line in outcome.done:
        click.echo(line)
    for warning in outcome.warnings:
        click.echo(f"Warning: {warning}", err=True)


def _desk(settings: Settings) -> ModelDesk:
    from quant_assets.data_quality.quarantine_commands import opened
    from quant_assets.signals.registry.desk import ModelDesk

    return ModelDesk.open(opened(settings)[0], settings)


def _say_what_is_missing(desk: ModelDesk) -> None:
    if desk.registry is None:
        click.echo(f"Shown is what the ledger and the local copies know, without the registry. {desk.registry_fault}", err=True)


def _decisions(decisions: pl.DataFrame) -> None:
    rows = decisions.iter_rows(named=True)
    _table(
        ("from", "decision", "by", "instead of", "reason"),
        [
            (f"{row['promoted_at']:%Y-%m-%d %H:%M}", row["decision"], row["decided_by"], row["incumbent_version"] or "", row["reason"])
            for row in rows
        ],
    )


def _decided(row: dict[str, Any]) -> str:
    return "none" if row["decision"] is None else f"{row['decision']} {row['decided_at']:%Y-%m-%d}, {row['decided_by']}"


def _sides(row: dict[str, Any]) -> tuple[str, str]:
    return _interval(row["a"], row["a_low"], row["a_high"], 5), _interval(row["b"], row["b_low"], row["b_high"], 5)


def _interval(value: float | None, low: float | None, high: float | None, digits: int = 4) -> str:
    """A number with its interval, as far as they are known."""
    ends = "" if low is None or high is None else f" [{_number(low, digits)}, {_number(high, digits)}]"
    return f"{_number(value, digits)}{ends}"


def _number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}".removesuffix(f".{'0' * digits}")


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]], wide_only: tuple[str, ...] = ()) -> None:
    """Print a table; a narrow terminal goes without some columns."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from quant_assets.report import wide_console

    console = wide_console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    kept = [console.width >= NARROW or heading not in wide_only for heading in headings]
    table = Table(*(heading for heading, keep in zip(headings, kept, strict=True) if keep), box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(escape(cell) for cell, keep in zip(row, kept, strict=True) if keep))
    console.print(table)
