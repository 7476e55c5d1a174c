"""What an alert says: pure functions from a failed check or run to the payload of one POST.

A payload is JSON that Slack also accepts: `text` is what a person reads there (Slack's mrkdwn, so `&`, `<` and `>` are
escaped), the other fields are the same facts, unescaped, for programs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal

from quant_assets.publishing.documents import instant_text

Alert = dict[str, Any]
Severity = Literal["info", "warning", "critical"]
Number = int | float | str | bool | None

TEXT_LIMIT = 3000  # characters of one quoted message; Slack cuts off at 40,000


def check_alert(
    *,
    run_id: str,
    asset: str,
    check: str,
    severity: Severity,
    description: str,
    at: datetime,
    numbers: Mapping[str, Number] | None = None,
    session: date | None = None,
    remedy: str = "",
) -> Alert:
    """The alert of one failed check of one asset (`stage/table`) in one run, made at an instant (UTC)."""
    return _alert(
        kind="check_failed",
        severity=severity,
        title=f"Check failed: {asset}, {check}",
        message=description,
        asset=asset,
        check=check,
        run_id=run_id,
        session=session,
        numbers=numbers or {},
        remedy=remedy or "Open the check in Dagster; it shows the rows. What did not pass does not go on.",
        at=at,
    )


def run_failure_alert(
    *,
    run_id: str,
    job: str,
    error: str,
    at: datetime,
    asset: str | None = None,
    session: date | None = None,
    remedy: str = "",
) -> Alert:
    """The alert of one failed run, made at an instant (UTC); `asset` is the step at which it failed, where one did."""
    return _alert(
        kind="run_failed",
        severity="critical",
        title=f"Run failed: {job}" + (f" at {asset}" if asset else ""),
        message=error,
        asset=asset,
        check=None,
        run_id=run_id,
        session=session,
        numbers={},
        remedy=remedy or "Mend the cause and run the same again; what was done is not done twice.",
        at=at,
    )


def alert_id(run_id: str, asset: str | None, check: str | None) -> str:
    """The same for the same finding of the same run, so that a receiver can tell a repeated delivery from news."""
    return hashlib.sha256(json.dumps([run_id, asset, check]).encode()).hexdigest()[:32]


def _alert(
    *,
    kind: str,
    severity: Severity,
    title: str,
    message: str,
    asset: str | None,
    check: str | None,
    run_id: str,
    session: date | None,
    numbers: Mapping[str, Number],
    remedy: str,
    at: datetime,
) -> Alert:
    facts = {"session": session, **numbers}
    lines = [
        f"*{_quoted(title)}* ({severity})",
        _quoted(message),
        ", ".join(f"{_quoted(name)}: {_quoted(str(value))}" for name, value in facts.items() if value is not None),
        f"What to do: {_quoted(remedy)}",
        f"Run {_quoted(run_id)}",
    ]
    return {
        "alert_id": alert_id(run_id, asset, check),
        "kind": kind,
        "severity": severity,
        "title": title,
        "text": "\n".join(line for line in lines if line),
        "asset": asset,
        "check": check,
        "run_id": run_id,
        "session": None if session is None else session.isoformat(),
        "numbers": {name: _json_number(value) for name, value in numbers.items()},
        "remedy": remedy,
        "at": instant_text(at),
    }


def _quoted(text: str) -> str:
    """One line that Slack shows as it is: a symbol or a message can neither add lines nor links nor mentions."""
    line = " ".join(text.split())
    line = line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json_number(value: Number) -> Number:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
