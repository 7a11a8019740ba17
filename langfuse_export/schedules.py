"""Schedules: ask for each project's windows that are due, and for those that were missed.

Dagster's own partition schedules ask for one window a tick and never for those of a downtime, so every tick
looks back over the windows that nobody has attempted: those of some hours, and all since the last tick that
a project had.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import dagster as dg

from langfuse_export.due import Due
from langfuse_export.health.describe import describe
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import job_name, schedule_name
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.tick import Tick
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency

_MEMORY = "langfuse_export/last_tick/"


def build_schedule(
    frequency: Frequency,
    timing: Timing | None,
    projects: Sequence[ProjectExport],
    partitions: dg.TimeWindowPartitionsDefinition,
    options: ExportOptions,
) -> dg.ScheduleDefinition:
    """The schedule of a frequency's projects with this timing, by default a lag after each window's end."""
    enabled = [project for project in projects if project.enabled]
    due = Due.of(frequency, timing, options.lag)
    lookback = timedelta(hours=options.lookback_hours)

    @dg.schedule(
        name=schedule_name(frequency, timing),
        cron_schedule=due.timing.cron,
        job_name=job_name(frequency),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        execution_timezone=due.timing.timezone,
        description=(
            f"Exports the {frequency.value} windows of each project that ended since the tick before, "
            f"{due.lag} after their end at the earliest, and those of the {options.lookback_hours} hours "
            "before, and of a downtime, that were never attempted."
        ),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        tick = Tick(context.instance, frequency, partitions, options.windows_per_run_of(frequency))
        now = context.scheduled_execution_time
        memory = TickMemory(context.instance, frequency)
        last_ticks = memory.read(enabled)
        health = HealthStore(context.instance).read(project.project_id for project in enabled)
        waiting = {id: f"{id} waits: {describe(trouble)}" for id, trouble in health.items() if trouble.waits}
        for line in waiting.values():
            context.log.warning(line)
        working = [project for project in enabled if project.project_id not in waiting]
        looks = [
            (project, due.windows(min(now, last_ticks.get(project.project_id, now)), now, lookback))
            for project in working
        ]
        tick.read(working, max((windows for _, windows in looks), key=len, default=[]))
        asked_until = due.asked_until(now)
        requests = [r for project, windows in looks for r in tick.requests(project, windows, asked_until)]
        for project, windows in looks:
            tick.adopt_failed(project, windows, health.get(project.project_id), options)
        # Else the next tick looks as far back, in case that these requests are lost, or their runs killed.
        usual = len(due.windows(now, now, lookback))
        settled = [p for p, windows in looks if tick.is_settled(p, windows[: len(windows) - usual])]
        memory.write(settled, min(now, options.now()))  # people try ticks of tomorrow in the UI
        yield from requests
        if not requests:
            yield dg.SkipReason(
                "\n".join(waiting.values()) or "every due window has been exported or is on its way"
            )

    return schedule


class TickMemory:
    """The last tick of each project, in the Dagster instance: it outlives restarts, and records of ticks.

    That of another frequency does not count: its windows were others.
    """

    def __init__(self, instance: dg.DagsterInstance, frequency: Frequency) -> None:
        self._storage = instance.run_storage
        self._frequency = frequency.value

    def read(self, projects: Iterable[ProjectExport]) -> dict[str, datetime]:
        """By project id, the last tick after which nothing was left to ask for, UTC, if there was one."""
        stored = self._storage.get_cursor_values({_memory_key(project) for project in projects})
        found = {key.removeprefix(_MEMORY): value.split() for key, value in stored.items()}
        return {
            project_id: datetime.fromisoformat(moment)
            for project_id, (frequency, moment) in found.items()
            if frequency == self._frequency
        }

    def write(self, projects: Iterable[ProjectExport], moment: datetime) -> None:
        """Remember a tick of projects."""
        keys = {_memory_key(project) for project in projects}
        known = self._storage.get_cursor_values(keys).keys()
        for some in (known, keys - known):  # with SQLite, Dagster sets either new values or old ones
            if some:
                value = f"{self._frequency} {moment.isoformat()}"
                self._storage.set_cursor_values(dict.fromkeys(some, value))


def _memory_key(project: ProjectExport) -> str:
    return _MEMORY + project.project_id
