"""Schedules: ask for each project's windows that are due, and for those that were missed.

Dagster's own partition schedules ask for one window a tick and never for those of a downtime, so every tick
looks back over the windows that nobody has attempted: those of some hours, and all since the last tick that
a project had, whatever its frequency was then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import dagster as dg

from langfuse_export.due import Due
from langfuse_export.health.describe import describe
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import asset_key, job_name, schedule_name
from langfuse_export.partition_statuses import exported_partitions
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.tick import Tick
from langfuse_export.tick_memory import LastTick, TickMemory
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency, Window


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
        memory = TickMemory(context.instance)
        last_ticks = memory.read(enabled)
        health = HealthStore(context.instance).read(project.project_id for project in enabled)
        waiting = {id: f"{id} waits: {describe(trouble)}" for id, trouble in health.items() if trouble.waits}
        for line in waiting.values():
            context.log.warning(line)
        working = [project for project in enabled if project.project_id not in waiting]
        looks = [
            (p, _windows(context.instance, p, due, last_ticks.get(p.project_id), now, lookback))
            for p in working
        ]
        tick.read(working, max((windows for _, windows in looks), key=len, default=[]))
        asked_until = due.asked_until(now)
        requests = [r for project, windows in looks for r in tick.requests(project, windows, asked_until)]
        for project, windows in looks:
            tick.adopt_failed(project, windows, health.get(project.project_id), options)
        this = LastTick(frequency, min(now, options.now()))  # people try ticks of tomorrow in the UI
        usual = len(due.windows(now, now, lookback))
        ticks: dict[str, LastTick] = {}
        for project, windows in looks:
            last = last_ticks.get(project.project_id)
            if tick.is_settled(project, windows[: len(windows) - usual]):
                ticks[project.project_id] = this
            # Else the next tick looks as far back, in case that requests are lost, or their runs killed.
            elif last is not None and last.frequency is not frequency:
                ticks[project.project_id] = replace(this, since=windows[0].start)
        memory.write(ticks)
        yield from requests
        if not requests:
            yield dg.SkipReason(
                "\n".join(waiting.values()) or "every due window has been exported or is on its way"
            )

    return schedule


def _windows(
    instance: dg.DagsterInstance,
    project: ProjectExport,
    due: Due,
    last: LastTick | None,
    now: datetime,
    lookback: timedelta,
) -> list[Window]:
    """What a tick looks at for a project, oldest first."""
    if last is None:
        return due.windows(now, now, lookback)
    if last.frequency is due.frequency:
        return _windows_since(last, due, now, lookback)
    left_off = _left_off(instance, project, last, due.lag, lookback)
    return _windows_since(LastTick(due.frequency, now, left_off), due, now, lookback)


def _windows_since(last: LastTick, due: Due, now: datetime, lookback: timedelta) -> list[Window]:
    usual = due.windows(min(now, last.moment), now, lookback)
    starts = [*(window.start for window in usual), *([last.since] if last.since else [])]
    return list(due.frequency.windows(min(starts), due.until(now))) if starts else []


def _left_off(
    instance: dg.DagsterInstance, project: ProjectExport, last: LastTick, lag: timedelta, lookback: timedelta
) -> datetime:
    """Until when a project was exported while it had another frequency, UTC."""
    before = Due.of(last.frequency, project.timing, lag)
    windows = _windows_since(last, before, last.moment, lookback)
    by_key = {last.frequency.key(w): w.start for w in windows if w.start >= project.scheduled_from}
    exported = exported_partitions(instance, [asset_key(project, t) for t in project.tables], list(by_key))
    missing = (start for key, start in by_key.items() if key not in exported)
    return min(missing, default=before.until(last.moment))
