"""Jobs that failed for good: listed, inspected, put back, purged.

They are RQ's failed jobs, so RQ's own tools show them as well. A row that ClickHouse refuses becomes a dead
letter of its own, that names the segment and the entity; its id is that of the entity in the queue, so it is
there once however often its segment is delivered.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.job_lifecycle import record_job_failure
from rq.registry import FailedJobRegistry
from rq.results import Result
from rq.serializers import JSONSerializer

from langfuse_ingest.enqueue import NewJob, job_fields, rq_queue
from langfuse_ingest.ingest import Outcome
from langfuse_ingest.queue_job import QueueJob
from langfuse_ingest.queue_state import shards_in_redis
from langfuse_ingest.queues import QueueSpec, queue, queues

# What a person has to want, as in Langfuse's own retry service: rows that ClickHouse refused fail again.
RETRIED_BY_DEFAULT = ("trace-delete", "score-delete", "project-delete", "data-retention-queue")


@dataclass(frozen=True)
class DeadLetter:
    """A job that failed for good.

    Attributes:
        reason: the last error.
        failed_at: when, UTC.
    """

    id: str
    queue: str
    reason: str
    failed_at: datetime | None
    arguments: dict[str, Any]
    events: int

    def as_json(self) -> dict[str, Any]:
        """As the commands print it."""
        failed_at = self.failed_at.isoformat() if self.failed_at else None
        return {**vars(self), "failed_at": failed_at}


def add_refused(redis: Redis, pipeline: Pipeline, spec: QueueSpec, outcome: Outcome) -> int:
    """Keep entities with refused rows as dead letters, when the pipeline is executed; the number of them."""
    reasons: dict[str, tuple[dict[str, Any], str]] = {}
    for row in outcome.refused:
        key = row.key
        arguments = {"segment": outcome.segments[key], "entity": [key.entity, key.id]}
        letter = str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"refused:{spec.name}:{key.project}:{key.entity}:{key.id}")
        )
        reasons[letter] = (arguments, f"{row.table} refuses {key.entity} {key.id!r}: {row.reason}")
    for letter, (arguments, reason) in reasons.items():
        new = NewJob(arguments, {"events": 1}, description=f"ingest {arguments['entity'][1]}")
        job = rq_queue(spec.name, redis).create_job(spec.handler, **job_fields(spec, new), job_id=letter)
        job.ended_at = datetime.now(UTC)
        job.save(pipeline=pipeline)
        record_job_failure(job, reason, pipeline)
    return len(reasons)


def dead_letters(redis: Redis, names: Iterable[str] | None = None) -> Iterator[DeadLetter]:
    """Dead letters of the queues, oldest first in each.

    Args:
        redis: where the queues are.
        names: queues; all of the registry by default.

    Raises:
        UnknownQueueError: there is no such queue.
    """
    for name in _shards(redis, names):
        ids = _registry(name, redis).get_job_ids()
        jobs = [job for job in Job.fetch_many(ids, redis, JSONSerializer) if job is not None]
        for job in sorted(jobs, key=lambda job: str(job.ended_at)):
            yield _letter(name, job)


def replay(redis: Redis, letter: DeadLetter) -> bool:
    """Put a dead letter back into its queue, with all its attempts; False if it is gone."""

    def put_back(job: Job, pipeline: Pipeline) -> None:
        spec = queue(letter.queue)
        retry = spec.retry()
        job.retries_left, job.retry_intervals = (retry.max, retry.intervals) if retry else (None, None)
        job.started_at = job.ended_at = None
        name = letter.queue if letter.queue in spec.shard_names else spec.name
        rq_queue(name, redis).enqueue_job(job, pipeline=pipeline)

    return _take(redis, letter, put_back)


def purge(redis: Redis, letter: DeadLetter) -> bool:
    """Remove a dead letter; its events stay in the event log. False if it is gone, or has been put back."""

    def remove(job: Job, pipeline: Pipeline) -> None:
        pipeline.delete(job.key, Result.get_key(job.id))

    return _take(redis, letter, remove)


def replay_all(redis: Redis, names: Iterable[str] | None = None) -> int:
    """Put back every dead letter of the queues, by default of those that delete; the number of them."""
    letters = list(dead_letters(redis, RETRIED_BY_DEFAULT if names is None else names))
    return sum(replay(redis, letter) for letter in letters)


def _take(redis: Redis, letter: DeadLetter, action: Callable[[Job, Pipeline], None]) -> bool:
    """Take a dead letter out of its list and do something with its job; False if it is not there any more.

    RQ's own `requeue` and `delete` take several steps: a job is nowhere if their process ends in between. And
    they would remove a job that somebody else has put back, while it waits or is in work.
    """
    try:
        job = QueueJob.fetch(letter.id, redis, JSONSerializer)
    except NoSuchJobError:
        return False
    key = _registry(letter.queue, redis).key

    def take(pipeline: Pipeline) -> None:
        is_there = pipeline.zscore(key, letter.id) is not None
        pipeline.multi()
        if is_there:
            pipeline.zrem(key, letter.id)
            action(job, pipeline)

    return bool(redis.transaction(take, key))


def _shards(redis: Redis, names: Iterable[str] | None) -> list[str]:
    """The queues of these names; of those that have shards, all of them."""
    in_redis = shards_in_redis(redis, queues())
    if names is None:
        return list(chain.from_iterable(in_redis.values()))
    return [shard for name in names for shard in in_redis.get(name) or [_known(name)]]


def _known(shard: str) -> str:
    queue(shard)
    return shard


def _registry(name: str, redis: Redis) -> FailedJobRegistry:
    return FailedJobRegistry(name, connection=redis, serializer=JSONSerializer)


def _letter(name: str, job: Job) -> DeadLetter:
    result = job.latest_result()
    reason = (result.exc_string if result else None) or "unknown"
    # RQ stores tracebacks; the last line says what happened.
    return DeadLetter(
        id=job.id,
        queue=name,
        reason=reason.strip().splitlines()[-1],
        failed_at=job.ended_at or (result.created_at if result else None),
        arguments=_arguments(job),
        events=job.meta.get("events", 1),
    )


def _arguments(job: Job) -> dict[str, Any]:
    """What the job was to be called with; nothing if somebody else has queued something that is not JSON."""
    try:
        return job.kwargs or {}
    except DeserializationError:
        return {}
