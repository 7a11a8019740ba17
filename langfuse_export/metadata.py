"""What Dagster shows of an asset and of each exported window."""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import dagster as dg
from pydantic import ValidationError

from langfuse_export.exported_table import ExportedTable
from langfuse_export.formats import Encoding
from langfuse_export.manifest import ManifestFile
from langfuse_export.parts import PartSize
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.tables.descriptions import description
from langfuse_export.windows import Window

MANIFEST_ENTRY = "manifest_entry"
FAILURE_REASONS = "reasons"
PART_ROWS, PART_ROWS_WINDOWS = "part_rows", "part_rows_windows"


def definition_metadata(project: ProjectExport, table: Table) -> dict[str, dg.MetadataValue]:
    """Metadata of the asset itself."""
    schema, query = _columns_and_query(project.encoding, table)
    return {
        "source_table": dg.MetadataValue.text(table.source),
        "dagster/uri": dg.MetadataValue.text(
            project.destination.url + project.layout.folder(project.project_id, table.path)
        ),
        "dagster/column_schema": schema,
        "destination": dg.MetadataValue.text(project.destination_name),
        "first_window": dg.MetadataValue.timestamp(project.start),
        "query": query,
        **({"where": dg.MetadataValue.json(table.chosen_rows)} if table.where else {}),
    }


def window_metadata(
    table: Table, window: Window, exported: ExportedTable, mode: str, revision: int | None
) -> dict[str, dg.MetadataValue]:
    """Metadata of one materialized window; its numbers become plots, so names and types stay.

    The columns are the definition's: with each window they would be four fifths of the event log.

    `revision` is that of the window's manifest, None while other tables are missing.
    """
    file = exported.file
    optional: dict[str, dg.MetadataValue] = {}
    if revision is not None:
        optional["revision"] = dg.MetadataValue.int(revision)
    if file.sha256 is not None:
        optional["sha256"] = dg.MetadataValue.text(file.sha256)
    if exported.uri is not None:
        optional["dagster/uri"] = dg.MetadataValue.text(exported.uri)
        optional["object"] = _link(exported.uri)
    if exported.part_size is not None:
        optional[PART_ROWS] = dg.MetadataValue.int(exported.part_size.rows)
        optional[PART_ROWS_WINDOWS] = dg.MetadataValue.int(exported.part_size.windows)
    return {
        **optional,
        "dagster/partition_row_count": dg.MetadataValue.int(file.row_count),
        "bytes": dg.MetadataValue.int(file.size_bytes),
        "parts": dg.MetadataValue.int(file.parts),
        "duration_s": dg.MetadataValue.float(file.duration_ms / 1000),
        "source_rows": dg.MetadataValue.int(exported.source_rows),
        "window_start": dg.MetadataValue.timestamp(window.start),
        "window_end": dg.MetadataValue.timestamp(window.end),
        "window_lag_s": dg.MetadataValue.float((datetime.now(UTC) - window.end).total_seconds()),
        "mode": dg.MetadataValue.text(mode),
        "read_at": dg.MetadataValue.timestamp(datetime.fromisoformat(file.read_at)),
        "format": dg.MetadataValue.text(file.format),
        "query_id": dg.MetadataValue.text(file.query_id),
        MANIFEST_ENTRY: dg.MetadataValue.text(file.model_dump_json(by_alias=True)),
    }


def manifest_entry(materialization: dg.AssetMaterialization) -> ManifestFile | None:
    """The manifest entry that a materialization recorded; None without one, or if it has other fields."""
    value = materialization.metadata.get(MANIFEST_ENTRY)
    try:
        return ManifestFile.model_validate_json(str(value.value)) if value else None
    except ValidationError:  # of another version: no reason to fail runs and ticks until it is forgotten
        return None


def object_uri(materialization: dg.AssetMaterialization) -> str | None:
    """Where a materialization says that its object is; None without one."""
    value = materialization.metadata.get("dagster/uri")
    return str(value.value) if value else None


def part_size(materialization: dg.AssetMaterialization) -> PartSize | None:
    """What a materialization recorded of how many rows can be read at once."""
    rows, windows = (materialization.metadata.get(name) for name in (PART_ROWS, PART_ROWS_WINDOWS))
    if not isinstance(rows, dg.IntMetadataValue) or not isinstance(windows, dg.IntMetadataValue):
        return None
    return PartSize(rows.value, windows.value) if rows.value and windows.value is not None else None


# Hundreds of projects export the same columns, and every run loads them all.
@lru_cache(maxsize=256)
def _columns_and_query(encoding: Encoding, table: Table) -> tuple[dg.MetadataValue, dg.MetadataValue]:
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            description(table.name, column.name),
            constraints=dg.TableColumnConstraints(nullable=column.type.startswith("Nullable")),
        )
        for column in table.columns
    ]
    query = f"```sql\n{encoding.sql(table)}\n```"
    return dg.MetadataValue.table_schema(dg.TableSchema(columns)), dg.MetadataValue.md(query)


def _link(uri: str) -> dg.MetadataValue:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return dg.MetadataValue.path(Path(unquote(parts.path)))
    return dg.MetadataValue.url(uri)
