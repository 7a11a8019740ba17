"""The registry of queues, and what role and flags make of it."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from langfuse_ingest import queues as registry
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queue_assets import build_queue_assets, queue_key
from langfuse_ingest.queues import QUEUES, QueueSpec, decide_queues, handler_of, queue, registered_queues
from langfuse_worker.role import WorkerRole, decide_locations, describe
from langfuse_worker.settings import SettingsError
from tests.ingest import reports
from tests.ingest.deployment import Deployment

INGESTION = [
    "ingestion-queue",
    "secondary-ingestion-queue",
    "otel-ingestion-queue",
    "secondary-otel-ingestion-queue",
    "trace-delete",
    "score-delete",
    "project-delete",
    "data-retention-queue",
]

# A queue of another package, as the documentation shows it.
REPORTS = QueueSpec(
    name="nightly-report-queue",
    flag="QUEUE_CONSUMER_NIGHTLY_REPORT_QUEUE_IS_ENABLED",
    handler="tests.ingest.reports.send",
)
TAKEN = QueueSpec(name="trace-delete", flag="X", handler="x.y")
BATCHED = QueueSpec(name="reports", flag="X", handler="x.y", batched=True)


@pytest.fixture
def with_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package's queue, registered by its entry point."""
    entry = EntryPoint("reports", "tests.ingest.test_queues:REPORTS", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    registry.queues.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    yield
    registry.queues.cache_clear()


@pytest.mark.parametrize("role", [WorkerRole.ALL, WorkerRole.INGESTION])
def test_roles_that_ingest_register_every_queue_whose_flag_is_on(role: WorkerRole) -> None:
    assert [spec.name for spec in registered_queues(role)] == INGESTION


def test_the_export_role_registers_no_queue_whatever_the_flags_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in registry.queues():
        monkeypatch.setenv(spec.flag, "true")
    assert registered_queues(WorkerRole.EXPORT) == []
    assert {d.reason for d in decide_queues(WorkerRole.EXPORT)} == {"LANGFUSE_WORKER_ROLE=export"}


def test_a_flag_removes_its_queue_and_another_adds_one_within_the_role(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUEUE_CONSUMER_TRACE_DELETE_QUEUE_IS_ENABLED", "false")
    monkeypatch.setenv("QUEUE_CONSUMER_DEAD_LETTER_RETRY_QUEUE_IS_ENABLED", "true")

    names = [spec.name for spec in registered_queues(WorkerRole.ALL)]

    assert "trace-delete" not in names
    assert "dead-letter-retry-queue" in names


def test_a_flag_that_is_no_truth_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_CONSUMER_TRACE_DELETE_QUEUE_IS_ENABLED", "maybe")
    with pytest.raises(SettingsError, match="QUEUE_CONSUMER_TRACE_DELETE_QUEUE_IS_ENABLED='maybe'"):
        decide_queues(WorkerRole.ALL)


def test_a_flag_in_the_env_file_counts() -> None:
    Path(".env").write_text("QUEUE_CONSUMER_TRACE_DELETE_QUEUE_IS_ENABLED=false\n")
    assert "trace-delete" not in [spec.name for spec in registered_queues(WorkerRole.ALL)]


def test_concurrency_and_shards_are_langfuses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [queue(name).consumers for name in INGESTION[:4]] == [20, 5, 5, 1]
    monkeypatch.setenv("LANGFUSE_INGESTION_QUEUE_PROCESSING_CONCURRENCY", "3")
    monkeypatch.setenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT", "2")
    assert queue("ingestion-queue").consumers == 3
    assert queue("ingestion-queue").shard_names == ["ingestion-queue", "ingestion-queue-1"]
    assert queue("ingestion-queue-1").name == "ingestion-queue"
    monkeypatch.setenv("LANGFUSE_INGESTION_QUEUE_SHARD_COUNT", "0")
    with pytest.raises(SettingsError, match="SHARD_COUNT='0': must be at least 1"):
        _ = queue("ingestion-queue").shards


def test_every_handler_can_be_imported() -> None:
    assert all(callable(handler_of(spec)) for spec in registry.queues())


def test_every_queue_says_in_the_ui_what_its_jobs_do() -> None:
    described = {spec.key: spec.description for spec in build_queue_assets([*QUEUES, REPORTS]).specs}

    assert described.pop(queue_key(REPORTS)) == f"Jobs of {REPORTS.handler}"
    assert len(set(described.values())) == len(QUEUES)
    assert not [text for text in described.values() if "langfuse_ingest." in (text or "")]


def test_the_first_line_says_what_is_registered_and_why_the_rest_is_not() -> None:
    role = WorkerRole.ALL
    line = describe(role, decide_locations(role) + decide_queues(role))
    assert line.startswith(
        "Worker role: all; registered: langfuse_export, langfuse_ingest, ingestion-queue, "
    )
    assert line.endswith(
        "not registered (QUEUE_CONSUMER_DEAD_LETTER_RETRY_QUEUE_IS_ENABLED=false): dead-letter-retry-queue"
    )


@pytest.mark.usefixtures("with_reports")
def test_another_packages_queue_gets_the_same_gating(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registered_queues(WorkerRole.INGESTION)[-1] == REPORTS
    assert REPORTS not in registered_queues(WorkerRole.EXPORT)
    monkeypatch.setenv(REPORTS.flag, "false")
    assert REPORTS not in registered_queues(WorkerRole.ALL)


@pytest.mark.usefixtures("with_reports")
def test_another_packages_handler_is_called_with_the_jobs_arguments(deployment: Deployment) -> None:
    enqueue(deployment.redis.client, REPORTS, [NewJob({"to": "ops@example.org"})])

    deployment.work(REPORTS.name)

    assert reports.SENT == ["ops@example.org"]
    assert (deployment.backlog, deployment.letters) == (0, [])


@pytest.mark.usefixtures("deployment")
def test_delays_are_multiplied_however_a_job_is_queued() -> None:
    retry = registry.queue("trace-delete").retry()

    assert retry is not None
    assert retry.intervals == [3]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("INGESTION", "is not a QueueSpec"),
        ("TAKEN", "already registered"),
        ("BATCHED", "only events are taken in batches"),
    ],
)
def test_entry_points_that_do_not_fit_are_named(
    monkeypatch: pytest.MonkeyPatch, found: str, says: str
) -> None:
    entry = EntryPoint("mine", f"tests.ingest.test_queues:{found}", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    registry.queues.cache_clear()
    with pytest.raises(SettingsError, match=says):
        registry.queues()
