"""Tells Langfuse's Postgres how far the exports of its projects are, as Langfuse's own worker would.

Its settings page and API derive a project's status from these columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from psycopg.sql import SQL

from langfuse_export.catalog.postgres import INTEGRATIONS, MAX_ERROR_CHARS, START_KEY
from langfuse_export.errors import CancelledError
from langfuse_export.history import History
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Window, iso
from langfuse_worker.postgres import Database, prisma_time

log = structlog.get_logger()

_STARTED = SQL("UPDATE {integrations} SET run_started_at = %(now)s WHERE project_id = %(project)s")
_CURSOR = SQL("SELECT last_sync_at FROM {integrations} WHERE project_id = %(project)s")
# Forwards only, whoever comes last. The first window is remembered beside it: the cursor moves on.
_ADVANCE = SQL(
    "UPDATE {integrations} SET last_sync_at = %(until)s, next_sync_at = %(due)s, "
    "export_tuning = CASE "
    "WHEN jsonb_typeof(coalesce(export_tuning, '{{}}')) <> 'object' THEN export_tuning "
    "WHEN last_sync_at IS NOT NULL AND export_tuning ? {key} THEN export_tuning "
    "ELSE coalesce(export_tuning, '{{}}') || jsonb_build_object({key}, %(start)s::text) END "
    "WHERE project_id = %(project)s AND (last_sync_at IS NULL OR last_sync_at < %(until)s)"
)
_FINISHED = SQL(
    "UPDATE {integrations} SET run_started_at = NULL, last_error = NULL, last_error_at = NULL "
    "WHERE project_id = %(project)s"
)
_STOPPED = SQL("UPDATE {integrations} SET run_started_at = NULL WHERE project_id = %(project)s")
_FAILED = SQL(
    "UPDATE {integrations} SET run_started_at = NULL, last_error = %(error)s, last_error_at = %(now)s "
    "WHERE project_id = %(project)s"
)
WRITTEN_COLUMNS = (
    "last_sync_at",
    "next_sync_at",
    "run_started_at",
    "last_error",
    "last_error_at",
    "export_tuning",
)


def unwritable_columns(database: Database, columns: Sequence[str] = WRITTEN_COLUMNS) -> list[str]:
    """Those of the columns that the role may not write. Raises DatabaseError."""
    return database.columns_without("UPDATE", INTEGRATIONS, columns)


@dataclass(frozen=True)
class PostgresWriteBack:
    """Implements `RunListener` for projects that Langfuse's Postgres has; others it does not mention.

    Attributes:
        lag: how long after its end a window is exported.
    """

    database: Database
    lag: timedelta

    def run_started(self, project: ProjectExport) -> None:
        """See `RunListener`."""
        self._update(_STARTED, project, now=prisma_time(datetime.now(UTC)))

    def window_exported(self, project: ProjectExport, window: Window, history: History) -> None:
        """See `RunListener`. Moves `last_sync_at` to the end of what has been exported without a gap."""
        if not project.in_postgres:
            return
        cursor = self._cursor(project)
        if cursor is not None and window.end <= cursor:
            return
        until = history.exported_until(project, cursor or project.start)
        if cursor is not None and until <= cursor:
            log.info("cursor_waits", projectId=project.project_id, window=str(window), cursor=iso(cursor))
            return
        due = until + project.frequency.length + self.lag
        self._update(
            _ADVANCE, project, until=prisma_time(until), due=prisma_time(due), start=project.start.isoformat()
        )

    def run_failed(self, project: ProjectExport, errors: Sequence[Exception], retrying: bool) -> None:
        """See `RunListener`. A run that somebody stopped is no error."""
        if all(isinstance(error, CancelledError) for error in errors):
            self._update(_STOPPED, project)
        elif not retrying:
            self._update(_FAILED, project, error=_text(errors, project), now=prisma_time(datetime.now(UTC)))

    def run_finished(self, project: ProjectExport, still_failing: bool) -> None:
        """See `RunListener`. What is said of windows that still fail, and hold the cursor, stays."""
        self._update(_STOPPED if still_failing else _FINISHED, project)

    def _cursor(self, project: ProjectExport) -> datetime | None:
        statement = _CURSOR.format(integrations=self.database.table(INTEGRATIONS))
        with self.database.transaction() as cursor:
            row = cursor.execute(statement, {"project": project.project_id}).fetchone()
        moment = row["last_sync_at"] if row else None
        return moment.replace(tzinfo=UTC) if moment else None

    def _update(self, statement: SQL, project: ProjectExport, **parameters: object) -> None:
        if project.in_postgres:
            named = statement.format(integrations=self.database.table(INTEGRATIONS), key=START_KEY)
            self.database.update(named, {"project": project.project_id, **parameters})


def _text(errors: Sequence[Exception], project: ProjectExport) -> str:
    return project.destination.masked("\n".join(map(str, errors)))[:MAX_ERROR_CHARS]
