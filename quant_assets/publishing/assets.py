"""The night's documents into the outbox; the document store's collections stand behind it in the lineage."""

import json
from collections.abc import Sequence
from datetime import date

import dagster as dg
import polars as pl

from quant_assets.assets import DATA_ENGINEERING, RESEARCH, record_partitions, row_count, table_spec
from quant_assets.clock import utc_now
from quant_assets.partitions import SESSIONS
from quant_assets.publishing import outbox as files
from quant_assets.publishing.anomaly_documents import anomaly_documents
from quant_assets.publishing.documents import Document, signal_documents
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.schemas import ANOMALIES, DAILY_SIGNALS, OUTBOX, REVIEWS, Table
from quant_assets.warehouse import append_ledger, query

OUTBOX_KEY = dg.AssetKey(["publishing", "outbox"])
_FIELDS = {
    "document_id": ("string", "Natural key: signals/SYMBOL/SESSION/HORIZON, the symbol percent-encoded"),
    "symbol": ("string", ""),
    "session": ("string", ""),
    "horizon": ("integer", ""),
    "label_threshold": ("number", ""),
    "probability": ("number", ""),
    "confidence": ("number", ""),
    "recommendation": ("string", ""),
    "scorer": ("string", ""),
    "contributions": ("list", "Feature, value and contribution of each, largest first"),
    "regime": ("string or null", ""),
    "mode": ("string", ""),
    "trained_until": ("string or null", ""),
    "known_at": ("string", ""),
    "as_of": ("string", "Instant as of which the document says this; a newer one replaces it"),
    "schema_version": ("integer", "Grows when the meaning of a field changes"),
    "lineage": ("object", "Dagster run, model version, feature view with its definition, and deliveries that it came from"),
}
_ANOMALY_FIELDS = {
    "document_id": (
        "string",
        "Natural key: anomalies/SOURCE/SYMBOL/SESSION/RULE/DETECTOR/BAR_KNOWN_AT or anomalies/summary/SESSION, percent-encoded",
    ),
    "kind": ("string", "finding: one finding of warning or worse; summary: one session's figures"),
    "source": ("string", "Vendor or kind of source of the bar"),
    "symbol": ("string", ""),
    "session": ("string", ""),
    "rule": ("string", ""),
    "detector": ("string", ""),
    "bar_known_at": ("string", ""),
    "score": ("number", ""),
    "severity": ("string", ""),
    "detail": ("string", ""),
    "suggestion": ("object or null", "What would mend it: column, value, evidence; never applied by itself"),
    "status": ("string", "open, released, confirmed, or superseded by a newer version of the bar before anybody decided"),
    "decision": ("object or null", "The latest: decision, decided_at, decided_by, reason"),
    "superseded_at": ("string or null", "When a newer version of the bar became known"),
    "known_at": ("string", ""),
    "as_of": ("string", "Last instant at which something in the document changed; a newer one replaces it"),
    "schema_version": ("integer", "Grows when the meaning of a field changes"),
    "lineage": ("object", "Dagster run that judged the bar, and deliveries that it came from"),
    "bars": ("integer", "Of a summary: symbols with a bar in the session"),
    "held_back": ("integer", "Of a summary: bars of the session that are not clean"),
    "found": ("list", "Of a summary: findings on the session's bars by rule and severity, info too"),
    "over_time": ("list", "Of a summary: findings per session by severity, over 250 sessions"),
    "rules": ("list", "Of a summary: findings and decisions by rule over 250 sessions, with the share of false alarms and its interval"),
    "deliveries": ("list", "Of a summary: the last 20 deliveries, with the findings on their bars"),
    "steering": (
        "object",
        "Of a summary: what is open, anomalies per delivery, days to resolution, share of false alarms among the decided",
    ),
    "worst": ("list", "Of a summary: the worst twenty open findings of its file, each with the closes around its bar"),
}


def _collection(name: str, owners: list[str], fields: dict[str, tuple[str, str]], tables: Sequence[Table], text: str) -> dg.AssetSpec:
    """A collection of the document store: what a table's column of the same name says of a field is not said again."""
    said = {column.name: column.description for table in tables for column in table.columns}
    schema = [dg.TableColumn(field, kind, words or said[field]) for field, (kind, words) in fields.items()]
    return dg.AssetSpec(
        key=["mongodb", name],
        deps=[OUTBOX_KEY],
        description=text,
        group_name="publishing",
        kinds={"mongodb"},
        owners=owners,
        metadata={"dagster/column_schema": dg.TableSchema(columns=schema)},
    )


SIGNALS_COLLECTION = _collection(
    "signals",
    RESEARCH,
    _FIELDS,
    [DAILY_SIGNALS],
    "One document per symbol, session and horizon: the newest signal, with its contributions and lineage. Key: `document_id`.\n\n"
    "Written by the sensor `publish_documents`, which delivers the outbox in order and never replaces a newer document by an older one.",
)
ANOMALIES_COLLECTION = _collection(
    "anomalies",
    DATA_ENGINEERING,
    _ANOMALY_FIELDS,
    [REVIEWS, ANOMALIES],
    "One document per finding of warning or worse, with what was decided about it, and one summary per session. "
    "Key: `document_id`.\n\nWritten by the sensor `publish_documents`. A session's documents come with its night; what was found, decided or "
    "corrected later comes with the next one.",
)
FILE_METADATA = "file"

_spec = table_spec(OUTBOX, deps=[["signals", "daily_signals"], ["data_quality", "anomalies"]], owners=DATA_ENGINEERING, kinds={"json"})


@dg.multi_asset(specs=[_spec], backfill_policy=dg.BackfillPolicy.single_run(), partitions_def=SESSIONS)
def outbox(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Write each session's documents to an immutable file named by its content."""
    night = desk.night(context, warehouse.client)
    with warehouse.get_connection() as connection:
        signals = query(
            connection,
            "select * from signals.daily_signals_as_of($as_of) where session between $first and $last",
            {"as_of": night.as_of, "first": night.sessions[0], "last": night.sessions[-1]},
        )
        anomalies = anomaly_documents(connection, desk.settings.source, desk.calendar, night.sessions, night.as_of)
    documents: dict[date, dict[str, list[Document]]] = {
        session: {
            "signals": signal_documents(signals.filter(pl.col("session") == session), night.as_of),
            "anomalies": anomalies[session],
        }
        for session in night.sessions
    }
    written = {session: files.write(desk.settings.outbox_path, session, collections) for session, collections in documents.items()}
    entries = [
        {
            "session": session,
            "sha256": file.sha256,
            "documents": sum(file.counts.values()),
            "collections": json.dumps(file.counts),
            "run_id": context.run.run_id,
            "recorded_at": utc_now(),
        }
        for session, file in written.items()
    ]
    ledger = pl.DataFrame(entries, schema=OUTBOX.polars_schema)
    with warehouse.client.transaction() as connection:
        new_files = append_ledger(connection, OUTBOX, ledger)
        rows = row_count(connection, OUTBOX.full_name)
    record_partitions(context, OUTBOX_KEY, ledger.select("session", "documents"))
    for session, file in written.items():
        context.add_asset_metadata({FILE_METADATA: file.path.name}, asset_key=OUTBOX_KEY, partition_key=str(session))
    return dg.MaterializeResult(
        asset_key=OUTBOX_KEY,
        metadata={
            "dagster/row_count": rows,
            "documents": int(ledger["documents"].sum()),
            "new_files": new_files,
        },
    )
