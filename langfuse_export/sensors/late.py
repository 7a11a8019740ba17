"""Finds closed windows whose rows changed after their export, and has just those tables exported again.

A tick asks each ClickHouse table once, for all projects, in which windows rows were written since the last
tick. Those that have been exported are compared by fingerprint with what their file was made of, so the
first question may err on the side of too many, and a window is never exported again for nothing.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import dagster as dg
import structlog
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from langfuse_export.changes import Changes, Slot
from langfuse_export.health.store import HealthStore
from langfuse_export.history import newest_files
from langfuse_export.manifest import ManifestFile
from langfuse_export.naming import LATE, MODE_TAG, PRIORITY_TAG, asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.run_requests import RequestedPartitions, consecutive, run_request
from langfuse_export.sensors.late_cursor import Audit, LateCursor, cursor_of
from langfuse_export.tables import ALL_TABLES, Table
from langfuse_export.windows import Frequency, Window, iso
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.telemetry import Telemetry

log = structlog.get_logger()

# Below the schedules' newest and missed windows, above backfills, which have none.
LATE_PRIORITY = "3"
# What a tick has to compare windows in; Dagster ends it after 60 s, and the rest waits for the next one.
COMPARE_FOR_S = 30

Partitions = Mapping[Frequency, dg.TimeWindowPartitionsDefinition]
# Project id and table name.
ProjectTable = tuple[str, str]


def build_late_sensor(
    projects: Sequence[ProjectExport],
    partitions: Partitions,
    jobs: Sequence[dg.JobDefinition | UnresolvedAssetJobDefinition],
    options: ExportOptions,
) -> dg.SensorDefinition:
    """The sensor of all projects; `partitions` and `jobs` are those of their frequencies."""
    late = options.late

    @dg.sensor(
        name="late_rows_sensor",
        jobs=list(jobs),
        minimum_interval_seconds=late.interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Exports windows of the last {late.lookback_hours} hours again whose rows were written, changed "
            f"or deleted after their export; {late.windows_per_tick} windows a tick at most."
        ),
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        clickhouse: dg.ResourceParam[ClickHouse],
        telemetry: dg.ResourceParam[Telemetry],
    ) -> dg.SensorResult:
        with clickhouse.hold():
            tick = LateTick(context.instance, clickhouse, projects, partitions, options)
            outcome = tick.evaluate(LateCursor.parse(context.cursor))
        for (project_id, table), windows in outcome.waiting.items():
            telemetry.late_windows(project_id, table, windows)
        telemetry.flush()
        cursor = outcome.cursor.model_dump_json()
        if outcome.requests:
            return dg.SensorResult(run_requests=outcome.requests, cursor=cursor)
        return dg.SensorResult(skip_reason=outcome.skip_reason, cursor=cursor)

    return sensor


@dataclass
class Suspects:
    """Windows that may have changed, by project and table, each with its latest change if that is known."""

    by_table: dict[ProjectTable, dict[Window, datetime | None]] = field(default_factory=dict)

    def add(self, project_id: str, table: str, window: Window, changed: datetime | None = None) -> None:
        """Suspect a window. Without a change it is compared in any case."""
        known = self.by_table.setdefault((project_id, table), {})
        earlier = known.get(window, changed)
        known[window] = max(earlier, changed) if earlier and changed else None

    def oldest_first(self) -> Iterator[tuple[ProjectTable, dict[Window, datetime | None]]]:
        """The suspects of each project's table, those with the oldest window first."""
        yield from sorted(self.by_table.items(), key=lambda item: min(item[1]))


@dataclass(frozen=True)
class Outcome:
    """What a tick leads to; `waiting` counts the windows of each table that it left for the next one."""

    requests: list[dg.RunRequest]
    waiting: dict[ProjectTable, int]
    cursor: LateCursor

    @property
    def skip_reason(self) -> str:
        """Why there are no requests."""
        count = sum(self.waiting.values())
        if not count:
            return "no window has changed"
        return f"{count} windows wait for runs that are on their way, or for projects that fail"


class LateTick:
    """One evaluation of the sensor."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        clickhouse: ClickHouse,
        projects: Sequence[ProjectExport],
        partitions: Partitions,
        options: ExportOptions,
    ) -> None:
        self._instance = instance
        self._clickhouse = clickhouse
        self._changes = Changes.of(clickhouse)
        self._projects = {project.project_id: project for project in projects if project.enabled}
        self._partitions = partitions
        self._options = options
        self._margin = timedelta(seconds=options.late.margin_s)
        # Before the materializations are read: what ends in between is then seen as one or the other.
        self._requested = {f: RequestedPartitions.read(instance, d) for f, d in partitions.items()}
        self._now = self._changes.clock()
        self._oldest = self._now - timedelta(hours=options.late.lookback_hours)

    def evaluate(self, cursor: LateCursor) -> Outcome:
        """Find late windows, and ask for as many as a tick may.

        Raises:
            ClickHouseError: ClickHouse does not answer; the next tick looks from the same cursor on.
        """
        deadline = time.monotonic() + COMPARE_FOR_S
        suspects = Suspects()
        for project in self._projects.values():
            for table, window in cursor.waiting_windows(project):
                # However old by now: it was young enough when it was found.
                if window.start >= project.start and self._has_table(project, table):
                    suspects.add(project.project_id, table, window)
        held = self._held()
        looked_at = self._look(cursor.looked_at, suspects)
        audit = self._audit(cursor.audit, suspects)
        late: dict[tuple[Window, str], list[str]] = {}
        waiting: dict[ProjectTable, set[Window]] = {}
        for (project_id, name), windows in suspects.oldest_first():
            if project_id in held or time.monotonic() > deadline:
                waiting[project_id, name] = set(windows)
                continue
            project = self._projects[project_id]
            found, on_their_way = self._compare(project, project.table(name), windows)
            waiting[project_id, name] = on_their_way
            for window in found:
                late.setdefault((window, project_id), []).append(name)
        chosen = sorted(late, key=lambda key: (key[0].end, key))[: self._options.late.windows_per_tick]
        for window, project_id in late.keys() - set(chosen):
            for name in late[window, project_id]:
                waiting[project_id, name].add(window)
        requests = list(self._requests({key: late[key] for key in chosen}))
        left = self._count(waiting)
        self._log(chosen, left)
        return Outcome(requests, left, cursor_of(looked_at, waiting, self._projects, audit))

    def _held(self) -> set[str]:
        """Projects that fail as a whole: another run would fail, too, so their windows wait in the cursor."""
        records = HealthStore(self._instance).read(self._projects)
        return {id for id, health in records.items() if health.waits}

    def _look(self, looked_at: Mapping[str, datetime], suspects: Suspects) -> dict[str, datetime]:
        """Suspect the windows in which rows were written since the last look; tables and time of this one."""
        names = [n for n in ALL_TABLES if any(self._has_table(p, n) for p in self._projects.values())]
        if not names:
            return {}
        newest = self._changes.newest_parts([ALL_TABLES[name] for name in names])
        between = Window(
            min(frequency.floor(self._oldest) for frequency in self._partitions),
            max(frequency.floor(self._now) for frequency in self._partitions),
        )
        for name in names:
            since = looked_at.get(name, between.start) - self._margin
            if name in newest and newest[name] < since.replace(microsecond=0):
                continue  # nothing has been written at all
            ids = [p.project_id for p in self._projects.values() if self._has_table(p, name)]
            table, has_parts = ALL_TABLES[name], name in newest
            found = self._changes.written_since(table, ids, since, between, recent_parts=has_parts)
            for slot, changed in found.items():
                self._suspect_slot(suspects, name, slot, changed)
        return dict.fromkeys(names, self._now)

    def _suspect_slot(self, suspects: Suspects, table: str, slot: Slot, changed: datetime) -> None:
        project = self._projects.get(slot.project_id)
        if project is None or not self._has_table(project, table):
            return
        frequency = project.frequency
        window = frequency.window(frequency.floor(slot.start))
        # No export reads before its window ends.
        if changed >= window.end - self._margin:
            self._suspect(suspects, project, table, window, changed)

    def _suspect(
        self, suspects: Suspects, project: ProjectExport, table: str, window: Window, changed: datetime | None
    ) -> None:
        in_reach = self._oldest < window.end <= self._now and window.start >= project.start
        if in_reach and self._has_table(project, table):
            suspects.add(project.project_id, table, window, changed)

    def _audit(self, audit: Audit, suspects: Suspects) -> Audit:
        """Suspect every window of the projects whose turn it is."""
        late = self._options.late
        if late.audit_hours == 0:
            return audit
        period, interval = timedelta(hours=late.audit_hours), timedelta(seconds=late.interval_s)
        due, audit = audit.advance(self._projects, self._now, period, min(interval, period))
        for project in map(self._projects.__getitem__, due):
            for window in project.frequency.windows(self._oldest, self._now):
                for table in project.tables:
                    self._suspect(suspects, project, table.name, window, None)
        return audit

    def _compare(
        self, project: ProjectExport, table: Table, suspects: Mapping[Window, datetime | None]
    ) -> tuple[list[Window], set[Window]]:
        """The windows that differ from their files, and those that are on their way already.

        A window without a file is left to the schedule, one whose last attempt failed to people.
        """
        asset, key = asset_key(project, table), project.frequency.key
        requested = self._requested[project.frequency].by_asset.get(asset, set())
        on_their_way = {window for window in suspects if key(window) in requested}
        files = newest_files(self._instance, project, table, suspects.keys() - on_their_way)
        doubtful = [w for w, file in files.items() if self._may_miss(file, suspects[w])]
        if not doubtful:
            return [], on_their_way
        changes = Changes.of(self._clickhouse.with_limits(project.limits))
        now = changes.fingerprints(project.project_id, table, doubtful)
        late = {key(w): w for w in doubtful if now[w].differs_from(files[w])}
        partitions = self._partitions[project.frequency]
        status = self._instance.get_status_by_partition(asset, list(late), partitions) if late else {}
        failed = {k for k, value in (status or {}).items() if value is not None and value.name == "FAILED"}
        return [window for k, window in late.items() if k not in failed], on_their_way

    def _may_miss(self, file: ManifestFile, changed: datetime | None) -> bool:
        if changed is None or file.read_at is None:
            return True
        return changed >= datetime.fromisoformat(file.read_at) - self._margin

    def _requests(self, chosen: Mapping[tuple[Window, str], list[str]]) -> Iterator[dg.RunRequest]:
        """Runs of consecutive windows that changed in the same tables."""
        tags = {MODE_TAG: LATE, PRIORITY_TAG: LATE_PRIORITY}
        for project_id in dict.fromkeys(project_id for _, project_id in chosen):
            project = self._projects[project_id]
            at_most = self._options.windows_per_run_of(project.frequency)
            windows = sorted((w, tuple(sorted(names))) for (w, p), names in chosen.items() if p == project_id)
            for names, group in groupby(windows, key=lambda item: item[1]):
                tables = [project.table(name) for name in names]
                for first, last in consecutive((w for w, _ in group), at_most):
                    yield run_request(project, tables, first, last, tags, attempt=iso(self._now))

    def _count(self, waiting: Mapping[ProjectTable, set[Window]]) -> dict[ProjectTable, int]:
        tables = [(p.project_id, table.name) for p in self._projects.values() for table in p.tables]
        return {table: len(waiting.get(table, ())) for table in tables}

    def _log(self, chosen: Sequence[tuple[Window, str]], waiting: Mapping[ProjectTable, int]) -> None:
        count = sum(waiting.values())
        if chosen or count:
            oldest = iso(chosen[0][0].start) if chosen else None
            log.info("blob_export_late_windows", requested=len(chosen), waiting=count, oldest=oldest)

    @staticmethod
    def _has_table(project: ProjectExport, name: str) -> bool:
        return any(table.name == name for table in project.tables)
