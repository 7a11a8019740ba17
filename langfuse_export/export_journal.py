"""What becomes of a project's windows and their tables, told to metrics and the log."""

import time
from dataclasses import dataclass

import structlog

from langfuse_export.errors import WindowError, reason_of
from langfuse_export.exported_table import ExportedTable
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.telemetry import TableAttributes, Telemetry
from langfuse_export.windows import Window, iso

log = structlog.get_logger()


def milliseconds_since(started: float) -> float:
    """Time since a reading of the monotonic clock, ms."""
    return (time.monotonic() - started) * 1000


@dataclass(frozen=True)
class ExportJournal:
    """Writes one entry for each thing that happens. Called from several threads.

    What takes time is told with `started`, a reading of the monotonic clock.
    """

    project: ProjectExport
    telemetry: Telemetry
    mode: str
    run_id: str | None

    def window_exported(self, window: Window, started: float) -> None:
        """A window has all its objects."""
        duration_ms = milliseconds_since(started)
        self.telemetry.job_finished(self.mode, "success", duration_ms)
        log.info("blob_export_window_exported", **self._fields(window, duration_ms))

    def window_failed(self, window: Window, started: float, error: BaseException) -> None:
        """A window has failed, as a whole or some of its tables."""
        duration_ms = milliseconds_since(started)
        self.telemetry.job_finished(self.mode, "failure", duration_ms)
        if not isinstance(error, WindowError):  # whose tables have been counted
            self.telemetry.window_failed(self.mode, reason_of(error))
        log.error(
            "blob_export_window_failed",
            table=",".join(error.failures) if isinstance(error, WindowError) else "*",
            reason=reason_of(error),
            error=str(error),
            **self._fields(window, duration_ms),
        )

    def window_split(self, table: Table, window: Window, error: Exception, parts: int) -> None:
        """A table's window is read in so many parts, because of the error."""
        reason = reason_of(error)
        self.telemetry.window_split(table.name, reason, parts)
        log.warning(
            "blob_export_window_split",
            table=table.name,
            reason=reason,
            parts=parts,
            error=str(error),
            **self._fields(window),
        )

    def table_exported(self, table: Table, window: Window, started: float, exported: ExportedTable) -> None:
        """A table has its object."""
        duration_ms = milliseconds_since(started)
        file = exported.file
        attributes = self._attributes(table, "success")
        self.telemetry.table_exported(attributes, duration_ms, file.row_count, file.size_bytes)
        log.info(
            "blob_export_table_exported",
            table=table.name,
            rows=file.row_count,
            bytes=file.size_bytes,
            parts=file.parts,
            uri=exported.uri,
            queryId=file.query_id,
            **self._fields(window, duration_ms),
        )

    def table_failed(self, table: Table, window: Window, started: float, error: BaseException) -> None:
        """A table has no object, or not a new one."""
        duration_ms = milliseconds_since(started)
        reason = reason_of(error)
        self.telemetry.table_failed(self._attributes(table, "failure"), duration_ms, reason)
        log.error(
            "blob_export_table_failed",
            table=table.name,
            reason=reason,
            error=str(error),
            **self._fields(window, duration_ms),
        )

    def _attributes(self, table: Table, outcome: str) -> TableAttributes:
        return TableAttributes(table.name, self.mode, str(self.project.encoding.format), outcome)

    def _fields(self, window: Window, duration_ms: float | None = None) -> dict[str, str | int | None]:
        duration = {} if duration_ms is None else {"durationMs": round(duration_ms)}
        return {
            "projectId": self.project.project_id,
            "windowStart": iso(window.start),
            "windowEnd": iso(window.end),
            **duration,
            "mode": self.mode,
            "runId": self.run_id,
        }
