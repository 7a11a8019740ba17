"""Compares exported windows with what ClickHouse holds of them now."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg
import structlog

from langfuse_export.changes import Changes
from langfuse_export.history import newest_files
from langfuse_export.manifest import ManifestFile
from langfuse_export.naming import asset_key
from langfuse_export.partition_statuses import failed_partitions
from langfuse_export.partitions import Partitions
from langfuse_export.project import ProjectExport
from langfuse_export.run_requests import RequestedPartitions
from langfuse_export.sensors import late_time
from langfuse_export.sensors.late_search import ProjectTable, Suspects
from langfuse_export.sensors.late_time import TickTime
from langfuse_export.tables import Table
from langfuse_export.windows import Frequency, Window
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError

log = structlog.get_logger()


@dataclass
class Compared:
    """What became of the suspects.

    Attributes:
        late: the tables of each window and project that differ from their files.
        waiting: windows that are left for the next tick, by project and table.
        refused: tables that ClickHouse could not compare in this tick.
        failed: those, after others that it could not compare before and that have not had a turn since.
        attempted: by project id, keys of windows that differ or have no file, and whose last attempt failed.
    """

    late: dict[tuple[Window, str], list[str]] = field(default_factory=dict)
    waiting: dict[ProjectTable, set[Window]] = field(default_factory=dict)
    refused: list[ProjectTable] = field(default_factory=list)
    failed: list[ProjectTable] = field(default_factory=list)
    attempted: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Tells which suspects differ from their files.

    Attributes:
        instance: whose materializations say what the files were made of.
        clickhouse: with the limits of exports.
        projects: those that are enabled, by id.
        partitions: of their frequencies.
        requested: the partitions that runs on their way will export. Read before any materialization: what
            ends in between is then seen as one or the other.
        time: the tick's.
    """

    instance: dg.DagsterInstance
    clickhouse: ClickHouse
    projects: Mapping[str, ProjectExport]
    partitions: Partitions
    requested: Mapping[Frequency, RequestedPartitions]
    time: TickTime

    def compare(self, suspects: Suspects, held: AbstractSet[str], failed: Sequence[ProjectTable]) -> Compared:
        """Compare all that the tick has time for; what ClickHouse refuses is tried again by the next one."""
        compared = Compared()
        for at, windows in suspects.in_order(failed):
            project_id, name = at
            compared.waiting[at] = windows
            if project_id in held or self.time.left_of(late_time.TICK_FOR_S) < late_time.COMPARE_IN_S:
                compared.failed += [at] if at in failed else []
                continue
            try:
                self._compare_table(at, suspects.by_table[at], compared)
            except ClickHouseError as error:
                fields = {"table": name, "windows": len(windows), "error": str(error)}
                log.warning("late_rows_compare_failed", projectId=project_id, **fields)
                compared.refused.append(at)
        compared.failed += compared.refused
        return compared

    def _compare_table(
        self, at: ProjectTable, suspects: Mapping[Window, datetime | None], compared: Compared
    ) -> None:
        """Tell the windows that differ from their files from those that are on their way already.

        A window that nobody has attempted is left to the schedule, one whose last attempt failed, with a file
        or without, to the recovery sensor.
        """
        project_id, name = at
        project = self.projects[project_id]
        table = project.table(name)
        asset, key = asset_key(project, table), project.frequency.key
        requested = self.requested[project.frequency].by_asset.get(asset, set())
        on_their_way = {window for window in suspects if key(window) in requested}
        files = newest_files(self.instance, project, table, suspects.keys() - on_their_way)
        doubtful = [w for w, file in files.items() if self._may_miss(file, suspects[w])]
        late = self._differing(project, table, {window: files[window] for window in doubtful})
        compared.waiting[at] = on_their_way
        # Without a file only those count that failed: what nobody has attempted is the schedule's.
        missing = suspects.keys() - on_their_way - files.keys()
        keys, partitions = [key(window) for window in [*late, *missing]], self.partitions[project.frequency]
        failed = failed_partitions(self.instance, asset, keys, partitions)
        compared.attempted.setdefault(project_id, set()).update(failed)
        for window in late:
            if key(window) not in failed:
                compared.late.setdefault((window, project_id), []).append(name)

    def _differing(
        self, project: ProjectExport, table: Table, files: Mapping[Window, ManifestFile]
    ) -> list[Window]:
        if not files:
            return []
        changes = Changes.of(
            self.clickhouse.with_limits(project.limits), self.time.left_of(late_time.TICK_FOR_S)
        )
        now = changes.fingerprints(project.project_id, table, list(files))
        return [window for window, file in files.items() if now[window] != int(file.source_fingerprint, 16)]

    def _may_miss(self, file: ManifestFile, changed: datetime | None) -> bool:
        return changed is None or changed >= datetime.fromisoformat(file.read_at) - self.time.margin
