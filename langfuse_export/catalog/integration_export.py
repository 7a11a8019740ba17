"""From a row of Langfuse's Postgres to the export that the rest of the product works with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

import structlog

from langfuse_export.catalog.encryption import decrypt
from langfuse_export.catalog.postgres import START_KEY, Integration
from langfuse_export.catalog.project import can_be_folder
from langfuse_export.formats import ParquetCodec
from langfuse_export.project import ProjectExport
from langfuse_export.tables import ALL_GROUPS, TABLES, Table
from langfuse_worker.blobstore import PART_BYTES, StoreConfig
from langfuse_worker.clickhouse import QueryLimits
from langfuse_worker.settings import Settings

log = structlog.get_logger()

_PART_BYTES_BOUNDS = (5 << 20, 5 << 30)
_IGNORED_TUNING = ("rawPassthrough", "gzipLevel", "maxConcurrentParts", "maxPartAttempts")
# The key under `export_tuning` with which Langfuse leaves prices out.
_SKIP_PRICES = "skipEnrichment"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# By `export_source`, the write modes with which Langfuse fills all of its tables.
_WRITTEN_BY: Mapping[str, frozenset[str]] = {
    "TRACES_OBSERVATIONS": frozenset({"legacy", "dual"}),
    "TRACES_OBSERVATIONS_EVENTS": frozenset({"dual"}),
    "EVENTS": frozenset({"events_only", "dual"}),
}


class IntegrationError(Exception):
    """A row asks for what cannot be; one line for the person who set it up."""


@dataclass(frozen=True)
class Start:
    """When a project's windows begin.

    Attributes:
        first: the first window's start. It stays while the export goes on, so that earlier windows can be
            repaired and shown.
        resume: start of the first window that is not exported yet, as far as Postgres knows.
    """

    first: datetime
    resume: datetime


def start_of(row: Integration, first_rows: Mapping[str, datetime], now: datetime) -> Start:
    """Where a project begins: where Langfuse stopped, else where its `export_mode` says.

    Args:
        row: the project's row.
        first_rows: time of the first row of each project in ClickHouse, for FULL_HISTORY.
        now: the start of a project without rows.
    """
    floor = row.frequency.floor
    if row.last_sync_at is not None:
        resume = floor(row.last_sync_at)
        return Start(min(floor(_remembered(row) or resume), resume), resume)
    if row.export_mode == "FULL_HISTORY":
        begin = floor(first_rows.get(row.project_id, now))
    else:
        begin = floor(row.export_start_date or row.created_at)
    return Start(begin, begin)


def integration_export(row: Integration, start: Start, settings: Settings) -> ProjectExport:
    """The row as an export.

    Raises:
        IntegrationError, DecryptionError: it cannot be one.
    """
    _warn(row, settings)
    is_trace_only = row.project_id in settings.trace_only_projects
    groups = [group for group in row.export_field_groups if group in ALL_GROUPS]
    has_prices = settings.export_prices and row.tuning.get(_SKIP_PRICES) is not True
    names = ("traces",) if is_trace_only else row.tables
    retentions = filter(None, (row.retention_days, settings.days_kept(row.project_id)))
    return ProjectExport(
        project_id=_project_id(row.project_id),
        name=row.project_name,
        enabled=row.enabled,
        tables=tuple(_table(name, groups, has_prices=has_prices) for name in names),
        frequency=row.frequency,
        start=start.first,
        encoding=replace(row.encoding, codec=ParquetCodec(settings.export_parquet_compression)),
        limits=QueryLimits.from_settings(settings),
        row_group_rows=settings.export_parquet_row_group_size,
        destination=_store_config(row, settings),
        destination_name=f"{row.bucket_name} of {row.project_id}",
        in_postgres=True,
        catch_up_from=start.resume,
        skip_empty=settings.export_skip_empty,
        retention_days=min(retentions, default=None),
    )


def _project_id(value: str) -> str:
    if not can_be_folder(value):
        raise IntegrationError(f"project_id {value!r} cannot be a folder of the object keys")
    return value


def _table(name: str, groups: list[str], *, has_prices: bool) -> Table:
    table = TABLES[name].with_price_columns() if has_prices else TABLES[name]
    return table.only(groups=groups or None)


def _store_config(row: Integration, settings: Settings) -> StoreConfig:
    is_azure = row.type == "AZURE_BLOB_STORAGE"
    if not _BUCKET.fullmatch(row.bucket_name):
        raise IntegrationError(f"bucket_name {row.bucket_name!r} is not the name of a bucket")
    if is_azure and not (row.endpoint and row.access_key_id and row.secret_access_key):
        raise IntegrationError("AZURE_BLOB_STORAGE needs endpoint, access_key_id and secret_access_key")
    secret = row.secret_access_key.get_secret_value() if row.secret_access_key else ""
    has_keys = bool(row.access_key_id and secret)
    if row.type == "S3_COMPATIBLE" and not has_keys:  # Langfuse takes ambient credentials for S3 alone
        raise IntegrationError("S3_COMPATIBLE needs access_key_id and secret_access_key")
    key = decrypt(secret, settings.encryption_key) if has_keys else None
    store = StoreConfig(
        url=f"{'az' if is_azure else 's3'}://{row.bucket_name}/{quote(_prefix(row.prefix))}",
        endpoint=row.endpoint or None,
        part_bytes=_part_bytes(row),
        untrusted_endpoint=True,
    )
    if is_azure:
        return replace(store, account_name=row.access_key_id, account_key=key)
    return replace(
        store,
        region=row.region or "auto",
        access_key_id=row.access_key_id if has_keys else None,
        secret_access_key=key,
        force_path_style=row.force_path_style,
    )


def _prefix(value: str) -> str:
    folders = value.removesuffix("/").split("/") if value else []
    if any(folder in ("", ".", "..") for folder in folders):
        raise IntegrationError(f"prefix {value!r} has an empty folder, or one that is . or ..")
    return value


def _part_bytes(row: Integration) -> int:
    asked = row.tuning.get("partSizeBytes")
    if asked is None:
        return PART_BYTES
    low, high = _PART_BYTES_BOUNDS
    used = min(max(round(asked), low), high) if _is_number(asked) else PART_BYTES
    if used != asked:
        log.warning("export_tuning_adjusted", projectId=row.project_id, partSizeBytes=asked, used=used)
    return used


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _remembered(row: Integration) -> datetime | None:
    try:
        return datetime.fromisoformat(row.tuning[START_KEY])
    except (KeyError, TypeError, ValueError):
        return None


def _warn(row: Integration, settings: Settings) -> None:
    ignored = [key for key in _IGNORED_TUNING if key in row.tuning]
    if ignored:
        log.info("export_tuning_ignored", projectId=row.project_id, keys=ignored)
    unknown = sorted(set(row.export_field_groups) - ALL_GROUPS)
    if unknown:
        log.warning("export_field_groups_unknown", projectId=row.project_id, groups=unknown)
    if settings.write_mode not in _WRITTEN_BY[row.export_source]:
        log.warning(
            "export_source_not_written",
            projectId=row.project_id,
            exportSource=row.export_source,
            writeMode=settings.write_mode,
        )
