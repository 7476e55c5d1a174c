"""How good the sentinel is on the desk's own bars: faults put in, and what was found of them, when, at what price.

The bars are judged twice, as given and with faults of every kind in them. Both times everything goes through `judge`, so
that the report speaks of what a night does. A severity always means that one or worse; a sight means what a finding
looked at at most: the bar's own session, the next one, or ten later ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.calibration_report import counts as count
from quant_assets.data_quality.calibration_report.counts import LEVELS, SIGHTS
from quant_assets.data_quality.calibration_report.genuine_events import genuine_events
from quant_assets.data_quality.calibration_report.injection import CONTROLS, inject
from quant_assets.data_quality.findings import CRITICAL_RATE, WARNING_RATE
from quant_assets.data_quality.judge import judge
from quant_assets.errors import ConfigurationError

GIVEN = "Bars as given hold real errors: those found count as false here, so that false alarms are overstated and precision understated."
CONFIRMED = "False alarms are counted on confirmed bars alone. Precision still counts the real errors found among the others as false."
SHOWN = 30
"""Critical findings on genuine events that are printed; the report holds all."""
NAMES = ("kind", "event", "rule", "detector", "symbol", "session")
"""Columns that are printed whole."""
CAVEATS = (
    "Precision depends on the rates at which faults were put in; recall and false alarms on bars as given do not.",
    "With its own session alone a wrong bar that is possible in itself can hardly be told from news: recall there is far lower, by nature.",
)


@dataclass(frozen=True)
class Report:
    """Frames of numbers; all rates are shares unless the name says otherwise, null where nothing was there to count.

    `kinds`: per kind of fault and severity the faults, recall by sight (a fault is found with any of its bars), the median
    delay in sessions (first finding against the fault's first bar), the share of the faulty bars found with the next session
    known, and precision (of the bars found because of such a fault, the share that are faulty).
    `severities`: per severity and sight the false alarms per 1,000 bars as given, and what the bars found with faults in are.
    `curve`: per least score and sight the recall over all faults and false alarms per 10,000 bars as given.
    `events`: per kind of genuine event and sight the rate of critical bars per 10,000 with its 95 % Wilson interval.
    `alarming_events`: the critical findings on these, each event to be looked at: news, or after all an error.
    `rules`: per rule and detector the bars found, as given and with faults. `notes`: what to know when reading.
    """

    kinds: pl.DataFrame
    severities: pl.DataFrame
    curve: pl.DataFrame
    events: pl.DataFrame
    alarming_events: pl.DataFrame
    rules: pl.DataFrame
    notes: list[str]


def report(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    calendar: TradingCalendar,
    *,
    rates: Mapping[str, float] | None = None,
    seed: int = 0,
    symbols: Collection[str] | None = None,
    first: date | None = None,
    last: date | None = None,
    confirmed: pl.DataFrame | None = None,
    severities: tuple[float, float] = (CRITICAL_RATE, WARNING_RATE),
) -> Report:
    """Judge bars as given and with faults in them, and count; the same seed on the same bars gives the same report.

    Takes bars with `judge.BAR_COLUMNS` (of a plain file: `as_panel`), one row per symbol and session, and corporate actions;
    `rates` by kind as `inject` takes them. `confirmed` (`symbol`, `session`) are bars known to be right, by another source
    say: with them, false alarms are counted on these alone. `severities` are the shares of clean bars that may be critical, and
    at least a warning, by setting. Raises `ConfigurationError` where no bar is left, or for a rate of no known kind.
    """
    kept = _chosen(bars, symbols, first, last)
    right = kept if confirmed is None else kept.join(confirmed, on=["symbol", "session"], how="semi")
    if right.is_empty():
        raise ConfigurationError("None of the bars is among the confirmed ones.")
    actions = actions.filter(pl.col("symbol").is_in(kept["symbol"].unique().implode()))
    injection = inject(kept, actions, calendar, rates, seed)
    given = judge(kept, actions, calendar, rates=severities)
    injected = judge(injection.bars, injection.actions, calendar, rates=severities)
    instants = calendar.frame(calendar.sessions[0], calendar.sessions[-1])["known_at"]
    before, after = count.flags(given.findings, instants), count.flags(injected.findings, instants)
    faults = injection.truth.filter(~pl.col("kind").is_in(CONTROLS)).with_columns(place=count.sessions_known("known_at", instants))
    found = count.per_fault(faults, after)
    events = genuine_events(kept, calendar).join(right, on=["symbol", "session"], how="semi")
    alarms = before.join(right, on=["symbol", "session"], how="semi") if confirmed is not None else before
    return Report(
        kinds=count.kinds(found, faults, before, after),
        severities=count.severities(right.height, faults, before, after, alarms),
        curve=count.curve(right.height, found, alarms),
        events=count.events(events, injection.truth, alarms, after),
        alarming_events=_alarming(events, given.findings),
        rules=count.rules(faults, before, after),
        notes=[
            f"{injection.truth['fault'].n_unique():,} faults in {kept.height:,} bars of {kept['symbol'].n_unique():,} symbols, seed {seed}.",
            GIVEN if confirmed is None else CONFIRMED,
            *CAVEATS,
            *(f"No bars of {symbol}." for symbol in sorted(set(symbols or ()) - set(kept["symbol"]))),
            *(f"{kind}: {placed} of {wanted} put in: {why}." for kind, wanted, placed, why in injection.not_injected.iter_rows()),
            *(f"{row['bars']:,} bars: {row['reason']}." for row in given.not_judged.iter_rows(named=True)),
        ],
    )


def _alarming(events: pl.DataFrame, findings: pl.DataFrame) -> pl.DataFrame:
    by_bar = events.filter(pl.col("kind") != "ordinary").group_by("symbol", "session").agg(event=pl.col("kind").sort().str.join(", "))
    critical = findings.filter(pl.col("severity") == "critical").join(by_bar, on=["symbol", "session"])
    return critical.sort("event", "symbol", "session", "score").select("event", "symbol", "session", "rule", "detector", "detail")


def _chosen(bars: pl.DataFrame, symbols: Collection[str] | None, first: date | None, last: date | None) -> pl.DataFrame:
    kept = bars.filter(pl.col("session").is_between(first or date.min, last or date.max))
    kept = kept if symbols is None else kept.filter(pl.col("symbol").is_in(list(symbols)))
    if kept.is_empty():
        whose = ", ".join(symbols) if symbols is not None else "any symbol"
        raise ConfigurationError(f"No bars of {whose} from {first or 'the first'} to {last or 'the last'} session.")
    return kept


def as_panel(bars: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """Bars of a plain file (`symbol`, `session`, prices, `volume`) with what a panel of bars has beside them.

    Missing `known_at` is when the calendar says the session is known, missing `adj_close` null, missing `basis` restated.
    Raises `ConfigurationError` for other missing columns.
    """
    if missing := [name for name in ("symbol", "session", "open", "high", "low", "close", "volume") if name not in bars.columns]:
        raise ConfigurationError(f"Bars lack {', '.join(missing)}; they have {', '.join(bars.columns)}.")
    sessions = calendar.frame(calendar.sessions[0], calendar.sessions[-1]).select("session", "known_at", traded="session")
    known = bars.select("session").unique().sort("session").join_asof(sessions, on="session")
    # A bar of a closed day is known as much later than the session before it as its date is.
    known = known.select("session", known_at=pl.coalesce(pl.col("known_at") + (pl.col("session") - pl.col("traded")), "session"))
    added = [pl.lit(None, pl.Float64).alias("adj_close"), pl.lit("restated").alias("basis")]
    panel = bars.with_columns(column for column in added if column.meta.output_name() not in bars.columns)
    return panel if "known_at" in bars.columns else panel.join(known, on="session", how="left", maintain_order="left")


def show(found: Report, console: Console) -> None:
    """Print a report as tables and notes; recall and precision in percent, delay in sessions."""
    for severity in LEVELS:
        of = found.kinds.filter(pl.col("severity") == severity).drop("severity")
        shown = of.with_columns(
            _percent("precision"), _percent("bars_next"), _text("delay", 0), *(_percent(f"recall_{sight}") for sight in SIGHTS)
        )
        _print(console, f"Found as {severity} or worse, by the sessions looked at: its own, the next, ten later", shown)
    alarms = found.severities.with_columns(_text("false_alarms_per_1000", 3), _percent("precision"))
    _print(console, "False alarms on bars as given; with faults in, what the bars found are (severity: or worse)", alarms)
    curve = found.curve.with_columns(
        _percent("recall"), _text("false_alarms_per_10000", 2), pl.format("1 - {}", "rate").alias("least_score")
    )
    wide = curve.pivot("sight", index="least_score", values=["recall", "false_alarms_per_10000"])
    _print(console, "Recall over all faults, and false alarms on the bars as given, by least score and sight", wide)
    interval = pl.format("{} to {}", *(_text(end, 2) for end in ("low", "high")))
    events = found.events.with_columns(_text("per_10000", 2), interval=interval).drop("low", "high")
    _print(console, "Critical bars among genuine events and recorded actions: per 10,000, with Wilson's 95 % interval", events)
    once = found.alarming_events.unique(["symbol", "session", "rule"], keep="last", maintain_order=True)
    if once.height:
        _print(console, "Critical findings on genuine events, to be looked at", once.head(SHOWN).drop("detector"))
    _print(console, "Bars found by rule: as given, and with faults in those on faulty bars and on others", found.rules)
    for note in found.notes:
        console.print(note, markup=False, soft_wrap=True)


def _print(console: Console, title: str, frame: pl.DataFrame) -> None:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for name, dtype in frame.schema.items():
        table.add_column(name.replace("_", " "), justify="right" if dtype.is_numeric() else "left", no_wrap=name in NAMES)
    for row in frame.iter_rows():
        table.add_row(*("" if value is None else escape(f"{value:,}" if isinstance(value, int) else str(value)) for value in row))
    console.print(table)


def _percent(name: str) -> pl.Expr:
    return (pl.col(name) * 100).round(0).cast(pl.Int64).cast(pl.String).fill_null("-").alias(name)


def _text(name: str, digits: int) -> pl.Expr:
    number = pl.col(name).round(digits)
    return (number.cast(pl.Int64) if digits == 0 else number).cast(pl.String).fill_null("-").alias(name)
