"""Brings projects up to date that nobody runs backfills for: their history, and windows of a long downtime.

Langfuse goes from `last_sync_at` to now by itself, one window after the other. This does the same with runs
of several windows, one run of a project at a time, behind the windows of the schedules. What has failed is
left to the recovery sensor, which hears here of runs that ended before they could report it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from langfuse_export.health.store import HealthStore
from langfuse_export.naming import PRIORITY_TAG, job_name
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.run_requests import consecutive, run_request
from langfuse_export.tick import Tick
from langfuse_export.windows import Frequency, Window

INTERVAL_S = 30
# Below the windows that schedules, recovery and late rows ask for, above backfills.
CATCH_UP_PRIORITY = "2"
# The newest window is the schedule's for so long after it is due.
SCHEDULES_TURN = timedelta(minutes=10)
# Runs' worth of windows that one tick looks at for a project.
MAX_LOOKS = 20


def build_catch_up_sensor(
    frequency: Frequency,
    projects: Sequence[ProjectExport],
    partitions: dg.TimeWindowPartitionsDefinition,
    options: ExportOptions,
) -> dg.SensorDefinition | None:
    """The sensor of a frequency, or None if none of its projects wants it."""
    chosen = [project for project in projects if project.enabled and project.catch_up_from is not None]
    if not chosen:
        return None
    # Kept between ticks: what has been attempted once is not looked at again.
    attempted_until = {project.project_id: project.scheduled_from for project in chosen}

    @dg.sensor(
        name=f"export_{frequency.value}_catch_up_sensor",
        job_name=job_name(frequency),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Exports the windows between where Langfuse stopped and the newest closed one that were never "
            f"attempted, up to {options.windows_per_run_of(frequency)} a run, one run of a project at a time."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        tick = CatchUpTick(context.instance, frequency, partitions, options)
        requests = [request for project in chosen for request in tick.requests(project, attempted_until)]
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SensorResult(skip_reason="every project is up to date, on its way, or in trouble")

    return sensor


class CatchUpTick:
    """One evaluation of the sensor; without a project that is behind it reads nothing."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        frequency: Frequency,
        partitions: dg.TimeWindowPartitionsDefinition,
        options: ExportOptions,
    ) -> None:
        self._instance = instance
        self._frequency = frequency
        self._partitions = partitions
        self._options = options
        self._windows_per_run = options.windows_per_run_of(frequency)
        self._now = options.now()
        self._due = frequency.floor(self._now - options.lag - SCHEDULES_TURN)
        self._tick: Tick | None = None

    def requests(self, project: ProjectExport, attempted_until: dict[str, datetime]) -> list[dg.RunRequest]:
        """A run of the first windows that were never attempted, unless a run is on its way.

        Args:
            attempted_until: by project id, how far every window has been attempted; is brought up to date.
        """
        if attempted_until[project.project_id] >= self._due:
            return []
        health = HealthStore(self._instance).read([project.project_id]).get(project.project_id)
        if health is not None and health.waits:
            return []
        self._tick = self._tick or Tick(
            self._instance, self._frequency, self._partitions, self._windows_per_run
        )
        if self._tick.is_busy(project):
            return []
        looked, missing = list[Window](), list[Window]()
        for _ in range(MAX_LOOKS):
            windows = self._next_windows(attempted_until[project.project_id])
            self._tick.read([project], windows)
            looked += windows
            missing = self._tick.missing(project, windows)
            if missing or not windows:
                break
            attempted_until[project.project_id] = windows[-1].end
        self._tick.adopt_failed(project, looked, health, self._options)
        if not missing:
            return []
        first, last = next(consecutive(missing, self._windows_per_run))
        tags = {PRIORITY_TAG: CATCH_UP_PRIORITY}
        attempt = self._now.isoformat(timespec="seconds")
        return [run_request(project, project.tables, first, last, tags, attempt)]

    def _next_windows(self, since: datetime) -> list[Window]:
        end = since + self._frequency.length * self._windows_per_run
        # A run reads each day once; up to midnight, so that the next one does not read the day again.
        midnight = Frequency.DAILY.floor(end)
        return list(self._frequency.windows(since, min(self._due, midnight if midnight > since else end)))
