"""How far every table has been exported."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg

from langfuse_export.catalog import Catalog
from langfuse_export.health.describe import describe
from langfuse_export.health.state import Health, State
from langfuse_export.health.store import HealthStore
from langfuse_export.history import newest_record
from langfuse_export.metadata import manifest_entry
from langfuse_export.naming import asset_key
from langfuse_export.partition_statuses import Outcomes, partition_outcomes
from langfuse_export.partitions import partitions_def
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import Frequency, iso


@dataclass(frozen=True)
class TableStatus:
    """One table of one project.

    Attributes:
        last_window: end of the newest exported window, ISO, UTC.
        lag_s: seconds from that end to now.
        rows: rows in that window's object.
        exported_windows: windows that have been exported, whatever became of later attempts.
        failed_windows: windows whose last attempt failed.
        state: of the project: healthy, retrying, backing_off, stopped or catching_up.
        state_since: when the trouble began, ISO, UTC; None without any, as the following.
        reason: of its last failure.
        next_attempt: when what failed is tried again, ISO, UTC.
        trouble: all of that for people.
    """

    project: str
    table: str
    last_window: str | None
    lag_s: float | None
    rows: int | None
    exported_windows: int
    failed_windows: int
    state: str = State.HEALTHY.value
    state_since: str | None = None
    reason: str | None = None
    next_attempt: str | None = None
    trouble: str | None = None

    @property
    def lag_text(self) -> str:
        """The lag for people: days, hours and minutes."""
        if self.lag_s is None:
            return "-"
        return str(timedelta(minutes=round(self.lag_s / 60))).removesuffix(":00")

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return vars(self)


def table_statuses(instance: dg.DagsterInstance, catalog: Catalog, now: datetime) -> list[TableStatus]:
    """The status of every table of the catalog, from the instance's records."""
    health = HealthStore(instance).read(project.project_id for project in catalog.projects)
    windows = _windows(instance, catalog.projects, now)
    latest = instance.get_latest_materialization_events(list(windows))
    return [
        _with_health(
            _status(instance, project, table, windows[key], latest.get(key), now),
            health.get(project.project_id),
        )
        for project in catalog.projects
        for table in project.tables
        for key in [asset_key(project, table)]
    ]


def _windows(
    instance: dg.DagsterInstance, projects: Sequence[ProjectExport], now: datetime
) -> dict[dg.AssetKey, Outcomes]:
    """What became of every window of every table; few queries for all projects."""
    alike: dict[tuple[Frequency, datetime], list[dg.AssetKey]] = defaultdict(list)
    for project in projects:
        assets = [asset_key(project, table) for table in project.tables]
        alike[project.frequency, project.start] += assets
    found: dict[dg.AssetKey, Outcomes] = {}
    for (frequency, start), assets in alike.items():
        partitions = partitions_def(frequency, start)
        found |= partition_outcomes(instance, assets, partitions.get_partition_keys(now), partitions)
    return found


def _with_health(status: TableStatus, health: Health | None) -> TableStatus:
    if health is None or (health.since is None and not health.is_behind):
        return status
    return replace(
        status,
        state=health.state.value,
        state_since=iso(health.since) if health.since else None,
        reason=health.failure.reason if health.failure else None,
        next_attempt=iso(health.next_attempt) if health.next_attempt else None,
        trouble=f"{status.project}: {describe(health)}",
    )


def _status(
    instance: dg.DagsterInstance,
    project: ProjectExport,
    table: Table,
    windows: Outcomes,
    latest: dg.EventLogEntry | None,
    now: datetime,
) -> TableStatus:
    if not windows.exported:
        return TableStatus(project.project_id, table.name, None, None, None, 0, len(windows.failed))
    key = windows.exported[-1]
    newest = project.frequency.window_of_key(key)
    event = latest.asset_materialization if latest else None
    if event is None or event.partition != key:  # somebody exported an older window since
        record = newest_record(instance, asset_key(project, table), key)
        event = record.asset_materialization if record else None
    file = manifest_entry(event) if event else None
    return TableStatus(
        project=project.project_id,
        table=table.name,
        last_window=iso(newest.end),
        lag_s=(now - newest.end).total_seconds(),
        rows=file.row_count if file else None,
        exported_windows=len(windows.exported),
        failed_windows=len(windows.failed),
    )
