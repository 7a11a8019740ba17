"""How far exports are behind the clock: one reading, for the gauges and for who is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from langfuse_export.due import Due
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.telemetry import Telemetry


@dataclass(frozen=True)
class ProjectLag:
    """How far a project's exports are.

    Attributes:
        ends: by table name, end of the newest exported window; the project's start if there is none.
        due: which windows are due when.
    """

    project: ProjectExport
    ends: Mapping[str, datetime]
    due: Due

    @property
    def end(self) -> datetime:
        """End of the newest exported window. Tables are exported together, unless some fail."""
        return max(self.ends.values())

    def windows_behind(self, end: datetime, now: datetime) -> int:
        """How many windows after `end` are due; those that the last tick made due count as one."""
        return self.due.behind(end, now)

    def due_since(self, watched_from: datetime) -> datetime:
        """When the first window was due, or will be, that is not exported.

        Args:
            watched_from: windows that were due before do not count.
        """
        first = max(self.end, self.due.until(watched_from))
        return self.due.due_at(first + self.project.frequency.length)

    def record(self, telemetry: Telemetry, now: datetime) -> None:
        """Set the gauges of each table."""
        for table, end in self.ends.items():
            telemetry.lag(self.project.project_id, table, (now - end).total_seconds())
            telemetry.windows_behind(self.project.project_id, table, self.windows_behind(end, now))


def read_lags(
    instance: dg.DagsterInstance, projects: Sequence[ProjectExport], delay: timedelta, now: datetime
) -> list[ProjectLag]:
    """How far each project is, from what the instance has recorded; one query while nothing is late.

    Args:
        delay: how long after its end a window may be exported at the earliest.
    """
    keys = [asset_key(project, table) for project in projects for table in project.tables]
    latest = instance.get_latest_materialization_events(keys)
    lags: list[ProjectLag] = []
    for project in projects:
        due = Due.of(project.frequency, project.timing, delay)
        asked = due.asked_until(now)
        ends = {
            table.name: _newest_end(instance, project, table, latest.get(asset_key(project, table)), asked)
            for table in project.tables
        }
        lags.append(ProjectLag(project, ends, due))
    return lags


def _newest_end(
    instance: dg.DagsterInstance,
    project: ProjectExport,
    table: Table,
    latest: dg.EventLogEntry | None,
    asked: datetime,
) -> datetime:
    """End of the newest exported window; `asked` is how far it should be."""
    if latest is None or latest.dagster_event is None:
        return project.start
    windows = project.frequency.windows_of_keys([latest.dagster_event.partition or ""])
    # What was exported last is the newest one unless somebody exports older ones: one query for all
    # tables instead of one for each.
    if not windows or windows[0].end < asked:
        done = instance.get_materialized_partitions(asset_key(project, table))
        windows = project.frequency.windows_of_keys(done)
    return max((window.end for window in windows), default=project.start)
