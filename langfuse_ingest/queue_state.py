"""How full the queues are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq import Queue
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

    @property
    def has_work(self) -> bool:
        """Whether any of its jobs is neither done nor dead."""
        return bool(self.waiting or self.taken or self.started or self.scheduled)


def queue_states(redis: Redis, specs: Iterable[QueueSpec]) -> list[QueueState]:
    """The state of each queue, all at one moment: a job that moves on meanwhile is in one of the numbers.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    specs = list(specs)
    names = shards_in_redis(redis, specs)
    shards = _shards(redis, [name for spec in specs for name in names[spec.name]])
    return [_state(redis, spec.name, [shards[name] for name in names[spec.name]]) for spec in specs]


def shards_in_redis(redis: Redis, specs: Iterable[QueueSpec]) -> dict[str, list[str]]:
    """The shards of each queue, by its name, those included that it had when it had more of them.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    keys: Any = redis.smembers(Queue.redis_queues_keys)
    known = sorted(key.decode().removeprefix(Queue.redis_queue_namespace_prefix) for key in keys)
    return {
        spec.name: list(dict.fromkeys([*spec.shard_names, *filter(spec.has_shard, known)])) for spec in specs
    }


def left_shards(redis: Redis, specs: Iterable[QueueSpec]) -> list[tuple[QueueSpec, str]]:
    """Shards beyond the number of today in which there still are jobs to be done, with their queues.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    specs = list(specs)
    names = shards_in_redis(redis, specs)
    left = [(spec, name) for spec in specs for name in names[spec.name] if name not in spec.shard_names]
    shards = _shards(redis, [name for _, name in left])
    return [(spec, name) for spec, name in left if shards[name].has_work]


def _shards(redis: Redis, names: Iterable[str]) -> dict[str, _Shard]:
    names = list(names)
    with redis.pipeline() as pipeline:
        for name in names:
            _ask(pipeline, name)
        answers = iter(pipeline.execute())
    return {name: _Shard(*islice(answers, len(fields(_Shard)))) for name in names}


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
