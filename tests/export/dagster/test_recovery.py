"""Projects that fail: how often they are tried, what waits, and that nothing is missing afterwards."""

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from langfuse_export.errors import VerificationError
from langfuse_export.health.policy import HealthPolicy
from langfuse_export.health.state import Failure, Health, State
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import PARTITION_TAG, asset_key
from langfuse_export.notify.channels import Slack
from langfuse_export.notify.notifier import Notifier
from langfuse_export.tables import TABLES
from langfuse_export.telemetry import Telemetry, build_telemetry
from langfuse_export.windows import Frequency
from langfuse_worker.clickhouse import UNKNOWN_TABLE, ClickHouseError
from langfuse_worker.settings import Settings
from tests.export.dagster.deployment import NETWORK, Deployment, FlakyClickHouse
from tests.export.dagster.simulation import Simulation
from tests.export.dagster.statements import statements
from tests.export.killing import kill_a_run
from tests.export.requests import bounds
from tests.servers.notifications import WebhookReceiver
from tests.servers.otlp import OtlpReceiver

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 6, 10, tzinfo=UTC)


def _with_one_table(deployment: Deployment, **changes: Any) -> Deployment:
    deployment.projects = [deployment.project(tables=(TABLES["traces"],), **changes)]
    return deployment


@pytest.mark.defect("D14")
def test_a_daily_project_that_fails_for_a_day_is_tried_ten_times_and_then_catches_up(
    deployment: Deployment,
) -> None:
    """Defect D14 of Langfuse: a failing daily export is tried 360 times a day."""
    _with_one_table(deployment, frequency=Frequency.DAILY, start=MIDNIGHT - DAY)
    flaky = FlakyClickHouse(deployment.engine, [ClickHouseError("Connection refused", NETWORK)] * 10_000)
    deployment.clickhouse = flaky
    simulation = Simulation(deployment, MIDNIGHT)

    simulation.until(MIDNIGHT + DAY - timedelta(minutes=1))

    assert len(simulation.attempts) == 10
    assert {first for _, first, _ in simulation.attempts} == {"2026-06-09"}
    assert simulation.health is not None
    assert simulation.health.state is State.BACKING_OFF
    assert not simulation.health.stopped

    simulation.until(MIDNIGHT + 2 * DAY)
    assert len(simulation.attempts) == 10 + 4
    flaky.errors.clear()
    simulation.until(simulation.now + timedelta(hours=7))

    assert deployment.materialized() == {"2026-06-09", "2026-06-10", "2026-06-11"}
    assert simulation.health is None


def test_windows_missed_in_an_outage_longer_than_the_look_back_follow_in_runs_of_many(
    deployment: Deployment,
) -> None:
    project = _with_one_table(deployment, start=MIDNIGHT).first
    blobs = deployment.settings.home / "blobs"
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=1, minutes=20))
    simulation.until(simulation.now)
    assert deployment.materialized() == {"2026-06-10T00"}
    shutil.rmtree(blobs)
    blobs.write_text("a file where the directory was")
    simulation.until(MIDNIGHT + timedelta(hours=3))
    assert simulation.health is not None
    assert simulation.health.state is State.STOPPED
    failed = len(simulation.attempts)

    simulation.now = MIDNIGHT + timedelta(hours=40)
    assert len(simulation.recover()) == 1  # the daily probe; it is lost with its process
    blobs.unlink()
    simulation.until(MIDNIGHT + timedelta(hours=66))

    everything = project.frequency.windows(MIDNIGHT, MIDNIGHT + timedelta(hours=65))
    assert deployment.materialized() >= {project.frequency.key(window) for window in everything}
    assert simulation.health is None
    recovery = [(first, last) for _, first, last in simulation.attempts[failed:]]
    assert len({first == last for first, last in recovery}) == 2
    assert len(recovery) < 12


def test_a_window_that_fails_by_itself_is_tried_again_while_the_others_go_on(deployment: Deployment) -> None:
    _with_one_table(deployment, start=MIDNIGHT)
    deployment.clickhouse = FlakyClickHouse(
        deployment.engine, [ClickHouseError("no such table", UNKNOWN_TABLE)]
    )
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=1, minutes=20))
    simulation.until(simulation.now)
    assert simulation.health is not None
    assert simulation.health.state is State.RETRYING
    assert deployment.materialized() == set()

    simulation.until(simulation.now)
    assert deployment.materialized() == {"2026-06-10T00"}
    simulation.until(simulation.now)
    assert simulation.health is None


def test_a_table_that_fails_by_itself_holds_its_project_up_neither_for_now_nor_for_long(
    deployment: Deployment,
) -> None:
    tables = (TABLES["traces"], TABLES["scores"])
    deployment.projects = [deployment.project(tables=tables, start=MIDNIGHT)]
    torn: list[Exception] = [VerificationError("the stream holds 1 row, ClickHouse counts 2")] * 1000
    deployment.clickhouse = FlakyClickHouse(deployment.engine, torn, only="scores")
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=1, minutes=20))

    simulation.until(MIDNIGHT + timedelta(hours=5, minutes=20))

    assert simulation.health is not None
    assert simulation.health.state is State.RETRYING
    assert len(deployment.materialized("traces")) == 5


def test_many_projects_in_trouble_take_no_more_queries_than_few(deployment: Deployment) -> None:
    now = MIDNIGHT + timedelta(hours=9, minutes=20)
    failure = Failure(windows=("2026-06-10T08",), reason="clickhouse_memory", error="memory", blocks=False)

    def queries(count: int) -> int:
        deployment.projects = [deployment.project(f"project-{n}", start=MIDNIGHT) for n in range(count)]
        for project in deployment.projects:
            HealthStore(deployment.instance).change(
                project.project_id, lambda _: Health().failed(failure, HealthPolicy(), now)
            )
        with statements() as sent:
            requests = Simulation(deployment, now).recover()
        assert [bounds(request) for request in requests] == [("2026-06-10T00", "2026-06-10T07")] * count
        return len([statement for statement in sent if "event_logs" in statement])

    assert queries(2) == queries(12)


def test_a_project_is_tried_while_a_backfill_of_its_history_goes_on(deployment: Deployment) -> None:
    _with_one_table(deployment, start=MIDNIGHT - DAY)
    flaky = FlakyClickHouse(deployment.engine, [ClickHouseError("Connection refused", NETWORK)] * 1000)
    deployment.clickhouse = flaky
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=1, minutes=20))
    simulation.until(MIDNIGHT + timedelta(hours=4))
    assert simulation.health is not None
    assert simulation.health.state is State.BACKING_OFF
    job = deployment.defs.resolve_job_def("export_hourly")
    deployment.instance.create_run_for_job(
        job,
        tags={"dagster/partition": "2026-06-09T00", "dagster/backfill": "history"},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset(job.asset_layer.executable_asset_keys),
    )
    flaky.errors.clear()

    simulation.until(simulation.now + timedelta(hours=7))

    assert "2026-06-10T09" in deployment.materialized()


def test_a_window_whose_process_was_killed_is_tried_again(deployment: Deployment) -> None:
    project = _with_one_table(deployment, start=MIDNIGHT).first
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=2, minutes=20))
    assert deployment.run("2026-06-10T00", "2026-06-10T00").success
    _kill_a_run_of(deployment, "2026-06-10T01")

    simulation.until(simulation.now + timedelta(minutes=5))

    assert deployment.materialized() == {project.frequency.key(w) for w in project.frequency.windows(
        MIDNIGHT, MIDNIGHT + timedelta(hours=2))}  # fmt: skip


def test_a_window_is_tried_again_whichever_of_its_tables_a_killed_run_had(deployment: Deployment) -> None:
    deployment.projects = [deployment.project(tables=(TABLES["traces"], TABLES["scores"]), start=MIDNIGHT)]
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=2, minutes=20))
    assert deployment.run("2026-06-10T00", "2026-06-10T01").success
    _kill_a_run_of(deployment, "2026-06-10T01", asset_key(deployment.first, TABLES["scores"]))

    simulation.until(simulation.now + timedelta(minutes=10))

    assert [bounds for _, *bounds in simulation.attempts] == [["2026-06-10T01", "2026-06-10T01"]]
    assert simulation.health is None


def test_the_sensor_says_what_waits_and_sends_the_state_of_every_project(
    deployment: Deployment,
    otlp: OtlpReceiver,
    webhook: WebhookReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.url)
    _with_one_table(deployment, start=MIDNIGHT)
    simulation = Simulation(deployment, MIDNIGHT + timedelta(hours=1, minutes=20))
    deployment.now = lambda: simulation.now
    telemetry = build_telemetry(Settings())
    assert _sensor_skips(deployment, telemetry, webhook) == "no project is in trouble"
    deployment.settings.home.mkdir(exist_ok=True)
    (deployment.settings.home / "blobs").write_text("a file where the directory should be")

    for _ in range(3):
        deployment.run("2026-06-10T00", "2026-06-10T00")
        simulation.now += timedelta(minutes=11)
    said = _sensor_skips(deployment, telemetry, webhook)

    assert said.startswith("p1: stopped since 2026-06-10 01:20 UTC: destination_access: ")
    assert "(os error 17). Check that the destination's bucket, container or directory is there. Next" in said
    assert "Next attempt 2026-06-11 01:42 UTC." in said
    assert len(webhook.requests) == 1
    telemetry.flush()
    states = [point.attributes for point in otlp.named("langfuse.blob_export.project_state")]
    assert states[-1] == {"project": "p1", "state": "stopped"}
    telemetry.shutdown()


def _sensor_skips(deployment: Deployment, telemetry: Telemetry, webhook: WebhookReceiver) -> str:
    """Why a tick of the sensor, evaluated as the daemon does, asks for nothing."""
    repository = deployment.defs.get_repository_def()
    with dg.build_sensor_context(
        deployment.instance,
        repository_def=repository,
        resources={"telemetry": telemetry, "notifier": Notifier((Slack(webhook.url),))},
    ) as context:
        tick = repository.get_sensor_def("recovery_sensor").evaluate_tick(context)
    assert not tick.run_requests
    return tick.skip_message or ""


def _kill_a_run_of(deployment: Deployment, partition: str, *tables: dg.AssetKey) -> None:
    job = deployment.defs.resolve_job_def("export_hourly")
    kill_a_run(deployment.instance, job, {PARTITION_TAG: partition}, tables)
