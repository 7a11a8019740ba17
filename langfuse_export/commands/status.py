"""How far every table has been exported."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg

from langfuse_export.catalog import Catalog
from langfuse_export.health.describe import describe
from langfuse_export.health.state import Health, State
from langfuse_export.health.store import HealthStore
from langfuse_export.metadata import manifest_entry
from langfuse_export.naming import asset_key
from langfuse_export.partitions import partitions_def
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import iso


@dataclass(frozen=True)
class TableStatus:
    """One table of one project.

    Attributes:
        last_window: end of the newest exported window, ISO, UTC.
        lag_s: seconds from that end to now.
        rows: rows in that window's object.
        exported_windows: windows that have been exported.
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
    return [
        _with_health(_status(instance, project, table, now), health.get(project.project_id))
        for project in catalog.projects
        for table in project.tables
    ]


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


def _status(instance: dg.DagsterInstance, project: ProjectExport, table: Table, now: datetime) -> TableStatus:
    key = asset_key(project, table)
    partitions = partitions_def(project.frequency, project.start)
    statuses = instance.get_status_by_partition(key, partitions.get_partition_keys(now), partitions) or {}
    done = [k for k, status in statuses.items() if status is not None and status.name == "MATERIALIZED"]
    failed = sum(status is not None and status.name == "FAILED" for status in statuses.values())
    if not done:
        return TableStatus(project.project_id, table.name, None, None, None, 0, failed)
    newest = max(done, key=lambda k: project.frequency.window_of_key(k).end)
    end = project.frequency.window_of_key(newest).end
    return TableStatus(
        project=project.project_id,
        table=table.name,
        last_window=iso(end),
        lag_s=(now - end).total_seconds(),
        rows=_rows(instance, key, newest),
        exported_windows=len(done),
        failed_windows=failed,
    )


def _rows(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> int | None:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1
    ).records
    file = (
        manifest_entry(records[0].asset_materialization)
        if records and records[0].asset_materialization
        else None
    )
    return file.row_count if file else None
