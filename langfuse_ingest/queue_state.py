"""How full the queues are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice

from redis import Redis
from redis.client import Pipeline
from rq.serializers import JSONSerializer

from langfuse_ingest.enqueue import rq_queue
from langfuse_ingest.queue_job import QueueJob
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


@dataclass(frozen=True)
class _Shard:
    waiting: int
    taken: int
    started: int
    scheduled: int
    failed: int
    oldest: bytes | None


def queue_states(redis: Redis, specs: Iterable[QueueSpec]) -> list[QueueState]:
    """The state of each queue, all at one moment: a job that moves on meanwhile is in one of the numbers.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    shards = [(spec, name) for spec in specs for name in spec.shard_names]
    with redis.pipeline() as pipeline:
        for _, name in shards:
            _ask(pipeline, name)
        answers = iter(pipeline.execute())
    found: dict[str, list[_Shard]] = {}
    for spec, _ in shards:
        found.setdefault(spec.name, []).append(_Shard(*islice(answers, len(fields(_Shard)))))
    return [_state(redis, name, of_queue) for name, of_queue in found.items()]


def _ask(pipeline: Pipeline, name: str) -> None:
    """Ask for the fields of a shard. A job is taken first, which its consumer then notes as started."""
    queue = rq_queue(name, pipeline)
    pipeline.llen(queue.key)
    pipeline.llen(queue.intermediate_queue_key)
    for registry in (queue.started_job_registry, queue.scheduled_job_registry, queue.failed_job_registry):
        pipeline.zcard(registry.key)
    pipeline.lindex(queue.key, 0)


def _state(redis: Redis, name: str, shards: Sequence[_Shard]) -> QueueState:
    oldest = [shard.oldest.decode() for shard in shards if shard.oldest is not None]
    jobs = QueueJob.fetch_many(oldest, redis, JSONSerializer)
    now = datetime.now(UTC)
    ages = [(now - job.enqueued_at).total_seconds() for job in jobs if job and job.enqueued_at]
    return QueueState(
        queue=name,
        waiting=sum(shard.waiting for shard in shards),
        active=sum(shard.taken + shard.started for shard in shards),
        scheduled=sum(shard.scheduled for shard in shards),
        failed=sum(shard.failed for shard in shards),
        oldest_age_s=max(ages, default=0.0),
    )
