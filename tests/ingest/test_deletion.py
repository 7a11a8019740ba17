"""Deleting: rows are gone for every reader, and neither late events' merges nor replays bring them back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from langfuse_ingest import deletion, ingest, jobs
from langfuse_ingest.enqueue import NewJob, enqueue, rq_queue
from langfuse_ingest.queues import queue
from langfuse_ingest.replay import replay_range
from langfuse_ingest.runtime import Runtime, build_runtime
from langfuse_worker.settings import settings
from tests.ingest.deployment import PROJECT, Deployment, Killed, SlowWriter
from tests.ingest.sessions import sessions, trace
from tests.servers.clickhouse_http import Fault

TABLES = ("traces", "observations", "scores", "events_full")


def enqueue_job(deployment: Deployment, name: str, **arguments: object) -> None:
    """Put a job into a queue and work it off."""
    enqueue(deployment.redis.client, queue(name), [NewJob(arguments)])
    deployment.work(name)


def replay_everything(deployment: Deployment) -> int:
    """Ingest the whole event log again."""
    now = datetime.now(UTC)
    count = replay_range(
        deployment.parts, (now - timedelta(hours=1)).isoformat(), (now + timedelta(hours=1)).isoformat()
    )
    deployment.work()
    return count


def test_a_deleted_trace_takes_everything_with_it_and_stays_deleted(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(4)), size=7)
    before = {table: deployment.rows(table) for table in TABLES}

    enqueue_job(deployment, "trace-delete", project=PROJECT, trace_ids=["trace-1-0", "trace-1-2"])

    def remaining() -> dict[str, set[str]]:
        return {
            table: {row.get("trace_id") or row["id"] for row in deployment.rows(table)} for table in TABLES
        }

    kept = {"trace-1-1", "trace-1-3"}
    assert remaining() == dict.fromkeys(TABLES, kept)
    assert {row["id"] for row in before["traces"]} > kept
    assert replay_everything(deployment) > 1
    assert remaining() == dict.fromkeys(TABLES, kept)


def test_no_payload_of_a_deleted_trace_stays_in_clickhouse(deployment: Deployment) -> None:
    deployment.ingest([trace("t", input="secret words")])

    jobs.delete_traces(PROJECT, ["t"])

    for table in ("traces", "events_full", "events_core"):
        [found] = deployment.clickhouse.rows(f"SELECT count() AS n FROM {table} WHERE input LIKE '%secret%'")
        assert int(found["n"]) == 0


def test_events_after_a_deletion_make_a_new_trace(deployment: Deployment) -> None:
    deployment.ingest([trace("t", name="old", userId="u")])
    jobs.delete_traces(PROJECT, ["t"])

    deployment.ingest([trace("t", name="new")])

    [row] = deployment.rows("traces")
    assert (row["name"], row["user_id"]) == ("new", None)


def test_scores_are_deleted_one_by_one(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(2)))

    enqueue_job(deployment, "score-delete", project=PROJECT, score_ids=["tone-1-0"])

    assert deployment.ids("scores") == ["helpful-1-0", "helpful-1-1", "tone-1-1"]
    replay_everything(deployment)
    assert deployment.ids("scores") == ["helpful-1-0", "helpful-1-1", "tone-1-1"]


def test_a_deleted_project_leaves_no_row_and_no_segment(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(2)))
    deployment.accept(list(sessions(1)), project="other")
    deployment.work()

    enqueue_job(deployment, "project-delete", project=PROJECT)

    for table in (*TABLES, "blob_storage_file_log", "event_log_index"):
        found = deployment.clickhouse.rows(f"SELECT DISTINCT project_id FROM {table}")
        assert found == [{"project_id": "other"}], table
    assert deployment.parts.event_log.keys_of(PROJECT) == []
    assert len(deployment.parts.event_log.keys_of("other")) == 1


def test_jobs_of_a_deleted_project_bring_nothing_back_and_are_no_dead_letters(
    deployment: Deployment,
) -> None:
    deployment.accept([trace("read and tried")])
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1))
    deployment.work()
    deployment.clickhouse.break_next()
    deployment.accept([trace("never read")])

    enqueue_job(deployment, "project-delete", project=PROJECT)
    deployment.make_retries_due()
    deployment.work()

    assert (deployment.ids("traces"), deployment.letters, deployment.backlog) == ([], [], 0)
    assert deployment.count("blob_storage_file_log") == deployment.count("event_log_index") == 0


def test_a_batch_in_work_does_not_outlive_the_deletion_of_its_project(deployment: Deployment) -> None:
    segment = deployment.accept(list(sessions(1))).segment

    def delete_meanwhile() -> None:
        deletion.delete_project(build_runtime(settings()), PROJECT)

    deployment.ingest_while(segment, delete_meanwhile)
    deployment.work("project-delete")

    for table in (*TABLES, "blob_storage_file_log", "event_log_index"):
        assert deployment.count(table) == 0, table
    deployment.ingest(list(sessions(1, seed=2)))
    assert deployment.ids("traces") == ["trace-2-0"]


def test_a_project_that_is_written_to_is_not_deleted_over_and_over(deployment: Deployment) -> None:
    first = deployment.accept(list(sessions(1))).segment

    deployment.ingest_while(first, lambda: deletion.delete_project(build_runtime(settings()), PROJECT))
    later = deployment.accept(list(sessions(1, seed=2))).segment
    waiting = rq_queue("project-delete", deployment.redis.client)
    [again] = waiting.get_jobs()
    waiting.empty()
    deployment.ingest_while(later, lambda: jobs.delete_project(**again.kwargs))

    assert waiting.count == 0


def test_a_batch_in_work_does_not_outlive_the_deletion_of_its_trace(deployment: Deployment) -> None:
    segment = deployment.accept(list(sessions(2))).segment

    def delete_meanwhile() -> None:
        deletion.delete_traces(build_runtime(settings()), PROJECT, ["trace-1-0"])
        deployment.accept([trace("trace-1-0", name="new")])

    deployment.ingest_while(segment, delete_meanwhile)
    deployment.work("trace-delete", "ingestion-queue")

    for _ in range(2):
        assert [(row["id"], row["name"]) for row in deployment.rows("traces")] == [
            ("trace-1-0", "new"),
            ("trace-1-1", "chat"),
        ]
        assert {row["trace_id"] for row in deployment.rows("observations")} == {"trace-1-1"}
        assert {row["trace_id"] for row in deployment.rows("scores")} == {"trace-1-1"}
        assert len(deployment.ids("events_full")) == 4
        replay_everything(deployment)


def test_traces_that_are_deleted_while_a_batch_is_in_work_are_deleted_again_by_one_job(
    deployment: Deployment,
) -> None:
    segment = deployment.accept(list(sessions(3))).segment
    traces = ["trace-1-0", "trace-1-2"]

    def delete_meanwhile() -> None:
        deletion.delete_traces(build_runtime(settings()), PROJECT, traces)

    deployment.ingest_while(segment, delete_meanwhile)

    [again] = rq_queue("trace-delete", deployment.redis.client).get_jobs()
    assert (again.kwargs["project"], sorted(again.kwargs["trace_ids"])) == (PROJECT, traces)


def test_a_batch_in_work_does_not_outlive_the_deletion_of_a_score(deployment: Deployment) -> None:
    segment = deployment.accept(list(sessions(1))).segment

    def delete_meanwhile() -> None:
        deletion.delete_scores(build_runtime(settings()), PROJECT, ["tone-1-0"])

    deployment.ingest_while(segment, delete_meanwhile)
    deployment.work("score-delete")

    assert deployment.ids("scores") == ["helpful-1-0"]
    replay_everything(deployment)
    assert deployment.ids("scores") == ["helpful-1-0"]


def test_jobs_of_a_deleted_score_that_wait_bring_nothing_back(deployment: Deployment) -> None:
    deployment.accept(list(sessions(1)))
    jobs.delete_scores(PROJECT, ["tone-1-0"])

    deployment.work()

    assert deployment.ids("scores") == ["helpful-1-0"]
    assert deployment.ids("traces") == ["trace-1-0"]


@pytest.mark.parametrize(
    ("queue_of_deletion", "delete", "left"),
    [
        ("project-delete", lambda parts: deletion.delete_project(parts, PROJECT), (0, 0, 0, 0)),
        ("trace-delete", lambda parts: deletion.delete_traces(parts, PROJECT, ["trace-1-0"]), (0, 0, 0, 0)),
        ("score-delete", lambda parts: deletion.delete_scores(parts, PROJECT, ["tone-1-0"]), (1, 2, 1, 3)),
    ],
)
def test_what_a_killed_consumer_wrote_does_not_outlive_a_deletion_that_it_did_not_see(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    queue_of_deletion: str,
    delete: Callable[[Runtime], None],
    left: tuple[int, ...],
) -> None:
    deployment.accept(list(sessions(1)))

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        slow = SlowWriter(deployment.parts.clickhouse, lambda: delete(build_runtime(settings())))
        patched.setattr(Runtime, "writer", slow)
        patched.setattr(ingest, "delete_again", die)
        deployment.work("ingestion-queue")
    assert len(deployment.ids("scores")) == 2
    deployment.expire_leases()
    deployment.make_retries_due()
    deployment.make_retries_due()
    deployment.work()
    deployment.work(queue_of_deletion)

    assert (deployment.backlog, deployment.letters) == (0, [])
    assert {table: len(deployment.ids(table)) for table in TABLES} == dict(zip(TABLES, left, strict=True))


def test_jobs_of_a_deleted_trace_that_wait_bring_nothing_back(deployment: Deployment) -> None:
    deployment.accept(list(sessions(2)))
    jobs.delete_traces(PROJECT, ["trace-1-0"])
    deployment.accept([trace("trace-1-0", name="new")])

    deployment.work()
    replay_everything(deployment)

    assert [row["name"] for row in deployment.rows("traces")] == ["new", "chat"]
    assert {row["trace_id"] for row in deployment.rows("observations")} == {"trace-1-1"}
    assert {row["trace_id"] for row in deployment.rows("scores")} == {"trace-1-1"}


def test_retention_deletes_what_is_older(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    old, new = now - timedelta(days=40), now - timedelta(days=3)
    deployment.ingest([*sessions(1, seed=1, start=old), *sessions(1, seed=2, start=new)])

    enqueue_job(deployment, "data-retention-queue", project=PROJECT, days=30)

    assert deployment.ids("traces") == ["trace-2-0"]
    assert len(deployment.ids("observations")) == len(deployment.ids("scores")) == 2
    assert len(deployment.parts.event_log.keys_of(PROJECT)) == 1  # it arrived just now


def test_retention_and_replay_leave_langfuses_own_objects_alone(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    deployment.ingest(list(sessions(1, start=now - timedelta(days=40))))
    foreign = [
        f"{PROJECT}/trace/t/e.json",
        f"{PROJECT}/{now:%Y/%m/%d/%H}/notes.txt",
        f"{PROJECT}/{now:%Y/%m/%d/%H}/{now:%Y/%m}/45/10/00/odd.jsonl.zst",
    ]
    for key in foreign:
        deployment.store.write_bytes(key, b"[]", "application/json")

    assert replay_everything(deployment) == 1
    enqueue_job(deployment, "data-retention-queue", project=PROJECT, days=30)

    assert (deployment.ids("traces"), deployment.letters, deployment.backlog) == ([], [], 0)
    assert set(foreign) < set(deployment.parts.event_log.keys_of(PROJECT))


def test_a_retention_of_no_days_is_refused(deployment: Deployment) -> None:
    with pytest.raises(ValueError, match="at least 1 day"):
        deletion.apply_retention(deployment.parts, PROJECT, 0)


def test_a_deletion_that_fails_is_tried_again_and_then_a_dead_letter(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(1)))
    deployment.clickhouse.break_next(Fault("refuse", match="DELETE FROM", times=-1))

    enqueue_job(deployment, "trace-delete", project=PROJECT, trace_ids=["trace-1-0"])
    assert (deployment.backlog, len(deployment.letters)) == (1, 0)
    deployment.make_retries_due()
    deployment.work("trace-delete")
    assert (deployment.backlog, len(deployment.letters)) == (0, 1)

    deployment.clickhouse.break_next()
    jobs.retry_dead_letters()
    deployment.work("trace-delete")
    assert (deployment.ids("traces"), deployment.letters) == ([], [])
