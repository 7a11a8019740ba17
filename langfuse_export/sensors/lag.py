"""Sends how far exports are behind, and remembers which projects fall behind although nothing fails.

A window counts from when it is due, if that is after the sensor first saw the project: the history of a new
project and what a downtime of Dagster left over is late for a known reason. Runs that are in progress are no
excuse, whoever asked for them: they leave slots to what is due, and one may hang.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Self

import dagster as dg
import structlog
from pydantic import Field

from langfuse_export.health.behind import Behind
from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.lag import ProjectLag, read_lags
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.sensors.cursor import Cursor
from langfuse_export.telemetry import Telemetry
from langfuse_export.windows import iso

log = structlog.get_logger()

INTERVAL_S = 300
# Whoever has not looked for so long does not know what happened meanwhile.
LONGEST_GAP = timedelta(minutes=30)


def build_lag_sensor(projects: Sequence[ProjectExport], options: ExportOptions) -> dg.SensorDefinition:
    """The sensor of all projects."""
    enabled = [project for project in projects if project.enabled]

    @dg.sensor(
        name="lag_sensor",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends how far exports are behind, and sees which fall behind although nothing fails.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, telemetry: dg.ResourceParam[Telemetry]
    ) -> dg.SensorResult:
        now = options.now()
        lags = read_lags(context.instance, enabled, options.lag, now)
        for lag in lags:
            lag.record(telemetry, now)
        telemetry.flush()
        watch = Watch.parse(context.cursor).look(context.instance, lags, options)
        late = [lag.project.project_id for lag in lags if lag.windows_behind(lag.end, now)]
        return dg.SensorResult(
            skip_reason=f"with windows that are due: {', '.join(late) or 'none'}",
            cursor=watch.model_dump_json(),
        )

    return sensor


class Watch(Cursor, frozen=True):
    """What the sensor remembers from tick to tick; Dagster keeps it as the sensor's cursor.

    Attributes:
        looked_at: when it looked last, UTC.
        since: by project, from when on its windows count: since when nothing explains that they wait.
    """

    looked_at: datetime | None = None
    since: dict[str, datetime] = Field(default_factory=dict)

    def look(self, instance: dg.DagsterInstance, lags: Sequence[ProjectLag], options: ExportOptions) -> Self:
        """Write into the health of projects whether they are behind; the memory afterwards."""
        now, store = options.now(), HealthStore(instance)
        is_fresh = self.looked_at is None or now - self.looked_at > LONGEST_GAP
        records = store.read(lag.project.project_id for lag in lags)
        since: dict[str, datetime] = {}
        for lag in lags:
            project, name = lag.project, _name(lag.project)
            health = records.get(project.project_id, Health())
            fails = health.since is not None  # which has notices of its own
            since[name] = now if is_fresh or fails else self.since.get(name, now)
            due = lag.due_since(since[name])
            is_late = bool(options.health.behind_after) and now - due > options.health.behind_after
            if is_late or health.behind is not None:
                _record(store, lag, health, due if is_late else None, options)
        return type(self)(looked_at=now, since=since)


def _record(
    store: HealthStore, lag: ProjectLag, known: Health, late_since: datetime | None, options: ExportOptions
) -> None:
    """Let the project's record say since when it is behind, or that it is not any more."""
    now, project_id = options.now(), lag.project.project_id
    is_up_to_date = not lag.windows_behind(lag.end, now)

    def change(before: Health | None) -> Health | None:
        health = before or Health()
        behind = health.behind
        if late_since and not health.is_behind:
            behind = (behind or Behind()).again(late_since)
        elif behind and is_up_to_date:
            behind = behind.caught_up(options.health, now)
        health = health.model_copy(update={"behind": behind})
        return None if health == Health() else health

    after = store.change(project_id, change) or Health()
    if after.is_behind and not known.is_behind and late_since:
        log.warning("project_behind", projectId=project_id, since=iso(late_since))
    elif known.is_behind and not after.is_behind:
        log.info("project_up_to_date", projectId=project_id)


def _name(project: ProjectExport) -> str:
    # With another frequency it has other windows, with another timing they are due at other times.
    timing = f":{project.timing}" if project.timing else ""
    return f"{project.project_id}:{project.frequency.value}{timing}"
