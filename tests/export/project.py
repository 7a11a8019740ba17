"""A project as tests export it."""

from datetime import UTC, datetime
from typing import Any

from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.project import ProjectExport
from langfuse_export.tables import TABLES
from langfuse_export.windows import Frequency
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import QueryLimits
from langfuse_worker.settings import Settings
from tests.rows import PROJECT

START = datetime(2026, 6, 1, tzinfo=UTC)


def project_export(settings: Settings, project_id: str = PROJECT, **changes: Any) -> ProjectExport:
    """Every table of Langfuse as Parquet into LANGFUSE_HOME, hourly from 1 June 2026, but for the changes."""
    fields: dict[str, Any] = {
        "project_id": project_id,
        "name": project_id,
        "enabled": True,
        "tables": tuple(TABLES.values()),
        "frequency": Frequency.HOURLY,
        "start": START,
        "encoding": Encoding(FileFormat.PARQUET),
        "limits": QueryLimits.from_settings(settings),
        "row_group_rows": settings.export_parquet_row_group_size,
        "destination": StoreConfig(f"file://{settings.home.absolute()}/blobs/"),
        "destination_name": "blobs",
    }
    return ProjectExport(**{**fields, **changes})
