"""Takes jobs from a queue many at a time, as safely as RQ takes one."""

import sys
from collections.abc import Iterable
from typing import Any

from rq import Queue
from rq.job import Job

from langfuse_ingest.consumers.recovery import most_together, put_back

MAX_BYTES = 64 << 20  # of events, uncompressed, in one batch
_AT_ONCE = 200
_LONGEST_WAIT_S = 1.0
_DEFAULT_EVENTS = 1


class Batch:
    """How full a batch is; by its events, and by their bytes."""

    def __init__(self, jobs: Iterable[Job], events: int) -> None:
        """Begin with these jobs; so many events are enough."""
        self._most = events
        self._most_jobs = sys.maxsize
        self._jobs = self._events = self._bytes = 0
        self._is_closed = False
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """Count a job that it has got."""
        self._most_jobs = most_together(job)
        self._jobs += 1
        self._events += count_of([job])
        self._bytes += job.meta.get("bytes", 0)

    def takes(self, job: Job) -> bool:
        """Whether the job may go with the others."""
        return not self.is_full and (self._jobs == 0 or most_together(job) == self._most_jobs)

    def close(self) -> None:
        """Take no further job: the next one begins the next batch."""
        self._is_closed = True

    @property
    def is_full(self) -> bool:
        """Whether it shall take no further job."""
        by_size = self._events >= self._most or self._bytes >= MAX_BYTES
        return self._is_closed or by_size or self._jobs >= self._most_jobs

    @property
    def portion(self) -> int:
        """How many jobs may still fit, if they are like those that it has."""
        jobs = max(1, self._jobs)
        by_events = (self._most - self._events) // max(1, self._events // jobs)
        by_bytes = (MAX_BYTES - self._bytes) // max(1, self._bytes // jobs)
        return max(1, min(_AT_ONCE, by_events, by_bytes, self._most_jobs - self._jobs))


def collect(queue: Queue, batch: Batch, wait_s: float) -> list[Job]:
    """Move jobs to the intermediate queue, as RQ does with one, until the batch is full.

    Args:
        queue: where from.
        batch: what the jobs are added to.
        wait_s: seconds to wait if the queue is empty; not at all if 0 or less.

    Raises:
        redis.RedisError: some may have been moved; they go back in time, see `recovery`.
    """
    found: list[Job] = []
    while not batch.is_full:
        ids = _move(queue, batch.portion)
        if not ids and not found and wait_s > 0:
            ids = _wait(queue, min(wait_s, _LONGEST_WAIT_S))
        if not ids:
            break
        moved = _fetch(queue, ids)
        # How large a job is, is known once it is here.
        while moved and batch.takes(moved[0]):
            found.append(moved.pop(0))
            batch.add(found[-1])
        if moved:
            batch.close()
        for job in reversed(moved):
            put_back(queue, job.id)
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
