"""A project as tests export it, and how `exports.yaml` says so."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

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


def write_catalog(
    directory: Path, *projects: Mapping[str, object], destination: Mapping[str, object] | None = None
) -> Path:
    """Write an exports.yaml; its path.

    Args:
        directory: where to.
        projects: what they say that p1, from 1 June 2026 on, does not; by default it alone.
        destination: of all of them; by default a directory of that one.
    """
    usual = {"id": PROJECT, "destination": "blobs", "start": "2026-06-01"}
    document = {
        "destinations": {"blobs": destination or {"url": f"file://{directory}/blobs/"}},
        "projects": [{**usual, **project} for project in projects or ({},)],
    }
    path = directory / "exports.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
