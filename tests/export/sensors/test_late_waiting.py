"""Changed windows that wait: for others, for a run that has them, for a project that fails."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from langfuse_export.health.state import Health, State
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import LATE, MODE_TAG, PARTITION_TAG, asset_key
from langfuse_export.partitions import partitions_def
from langfuse_export.resources import ExportOptions, utc_now
from langfuse_export.sensors.recovery import RecoveryTick
from langfuse_export.tables import TABLES
from langfuse_worker.settings.schedule import LATE_PREFIX
from tests.export.killing import kill_a_run
from tests.export.requests import bounds
from tests.export.sensors.deployment import TRACES, Deployment
from tests.rows import PROJECT, trace
from tests.servers.clickhouse_http import Fault
from tests.servers.otlp import OtlpReceiver


def test_a_backlog_is_worked_off_oldest_first_and_can_be_seen(
    deployment: Deployment, otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    deployment.tables = TRACES
    deployment.environment = {
        LATE_PREFIX + "WINDOWS_PER_TICK": "3",
        "LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN": "2",
    }
    deployment.export(deployment.key(9), deployment.key(2))
    late = [9, 8, 7, 5, 3]
    deployment.write("traces", *[trace(f"late{ago}", deployment.hour(ago).start) for ago in late])

    first = deployment.look()
    deployment.work_off(first)
    second = deployment.look()
    deployment.work_off(second)

    assert [asked[:2] for asked in first.asked] == [
        (deployment.key(9), deployment.key(8)),
        (deployment.key(7), deployment.key(7)),
    ]
    assert [asked[:2] for asked in second.asked] == [(deployment.key(ago),) * 2 for ago in (5, 3)]
    assert deployment.look().requests == []
    for ago in late:
        assert deployment.ids("traces", deployment.hour(ago)) == [f"late{ago}"]
    gauges = [
        p for p in otlp.named("langfuse.blob_export.late_windows") if p.attributes["project"] == PROJECT
    ]
    assert {point.value for point in gauges} == {2, 0}
    histogram = otlp.named("langfuse.blob_export.job_duration_ms")
    assert LATE in {point.attributes["mode"] for point in histogram}
    deployment.telemetry.shutdown()  # while the receiver is there


def test_late_runs_come_after_the_newest_window_and_before_backfills(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))

    [request] = deployment.look().requests

    assert request.tags[MODE_TAG] == LATE
    assert 0 < int(request.tags["dagster/priority"]) < 10
    assert request.job_name == "export_hourly"


def test_a_window_on_its_way_is_looked_at_again_when_its_run_has_ended(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    running = deployment.instance.create_run_for_job(
        deployment.defs.resolve_job_def("export_hourly"),
        tags={"dagster/partition": deployment.key(2)},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset([asset_key(deployment.first, TABLES["traces"])]),
    )
    deployment.write("traces", trace("late", deployment.hour(2).start))

    # The run may have read before the row came, and it may have read it.
    assert [deployment.look().requests for _ in range(2)] == [[], []]
    deployment.instance.report_run_canceled(running)

    assert [asked[0] for asked in deployment.look().asked] == [deployment.key(2)]


def test_a_window_whose_last_attempt_failed_is_left_to_people(deployment: Deployment) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))
    deployment.server.break_next(Fault("refuse", match="FROM `traces` AS t FINAL", code=60, times=9))
    assert not deployment.export(deployment.key(2), deployment.key(2)).success
    deployment.server.break_next()

    assert deployment.look().requests == []
    assert deployment.export(deployment.key(2), deployment.key(2)).success
    assert deployment.ids("traces", deployment.hour(2)) == ["late"]


def test_a_window_whose_run_was_killed_is_tried_again_by_the_recovery_sensor(deployment: Deployment) -> None:
    deployment.tables = tuple(TABLES.values())
    deployment.export(deployment.key(3), deployment.key(2))
    deployment.write_in_each_table(deployment.hour(2).start)
    job = deployment.defs.resolve_job_def("export_hourly")
    tables = [asset_key(deployment.first, table) for table in deployment.tables]
    kill_a_run(deployment.instance, job, {PARTITION_TAG: deployment.key(2)}, tables)

    assert [deployment.look().requests for _ in range(2)] == [[], []]

    health = HealthStore(deployment.instance).read([PROJECT])[PROJECT]
    # One failure, although each of its tables has failed, and two looks have seen it.
    assert (health.windows, health.streak, health.state) == ((deployment.key(2),), 1, State.RETRYING)
    assert [bounds(request) for request in _recovery(deployment)] == [(deployment.key(2),) * 2]


def test_a_window_that_has_no_file_because_its_run_was_killed_is_found_by_the_audit(
    deployment: Deployment,
) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(2), deployment.key(2))
    job = deployment.defs.resolve_job_def("export_hourly")
    kill_a_run(deployment.instance, job, {PARTITION_TAG: deployment.key(100)})

    deployment.look()
    deployment.let_audit_be_due()
    assert deployment.look().requests == []

    assert HealthStore(deployment.instance).read([PROJECT])[PROJECT].windows == (deployment.key(100),)
    assert [bounds(request) for request in _recovery(deployment)] == [(deployment.key(100),) * 2]


def _recovery(deployment: Deployment) -> Sequence[dg.RunRequest]:
    """What the recovery sensor asks for an hour from now."""
    options = ExportOptions.from_settings(deployment.settings)
    later = replace(options, now=lambda: utc_now() + timedelta(hours=1))
    project = deployment.first
    partitions = {project.frequency: partitions_def(project.frequency, project.start)}
    outcome = RecoveryTick(deployment.instance, [project], partitions, later).evaluate()
    windows = set(outcome.health[project.project_id].windows)
    return [request for request in outcome.requests if windows & set(bounds(request))]


@pytest.mark.parametrize("is_stopped", [False, True], ids=["backing off", "stopped"])
def test_windows_of_a_project_that_fails_wait_until_it_works_again(
    deployment: Deployment, is_stopped: bool
) -> None:
    deployment.projects = [deployment.project(id, tables=TRACES) for id in (PROJECT, "works")]
    for project in deployment.projects:
        deployment.export(deployment.key(3), deployment.key(2), project=project)
    deployment.look()
    for ago in (3, 2):
        row = trace(f"late{ago}", deployment.hour(ago).start)
        deployment.write("traces", row, {**row, "project_id": "works"})
    health = HealthStore(deployment.instance)
    health.change(PROJECT, lambda _: Health(since=datetime.now(UTC), blocked=True, stopped=is_stopped))

    look = deployment.look()
    deployment.work_off(look, deployment.projects[1])
    again = deployment.look()
    health.change(PROJECT, lambda _: None)
    recovered = deployment.look()

    hours = (deployment.key(3), deployment.key(2), ["traces"])
    assert (look.asked, again.asked, recovered.asked) == ([hours], [], [hours])
    assert [r.tags["langfuse/project"] for r in (*look.requests, *recovered.requests)] == ["works", PROJECT]
    assert again.skip_reason is not None
    assert again.skip_reason.startswith("2 windows wait")


def test_what_waits_for_a_project_that_fails_may_grow_older_than_the_look_back(
    deployment: Deployment,
) -> None:
    deployment.tables = TRACES
    deployment.export(deployment.key(4), deployment.key(2))
    deployment.look()
    deployment.write("traces", trace("late", deployment.hour(4).start))
    health = HealthStore(deployment.instance)
    health.change(PROJECT, lambda _: Health(since=datetime.now(UTC), blocked=True))
    assert deployment.look().requests == []
    health.change(PROJECT, lambda _: None)

    later = Deployment(
        deployment.server,
        deployment.home,
        deployment.instance,
        {LATE_PREFIX + "LOOKBACK_HOURS": "2"},
        tables=TRACES,
        cursor=deployment.cursor,
    )

    assert [asked[0] for asked in later.look().asked] == [deployment.key(4)]


@pytest.mark.parametrize("is_seen", [True, False], ids=["after a look that saw it", "at once"])
def test_a_changed_window_whose_run_somebody_terminates_is_asked_for_again(
    deployment: Deployment, is_seen: bool
) -> None:
    deployment.tables = TRACES
    deployment.environment = {LATE_PREFIX + "MARGIN_S": "0"}
    deployment.export(deployment.key(2), deployment.key(2))
    deployment.write("traces", trace("late", deployment.hour(2).start))
    [request] = deployment.look().requests
    run = deployment.instance.create_run_for_job(
        deployment.defs.resolve_job_def("export_hourly"),
        tags={PARTITION_TAG: deployment.key(2), **request.tags},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset(request.asset_selection or ()),
    )
    if is_seen:
        assert deployment.look().requests == []
    deployment.instance.report_run_canceled(run)

    again = deployment.look()
    deployment.work_off(again)

    assert [asked[0] for asked in again.asked] == [deployment.key(2)]
    assert deployment.ids("traces", deployment.hour(2)) == ["late"]
    assert deployment.look().skip_reason == "no window has changed"
