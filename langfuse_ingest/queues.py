"""The registry of queues: one row a queue.

Names, flags, concurrency and retries are Langfuse's. Queues whose work belongs to another product, such as
evaluations and webhooks, are not here; a package adds its own by an entry point, see ENTRY_POINTS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from rq import Retry

from langfuse_ingest.sharding import shard_name
from langfuse_worker.role import Decision, Family, WorkerRole, decide
from langfuse_worker.settings import SettingsError, settings, variable

ENTRY_POINTS = "langfuse_ingest.queues"


class UnknownQueueError(LookupError):
    """No queue or shard has this name; the message is for people."""


def exponential(attempts: int, first_delay_s: int) -> tuple[int, ...]:
    """Delays between attempts, seconds, each twice the one before."""
    return tuple(first_delay_s * 2**n for n in range(attempts - 1))


@dataclass(frozen=True)
class QueueSpec:
    """One queue.

    Attributes:
        name: its name in Redis, and of its first shard.
        flag: variable that switches its consumers off, `QUEUE_CONSUMER_*_IS_ENABLED`.
        handler: import path of what a job calls, `package.module.function`.
        family: what LANGFUSE_WORKER_ROLE asks for.
        enabled: value of the flag when it is not set.
        concurrency_variable: variable with the most consumers of a shard in this deployment.
        concurrency: its default. No more consumers start than the machine has cores.
        delays: seconds before each further attempt of a failed job; when all are used up, the job is a dead
            letter.
        shards_variable: variable with the number of shards, if the queue can be sharded.
        batched: whether a consumer ingests many jobs at once; of the queues of events alone.
        timeout_s: seconds that a job, or a batch of them, may take.
        about: what its jobs do, a sentence for people; without it they read the handler.
    """

    name: str
    flag: str
    handler: str
    family: Family = Family.INGESTION
    enabled: bool = True
    concurrency_variable: str | None = None
    concurrency: int = 1
    delays: tuple[int, ...] = exponential(5, 5)
    shards_variable: str | None = None
    batched: bool = False
    timeout_s: int = 300
    about: str = ""

    @property
    def description(self) -> str:
        """What its jobs do."""
        return self.about or f"Jobs of {self.handler}"

    @property
    def shards(self) -> int:
        """Number of shards. Raises SettingsError."""
        return variable(self.shards_variable, int, 1) if self.shards_variable else 1

    @property
    def shard_names(self) -> list[str]:
        """The queues in Redis."""
        return [shard_name(self.name, index) for index in range(self.shards)]

    def has_shard(self, name: str) -> bool:
        """Whether a queue in Redis is this one or a shard of it, be it of another number of shards."""
        prefix, _, index = name.rpartition("-")
        return name == self.name or bool(self.shards_variable and prefix == self.name and index.isdecimal())

    @property
    def consumers(self) -> int:
        """Most consumers of each shard. Raises SettingsError."""
        if self.concurrency_variable is None:
            return self.concurrency
        return variable(self.concurrency_variable, int, self.concurrency)

    def retry(self) -> Retry | None:
        """The retries of its jobs, as RQ takes them. Raises SettingsError."""
        if not self.delays:
            return None
        factor = settings().retry_delay_factor
        return Retry(max=len(self.delays), interval=[max(1, round(delay * factor)) for delay in self.delays])


_INGEST = "langfuse_ingest.jobs.ingest"

QUEUES = (
    QueueSpec(
        name="ingestion-queue",
        flag="QUEUE_CONSUMER_INGESTION_QUEUE_IS_ENABLED",
        handler=_INGEST,
        concurrency_variable="LANGFUSE_INGESTION_QUEUE_PROCESSING_CONCURRENCY",
        concurrency=20,
        delays=exponential(6, 5),
        shards_variable="LANGFUSE_INGESTION_QUEUE_SHARD_COUNT",
        batched=True,
        about="Merges the events of SDKs, scores and traces among them, into rows of ClickHouse.",
    ),
    QueueSpec(
        name="secondary-ingestion-queue",
        flag="QUEUE_CONSUMER_INGESTION_SECONDARY_QUEUE_IS_ENABLED",
        handler=_INGEST,
        concurrency_variable="LANGFUSE_INGESTION_SECONDARY_QUEUE_PROCESSING_CONCURRENCY",
        concurrency=5,
        shards_variable="LANGFUSE_INGESTION_SECONDARY_QUEUE_SHARD_COUNT",
        batched=True,
        about=(
            "As ingestion-queue, for the projects "
            "that LANGFUSE_SECONDARY_INGESTION_QUEUE_ENABLED_PROJECT_IDS names."
        ),
    ),
    QueueSpec(
        name="otel-ingestion-queue",
        flag="QUEUE_CONSUMER_OTEL_INGESTION_QUEUE_IS_ENABLED",
        handler=_INGEST,
        concurrency_variable="LANGFUSE_OTEL_INGESTION_QUEUE_PROCESSING_CONCURRENCY",
        concurrency=5,
        delays=exponential(6, 5),
        shards_variable="LANGFUSE_OTEL_INGESTION_QUEUE_SHARD_COUNT",
        batched=True,
        about="Merges OpenTelemetry spans into rows of ClickHouse.",
    ),
    QueueSpec(
        name="secondary-otel-ingestion-queue",
        flag="QUEUE_CONSUMER_OTEL_INGESTION_SECONDARY_QUEUE_IS_ENABLED",
        handler=_INGEST,
        concurrency_variable="LANGFUSE_OTEL_INGESTION_SECONDARY_QUEUE_PROCESSING_CONCURRENCY",
        concurrency=1,
        shards_variable="LANGFUSE_OTEL_INGESTION_SECONDARY_QUEUE_SHARD_COUNT",
        batched=True,
        about=(
            "As otel-ingestion-queue, for the projects "
            "that LANGFUSE_SECONDARY_OTEL_INGESTION_QUEUE_ENABLED_PROJECT_IDS names."
        ),
    ),
    QueueSpec(
        name="trace-delete",
        flag="QUEUE_CONSUMER_TRACE_DELETE_QUEUE_IS_ENABLED",
        handler="langfuse_ingest.jobs.delete_traces",
        concurrency_variable="LANGFUSE_TRACE_DELETE_CONCURRENCY",
        delays=exponential(2, 30),
        about="Deletes traces with their observations, scores and events.",
    ),
    QueueSpec(
        name="score-delete",
        flag="QUEUE_CONSUMER_SCORE_DELETE_QUEUE_IS_ENABLED",
        handler="langfuse_ingest.jobs.delete_scores",
        concurrency_variable="LANGFUSE_SCORE_DELETE_CONCURRENCY",
        delays=exponential(2, 30),
        about="Deletes scores.",
    ),
    QueueSpec(
        name="project-delete",
        flag="QUEUE_CONSUMER_PROJECT_DELETE_QUEUE_IS_ENABLED",
        handler="langfuse_ingest.jobs.delete_project",
        concurrency_variable="LANGFUSE_PROJECT_DELETE_CONCURRENCY",
        delays=exponential(10, 5),
        timeout_s=3600,
        about="Deletes every row and the whole event log of a project.",
    ),
    QueueSpec(
        name="data-retention-queue",
        flag="QUEUE_CONSUMER_DATA_RETENTION_QUEUE_IS_ENABLED",
        handler="langfuse_ingest.jobs.apply_retention",
        timeout_s=3600,
        about="Deletes what is older than LANGFUSE_DATA_RETENTION says.",
    ),
    QueueSpec(
        name="dead-letter-retry-queue",
        flag="QUEUE_CONSUMER_DEAD_LETTER_RETRY_QUEUE_IS_ENABLED",
        handler="langfuse_ingest.jobs.retry_dead_letters",
        enabled=False,
        about="Puts dead letters back into their queues.",
    ),
)


@cache
def queues() -> tuple[QueueSpec, ...]:
    """Every queue of the registry, those of other packages included.

    Raises:
        SettingsError: an entry point is no QueueSpec, takes a name that is in use, or is batched.
    """
    found = list(QUEUES)
    for entry in entry_points(group=ENTRY_POINTS):
        spec: Any = entry.load()
        if not isinstance(spec, QueueSpec):
            raise SettingsError(f"entry point {ENTRY_POINTS}:{entry.name} is not a QueueSpec")
        if spec.name in {other.name for other in found}:
            raise SettingsError(f"entry point {ENTRY_POINTS}:{entry.name}: {spec.name} is already registered")
        if spec.batched:
            raise SettingsError(f"entry point {ENTRY_POINTS}:{entry.name}: only events are taken in batches")
        found.append(spec)
    return tuple(found)


def queue(name: str) -> QueueSpec:
    """The queue, or the queue of a shard, of that name. Raises UnknownQueueError."""
    for spec in queues():
        if spec.has_shard(name):
            return spec
    raise UnknownQueueError(f"{name} is not a queue; `langfuse-worker queues` lists them")


def decide_queues(role: WorkerRole) -> list[Decision]:
    """Which queues are consumed in this role. Raises SettingsError."""
    return [
        decide(role, spec.name, spec.family, flag=spec.flag, enabled=variable(spec.flag, bool, spec.enabled))
        for spec in queues()
    ]


def registered_queues(role: WorkerRole) -> list[QueueSpec]:
    """The queues that are consumed in this role. Raises SettingsError."""
    decisions = {decision.name: decision.registered for decision in decide_queues(role)}
    return [spec for spec in queues() if decisions[spec.name]]


def registered_queue(name: str) -> QueueSpec:
    """The queue, or the queue of a shard, of that name. Raises SettingsError: it is not consumed here."""
    try:
        spec = queue(name)
    except UnknownQueueError as error:
        raise SettingsError(str(error)) from None
    for decision in decide_queues(settings().worker_role):
        if decision.name == spec.name and not decision.registered:
            raise SettingsError(f"{decision.reason}: {name} is not consumed here")
    return spec


def handler_of(spec: QueueSpec) -> Callable[..., Any]:
    """What its jobs call. Raises ImportError, AttributeError."""
    module, _, name = spec.handler.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)
