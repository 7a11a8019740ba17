"""How full the queues are."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from langfuse_ingest.enqueue import rq_queue
from langfuse_ingest.queues import QueueSpec


@dataclass(frozen=True)
class QueueState:
    """A queue with all its shards.

    Attributes:
        waiting: jobs that nobody has taken yet.
        active: jobs in work, or on their way to a consumer.
        scheduled: jobs that wait for their next attempt.
        failed: dead letters.
        oldest_age_s: age of the oldest waiting job, seconds; 0 if none waits.
    """

    queue: str
    waiting: int
    active: int
    scheduled: int
    failed: int
    oldest_age_s: float

    @property
    def depths(self) -> dict[str, int]:
        """Jobs by state."""
        return {
            "waiting": self.waiting,
            "active": self.active,
            "scheduled": self.scheduled,
            "failed": self.failed,
        }


def queue_states(redis: Redis, specs: Iterable[QueueSpec]) -> list[QueueState]:
    """The state of each queue. Raises redis.RedisError."""
    return [_state(redis, spec) for spec in specs]


def _state(redis: Redis, spec: QueueSpec) -> QueueState:
    names = spec.shard_names
    queues = [rq_queue(name, redis) for name in names]

    def count(registry: type[FailedJobRegistry | ScheduledJobRegistry | StartedJobRegistry]) -> int:
        keys = [registry(name, connection=redis, serializer=JSONSerializer).key for name in names]
        return sum(int(redis.zcard(key)) for key in keys)  # pyright: ignore[reportArgumentType]

    oldest = [job for queue in queues for job in _first(queue.get_job_ids(0, 1), redis)]
    now = datetime.now(UTC)
    ages = [(now - job.enqueued_at).total_seconds() for job in oldest if job.enqueued_at]
    return QueueState(
        queue=spec.name,
        waiting=sum(queue.count for queue in queues),
        active=count(StartedJobRegistry) + sum(_length(queue, redis) for queue in queues),
        scheduled=count(ScheduledJobRegistry),
        failed=count(FailedJobRegistry),
        oldest_age_s=max(ages, default=0.0),
    )


def _length(queue: Queue, redis: Redis) -> int:
    return int(redis.llen(queue.intermediate_queue_key))  # pyright: ignore[reportArgumentType]


def _first(ids: list[str], redis: Redis) -> list[Job]:
    return [job for job in Job.fetch_many(ids, redis, JSONSerializer) if job is not None]
