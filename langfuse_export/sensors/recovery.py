"""Tries again what failed, and lets a project catch up once it works; tells people in between.

While a project as a whole fails, schedules leave it alone and this sensor asks for one window at a time, at
growing distances. Once that succeeds it asks for everything that waited: the windows that failed, and those
that no schedule has asked for since, however long ago the trouble began.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import dagster as dg
import structlog
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from langfuse_export.due import Due
from langfuse_export.health.describe import describe
from langfuse_export.health.fingerprint import fingerprint
from langfuse_export.health.recorder import log_transition
from langfuse_export.health.state import Health, State
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import PRIORITY_TAG, asset_key
from langfuse_export.notify.notifier import Notifier, tell_people
from langfuse_export.partition_statuses import exported_partitions
from langfuse_export.partitions import Partitions
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.run_requests import consecutive, run_request
from langfuse_export.telemetry import Telemetry
from langfuse_export.tick import MISSED_PRIORITY, NEWEST_PRIORITY, Tick
from langfuse_export.windows import Frequency, Window

log = structlog.get_logger()

INTERVAL_S = 60
# Runs of one project that a tick asks for at most; the rest follows when these are done.
MAX_REQUESTS = 20


def build_recovery_sensor(
    projects: Sequence[ProjectExport],
    partitions: Partitions,
    jobs: Sequence[dg.JobDefinition | UnresolvedAssetJobDefinition],
    options: ExportOptions,
) -> dg.SensorDefinition:
    """The sensor of all projects; `partitions` and `jobs` are those of their frequencies."""

    @dg.sensor(
        name="recovery_sensor",
        jobs=list(jobs),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Tries failed windows again, at growing distances; while a project as a whole fails, one window "
            "for all. Lets it catch up afterwards."
        ),
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        telemetry: dg.ResourceParam[Telemetry],
        notifier: dg.ResourceParam[Notifier],
    ) -> dg.SensorResult:
        # Before the records of those that have caught up are gone.
        enabled = {project.project_id: project for project in projects if project.enabled}
        tell_people(HealthStore(context.instance), notifier, enabled, options.health, options.now())
        outcome = RecoveryTick(context.instance, projects, partitions, options).evaluate()
        for project in projects:
            health = outcome.health.get(project.project_id)
            telemetry.project_state(project.project_id, (health.state if health else State.HEALTHY).value)
        for line in outcome.lines:
            context.log.info(line)
        if outcome.requests:
            return dg.SensorResult(run_requests=outcome.requests)
        return dg.SensorResult(skip_reason="\n".join(outcome.lines) or "no project is in trouble")

    return sensor


@dataclass
class Outcome:
    """What a tick leads to; `health` has the projects in trouble."""

    requests: list[dg.RunRequest] = field(default_factory=list)
    health: dict[str, Health] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """A line for each project in trouble."""
        return [f"{project_id}: {describe(health)}" for project_id, health in self.health.items()]


class RecoveryTick:
    """One evaluation of the sensor."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        projects: Sequence[ProjectExport],
        partitions: Partitions,
        options: ExportOptions,
    ) -> None:
        self._instance = instance
        self._projects = {project.project_id: project for project in projects if project.enabled}
        self._partitions = partitions
        self._options = options
        self._store = HealthStore(instance)
        self._now = options.now()
        self._ticks: dict[Frequency, Tick] = {}

    def evaluate(self) -> Outcome:
        """Ask for what is due. Without a project in trouble this is one query of the instance's database."""
        outcome = Outcome()
        # The others only remember when people were told.
        stored = {id: h for id, h in self._store.read(self._projects).items() if h.since is not None}
        troubled = {id: self._revised(self._projects[id], health) for id, health in stored.items()}
        self._read_statuses(troubled)
        for project_id, health in troubled.items():
            before = stored[project_id]
            requests, after = self._plan(self._projects[project_id], health)
            if after != before and not self._store.replace(project_id, before, after):
                continue  # a run has just reported; the next tick sees it
            log_transition(project_id, before, after)
            outcome.requests += requests
            if after is not None and after.since is not None:
                outcome.health[project_id] = after
        return outcome

    def _revised(self, project: ProjectExport, health: Health) -> Health:
        """The record as the project is configured now."""
        known = {
            project.frequency.key(window) for window in project.frequency.windows_of_keys(health.windows)
        }
        gone = set(health.windows) - known | self._outlived(project, health)
        health = health.forgetting(tuple(gone))
        now = fingerprint(project, health.salt)
        if health.fingerprint in ("", now):
            return health
        log.info("project_resumed", projectId=project.project_id, cause="its configuration has changed")
        return health.resumed(self._now).model_copy(update={"fingerprint": now})

    def _outlived(self, project: ProjectExport, health: Health) -> set[str]:
        """Failed windows that have objects already, with rows that retention deletes."""
        first = project.intact_from(self._now)
        windows = project.frequency.windows_of_keys(health.windows)
        old = [project.frequency.key(window) for window in windows if window.start < first]
        assets = [asset_key(project, table) for table in project.tables]
        return exported_partitions(self._instance, assets, old) if old else set()

    def _read_statuses(self, troubled: Mapping[str, Health]) -> None:
        """Read what became of what is owed, at once of projects whose trouble began in the same window."""
        alike: dict[tuple[Frequency, tuple[Window, ...]], list[ProjectExport]] = defaultdict(list)
        for project_id, health in troubled.items():
            project = self._projects[project_id]
            if not health.waits or health.is_due(self._now):
                alike[project.frequency, tuple(self._missed(project, health))].append(project)
        for (frequency, windows), projects in alike.items():
            self._tick(frequency).read(projects, windows)

    def _plan(self, project: ProjectExport, health: Health) -> tuple[list[dg.RunRequest], Health | None]:
        """The runs to ask for, and the record afterwards."""
        if health.waits and not health.is_due(self._now):
            return [], health
        tick = self._tick(project.frequency)
        policy = self._options.health
        failed = set(health.windows)
        owed = [w for w in self._missed(project, health) if project.frequency.key(w) not in failed]
        missing = tick.missing(project, owed)
        if health.waits:
            window = self._probe(project, health, missing)
            if not tick.not_requested(project, [window]):
                return [], health
            return [self._request(project, window, window, NEWEST_PRIORITY)], health.asked(policy, self._now)
        requests = []
        if health.windows and health.is_due(self._now):
            again = tick.not_requested(project, project.frequency.windows_of_keys(health.windows))
            requests = self._requests(project, again)
            health = health.asked(policy, self._now) if requests else health
        requests += self._requests(project, missing)
        if health.state is State.CATCHING_UP and not missing and not tick.is_busy(project):
            return requests, health.caught_up(policy, self._now)
        return requests, health

    def _tick(self, frequency: Frequency) -> Tick:
        if frequency not in self._ticks:
            partitions = self._partitions[frequency]
            per_run = self._options.windows_per_run_of(frequency)
            self._ticks[frequency] = Tick(self._instance, frequency, partitions, per_run)
        return self._ticks[frequency]

    def _missed(self, project: ProjectExport, health: Health) -> list[Window]:
        """Windows that a schedule would have asked for since the trouble began, had it not waited."""
        lookback = timedelta(hours=self._options.lookback_hours)
        return self._due(project).windows(health.since or self._now, self._now, lookback)

    def _probe(self, project: ProjectExport, health: Health, missing: Sequence[Window]) -> Window:
        """The newest window that waits; what is newest is wanted first, and changes if it is to blame."""
        failed = project.frequency.windows_of_keys(health.windows)
        newest_due = project.frequency.newest_closed(self._due(project).until(self._now))
        return max([*failed, *missing], default=newest_due)

    def _due(self, project: ProjectExport) -> Due:
        return Due.of(project.frequency, project.timing, self._options.lag)

    def _requests(self, project: ProjectExport, windows: Sequence[Window]) -> list[dg.RunRequest]:
        rows = list(consecutive(windows, self._options.windows_per_run_of(project.frequency)))
        # The newest first, as far as Dagster keeps the order.
        return [self._request(project, *row, MISSED_PRIORITY) for row in rows[::-1][:MAX_REQUESTS]]

    def _request(self, project: ProjectExport, first: Window, last: Window, priority: str) -> dg.RunRequest:
        attempt = self._now.isoformat(timespec="seconds")
        return run_request(project, project.tables, first, last, {PRIORITY_TAG: priority}, attempt)
