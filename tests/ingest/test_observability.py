"""What a deployment shows of itself: metrics at a collector, lines in a log, settings in query_log."""

import json
import os
import signal

import pytest
from structlog.testing import capture_logs

from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queues import queue
from tests.ingest.deployment import Deployment, configure
from tests.ingest.sessions import sessions, trace
from tests.servers.clickhouse import cores_of
from tests.servers.clickhouse_http import Fault
from tests.servers.otlp import OtlpReceiver
from tests.waiting import wait_for


@pytest.fixture
def collected(otlp: OtlpReceiver, deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> OtlpReceiver:
    """A collector that the deployment sends to."""
    configure(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=otlp.url)
    return otlp


def test_wait_and_processing_histograms_and_rows_arrive(
    deployment: Deployment, collected: OtlpReceiver
) -> None:
    deployment.accept_all(list(sessions(5)), size=8)
    deployment.work()

    deployment.parts.metrics.flush()

    waits = collected.named("langfuse.queue.wait_duration_ms")
    assert sum(p.count for p in waits) == 5
    assert {p.attributes["queue"] for p in waits} == {"ingestion-queue"}
    [processing] = collected.named("langfuse.queue.processing_duration_ms")
    assert processing.attributes == {"queue": "ingestion-queue", "outcome": "success"}
    rows = {p.attributes["table"]: p.value for p in collected.named("langfuse.ingestion.rows_written")}
    assert rows == {"traces": 5, "observations": 10, "scores": 10, "events_full": 15}


def test_retries_and_dead_letters_are_counted_and_logged(
    deployment: Deployment, collected: OtlpReceiver
) -> None:
    deployment.accept([trace("t")])
    deployment.clickhouse.break_next(Fault("refuse", match="INSERT INTO traces", times=-1))

    with capture_logs() as lines:
        while not deployment.letters:
            deployment.work()
            deployment.make_retries_due()
    deployment.parts.metrics.flush()

    failures = [line for line in lines if line["event"] == "queue_job_failed"]
    assert [line["attemptsLeft"] for line in failures] == [5, 4, 3, 2, 1, 0]
    assert sum(p.value for p in collected.named("langfuse.queue.retries")) == 5
    assert sum(p.value for p in collected.named("langfuse.queue.dead_letters")) == 1


def test_the_supervisor_reports_depth_and_age(deployment: Deployment, collected: OtlpReceiver) -> None:
    deployment.accept_all(list(sessions(2)), size=1)
    with deployment.consumers("--queue", "trace-delete") as consumers:
        consumers.stop()

    depth = {p.attributes["queue"]: p.value for p in collected.named("langfuse.queue.depth")}
    assert "trace-delete" in depth
    assert collected.named("langfuse.queue.oldest_age_seconds")


def test_a_consumer_that_is_started_again_does_not_repeat_what_its_supervisor_knew(
    deployment: Deployment, collected: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="200")

    def delete_something() -> None:
        collected.points.clear()
        job = NewJob({"project": "p1", "trace_ids": ["t"]})
        enqueue(deployment.redis.client, queue("trace-delete"), [job])
        collected.named("langfuse.queue.processing_duration_ms")

    with deployment.consumers("--queue", "trace-delete") as consumers:
        collected.named("langfuse.queue.depth")
        first = consumers.children
        consumers.kill_children()
        wait_for(lambda: consumers.children not in ([], first), consumers.log.read_text)
        os.kill(consumers.process.pid, signal.SIGSTOP)  # so that it says nothing itself
        for _ in range(2):  # what it was about to say may come with the first one
            delete_something()

        assert "langfuse.queue.depth" not in {point.name for point in collected.points}


def test_a_batch_is_one_line_with_its_numbers(deployment: Deployment) -> None:
    with deployment.consumers("--queue", "ingestion-queue") as consumers:
        deployment.accept_all(list(sessions(3)), size=24)
        deployment.wait_until_empty()
        consumers.stop()

    assert consumers.lines[0].startswith("Worker role: all; registered: ingestion-queue, ")
    lines = [json.loads(line) for line in consumers.lines[1:] if "queue_batch_finished" in line]
    assert sum(line["events"] for line in lines) == 24
    assert {line["queue"] for line in lines} == {"ingestion-queue"}
    assert all(line["durationMs"] > 0 and line["failedJobs"] == 0 for line in lines)


def test_every_query_carries_the_limits_of_ingestion(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(1)))

    found = deployment.clickhouse.exports_in_query_log()
    mine = [json.loads(row["comment"])["purpose"] for row in found if "ingest-" in row["comment"]]
    assert {"ingest-write", "ingest-log", "ingest-read"} <= set(mine)
    threads = str(min(4, cores_of(deployment.clickhouse)))
    for row in found:
        if "ingest-" in row["comment"]:
            assert row["settings"]["priority"] == "1"
            assert row["settings"]["max_threads"] == threads
            assert row["settings"]["max_execution_time"] == "35"
