"""What assets of all stages share: their specs and their metadata, both from the table's declaration."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import dagster as dg
import polars as pl

from quant_assets.migrations import sql_type
from quant_assets.partitions import SESSIONS
from quant_assets.schemas import Table
from quant_assets.warehouse import Connection, scalar

DATA_ENGINEERING = ["team:data-engineering"]
RESEARCH = ["team:quant-research"]


def table_spec(
    table: Table,
    *,
    deps: Iterable[object] = (),
    owners: list[str],
    kinds: set[str],
    daily: bool = True,
    skippable: bool = False,
    code_version: str | None = None,
) -> dg.AssetSpec:
    """The asset of a declared table: its key is the table's name, its column schema the declaration."""
    clock = f"Clock: `{table.clock}`."
    return dg.AssetSpec(
        key=[table.schema, table.name],
        deps=list(deps),  # type: ignore[arg-type]
        description=f"{table.description}\n\nOne row is {table.grain}; key: {', '.join(f'`{name}`' for name in table.key)}. {clock} Kind: {table.kind}.",
        group_name=table.schema,
        owners=owners,
        kinds=kinds,
        partitions_def=SESSIONS if daily else None,
        skippable=skippable,
        code_version=code_version,
        metadata={
            "dagster/table_name": table.full_name,
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(
                        column.name,
                        sql_type(column.dtype),
                        f"{column.description}{f' [{column.unit}]' if column.unit else ''}",
                        constraints=dg.TableColumnConstraints(nullable=column.nullable),
                    )
                    for column in table.columns
                ]
            ),
        },
    )


def row_count(connection: Connection, name: str) -> int:
    """Rows of a table or view."""
    return int(scalar(connection, f"select count(*) from {name}"))


def record_partitions(context: dg.AssetExecutionContext, key: dg.AssetKey, rows_per_session: pl.DataFrame) -> None:
    """Note on each partition of a range run how many rows it got; a result's own metadata goes to all of them alike."""
    rows: Mapping[str, int] = {str(session): count for session, count in rows_per_session.iter_rows()}
    for partition in context.partition_keys:
        context.add_asset_metadata({"dagster/partition_row_count": rows.get(partition, 0)}, asset_key=key, partition_key=partition)


def markdown_table(frame: pl.DataFrame, empty: str = "none") -> dg.MarkdownMetadataValue:
    """A small frame as a table for people."""
    if frame.is_empty():
        return dg.MetadataValue.md(empty)
    rows = [" | ".join(frame.columns), " | ".join("---" for _ in frame.columns)]
    rows += [" | ".join(str(value).replace("|", "\\|") for value in row) for row in frame.iter_rows()]
    return dg.MetadataValue.md("\n".join(f"| {row} |" for row in rows))


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A small plot, shown where the metadata is."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
