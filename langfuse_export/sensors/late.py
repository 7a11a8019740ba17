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
from langfuse_export.health.recorder import adopt_failed
from langfuse_export.health.store import HealthStore
from langfuse_export.history import newest_files
from langfuse_export.manifest import ManifestFile
from langfuse_export.naming import LATE, MODE_TAG, PRIORITY_TAG, asset_key
from langfuse_export.partition_statuses import failed_partitions
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.run_requests import RequestedPartitions, consecutive, run_request
from langfuse_export.sensors.late_cursor import Audit, LateCursor, cursor_of
from langfuse_export.tables import ALL_TABLES, Table
from langfuse_export.telemetry import Telemetry
from langfuse_export.windows import Frequency, Window, iso
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError

log = structlog.get_logger()

# Below the schedules' newest and missed windows, above backfills, which have none.
LATE_PRIORITY = "3"
# Dagster ends a tick after 60 s, and with it goes the cursor: what does not fit waits for the next one.
TICK_FOR_S = 50
# Of it, for ClickHouse's clock, which is read before anything else,
CLOCK_FOR_S = 10
# and for looking, so that a table that cannot be looked at leaves time to compare.
LOOK_FOR_S = 35
# A comparison that has less does not begin.
COMPARE_IN_S = 5
# What a tick says of itself names so many.
_MAX_NAMED = 10

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
        if outcome.trouble:
            context.log.warning(outcome.trouble)
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

    def in_order(self, failed: Sequence[ProjectTable]) -> Iterator[tuple[ProjectTable, set[Window]]]:
        """The suspects of each project's table, those with the oldest window first.

        Last come those that failed, the longest ago first: none of them is ever in the way of others.
        """
        turn = {table: number for number, table in enumerate(failed, 1)}
        order = sorted(self.by_table, key=lambda table: (turn.get(table, 0), min(self.by_table[table])))
        yield from ((table, set(self.by_table[table])) for table in order)


@dataclass
class Compared:
    """What became of the suspects.

    Attributes:
        late: the tables of each window and project that differ from their files.
        waiting: windows that are left for the next tick, by project and table.
        failed: tables that ClickHouse could not compare, this tick's last.
        attempted: by project id, keys of windows that differ or have no file, and whose last attempt failed.
    """

    late: dict[tuple[Window, str], list[str]] = field(default_factory=dict)
    waiting: dict[ProjectTable, set[Window]] = field(default_factory=dict)
    failed: list[ProjectTable] = field(default_factory=list)
    attempted: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a tick leads to.

    Attributes:
        requests: runs to ask for.
        waiting: how many windows of each table it left for the next one.
        cursor: the next one's.
        unread: what ClickHouse refused to read.
    """

    requests: list[dg.RunRequest]
    waiting: dict[ProjectTable, int]
    cursor: LateCursor
    unread: Sequence[str] = ()

    @property
    def trouble(self) -> str | None:
        """What could not be read, if anything."""
        if not self.unread:
            return None
        more = f" and {len(self.unread) - _MAX_NAMED} more" if len(self.unread) > _MAX_NAMED else ""
        return f"could not read {', '.join(self.unread[:_MAX_NAMED])}{more}; the next tick tries again"

    @property
    def skip_reason(self) -> str:
        """Why there are no requests."""
        count = sum(self.waiting.values())
        wait = f"{count} windows wait for runs that are on their way, or for what fails"
        lines = [self.trouble, wait if count else None]
        return "\n".join(line for line in lines if line) or "no window has changed"


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
        self._began = time.monotonic()
        self._instance = instance
        self._clickhouse = clickhouse
        self._projects = {project.project_id: project for project in projects if project.enabled}
        self._partitions = partitions
        self._options = options
        self._margin = timedelta(seconds=options.late.margin_s)
        # Before the materializations are read: what ends in between is then seen as one or the other.
        self._requested = {f: RequestedPartitions.read(instance, d) for f, d in partitions.items()}
        self._now = Changes.of(clickhouse, CLOCK_FOR_S).clock()
        self._oldest = self._now - timedelta(hours=options.late.lookback_hours)
        self._unread: list[str] = []

    def evaluate(self, cursor: LateCursor) -> Outcome:
        """Find late windows, and ask for as many as a tick may.

        Raises:
            ClickHouseError: ClickHouse does not answer; the next tick looks from the same cursor on.
        """
        suspects = self._left_by(cursor)
        held = self._held()
        looked_at = self._look(cursor.looked_at, suspects)
        audit = self._audit(cursor.audit, suspects)
        compared = self._compare_all(suspects, held, cursor.failed)
        self._adopt(compared.attempted)
        late, waiting = compared.late, compared.waiting
        chosen = sorted(late, key=lambda key: (key[0].end, key))[: self._options.late.windows_per_tick]
        for window, project_id in late.keys() - set(chosen):
            for name in late[window, project_id]:
                waiting[project_id, name].add(window)
        requests = list(self._requests({key: late[key] for key in chosen}))
        left = self._count(waiting)
        self._log(chosen, left)
        # Their runs may be lost or cancelled: what was asked for is compared once more.
        for window, project_id in chosen:
            for name in late[window, project_id]:
                waiting[project_id, name].add(window)
        after = cursor_of(looked_at, waiting, self._projects, audit, compared.failed)
        return Outcome(requests, left, after, self._unread)

    def _left_by(self, cursor: LateCursor) -> Suspects:
        """What waits; however old by now, for it was young enough when it was found."""
        suspects = Suspects()
        for project in self._projects.values():
            for table, window in cursor.waiting_windows(project):
                if window.start >= project.start and self._has_table(project, table):
                    suspects.add(project.project_id, table, window)
        return suspects

    def _held(self) -> set[str]:
        """Projects that fail as a whole: another run would fail, too, so their windows wait in the cursor."""
        records = HealthStore(self._instance).read(self._projects)
        return {id for id, health in records.items() if health.waits}

    def _look(self, looked_at: Mapping[str, datetime], suspects: Suspects) -> dict[str, datetime]:
        """Suspect the windows in which rows were written since the last look; tables and time of this one.

        A table that cannot be looked at keeps its time. It comes last the next time, and each may take its
        share of what is left, so that the others are looked at all the same.
        """
        names = [n for n in ALL_TABLES if any(self._has_table(p, n) for p in self._projects.values())]
        if not names:
            return {}
        changes = Changes.of(self._clickhouse, self._left_of(LOOK_FOR_S))
        newest = changes.newest_parts([ALL_TABLES[name] for name in names])
        after = {name: moment for name, moment in looked_at.items() if name in names}
        names.sort(key=lambda name: looked_at.get(name, self._oldest), reverse=True)
        for done, name in enumerate(names):
            share = self._left_of(LOOK_FOR_S) / (len(names) - done)
            try:
                self._look_at(name, looked_at.get(name), newest.get(name), share, suspects)
            except ClickHouseError as error:
                log.warning("late_rows_look_failed", table=name, error=str(error)[:1000])
                self._unread.append(name)
            else:
                after[name] = self._now
        return after

    def _look_at(
        self,
        name: str,
        looked_at: datetime | None,
        newest_part: datetime | None,
        within_s: float,
        suspects: Suspects,
    ) -> None:
        between = Window(
            min(frequency.floor(self._oldest) for frequency in self._partitions),
            max(frequency.floor(self._now) for frequency in self._partitions),
        )
        since = (looked_at or between.start) - self._margin
        if newest_part and newest_part < since.replace(microsecond=0):
            return  # nothing has been written at all
        ids = [p.project_id for p in self._projects.values() if self._has_table(p, name)]
        found = Changes.of(self._clickhouse, within_s).written_since(
            ALL_TABLES[name], ids, since, between, recent_parts=newest_part is not None
        )
        for slot, changed in found.items():
            self._suspect_slot(suspects, name, slot, changed)

    def _left_of(self, seconds: float) -> float:
        """What is left of so many seconds since the tick began."""
        return self._began + seconds - time.monotonic()

    def _suspect_slot(self, suspects: Suspects, table: str, slot: Slot, changed: datetime) -> None:
        project = self._projects.get(slot.project_id)
        if project is None:
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

    def _adopt(self, attempted: Mapping[str, set[str]]) -> None:
        """Tell the recovery sensor of windows that failed without a word, as those of a killed process."""
        store, now = HealthStore(self._instance), self._options.now()
        for project_id, keys in attempted.items():
            adopt_failed(store, project_id, keys, self._options.health, now)

    def _compare_all(self, suspects: Suspects, held: set[str], failed: Sequence[ProjectTable]) -> Compared:
        """Compare all that the tick has time for; what ClickHouse refuses is tried again by the next one."""
        compared = Compared()
        refused: list[ProjectTable] = []
        for at, windows in suspects.in_order(failed):
            project_id, name = at
            compared.waiting[at] = windows
            if project_id in held or self._left_of(TICK_FOR_S) < COMPARE_IN_S:
                compared.failed += [at] if at in failed else []
                continue
            try:
                self._compare(at, suspects.by_table[at], compared)
            except ClickHouseError as error:
                fields = {"table": name, "windows": len(windows), "error": str(error)[:1000]}
                log.warning("late_rows_compare_failed", projectId=project_id, **fields)
                refused.append(at)
        compared.failed += refused
        self._unread += [f"{project_id} {name}" for project_id, name in refused]
        return compared

    def _compare(
        self, at: ProjectTable, suspects: Mapping[Window, datetime | None], compared: Compared
    ) -> None:
        """Tell the windows that differ from their files from those that are on their way already.

        A window that nobody has attempted is left to the schedule, one whose last attempt failed, with a file
        or without, to the recovery sensor.
        """
        project_id, name = at
        project = self._projects[project_id]
        table = project.table(name)
        asset, key = asset_key(project, table), project.frequency.key
        requested = self._requested[project.frequency].by_asset.get(asset, set())
        on_their_way = {window for window in suspects if key(window) in requested}
        files = newest_files(self._instance, project, table, suspects.keys() - on_their_way)
        doubtful = [w for w, file in files.items() if self._may_miss(file, suspects[w])]
        late = self._differing(project, table, {window: files[window] for window in doubtful})
        compared.waiting[at] = on_their_way
        # Without a file only those count that failed: what nobody has attempted is the schedule's.
        missing = suspects.keys() - on_their_way - files.keys()
        keys, partitions = [key(window) for window in [*late, *missing]], self._partitions[project.frequency]
        failed = failed_partitions(self._instance, asset, keys, partitions)
        compared.attempted.setdefault(project_id, set()).update(failed)
        for window in late:
            if key(window) not in failed:
                compared.late.setdefault((window, project_id), []).append(name)

    def _differing(
        self, project: ProjectExport, table: Table, files: Mapping[Window, ManifestFile]
    ) -> list[Window]:
        if not files:
            return []
        changes = Changes.of(self._clickhouse.with_limits(project.limits), self._left_of(TICK_FOR_S))
        now = changes.fingerprints(project.project_id, table, list(files))
        return [window for window, file in files.items() if now[window].differs_from(file)]

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
