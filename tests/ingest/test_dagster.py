"""What operators do and see in Dagster."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from langfuse_ingest import definitions
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queues import queue
from tests.ingest.deployment import PROJECT, Deployment, configure
from tests.ingest.sessions import sessions, trace


def load() -> dg.Definitions:
    """The code location as Dagster loads it."""
    return definitions.defs()  # pyright: ignore[reportReturnType,reportCallIssue]


def execute(job: str, **config: object) -> dg.ExecuteInProcessResult:
    """Run a job of the location."""
    run_config = {"ops": {f"{job}_op": {"config": config}}} if config else None
    return load().resolve_job_def(job).execute_in_process(run_config=run_config)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Metadata of a job's only output."""
    [output] = [e for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


def test_queues_are_assets_with_depth_and_age(deployment: Deployment) -> None:
    deployment.accept_all(list(sessions(2)), size=4)
    enqueue(deployment.redis.client, queue("trace-delete"), [NewJob({"project": "p", "trace_ids": []})])

    with dg.DagsterInstance.ephemeral() as instance:
        result = (
            load()
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(["langfuse_queues", "ingestion_queue"])]
            )
        )

    assert result.success
    [observation] = result.asset_observations_for_node("observe_queues")
    assert observation.metadata["waiting"].value == 4
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {"fresh": True, "no_dead_letters": True}


def test_an_old_job_and_a_dead_letter_fail_the_checks(deployment: Deployment) -> None:
    enqueue(deployment.redis.client, queue("ingestion-queue"), [NewJob({"segment": "missing"})])
    deployment.work()
    deployment.accept(list(sessions(1)))
    [job] = deployment.waiting("ingestion-queue")
    job.enqueued_at = datetime.now(UTC) - timedelta(hours=1)
    job.save()

    result = (
        load()
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(asset_selection=[dg.AssetKey(["langfuse_queues", "ingestion_queue"])])
    )

    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {"fresh": False, "no_dead_letters": False}


def test_dead_letters_are_shown_retried_and_purged(deployment: Deployment) -> None:
    enqueue(deployment.redis.client, queue("trace-delete"), [NewJob({"nonsense": 1})] * 2)
    enqueue(deployment.redis.client, queue("ingestion-queue"), [NewJob({"nonsense": 1})])
    deployment.work("trace-delete", "ingestion-queue")
    deployment.make_retries_due()
    deployment.work("trace-delete")
    assert len(deployment.letters) == 3

    assert metadata_of(execute("list_dead_letters"))["count"] == 3
    assert metadata_of(execute("list_dead_letters", queues=["ingestion-queue"]))["count"] == 1
    assert metadata_of(execute("retry_dead_letters"))["replayed"] == 2
    assert len(deployment.waiting("trace-delete")) == 2
    deployment.work("trace-delete")
    deployment.make_retries_due()
    deployment.work("trace-delete")
    assert metadata_of(execute("purge_dead_letters", queues=["trace-delete"]))["purged"] == 2
    assert [letter.queue for letter in deployment.letters] == ["ingestion-queue"]


def test_an_unknown_queue_fails_the_run(deployment: Deployment) -> None:
    with pytest.raises(dg.Failure, match="nope is not a queue"):
        execute("retry_dead_letters", queues=["nope"])


def test_a_time_range_of_the_event_log_is_ingested_again(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(3)))
    deployment.accept([trace("other")], project="p2")
    deployment.redis.client.flushall()  # Redis has lost everything
    deployment.clickhouse.empty()
    now = datetime.now(UTC)
    hour = timedelta(hours=1)

    def replay(start: datetime, end: datetime, project: str | None = None) -> object:
        config = {"start": start.isoformat(), "end": end.isoformat()} | (
            {"project": project} if project else {}
        )
        return metadata_of(execute("replay_event_log", **config))["segments"]

    assert replay(now - 3 * hour, now - hour) == 0
    assert replay(now - hour, now + hour, "p2") == 1
    assert replay(now - hour, now + hour, PROJECT) == 1
    deployment.work()

    assert sorted(deployment.ids("traces")) == ["other", "trace-1-0", "trace-1-1", "trace-1-2"]


def test_retention_is_queued_for_each_project_that_has_one(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in ("p1", "p2", "kept"):
        deployment.accept([trace("t")], project=project)
    deployment.work()
    configure(monkeypatch, LANGFUSE_DATA_RETENTION="p1=30,p2=7")

    assert metadata_of(execute("data_retention"))["days"] == {"p1": 30, "p2": 7}
    deployment.work("data-retention-queue")

    assert {row["project_id"] for row in deployment.rows("traces")} == {"kept"}


@pytest.mark.parametrize(("retention", "status"), [("p1=30", "RUNNING"), ("", "STOPPED")])
def test_schedules_run_where_there_is_something_to_do(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, retention: str, status: str
) -> None:
    configure(monkeypatch, LANGFUSE_DATA_RETENTION=retention)
    schedules = {s.name: s.default_status.value for s in load().get_repository_def().schedule_defs}
    assert schedules == {
        "observe_all_queues_schedule": "RUNNING",
        "retry_dead_letters_schedule": "STOPPED",
        "data_retention_schedule": status,
    }


def test_the_export_role_has_no_queue_in_dagster(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, LANGFUSE_WORKER_ROLE="export")
    repository = load().get_repository_def()
    assert list(repository.job_names) == list(repository.schedule_defs) == []
