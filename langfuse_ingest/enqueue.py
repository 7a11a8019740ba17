"""Puts jobs into queues. Arguments are JSON, so that every tool can read what waits."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from langfuse_ingest.queue_job import QueueJob
from langfuse_ingest.queues import QueueSpec

FOREVER = -1  # dead letters wait until somebody replays or purges them


@dataclass(frozen=True)
class NewJob:
    """A job to be queued.

    Attributes:
        arguments: keyword arguments of the queue's handler, JSON values.
        meta: what consumers want to know without reading the arguments, such as the number of events.
    """

    arguments: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def rq_queue(name: str, redis: Redis) -> Queue:
    """A queue or a shard, as RQ has it."""
    return Queue(name, connection=redis, job_class=QueueJob, serializer=JSONSerializer)


def job_fields(spec: QueueSpec, job: NewJob) -> dict[str, Any]:
    """A job of the queue as RQ's functions take it, beside what they call."""
    return {
        "kwargs": job.arguments,
        "timeout": spec.timeout_s,
        "result_ttl": 0,
        "failure_ttl": FOREVER,
        "description": job.description or spec.handler.rpartition(".")[2],
        "meta": job.meta,
    }


def enqueue(redis: Redis, spec: QueueSpec, jobs: Iterable[NewJob], shard: str | None = None) -> list[Job]:
    """Queue jobs in one round trip.

    Args:
        redis: where to.
        spec: the queue.
        jobs: the jobs.
        shard: name of the shard; the first one by default.

    Raises:
        redis.RedisError: it is unknown which of the jobs are queued.
    """
    data = [Queue.prepare_data(spec.handler, **job_fields(spec, job), retry=spec.retry()) for job in jobs]
    return rq_queue(shard or spec.name, redis).enqueue_many(data)
