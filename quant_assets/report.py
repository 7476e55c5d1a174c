"""What `quant-assets run` shows: progress while it works, and at the end what came out and where to look next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from quant_assets.settings import Settings
from quant_assets.warehouse import Warehouse

STRONGEST = 5
PLAIN_WIDTH = 120
SHOWN: dict[str, tuple[str, ...]] = {
    "market_data/daily_bars": ("new_bars", "restated_bars", "rejected_rows", "symbols"),
    "data_quality/anomalies": ("new_critical", "new_warning", "new_info"),
    "data_quality/clean_bars": ("dagster/row_count", "held_back"),
    "feature_store/technical_v1": ("rows_written", "stale_symbols"),
    "feature_store/alpha_history_v1": ("rows_written", "stale_symbols"),
    "feature_store/labels": ("rows_written",),
    "feature_store/drift": ("features_shifted", "features_steady", "features_cannot_be_told", "critical"),
    "signals/daily_signals": ("new_signals", "scorer", "model_version"),
    "signals/scorecard": ("rows_live", "rows_replayed", "live_sessions", "retraining_reason"),
    "publishing/outbox": ("documents", "new_files"),
}
WORDS = {"dagster/row_count": "rows"}


def wide_console() -> Console:
    """The terminal, or plain lines wide enough for our tables where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


class Progress:
    """One line per finished step, and on a terminal a spinner with the step at work."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or wide_console()
        self._status: Status | None = self.console.status("starting") if self.console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    def line(self, text: str) -> None:
        """Print one plain line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def start(self, step: str) -> None:
        """A step begins."""
        if self._status:
            self._status.update(step)

    def done(self, step: str, seconds: float) -> None:
        """A step has succeeded."""
        self.line(f"{step:<24} done  {seconds:6.1f} s")

    def failed(self, step: str) -> None:
        """A step has failed."""
        self.line(f"{step:<24} FAILED")


def summary(
    settings: Settings,
    as_of: datetime,
    session: date,
    stages: dict[str, dict[str, Any]],
    warnings: Sequence[str],
    failure: str,
    seconds: float,
) -> None:
    """Print what each stage did, the strongest signals of the session, and where to look next."""
    console = wide_console()
    table = Table(box=SIMPLE_HEAD, title=f"Session {session}, as of {as_of:%Y-%m-%d %H:%M} UTC", title_justify="left")
    table.add_column("asset")
    table.add_column("what came of it")
    for key, names in SHOWN.items():
        if key in stages:
            found = stages[key]
            told = [f"{WORDS.get(name, name).replace('_', ' ')} {_number(found[name])}" for name in names if found.get(name, "") != ""]
            table.add_row(key, ", ".join(told))
    console.print(table)
    if not failure:
        for version in _signals(console, settings, session, as_of):
            _evidence(console, settings, version)
        if _nothing_new(stages):
            console.print("Nothing had changed since the last run: no new bar, feature, signal or document.")
    for warning in (*_recorded_faults(stages), *warnings):
        console.print(f"Warning: {warning}", markup=False, soft_wrap=True)
    if failure:
        console.print(f"Failed after {seconds:.1f} s. {failure}", markup=False, soft_wrap=True)
        console.print("What was done stays; mend the cause and run again. The whole story: make ui")
        return
    console.print(f"Done in {seconds:.1f} s. Next: `make ui` opens the asset graph, the models, the feature docs and the documents;")
    console.print(f"tables for reading: {settings.read_copy_path}", markup=False, soft_wrap=True)


def _signals(console: Console, settings: Settings, session: date, as_of: datetime) -> list[str]:
    """Print the strongest signals of the session; returns the model versions among their scorers."""
    signals = _warehouse(settings).read(
        """
        select symbol, probability, recommendation, scorer, model_version, contributions
        from signals.daily_signals_as_of($as_of) where session = $session and horizon = $horizon
        order by abs(probability - 0.5) desc, symbol limit $count
        """,
        {"as_of": as_of, "session": session, "horizon": settings.horizon, "count": STRONGEST},
    )
    if signals.is_empty():
        console.print(f"No signals for {session}.")
        return []
    table = Table(
        box=SIMPLE_HEAD,
        title=f"Strongest signals, over {settings.horizon} session{'s' if settings.horizon > 1 else ''}",
        title_justify="left",
    )
    for heading in ("symbol", "probability up", "recommendation", "scorer", "strongest reasons"):
        table.add_column(heading, justify="right" if heading == "probability up" else "left")
    for row in signals.iter_rows(named=True):
        scorer = f"model {row['model_version']}" if row["scorer"] == "model" else row["scorer"]
        table.add_row(escape(row["symbol"]), f"{row['probability']:.4f}", row["recommendation"], scorer, _reasons(row["contributions"]))
    console.print(table)
    versions: list[str] = signals["model_version"].drop_nulls().unique(maintain_order=True).to_list()
    return versions


def _evidence(console: Console, settings: Settings, version: str) -> None:
    """A model's walk-forward scores in one line, each beside what a trivial rule or shuffled labels score; then the decision."""
    evidence, decision, reason = (
        _warehouse(settings)
        .read(
            "select evidence, decision, reason from signals.promotions where model_version = $version order by promoted_at limit 1",
            {"version": version},
        )
        .row(0)
    )
    scores = {name: f"{value:.4f}" if isinstance(value, int | float) else "none" for name, value in json.loads(evidence).items()}
    lines = (
        f"Model {version}, out of sample: AUC {scores['auc']} (shuffled labels {scores['control_auc']}), "
        f"rank IC {scores['rank_ic']} (t {scores['rank_ic_t']}, shuffled {scores['control_rank_ic']}), "
        f"accuracy {scores['accuracy']} (majority class {scores['majority_accuracy']}), "
        f"log loss {scores['log_loss']} (base rate {scores['base_rate_log_loss']}).",
        f"{decision.replace('_', ' ').capitalize()}: {reason}. The model card: `quant-assets model show {version}`.",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _warehouse(settings: Settings) -> Warehouse:
    return Warehouse(settings.warehouse_path, settings.source, lock_timeout_seconds=settings.lock_timeout_seconds)


def _reasons(contributions: str | None) -> str:
    parts = json.loads(contributions or "[]")[:2]
    return ", ".join(f"{part['feature']} {part['contribution']:+.3f}" for part in parts)


def _recorded_faults(done: dict[str, dict[str, Any]]) -> list[str]:
    """What was recorded rather than raised, and where to read it."""
    landed, judged = done.get("market_data/daily_bars", {}), done.get("data_quality/clean_bars", {})
    faults = [
        (landed.get("failed_requests"), "files or requests gave no bars: see market_data.fetch_ledger"),
        (landed.get("rejected_rows"), "rows were no bars: see market_data.rejected_rows"),
        (landed.get("owed_sessions"), f"sessions of {landed.get('owed_symbols', 0):,} symbols are still owed: the next run goes on there"),
        (judged.get("held_back"), "bars are held back: see `quant-assets quarantine list`"),
    ]
    return [f"{count:,} {where}." for count, where in faults if count]


def _nothing_new(done: dict[str, dict[str, Any]]) -> bool:
    counts = [done.get(key, {}).get(name) for key, name in (
        ("market_data/daily_bars", "new_bars"), ("market_data/daily_bars", "restated_bars"),
        ("feature_store/technical_v1", "rows_written"), ("signals/daily_signals", "new_signals"), ("publishing/outbox", "new_files"),
    )]  # fmt: skip
    return all(count == 0 for count in counts)


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
