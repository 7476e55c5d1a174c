"""Rows of the warehouse become documents: natural key, values, as-of, lineage.

Instants are text of one fixed width, `2018-02-07T21:30:00.000000Z`: it sorts in the order of time, is the same in
the outbox file and in every document store, and keeps the microseconds that BSON dates lose. Sessions are `2018-02-07`.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

import polars as pl

from quant_assets.errors import SchemaMismatch
from quant_assets.schemas import DAILY_SIGNALS

Document = dict[str, Any]

SIGNAL_SCHEMA_VERSION = 2


def instant_text(instant: datetime) -> str:
    """An instant as text of fixed width in UTC; a naive one is UTC already."""
    naive = instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant
    return naive.isoformat(timespec="microseconds") + "Z"


def signal_document_id(symbol: str, session: date, horizon: int) -> str:
    """The natural key of a signal's document, `signals/SYMBOL/SESSION/HORIZON`.

    The symbol is percent-encoded (RFC 3986), so that two symbols never share a key and a key is safe in a URL or a shell.
    """
    return f"signals/{quote(symbol, safe='')}/{session.isoformat()}/{horizon}"


def signal_documents(signals: pl.DataFrame, as_of: datetime) -> list[Document]:
    """One document per symbol, session and horizon of `signals.daily_signals`: its newest version known as of an instant.

    A document's own `as_of` is its row's `known_at`, so publishing the same row again gives the same document.
    Ordered by session, symbol, horizon. Null contributions become an empty list; `trained_until` and the model's
    version stay null for the heuristic. Raises `SchemaMismatch` when a column is missing.
    """
    ignored = {"recorded_at"}
    missing = [name for name in DAILY_SIGNALS.column_names if name not in ignored and name not in signals.columns]
    if missing:
        raise SchemaMismatch(
            f"{DAILY_SIGNALS.full_name} cannot be published: columns missing: {', '.join(missing)}; got {signals.columns}."
        )
    newest = (
        signals.filter(pl.col("known_at") <= as_of)
        .sort("known_at")
        .unique(DAILY_SIGNALS.entity, keep="last")
        .sort("session", "symbol", "horizon")
    )
    return [_signal_document(row) for row in newest.iter_rows(named=True)]


def _signal_document(row: dict[str, Any]) -> Document:
    known_at = instant_text(row["known_at"])
    return {
        "document_id": signal_document_id(row["symbol"], row["session"], row["horizon"]),
        "symbol": row["symbol"],
        "session": row["session"].isoformat(),
        "horizon": row["horizon"],
        "label_threshold": row["label_threshold"],
        "probability": row["probability"],
        "confidence": row["confidence"],
        "recommendation": row["recommendation"],
        "scorer": row["scorer"],
        "contributions": json.loads(row["contributions"] or "[]"),
        "regime": row["regime"],
        "mode": row["mode"],
        "trained_until": None if row["trained_until"] is None else instant_text(row["trained_until"]),
        "known_at": known_at,
        "as_of": known_at,
        "schema_version": SIGNAL_SCHEMA_VERSION,
        "lineage": {
            "dagster_run_id": row["run_id"],
            "model_version": row["model_version"],
            "feature_view": row["feature_view"],
            "definition_hash": row["definition_hash"],
            "batch_ids": [row["batch_id"]],
        },
    }
