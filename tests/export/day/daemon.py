"""What Dagster's daemon does, in this process and on a clock of the test's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import takewhile

import dagster as dg
import time_machine
from dagster._core.definitions.repository_definition import RepositoryDefinition

from langfuse_export.naming import PRIORITY_TAG, SCHEDULE_TAG
from tests.export.dagster.simulation import ticks_from
from tests.export.requests import bounds, tags_of
from tests.export.running import run_between

MINUTE = timedelta(minutes=1)
SENSOR_TAG = "dagster/sensor_name"


@dataclass(frozen=True)
class Asked:
    """A run that a schedule or a sensor asked for, and how it ended."""

    at: datetime
    by: str
    first: str
    last: str
    tables: tuple[str, ...]
    success: bool


@dataclass
class Daemon:
    """Evaluates every schedule and sensor when it is due, and runs what they ask for.

    Runs follow each other by their priority. Whatever asks for the time meanwhile, in this process, is told
    the daemon's; servers have a clock of their own.

    Attributes:
        load: loads the code location.
        now: the time.
        asked: every run so far.
    """

    instance: dg.DagsterInstance
    load: Callable[[], dg.Definitions]
    now: datetime
    asked: list[Asked] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _cursors: dict[str, str | None] = field(default_factory=dict)
    _looked: dict[str, datetime] = field(default_factory=dict)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The code location as it was last loaded."""
        return self.load()

    def reload(self) -> None:
        """Load the code location again."""
        del self.definitions

    def advance(self, step: timedelta) -> list[Asked]:
        """Let time go on by a step, and do what is due then; the runs of this step."""
        before, self.now = self.now, self.now + step
        with time_machine.travel(self.now):
            repository = self.definitions.get_repository_def()
            requests = [*self._tick(repository, before), *self._look(repository)]
            requests.sort(key=lambda request: -int(request.tags.get(PRIORITY_TAG, 0)))
            runs = [self._run(request) for request in requests]
        self.asked += runs
        return runs

    def settle(self) -> None:
        """Let sensors look again, due or not, until none of them asks for a run."""
        while True:
            self._looked.clear()
            if not self.advance(timedelta(0)):
                return

    def _tick(self, repository: RepositoryDefinition, before: datetime) -> Iterator[dg.RunRequest]:
        for schedule in repository.schedule_defs:
            ticks = ticks_from(schedule, before + MINUTE)
            for at in takewhile(lambda tick: tick <= self.now, ticks):
                with dg.build_schedule_context(
                    instance=self.instance,
                    scheduled_execution_time=at,
                    repository_def=repository,
                    resources=_resources(repository, schedule.required_resource_keys),
                ) as context:
                    requests = schedule.evaluate_tick(context).run_requests
                yield from self._new(requests, SCHEDULE_TAG, schedule.name)

    def _look(self, repository: RepositoryDefinition) -> Iterator[dg.RunRequest]:
        for sensor in repository.sensor_defs:
            interval = timedelta(seconds=sensor.minimum_interval_seconds or 30)
            if sensor.name in self._looked and self.now < self._looked[sensor.name] + interval:
                continue
            self._looked[sensor.name] = self.now
            with dg.build_sensor_context(
                instance=self.instance,
                cursor=self._cursors.get(sensor.name),
                repository_def=repository,
                sensor_name=sensor.name,
                resources=_resources(repository, sensor.required_resource_keys),
            ) as context:
                outcome = sensor.evaluate_tick(context)
            self._cursors[sensor.name] = outcome.cursor
            yield from self._new(outcome.run_requests, SENSOR_TAG, sensor.name)

    def _new(self, requests: Sequence[dg.RunRequest] | None, tag: str, name: str) -> Iterator[dg.RunRequest]:
        for request in requests or ():
            key = f"{name} {request.run_key}"
            if key not in self._seen:
                self._seen.add(key)
                yield request.with_replaced_attrs(tags={**request.tags, tag: name})

    def _run(self, request: dg.RunRequest) -> Asked:
        first, last = bounds(request)
        tags = tags_of(request)
        assets = list(request.asset_selection or ())
        assert request.job_name is not None
        job = self.definitions.resolve_job_def(request.job_name)
        result = run_between(job, self.instance, assets, (first, last), tags)
        return Asked(
            at=self.now,
            by=tags.get(SCHEDULE_TAG) or tags[SENSOR_TAG],
            first=first,
            last=last,
            tables=tuple(key.path[-1] for key in assets),
            success=result.success,
        )


def _resources(repository: RepositoryDefinition, names: set[str]) -> Mapping[str, object]:
    return {name: repository.get_top_level_resources()[name] for name in names}
