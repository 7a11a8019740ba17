"""Finds closed windows whose rows changed after their export, and has just those tables exported again.

A tick asks each ClickHouse table once, for all projects, in which windows rows were written since the last
tick. Those that have been exported are compared by fingerprint with what their file was made of, so the
first question may err on the side of too many, and a window is never exported again for nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import dagster as dg
import structlog
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from langfuse_export.health.recorder import adopt_failed
from langfuse_export.health.store import HealthStore
from langfuse_export.history import displaced_windows
from langfuse_export.naming import LATE, MODE_TAG, PRIORITY_TAG
from langfuse_export.partitions import Partitions
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.run_requests import RequestedPartitions, consecutive, run_request
from langfuse_export.sensors.late_comparison import Comparison
from langfuse_export.sensors.late_cursor import LateCursor, cursor_of
from langfuse_export.sensors.late_search import ProjectTable, Search
from langfuse_export.sensors.late_time import TickTime
from langfuse_export.telemetry import Telemetry
from langfuse_export.windows import Window, iso
from langfuse_worker.clickhouse import ClickHouse

log = structlog.get_logger()

# Below the schedules' newest and missed windows, above backfills, which have none.
LATE_PRIORITY = "3"
# What a tick says of itself names so many.
_MAX_NAMED = 10


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
        """Begin it. Raises ClickHouseError if ClickHouse does not say what time it is."""
        self._instance = instance
        self._options = options
        self._projects = {project.project_id: project for project in projects if project.enabled}
        self._time = TickTime.read(clickhouse, options.late)
        requested = {f: RequestedPartitions.read(instance, d) for f, d in partitions.items()}
        self._search = Search(clickhouse, self._projects, partitions.keys(), self._time)
        self._comparison = Comparison(instance, clickhouse, self._projects, partitions, requested, self._time)

    def evaluate(self, cursor: LateCursor) -> Outcome:
        """Find late windows, and ask for as many as a tick may.

        Raises:
            ClickHouseError: ClickHouse does not answer; the next tick looks from the same cursor on.
        """
        search = self._search
        search.left_by(cursor)
        held = self._held()
        looked_at = search.look(cursor.looked_at)
        audit = search.audit(cursor.audit, self._options.late)
        compared = self._comparison.compare(search.suspects, held, cursor.failed)
        self._adopt(compared.attempted)
        late, waiting = compared.late, compared.waiting
        chosen = sorted(late, key=lambda key: (key[0].end, key))[: self._options.late.windows_per_tick]
        for window, project_id in late.keys() - set(chosen):
            for name in late[window, project_id]:
                waiting[project_id, name].add(window)
        requests = list(self._requests(self._whole_where_moved({key: late[key] for key in chosen})))
        left = self._count(waiting)
        self._log(chosen, left)
        # Their runs may be lost or cancelled: what was asked for is compared once more.
        for window, project_id in chosen:
            for name in late[window, project_id]:
                waiting[project_id, name].add(window)
        after = cursor_of(looked_at, waiting, self._projects, audit, compared.failed)
        unread = [*search.unread, *map(" ".join, compared.refused)]
        return Outcome(requests, left, after, unread)

    def _held(self) -> set[str]:
        """Projects that fail as a whole: another run would fail, too, so their windows wait in the cursor."""
        records = HealthStore(self._instance).read(self._projects)
        return {id for id, health in records.items() if health.waits}

    def _adopt(self, attempted: Mapping[str, set[str]]) -> None:
        """Tell the recovery sensor of windows that failed without a word, as those of a killed process."""
        store, now = HealthStore(self._instance), self._options.now()
        for project_id, keys in attempted.items():
            adopt_failed(store, project_id, keys, self._options.health, now)

    def _whole_where_moved(
        self, chosen: Mapping[tuple[Window, str], list[str]]
    ) -> dict[tuple[Window, str], list[str]]:
        """The same with every table of windows whose objects are elsewhere, such as below an earlier prefix.

        One table alone would have no manifest there, and nobody would look for it.
        """
        whole = dict(chosen)
        for project_id in dict.fromkeys(project_id for _, project_id in chosen):
            project = self._projects[project_id]
            windows = [window for window, other in chosen if other == project_id]
            for table in project.tables:
                for window in displaced_windows(self._instance, project, table, windows):
                    whole[window, project_id] = [table.name for table in project.tables]
        return whole

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
                    yield run_request(project, tables, first, last, tags, attempt=iso(self._time.now))

    def _count(self, waiting: Mapping[ProjectTable, set[Window]]) -> dict[ProjectTable, int]:
        tables = [(p.project_id, table.name) for p in self._projects.values() for table in p.tables]
        return {table: len(waiting.get(table, ())) for table in tables}

    def _log(self, chosen: Sequence[tuple[Window, str]], waiting: Mapping[ProjectTable, int]) -> None:
        count = sum(waiting.values())
        if chosen or count:
            oldest = iso(chosen[0][0].start) if chosen else None
            log.info("blob_export_late_windows", requested=len(chosen), waiting=count, oldest=oldest)
