"""One schedule per frequency: asks for each project's newest closed window and for those that were missed.

Dagster's own partition schedules ask for one window a tick and never for those of a downtime, so every tick
looks back over the windows that nobody has attempted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
from dagster import AssetKey, DagsterRunStatus, RunsFilter

from langfuse_export.naming import (
    PARTITION_TAG,
    PRIORITY_TAG,
    PROJECT_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    asset_key,
    job_name,
    safe_name,
)
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.windows import Frequency, Window
from langfuse_worker.telemetry import Telemetry

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
]
NEWEST_PRIORITY = "10"
MISSED_PRIORITY = "5"


def build_schedule(
    frequency: Frequency,
    projects: Sequence[ProjectExport],
    partitions: dg.TimeWindowPartitionsDefinition,
    options: ExportOptions,
) -> dg.ScheduleDefinition:
    """The schedule of a frequency; it ticks once per window, a lag after the window's end."""
    enabled = [project for project in projects if project.enabled]
    lag = timedelta(milliseconds=options.lag_ms)

    @dg.schedule(
        name=f"export_{frequency.value}_schedule",
        cron_schedule=cron(frequency, lag),
        job_name=job_name(frequency),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        execution_timezone="UTC",
        description=(
            f"Exports the newest closed {frequency.value} window of each project, {lag} after its end, and "
            f"windows of the last {options.lookback_hours} hours that were never attempted."
        ),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, telemetry: dg.ResourceParam[Telemetry]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        tick = Tick(context.instance, frequency, partitions, options.windows_per_run_of(frequency))
        windows = due_windows(frequency, context.scheduled_execution_time - lag, options.lookback_hours)
        requests = [request for project in enabled for request in tick.requests(project, windows)]
        for project in enabled:
            tick.record_lag(project, context.scheduled_execution_time, lag, telemetry)
        telemetry.flush()
        yield from requests
        if not requests:
            yield dg.SkipReason("every due window has been exported or is on its way")

    return schedule


def cron(frequency: Frequency, lag: timedelta) -> str:
    """The cron line, UTC, that ticks `lag` (rounded up to minutes) after each window's end."""
    minutes = -(-lag // timedelta(minutes=1))
    minute, hour, day = minutes % 60, minutes // 60 % 24, minutes // 1440
    if frequency is Frequency.EVERY_20_MINUTES:
        first = minutes % 20
        return f"{first},{first + 20},{first + 40} * * * *"
    if frequency is Frequency.HOURLY:
        return f"{minute} * * * *"
    if frequency is Frequency.DAILY:
        return f"{minute} {hour} * * *"
    return f"{minute} {hour} * * {(1 + day) % 7}"


def due_windows(frequency: Frequency, until: datetime, lookback_hours: int) -> list[Window]:
    """Windows closed by `until` within the look-back, oldest first; the newest one in any case."""
    count = max(1, timedelta(hours=lookback_hours) // frequency.length)
    return frequency.closed_before(until, count)


@dataclass(frozen=True)
class RequestedPartitions:
    """Partitions of unfinished runs: windows that are on their way."""

    by_asset: dict[AssetKey, set[str]]

    @classmethod
    def read(
        cls, instance: dg.DagsterInstance, partitions: dg.TimeWindowPartitionsDefinition
    ) -> "RequestedPartitions":
        """Read them from the runs that wait or run now, whoever started them."""
        found: dict[AssetKey, set[str]] = {}
        for run in instance.get_runs(RunsFilter(statuses=_UNFINISHED)):
            keys = _partitions_of(run, partitions)
            for asset in run.asset_selection or ():
                found.setdefault(asset, set()).update(keys)
        return cls(found)


def _partitions_of(run: dg.DagsterRun, partitions: dg.TimeWindowPartitionsDefinition) -> list[str]:
    if key := run.tags.get(PARTITION_TAG):
        return [key]
    first = run.tags.get(RANGE_START_TAG)
    last = run.tags.get(RANGE_END_TAG)
    if first is None or last is None:
        return []
    try:
        return list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))
    except (ValueError, dg.DagsterInvalidInvocationError, dg.DagsterUnknownPartitionError):
        return []  # of another frequency


class Tick:
    """One evaluation of a schedule."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        frequency: Frequency,
        partitions: dg.TimeWindowPartitionsDefinition,
        windows_per_run: int,
    ) -> None:
        self._instance = instance
        self._frequency = frequency
        self._partitions = partitions
        self._windows_per_run = windows_per_run
        self._requested = RequestedPartitions.read(instance, partitions)

    def requests(self, project: ProjectExport, windows: Sequence[Window]) -> Iterator[dg.RunRequest]:
        """A run for the newest window, and runs of several windows for those that were missed.

        What has failed is left to retries and people: asking again each tick would hammer ClickHouse.
        """
        keys = [self._frequency.key(w) for w in windows if w.start >= project.start]
        missing = self._never_attempted(project, keys)
        if not missing:
            return
        if missing[-1] == self._frequency.key(windows[-1]):
            yield self._request(project, missing.pop(), missing_range=None, priority=NEWEST_PRIORITY)
        for first, last in self._ranges(missing):
            yield self._request(project, first, missing_range=last, priority=MISSED_PRIORITY)

    def record_lag(self, project: ProjectExport, now: datetime, lag: timedelta, telemetry: Telemetry) -> None:
        """Set the gauges of each table: how far the newest exported window's end is from now."""
        for table in project.tables:
            done = self._instance.get_materialized_partitions(asset_key(project, table))
            newest = max((w.end for w in self._frequency.windows_of_keys(done)), default=project.start)
            telemetry.lag(project.project_id, table.name, (now - newest).total_seconds())
            behind = (now - lag - newest) // self._frequency.length
            telemetry.windows_behind(project.project_id, table.name, behind)

    def _never_attempted(self, project: ProjectExport, keys: list[str]) -> list[str]:
        probe = asset_key(project, project.tables[0])
        requested = self._requested.by_asset.get(probe, set())
        status = self._instance.get_status_by_partition(probe, keys, self._partitions) or {}
        return [key for key in keys if status.get(key) is None and key not in requested]

    def _ranges(self, keys: list[str]) -> Iterator[tuple[str, str]]:
        """Runs of consecutive windows, each at most as long as a run may be."""
        group: list[Window] = []
        for window in map(self._frequency.window_of_key, keys):
            is_next = bool(group) and group[-1].end == window.start
            if group and (not is_next or len(group) == self._windows_per_run):
                yield self._frequency.key(group[0]), self._frequency.key(group[-1])
                group = []
            group.append(window)
        if group:
            yield self._frequency.key(group[0]), self._frequency.key(group[-1])

    def _request(
        self, project: ProjectExport, first: str, missing_range: str | None, priority: str
    ) -> dg.RunRequest:
        tags = {PROJECT_TAG: safe_name(project.project_id), PRIORITY_TAG: priority}
        last = missing_range or first
        if missing_range and missing_range != first:
            tags |= {RANGE_START_TAG: first, RANGE_END_TAG: last}
        return dg.RunRequest(
            run_key=f"{project.project_id}:{first}:{last}",
            partition_key=first if last == first else None,
            asset_selection=[asset_key(project, table) for table in project.tables],
            tags=tags,
        )
