"""Takes jobs from a queue many at a time, as safely as RQ takes one."""

from collections.abc import Iterable

from rq import Queue
from rq.job import Job

MAX_BYTES = 64 << 20  # of events, uncompressed, in one batch
_AT_ONCE = 200
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
    redis, source, target = queue.connection, queue.key, queue.intermediate_queue_key
    ids: list[bytes] = []
    if wait_s > 0:
        first = redis.blmove(source, target, max(0.01, min(wait_s, 1.0)), "LEFT", "RIGHT")  # pyright: ignore[reportArgumentType]
        if first is None:
            return []
        ids.append(first)  # pyright: ignore[reportArgumentType]
    found: list[Job] = []
    while True:
        # How many events a job has is known once it is here, so few are taken at a time.
        with redis.pipeline(transaction=False) as pipeline:
            for _ in range(min(_AT_ONCE, max(1, (events - count_of(found)) // _typical(found)))):
                pipeline.lmove(source, target, "LEFT", "RIGHT")
            ids += [job_id for job_id in pipeline.execute() if job_id is not None]
        if not ids:
            return found
        fetched = Job.fetch_many([i.decode() for i in ids], redis, queue.serializer)
        for job_id, job in zip(ids, fetched, strict=True):
            if job is None:  # purged while it waited
                redis.lrem(target, 1, job_id)  # pyright: ignore[reportArgumentType]
            else:
                found.append(job)
        ids = []
        if count_of(found) >= events or _bytes(found) >= MAX_BYTES:
            return found


def count_of(jobs: Iterable[Job]) -> int:
    """Number of events in jobs."""
    return sum(job.meta.get("events", _DEFAULT_EVENTS) for job in jobs)


def _typical(jobs: list[Job]) -> int:
    return max(1, count_of(jobs) // len(jobs)) if jobs else 100


def _bytes(jobs: Iterable[Job]) -> int:
    return sum(job.meta.get("bytes", 0) for job in jobs)
