"""Takes jobs from a queue many at a time, as safely as RQ takes one."""

from collections.abc import Iterable
from typing import Any

from rq import Queue
from rq.job import Job

MAX_BYTES = 64 << 20  # of events, uncompressed, in one batch
_AT_ONCE = 200
_LONGEST_WAIT_S = 1.0
_DEFAULT_EVENTS = 1


def collect(queue: Queue, events: int, wait_s: float) -> list[Job]:
    """Move jobs with about so many events to the intermediate queue, as RQ does with one.

    Args:
        queue: where from.
        events: enough events.
        wait_s: seconds to wait if the queue is empty; not at all if 0 or less.

    Raises:
        redis.RedisError: some may have been moved; they go back in time, see `recovery`.
    """
    found: list[Job] = []
    while count_of(found) < events and _bytes(found) < MAX_BYTES:
        # How many events a job has is known once it is here, so they are taken in portions.
        portion = min(_AT_ONCE, max(1, (events - count_of(found)) // _typical(found)))
        ids = _move(queue, portion)
        if not ids and not found and wait_s > 0:
            ids = _wait(queue, min(wait_s, _LONGEST_WAIT_S))
        if not ids:
            break
        found += _fetch(queue, ids)
    return found


def _move(queue: Queue, count: int) -> list[str]:
    with queue.connection.pipeline(transaction=False) as pipeline:
        for _ in range(count):
            pipeline.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
        return [job_id.decode() for job_id in pipeline.execute() if job_id is not None]


def _wait(queue: Queue, seconds: float) -> list[str]:
    timeout: Any = max(0.01, seconds)  # whole seconds by its annotation, any by Redis
    job_id: Any = queue.connection.blmove(queue.key, queue.intermediate_queue_key, timeout, "LEFT", "RIGHT")
    return [] if job_id is None else [job_id.decode()]


def _fetch(queue: Queue, ids: list[str]) -> list[Job]:
    found: list[Job] = []
    for job_id, job in zip(
        ids, queue.job_class.fetch_many(ids, queue.connection, queue.serializer), strict=True
    ):
        if job is None:  # purged while it waited
            queue.connection.lrem(queue.intermediate_queue_key, 1, job_id)
        else:
            found.append(job)
    return found


def count_of(jobs: Iterable[Job]) -> int:
    """Number of events in jobs."""
    return sum(job.meta.get("events", _DEFAULT_EVENTS) for job in jobs)


def _typical(jobs: list[Job]) -> int:
    return max(1, count_of(jobs) // len(jobs)) if jobs else 100


def _bytes(jobs: Iterable[Job]) -> int:
    return sum(job.meta.get("bytes", 0) for job in jobs)
