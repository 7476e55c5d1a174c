"""The night's documents into the outbox; the document store's collections stand behind it in the lineage."""

import json
from datetime import date, datetime

import dagster as dg
import polars as pl

from quant_assets.assets import DATA_ENGINEERING, RESEARCH, record_partitions, row_count, table_spec
from quant_assets.clock import utc_now
from quant_assets.partitions import SESSIONS
from quant_assets.publishing import outbox as files
from quant_assets.publishing.documents import signal_documents
from quant_assets.resources import DeskResource, WarehouseResource
from quant_assets.schemas import DAILY_SIGNALS, OUTBOX
from quant_assets.warehouse import append_ledger

OUTBOX_KEY = dg.AssetKey(["publishing", "outbox"])
_DOCUMENTED = {column.name: column for column in DAILY_SIGNALS.columns}
_FIELDS = {
    "document_id": ("string", "Natural key: signals/SYMBOL/SESSION/HORIZON, the symbol percent-encoded"),
    "symbol": ("string", ""),
    "session": ("string", ""),
    "horizon": ("integer", ""),
    "probability": ("number", ""),
    "recommendation": ("string", ""),
    "scorer": ("string", ""),
    "contributions": ("list", "Feature, value and contribution of each, largest first"),
    "mode": ("string", ""),
    "trained_until": ("string or null", ""),
    "known_at": ("string", ""),
    "as_of": ("string", "Instant as of which the document says this; a newer one replaces it"),
    "schema_version": ("integer", "Grows when the meaning of a field changes"),
    "lineage": ("object", "Dagster run, model version, feature view with its definition, and deliveries that it came from"),
}
"""The document's fields; what the signal's column says of itself is not said again."""
SIGNALS_COLLECTION = dg.AssetSpec(
    key=["mongodb", "signals"],
    deps=[OUTBOX_KEY],
    description="One document per symbol, session and horizon: the newest signal, with its contributions and lineage. Key: `document_id`.\n\n"
    "Written by the sensor `publish_documents`, which delivers the outbox in order and never replaces a newer document by an older one.",
    group_name="publishing",
    kinds={"mongodb"},
    owners=RESEARCH,
    metadata={
        "dagster/column_schema": dg.TableSchema(
            columns=[dg.TableColumn(name, kind, text or _DOCUMENTED[name].description) for name, (kind, text) in _FIELDS.items()]
        )
    },
)
FILE_METADATA = "file"

_spec = table_spec(OUTBOX, deps=[["signals", "daily_signals"]], owners=DATA_ENGINEERING, kinds={"json"})


@dg.multi_asset(specs=[_spec], backfill_policy=dg.BackfillPolicy.single_run(), partitions_def=SESSIONS)
def outbox(context: dg.AssetExecutionContext, warehouse: WarehouseResource, desk: DeskResource) -> dg.MaterializeResult[None]:
    """Write each session's documents to an immutable file named by its content."""
    night = desk.night(context, warehouse.client)
    signals = warehouse.client.read(
        "select * from signals.daily_signals_as_of($as_of) where session between $first and $last",
        {"as_of": night.as_of, "first": night.sessions[0], "last": night.sessions[-1]},
    )
    written = {session: _write(desk, signals, session, night.as_of) for session in night.sessions}
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


def _write(desk: DeskResource, signals: pl.DataFrame, session: date, as_of: datetime) -> files.OutboxFile:
    documents = signal_documents(signals.filter(pl.col("session") == session), as_of)
    return files.write(desk.settings.outbox_path, session, {"signals": documents})
