"""Reads what Langfuse's projects export from its Postgres: the table `blob_storage_integrations`.

A row that cannot be understood takes no other project away: it is left out, and its `last_error` says why.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from psycopg.sql import SQL, Identifier
from pydantic import AfterValidator, BaseModel, SecretStr, ValidationError

from langfuse_export.catalog.errors import CatalogError
from langfuse_export.formats import Compression, Encoding, FileFormat
from langfuse_export.windows import Frequency
from langfuse_worker.logs import warn_once
from langfuse_worker.postgres import Database, DatabaseError, prisma_time

log = structlog.get_logger()

INTEGRATIONS = "blob_storage_integrations"
# Of its `last_error`, which Langfuse's settings page shows.
MAX_ERROR_CHARS = 1000
# The key under `export_tuning` that remembers the first window; Langfuse ignores keys that it does not know.
START_KEY = "exportStart"
# Every release of Langfuse adds columns; those that an older one lacks have defaults below.
_QUERY = SQL(
    "SELECT i.*, p.name AS project_name, {retention} FROM {integrations} i "
    "JOIN {projects} p ON p.id = i.project_id WHERE p.deleted_at IS NULL ORDER BY i.project_id"
)
RETENTION = "retention_days"
_REPORT = SQL(
    "UPDATE {integrations} SET last_error = %(error)s, last_error_at = %(now)s, run_started_at = NULL "
    "WHERE project_id = %(project)s AND last_error IS DISTINCT FROM %(error)s"
)

_SOURCES = {
    "TRACES_OBSERVATIONS": ("traces", "observations", "scores"),
    "TRACES_OBSERVATIONS_EVENTS": ("traces", "observations", "scores", "events"),
    "EVENTS": ("scores", "events"),
}
_TYPES = ("S3", "S3_COMPATIBLE", "AZURE_BLOB_STORAGE")


def _one_of(*allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return AfterValidator(check)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)  # Prisma's timestamps have no zone


Moment = Annotated[datetime, AfterValidator(_utc)]


class Integration(BaseModel):
    """One row: a project's export as Langfuse's settings page saved it."""

    project_id: str
    project_name: str
    retention_days: int | None = None
    enabled: bool
    type: Annotated[str, _one_of(*_TYPES)]
    bucket_name: str
    prefix: str
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    region: str = ""
    endpoint: str | None = None
    force_path_style: bool = False
    export_frequency: Annotated[str, _one_of(*Frequency)]
    export_mode: Annotated[str, _one_of("FULL_HISTORY", "FROM_TODAY", "FROM_CUSTOM_DATE")] = "FULL_HISTORY"
    export_start_date: Moment | None = None
    export_source: Annotated[str, _one_of(*_SOURCES)] = "TRACES_OBSERVATIONS"
    export_field_groups: list[str] = []
    file_type: Annotated[str, _one_of("JSON", "CSV", "JSONL", "PARQUET")] = "CSV"
    compressed: bool = False
    export_tuning: Any = None
    created_at: Moment
    last_sync_at: Moment | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that its `export_source` stands for."""
        return _SOURCES[self.export_source]

    @property
    def frequency(self) -> Frequency:
        """Its `export_frequency`."""
        return Frequency(self.export_frequency)

    @property
    def encoding(self) -> Encoding:
        """The files that it wants."""
        file_format = FileFormat(self.file_type.lower())
        is_compressed = self.compressed and file_format is not FileFormat.PARQUET
        return Encoding(file_format, Compression.GZIP if is_compressed else Compression.NONE)

    @property
    def needs_first_row(self) -> bool:
        """Whether only ClickHouse can tell where the project begins."""
        return self.last_sync_at is None and self.export_mode == "FULL_HISTORY"

    @property
    def identity(self) -> dict[str, Any]:
        """The row without what says how far its export is; the secret as it is stored."""
        tuning = {key: value for key, value in self.tuning.items() if key != START_KEY}
        stored = self.secret_access_key.get_secret_value() if self.secret_access_key else None
        row = self.model_dump(exclude={"last_sync_at", "export_tuning", "secret_access_key"})
        return {**row, "export_tuning": tuning, "secret_access_key": stored}

    @property
    def tuning(self) -> Mapping[str, Any]:
        """Its `export_tuning`, which nothing but SQL can set; empty if it is no JSON object."""
        return self.export_tuning if isinstance(self.export_tuning, dict) else {}


@dataclass(frozen=True)
class Rejection:
    """A project that cannot be exported as Langfuse's Postgres has it.

    Attributes:
        error: one line for the person who set it up; no secrets.
        enabled: whether it is switched on; nobody needs to hear of one that is not.
    """

    project_id: str
    error: str
    enabled: bool = True


def read_integrations(database: Database) -> list[Integration | Rejection]:
    """Every project that has an export and has not been deleted, with one query.

    Raises:
        CatalogError: Postgres does not answer, or it is not Langfuse's.
    """
    tables = {"integrations": database.table(INTEGRATIONS), "projects": database.table("projects")}
    try:
        is_readable = not database.columns_without("SELECT", "projects", [RETENTION])
        if not is_readable:
            warn_once("retention_unknown", grant=f"GRANT SELECT ({RETENTION}) ON projects")
        retention = Identifier("p", RETENTION) if is_readable else SQL("NULL")
        query = _QUERY.format(**tables, retention=retention)
        with database.transaction() as cursor:
            rows = cursor.execute(query).fetchall()
    except DatabaseError as error:
        raise CatalogError(f"DATABASE_URL: {error}") from None
    return list(map(_integration, rows))


def report_rejections(database: Database, rejections: Sequence[Rejection]) -> None:
    """Log them, and write them where Langfuse's settings page shows them, once each."""
    statement = _REPORT.format(integrations=database.table(INTEGRATIONS))
    now = prisma_time(datetime.now(UTC))
    for rejection in rejections:
        log.error("catalog_row_rejected", projectId=rejection.project_id, error=rejection.error)
        parameters = {"project": rejection.project_id, "error": rejection.error[:MAX_ERROR_CHARS], "now": now}
        try:
            database.update(statement, parameters)
        except DatabaseError as error:
            log.warning("write_back_failed", projectId=rejection.project_id, error=str(error))


def _integration(row: dict[str, Any]) -> Integration | Rejection:
    # A NULL means what the column's absence means in an older release.
    try:
        return Integration.model_validate({name: v for name, v in row.items() if v is not None})
    except ValidationError as error:
        return Rejection(str(row["project_id"]), "; ".join(_messages(error)), bool(row.get("enabled", True)))


def _messages(error: ValidationError) -> Iterator[str]:
    for detail in error.errors():
        column = str(detail["loc"][0])
        message = detail["msg"].removeprefix("Value error, ")
        yield f"{column}: {message}" if "secret" in column else f"{column} {detail['input']!r} {message}"
