"""`quant-assets quarantine`: the bars that are held back, and people's decisions about them."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from quant_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import date, datetime

    import polars as pl

    from quant_assets.clock import TradingCalendar
    from quant_assets.settings import Settings
    from quant_assets.warehouse import Warehouse

PLAIN_WIDTH, NARROW = 180, 140
DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def quarantine() -> None:
    """The bars that are held back: list them, release them, confirm that they are wrong."""


@quarantine.command("list")
@click.option("--symbol", help="Only this symbol.")
@click.option("--rule", help="Only findings of this rule.")
@click.option("--from", "first", type=DAY, metavar="DATE", help="Only sessions from this one on.")
@click.option("--to", "last", type=DAY, metavar="DATE", help="Only sessions up to this one.")
@click.option("--severity", type=click.Choice(["critical", "warning", "info"]), default="critical", show_default=True)
@click.option("--undecided", is_flag=True, help="Only findings that nobody has decided about.")
@click.option("--all", "everything", is_flag=True, help="Released findings too.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many findings.")
def list_findings(
    symbol: str | None,
    rule: str | None,
    first: datetime | None,
    last: datetime | None,
    severity: str,
    undecided: bool,
    everything: bool,
    limit: int,
) -> None:
    """Show the findings that hold bars back, the newest session first, with what was decided about each.

    Only findings on the newest version of a bar hold it back. Those of a lower severity hold nothing.
    """
    from quant_assets.cli import exit_codes
    from quant_assets.data_quality.reviews import findings_under_review
    from quant_assets.settings import load_settings

    with exit_codes():
        warehouse, _ = opened(load_settings())
        found = findings_under_review(
            warehouse,
            severity=severity,
            released=everything,
            undecided=undecided,
            symbol=symbol,
            rule=rule,
            first=_day(first),
            last=_day(last),
        )
        _show(found.head(limit), found.height - limit, severity)


def _decisive(name: str, help_text: str) -> Callable[..., None]:
    """The command that makes one kind of decision; both take the same words."""

    @quarantine.command(name, help=help_text)
    @click.argument("symbol")
    @click.argument("session")
    @click.option("--rule", help="Only this rule's finding; without it, every critical finding on the bar.")
    @click.option("--reason", required=True, help="Why; kept with the decision.")
    @click.option("--by", help="Who decides; without it, the user of this machine.")
    @click.option("--overrule", is_flag=True, help="Decide although somebody has decided before; both stay on record.")
    @click.option("--version", metavar="INSTANT", help="Refuse unless this version of the bar, as `list` shows it, is still the newest.")
    @click.option("--as-of", "as_of", metavar="DATE", help="Decide as of the evening of this date, or this instant (UTC).")
    def decide(
        symbol: str, session: str, rule: str | None, reason: str, by: str | None, overrule: bool, version: str | None, as_of: str | None
    ) -> None:
        from quant_assets.cli import exit_codes
        from quant_assets.clock import utc_now
        from quant_assets.data_quality.reviews import EVERY_RULE, desk_clock, parse_decision, review
        from quant_assets.market_data.sources import make_source
        from quant_assets.settings import load_settings

        with exit_codes():
            settings = load_settings()
            decision = parse_decision(symbol, session, rule or EVERY_RULE, name, by or _user(), reason, version, overrule)
            warehouse, calendar = opened(settings)
            instant = desk_clock(warehouse, calendar, make_source(settings, calendar, utc_now()).live, as_of)
            (outcome,) = review(warehouse, calendar, [decision], instant)
            warehouse.refresh_read_copy()
        for line in outcome.in_words:
            click.echo(line)
        if outcome.asks_for_a_run:
            click.echo("Next: `quant-assets run` recomputes what rests on this bar.")

    return decide


release = _decisive("release", "Let a bar go on: what the rules say of it is a false alarm, or the bar is to be used all the same.")
confirm = _decisive("confirm", "Keep a bar held back: what the rules say of it is right.")


def opened(settings: Settings) -> tuple[Warehouse, TradingCalendar]:
    """The warehouse with its readers' copy, and the calendar; nothing is made where no run has been."""
    from quant_assets.clock import calendar_of
    from quant_assets.warehouse import Warehouse

    if not settings.warehouse_path.exists():
        raise ConfigurationError(f"There is no database at {settings.warehouse_path} yet: `quant-assets run` makes it. See QUANT_HOME.")
    copy = settings.read_copy_path if settings.read_copy else None
    return Warehouse(settings.warehouse_path, settings.source, copy, settings.lock_timeout_seconds), calendar_of(settings)


def _show(found: pl.DataFrame, more: int, severity: str) -> None:
    """Print findings as a table, and how many more there are; a narrow terminal gets fewer columns, and the rest below the detail."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from quant_assets.report import wide_console

    if found.is_empty():
        click.echo(f"No {severity} finding matches.")
        return
    console = wide_console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    narrow = console.width < NARROW
    table = Table(box=SIMPLE_HEAD)
    for heading in ("symbol", "session", *(() if narrow else ("version",)), "rule"):
        table.add_column(heading, no_wrap=True)
    for heading in ("score", "detail") if narrow else ("detector", "score", "detail", "suggestion", "decision"):
        table.add_column(heading, justify="right" if heading == "score" else "left", no_wrap=heading == "score")
    for row in found.iter_rows(named=True):
        decided = f"{row['decision']} by {row['decided_by']}: {row['reason']}" if row["decision"] else ""
        suggested, score = _suggested(row["suggestion"]), f"{row['score']:.6f}"
        if narrow:
            said = [row["detail"], suggested and f"suggested: {suggested}", decided]
            cells = [row["symbol"], str(row["session"]), f"{row['rule']}\n{row['detector']}", score, "\n".join(filter(None, said))]
        else:
            bar = [row["symbol"], str(row["session"]), row["bar_known_at"].isoformat()]
            cells = [*bar, row["rule"], row["detector"], score, row["detail"], suggested, decided]
        table.add_row(*map(escape, cells))
    console.print(table)
    if more > 0:
        click.echo(f"{more:,} more; see them with --limit, or narrow the list with --symbol, --rule, --from and --to.")


def _suggested(suggestion: str | None) -> str:
    """The proposed value in short: `close 12.5`; the column alone where its value cannot be told."""
    if suggestion is None:
        return ""
    column, value = (json.loads(suggestion)[name] for name in ("column", "value"))
    if value is None:
        return str(column)
    return f"{column} {f'{value:.6g}' if isinstance(value, int | float) else value}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise ConfigurationError("This machine does not tell who you are: give your name with --by.") from None


def _day(day: datetime | None) -> date | None:
    return None if day is None else day.date()
