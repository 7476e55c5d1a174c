"""Findings and the desk's figures as documents of the collection `anomalies`.

A finding of warning or worse is one document; it is replaced when somebody decides about it or its bar is corrected, for its
`as_of` is the last instant at which something about it changed. Findings of severity info are counted, not published. Beside
them stands one summary per session.

Which file holds what: a session's file has the findings on its own bars. The file of a run's last session has besides, of
all other sessions, what was found, decided or corrected since the session of the file before that run, and every critical
finding that is open; what happened after the next session's bars is left to that night. It depends on nothing but the tables
as of the run's instant, so the same night gives the same file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import polars as pl

from quant_assets.clock import TradingCalendar
from quant_assets.data_quality.summary import WINDOW, WORST, Summary
from quant_assets.publishing.documents import Document, instant_text
from quant_assets.warehouse import Connection, scalar

ANOMALY_SCHEMA_VERSION = 1
SEVERITIES = ("critical", "warning", "info")


def anomaly_document_id(source: str, symbol: str, session: date, rule: str, detector: str, bar_known_at: datetime) -> str:
    """The natural key of a finding's document, `anomalies/SOURCE/SYMBOL/SESSION/RULE/DETECTOR/BAR_KNOWN_AT`, each part percent-encoded."""
    parts = (source, symbol, session.isoformat(), rule, detector, instant_text(bar_known_at))
    return "/".join(["anomalies", *(quote(part, safe="") for part in parts)])


def summary_document_id(session: date) -> str:
    """The natural key of a session's summary, `anomalies/summary/SESSION`; a finding's key has four parts more."""
    return f"anomalies/summary/{session.isoformat()}"


def anomaly_documents(
    connection: Connection, source: str, calendar: TradingCalendar, sessions: Sequence[date], as_of: datetime
) -> dict[date, list[Document]]:
    """The documents of each session of one run: its findings, worst first, then its summary."""
    first, last = sessions[0], sessions[-1]
    before: date | None = scalar(connection, "select max(session) from publishing.outbox where session < ?", [first])
    since = calendar.known_at(calendar.session_on_or_before(max(before or first - timedelta(days=1), calendar.sessions[0])))
    summary = Summary(connection, source, as_of)
    following = calendar.session_after(last)
    until = calendar.known_at(following) if following else as_of + timedelta(microseconds=1)
    findings = summary.published(first, last, since, until)
    own = {session: findings.filter(pl.col("session") == session) for session in sessions}
    others = findings.filter(~pl.col("session").is_in(list(sessions)))
    files = {**own, last: pl.concat([own[last], others]).sort("score", "session", descending=True, maintain_order=True)}
    worst = {session: file.filter(pl.col("status") == "open").head(WORST) for session, file in files.items()}
    around = summary.around(pl.concat(worst.values()))
    figures = read_figures(summary, sessions)
    return {
        session: [
            *(finding_document(row) for row in files[session].iter_rows(named=True)),
            summary_document(session, own[session], worst[session], around, figures),
        ]
        for session in sessions
    }


def finding_document(row: dict[str, Any]) -> Document:
    """The document of one row of `Summary.published`; `suggestion` and `decision` are null where there is none."""
    decided = row["decision"] is not None
    return {
        "document_id": _id(row),
        "kind": "finding",
        "source": row["source"],
        "symbol": row["symbol"],
        "session": row["session"].isoformat(),
        "rule": row["rule"],
        "detector": row["detector"],
        "bar_known_at": instant_text(row["bar_known_at"]),
        "score": row["score"],
        "severity": row["severity"],
        "detail": row["detail"],
        "suggestion": json.loads(row["suggestion"]) if row["suggestion"] else None,
        "status": row["status"],
        "decision": {
            "decision": row["decision"],
            "decided_at": instant_text(row["decided_at"]),
            "decided_by": row["decided_by"],
            "reason": row["reason"],
        }
        if decided
        else None,
        "superseded_at": None if row["superseded_at"] is None else instant_text(row["superseded_at"]),
        "known_at": instant_text(row["known_at"]),
        "as_of": instant_text(row["changed_at"]),
        "schema_version": ANOMALY_SCHEMA_VERSION,
        "lineage": {"dagster_run_id": row["run_id"], "batch_ids": [] if row["batch_id"] is None else [row["batch_id"]]},
    }


def summary_document(session: date, own: pl.DataFrame, worst: pl.DataFrame, around: pl.DataFrame, figures: Figures) -> Document:
    """The summary of one session: its own findings (`own`), the worst open ones of its file with the closes around them, and the desk's figures.

    `over_time` and `rules` look back 250 sessions, `deliveries` are the last 20. `held_back` are the session's bars that are not clean.
    """
    origin = figures.origins.filter(pl.col("session") == session)
    recent = figures.counts.filter(pl.col("session") <= session)
    per_session = recent.group_by("session").agg(
        *(pl.col("findings").filter(pl.col("severity") == severity).sum().alias(severity) for severity in SEVERITIES)
    )
    held = own.filter(pl.col("severity") == "critical", pl.col("superseded_at").is_null(), pl.col("status").is_in(["open", "confirmed"]))
    return {
        "document_id": summary_document_id(session),
        "kind": "summary",
        "source": figures.source,
        "session": session.isoformat(),
        "bars": origin["bars"].sum(),
        "held_back": held["symbol"].n_unique(),
        "found": _rows(recent.filter(pl.col("session") == session, pl.col("findings") > 0).drop("session")),
        "over_time": _rows(per_session.sort("session").tail(WINDOW)),
        "rules": figures.rules,
        "deliveries": figures.deliveries,
        "steering": figures.steering,
        "worst": [
            {
                **{name: row[name] for name in ("symbol", "rule", "detector", "score", "severity", "detail")},
                "document_id": _id(row),
                "session": row["session"].isoformat(),
                "suggestion": json.loads(row["suggestion"]) if row["suggestion"] else None,
                "closes": _rows(
                    around.filter(pl.col("symbol") == row["symbol"], pl.col("marked") == row["session"]).select("session", "close")
                ),
            }
            for row in worst.iter_rows(named=True)
        ],
        "as_of": figures.as_of,
        "schema_version": ANOMALY_SCHEMA_VERSION,
        "lineage": {
            "dagster_run_id": next(iter(origin["run_id"]), None),
            "batch_ids": origin["batch_ids"].explode().drop_nulls().to_list(),
        },
    }


@dataclass(frozen=True)
class Figures:
    """What the summaries of one run have in common, read once; `as_of` is the last instant at which something in it changed."""

    source: str
    as_of: str
    origins: pl.DataFrame
    counts: pl.DataFrame
    rules: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]
    steering: dict[str, Any]


def read_figures(summary: Summary, sessions: Sequence[date]) -> Figures:
    """The figures of a run's sessions."""
    first, last = sessions[0], sessions[-1]
    return Figures(
        source=summary.source,
        as_of=instant_text(summary.changed_at() or summary.as_of),
        origins=summary.origins(first, last),
        counts=summary.counts(WINDOW + len(sessions), last),
        rules=_rows(summary.by_rule()),
        # Without the wall clock of the request, which a repeated night would not repeat.
        deliveries=_rows(summary.deliveries().drop("source", "requested_at")),
        steering=asdict(summary.steering()),
    )


def _id(row: dict[str, Any]) -> str:
    return anomaly_document_id(row["source"], row["symbol"], row["session"], row["rule"], row["detector"], row["bar_known_at"])


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON holds them: dates and instants as text, null for a number that is not finite."""
    return [{name: _value(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, date):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
