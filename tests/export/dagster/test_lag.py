"""Projects that fall behind although nothing fails: who is told when, and when nobody is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from langfuse_export.catalog import Catalog
from langfuse_export.commands.status import table_statuses
from langfuse_export.health.state import Failure, Health
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import SCHEDULE_TAG
from langfuse_export.notify.channels import Webhook
from langfuse_export.notify.notifier import Notifier, tell_people
from langfuse_export.tables import TABLES
from langfuse_export.telemetry import build_telemetry
from langfuse_export.timing import Timing
from langfuse_export.windows import Frequency
from langfuse_worker.settings import Settings
from tests.export.dagster.deployment import Deployment
from tests.rows import PROJECT
from tests.servers.notifications import WebhookReceiver
from tests.servers.otlp import OtlpReceiver

HOUR = timedelta(hours=1)
START = datetime(2026, 6, 10, tzinfo=UTC)
# When the window from 00:00 to 01:00 is due.
DUE = START + timedelta(hours=1, minutes=20)
AT_NIGHT = Timing("0 2 * * *")
# Looks are at most half an hour apart while Dagster's daemon runs.
STEP = timedelta(minutes=25)


@dataclass
class Watched:
    """A deployment whose sensor looks at the lag, with a clock of the tests' own, and what people hear."""

    deployment: Deployment
    webhook: WebhookReceiver
    now: datetime = DUE
    cursor: str | None = None

    def __post_init__(self) -> None:
        self.deployment.now = lambda: self.now

    def look(self) -> str | None:
        """One tick of the sensor, and one of who tells people; what the first one says."""
        deployment = self.deployment
        repository = deployment.defs.get_repository_def()
        telemetry = build_telemetry(deployment.settings)
        with dg.build_sensor_context(
            deployment.instance,
            cursor=self.cursor,
            repository_def=repository,
            resources={"telemetry": telemetry},
        ) as context:
            tick = repository.get_sensor_def("lag_sensor").evaluate_tick(context)
        telemetry.shutdown()
        self.cursor = tick.cursor
        tell_people(
            HealthStore(deployment.instance),
            Notifier((Webhook(self.webhook.url),)),
            {project.project_id: project for project in deployment.projects},
            deployment.options.health,
            self.now,
        )
        return tick.skip_message

    def until(self, end: datetime) -> None:
        """Let the time go on, nobody exporting anything."""
        while self.now < end:
            self.now = min(end, self.now + STEP)
            self.look()

    def export(self, first: int, last: int) -> None:
        """Export hours of 10 June, as a schedule does."""
        keys = [Frequency.HOURLY.key(Frequency.HOURLY.window(START + n * HOUR)) for n in (first, last)]
        assert self.deployment.run(*keys, tags={SCHEDULE_TAG: "export_hourly_schedule"}).success

    def begin(self, tags: Mapping[str, str]) -> dg.DagsterRun:
        """A run of the window from 00:00 to 01:00 that goes on."""
        job = self.deployment.defs.resolve_job_def("export_hourly")
        return self.deployment.instance.create_run_for_job(
            job,
            tags={"dagster/partition": "2026-06-10T00", **tags},
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset(job.asset_layer.executable_asset_keys),
        )

    @property
    def notices(self) -> list[dict[str, Any]]:
        """What people have heard."""
        return [notice for _, body in self.webhook.requests for notice in json.loads(body)["notices"]]

    @property
    def kinds(self) -> list[str]:
        """The kinds of the notices."""
        return [notice["kind"] for notice in self.notices]


def _watched(deployment: Deployment, webhook: WebhookReceiver, **changes: Any) -> Watched:
    fields = {"tables": (TABLES["traces"],), "start": START, **changes}
    deployment.projects = [deployment.project(**fields)]
    return Watched(deployment, webhook)


@pytest.fixture
def watched(deployment: Deployment, webhook: WebhookReceiver) -> Watched:
    """An hourly project that has exported its first window, and a sensor that has looked."""
    watched = _watched(deployment, webhook)
    watched.export(0, 0)
    watched.look()
    return watched


def test_a_look_sends_the_lag_of_every_table(
    watched: Watched, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    watched.deployment.settings = Settings()
    watched.now = DUE + 2 * HOUR

    assert watched.look() == "with windows that are due: p1"

    *_, lag = otlp.named("langfuse.blob_export.lag_seconds")
    assert lag.attributes == {"project": PROJECT, "table": "traces"}
    assert lag.value == 2 * 3600 + 20 * 60
    *_, behind = otlp.named("langfuse.blob_export.windows_behind")
    assert (behind.attributes, behind.value) == (lag.attributes, 2)


def test_people_hear_once_a_day_that_a_project_is_behind_and_once_that_it_has_caught_up(
    watched: Watched,
) -> None:
    watched.until(DUE + 7 * HOUR)  # the next window was due an hour after
    assert watched.kinds == []

    watched.until(DUE + 7 * HOUR + STEP)
    [notice] = watched.notices
    assert (notice["kind"], notice["projectId"], notice["since"]) == (
        "behind",
        "p1",
        "2026-06-10T02:20:00.000Z",
    )
    watched.until(DUE + 30 * HOUR)
    assert watched.kinds == ["behind"]
    watched.until(DUE + 32 * HOUR)
    assert watched.kinds == ["behind", "behind"]

    watched.export(1, 31)
    watched.look()  # the newest one is due, and has not been exported
    assert watched.kinds == ["behind", "behind"]
    watched.export(32, 32)
    watched.look()
    watched.look()
    assert watched.kinds == ["behind", "behind", "caught_up"]


def test_status_says_which_project_is_behind(watched: Watched) -> None:
    watched.until(DUE + 8 * HOUR)

    [status] = table_statuses(
        watched.deployment.instance, Catalog(tuple(watched.deployment.projects)), watched.now
    )

    assert status.state == "healthy"
    assert status.trouble is not None
    assert "behind: nothing fails, but a window that was due at 2026-06-10 02:20 UTC" in status.trouble


def test_a_project_that_keeps_up_leaves_no_record(watched: Watched) -> None:
    for hour in range(1, 12):
        watched.until(DUE + hour * HOUR)
        watched.export(hour, hour)
    watched.look()

    assert watched.kinds == []
    assert HealthStore(watched.deployment.instance).read(["p1"]) == {}


@pytest.mark.parametrize(
    "tags", [{SCHEDULE_TAG: "export_hourly_schedule"}, {"dagster/backfill": "history"}, {}], ids=str
)
def test_a_run_that_takes_for_ever_is_no_excuse(watched: Watched, tags: dict[str, str]) -> None:
    """Of a schedule, of a backfill, by hand."""
    watched.begin(tags)
    watched.until(DUE + 7 * HOUR)  # the next window was due an hour after
    assert watched.kinds == []

    watched.until(DUE + 8 * HOUR)
    [notice] = watched.notices
    assert (notice["kind"], notice["since"]) == ("behind", "2026-06-10T02:20:00.000Z")


def test_a_backfill_beside_which_windows_stay_on_time_worries_nobody(watched: Watched) -> None:
    watched.begin({"dagster/backfill": "history"})
    for hour in range(1, 12):
        watched.until(DUE + hour * HOUR)
        watched.export(hour, hour)
    watched.look()

    assert watched.kinds == []


def test_windows_from_before_a_project_was_added_are_nobodys_fault(
    deployment: Deployment, webhook: WebhookReceiver
) -> None:
    watched = _watched(deployment, webhook, start=START - timedelta(days=90))
    watched.look()
    watched.until(DUE + 7 * HOUR)
    assert watched.kinds == []
    watched.until(DUE + 8 * HOUR)
    assert watched.kinds == ["behind"]


def test_a_daily_project_has_until_the_day_is_over(deployment: Deployment, webhook: WebhookReceiver) -> None:
    watched = _watched(deployment, webhook, start=START, frequency=Frequency.DAILY)
    watched.now = START + 10 * HOUR
    watched.look()
    watched.until(START + 30 * HOUR)
    assert watched.kinds == []
    watched.until(START + 31 * HOUR)
    assert watched.kinds == ["behind"]


def test_a_nightly_project_has_until_the_morning(deployment: Deployment, webhook: WebhookReceiver) -> None:
    watched = _watched(deployment, webhook, timing=AT_NIGHT)
    watched.now = START + 10 * HOUR
    watched.look()
    watched.until(START + 32 * HOUR)  # six hours after the night
    assert watched.kinds == []

    watched.until(START + 32 * HOUR + STEP)
    [notice] = watched.notices
    assert (notice["kind"], notice["since"]) == ("behind", "2026-06-11T02:00:00.000Z")


def test_the_hours_of_the_last_night_count_as_one_window(
    deployment: Deployment, webhook: WebhookReceiver, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = _watched(deployment, webhook, timing=AT_NIGHT)
    watched.export(0, 0)
    # Not before: what runs send would be sent when the receiver is gone.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    deployment.settings = Settings()
    seen: dict[datetime, float] = {}

    for hours in (12, 26, 49, 50):
        watched.now = START + hours * HOUR
        watched.look()
        seen[watched.now] = otlp.named("langfuse.blob_export.windows_behind")[-1].value
    watched.export(1, 48)
    watched.look()

    assert list(seen.values()) == [0, 1, 1, 25]
    assert otlp.named("langfuse.blob_export.windows_behind")[-1].value == 0


def test_another_timing_begins_anew(deployment: Deployment, webhook: WebhookReceiver) -> None:
    watched = _watched(deployment, webhook, timing=AT_NIGHT)
    watched.now = START + 10 * HOUR
    watched.look()
    watched.until(START + 20 * HOUR)
    deployment.projects = [deployment.project(tables=(TABLES["traces"],), start=START)]
    del deployment.defs

    watched.look()
    watched.until(START + 26 * HOUR)

    assert watched.kinds == []


def test_another_frequency_begins_anew(watched: Watched) -> None:
    watched.until(DUE + HOUR)
    [project] = watched.deployment.projects
    daily = watched.deployment.project(
        tables=project.tables, start=START - timedelta(days=9), frequency=Frequency.DAILY
    )
    watched.deployment.projects = [daily]
    del watched.deployment.defs

    watched.until(DUE + 20 * HOUR)

    assert watched.kinds == []


def test_after_a_downtime_a_project_has_time_to_catch_up(watched: Watched) -> None:
    watched.now = DUE + 10 * HOUR
    watched.look()
    assert watched.kinds == []

    watched.until(DUE + 12 * HOUR)
    watched.export(1, 12)
    watched.until(DUE + 12 * HOUR + STEP)
    assert watched.kinds == []


def test_a_project_that_does_not_catch_up_after_a_downtime_is_behind(watched: Watched) -> None:
    watched.now = DUE + 10 * HOUR
    watched.look()
    watched.until(DUE + 18 * HOUR)
    assert watched.kinds == ["behind"]


def test_of_a_project_that_fails_people_hear_that_it_fails(watched: Watched) -> None:
    failure = Failure(windows=("2026-06-10T01",), reason="clickhouse_unavailable", error="503", blocks=True)
    health = Health()
    for attempt in range(3):
        health = health.failed(failure, watched.deployment.options.health, DUE + attempt * HOUR)
    HealthStore(watched.deployment.instance).change("p1", lambda _: health)

    watched.until(DUE + 20 * HOUR)

    assert watched.kinds == ["failing"]


def test_a_project_that_is_behind_and_fails_is_not_forgotten_to_be_behind(watched: Watched) -> None:
    watched.until(DUE + 8 * HOUR)
    store, policy = HealthStore(watched.deployment.instance), watched.deployment.options.health
    failure = Failure(windows=("2026-06-10T01",), reason="clickhouse_unavailable", error="503", blocks=True)
    for _ in range(3):
        watched.now += timedelta(minutes=20)
        store.change("p1", lambda health: (health or Health()).failed(failure, policy, watched.now))
    watched.look()
    assert watched.kinds == ["behind", "failing"]

    store.change("p1", lambda health: health and health.exported(("2026-06-10T01",), watched.now))
    watched.look()
    store.change("p1", lambda health: health and health.caught_up(policy, watched.now))
    watched.export(1, 9)
    watched.look()
    assert watched.kinds == ["behind", "failing", "recovered", "caught_up"]


def test_a_deployment_that_wants_no_such_notice_gets_none(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_EXPORT_BEHIND_NOTICE_HOURS", "0")
    watched.deployment.settings = Settings()
    del watched.deployment.defs
    watched.until(DUE + 20 * HOUR)
    assert watched.kinds == []
