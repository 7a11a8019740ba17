"""Days of a deployment in minutes: a clock of the tests' own, and ticks as Dagster's daemon makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._utils.schedules import schedule_execution_time_iterator

from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import schedule_name
from langfuse_export.partitions import partitions_def
from langfuse_export.sensors.recovery import RecoveryTick
from tests.export.dagster.deployment import Deployment
from tests.export.requests import bounds, tags_of

STEP = timedelta(minutes=5)


def ticks_from(schedule: dg.ScheduleDefinition, moment: datetime) -> Iterator[datetime]:
    """When Dagster's daemon evaluates the schedule, from the moment on, UTC."""
    ticks = schedule_execution_time_iterator(
        moment.timestamp(), schedule.cron_schedule, schedule.execution_timezone
    )
    return (tick.astimezone(UTC) for tick in ticks)


@dataclass
class Simulation:
    """Runs what schedule and sensor ask for, one after the other, as time goes by.

    Attributes:
        now: the time.
        attempts: when a run began, and its first and last partition.
    """

    deployment: Deployment
    now: datetime
    attempts: list[tuple[datetime, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deployment.now = lambda: self.now

    @property
    def health(self) -> Health | None:
        """The project's record."""
        project_id = self.deployment.first.project_id
        return HealthStore(self.deployment.instance).read([project_id]).get(project_id)

    def until(self, end: datetime) -> None:
        """Let the time go on; every tick of the schedule happens, and one of the sensor in five minutes."""
        project = self.deployment.first
        schedule = schedule_name(project.frequency, project.timing)
        ticks = ticks_from(self.deployment.defs.get_repository_def().get_schedule_def(schedule), self.now)
        next_tick = next(ticks)
        while self.now <= end:
            if self.now >= next_tick:
                self._execute(self.deployment.tick(schedule, next_tick))
                next_tick = next(ticks)
            self._execute(self.recover())
            self.now += STEP

    def recover(self) -> Sequence[dg.RunRequest]:
        """What one tick of the sensor asks for."""
        deployment = self.deployment
        projects = list(deployment.projects)
        frequencies = {project.frequency: project.start for project in projects}
        partitions = {frequency: partitions_def(frequency, start) for frequency, start in frequencies.items()}
        return RecoveryTick(deployment.instance, projects, partitions, deployment.options).evaluate().requests

    def _execute(self, requests: Sequence[dg.RunRequest]) -> None:
        for request in requests:
            self.attempts.append((self.now, *bounds(request)))
            self.deployment.run(*bounds(request), tags=tags_of(request))
