"""Parts of `exports.yaml`, and what is made of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from langfuse_export.catalog.load import Catalog, Sources, resolve
from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_worker.settings import Settings

DESTINATION = {
    "url": "s3://llm-archive/langfuse/",
    "endpoint": "http://127.0.0.1:9000",
    "region": "eu-central-1",
    "access_key_id": "${ARCHIVE_KEY_ID}",
    "secret_access_key": "${ARCHIVE_SECRET}",
}
SERVER = {"transfer": "server", "named_collection": "langfuse_archive"}
PROJECT = {"id": "support-bot", "destination": "archive", "start": "2026-06-01"}
NOW = datetime(2026, 7, 1, 12, 34, 56, tzinfo=UTC)


def write(document: object) -> Path:
    """Write the document as `exports.yaml`; its path."""
    path = Path("exports.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


def catalog_of(*projects: dict[str, Any], first_rows: Mapping[str, datetime] | None = None) -> Catalog:
    """The catalog of these projects; their first rows are those that were found in ClickHouse."""
    path = write({"destinations": {"archive": DESTINATION}, "projects": list(projects)})
    return resolve(Sources(read_yaml(path), first_rows=first_rows or {}), Settings(), NOW)
