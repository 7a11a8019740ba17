"""Brings back the jobs of consumers that died, and retries that are due."""

import contextlib
import sys
import time
from collections.abc import Iterable

import structlog
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from langfuse_ingest.enqueue import rq_queue
from langfuse_ingest.queues import queue

log = structlog.get_logger()

# In a batch, by how often a consumer has died with them.
_MOST_JOBS = (sys.maxsize, 16, 1)
_REACQUIRE_S = 5.0
_RECOVERY_LOCK = "langfuse:ingestion:recovery"
# Starting a job takes it off the intermediate queue, so what is not there any more must not be put back.
# A job that was queued twice may be done already: nobody could start it, and it would come back for ever.
_PUT_BACK = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 and redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('LPUSH', KEYS[2], ARGV[1])
end
"""


class Recovery:
    """Puts jobs back that nobody works on. Several deployments may do so at once."""

    def __init__(self, redis: Redis, queues: Iterable[str], lease_s: int) -> None:
        """Nothing happens before `tick`.

        Args:
            redis: where the queues are.
            queues: names of queues and shards.
            lease_s: seconds that a job may go without a sign of life.
        """
        self._redis = redis
        self._queues = list(queues)
        self._lease_s = lease_s
        self._scheduler = self._scheduler_of(None)
        self._moved: dict[str, dict[str, float]] = {}
        self._locks_due = self._recovery_due = 0.0

    def tick(self) -> None:
        """Queue retries that are due; from time to time look for lost jobs. Raises redis.RedisError."""
        now = time.monotonic()
        if now >= self._locks_due:
            self._scheduler.acquire_locks()
            self._locks_due = now + _REACQUIRE_S
        self._scheduler.enqueue_scheduled_jobs()
        if now >= self._recovery_due:
            self._recovery_due = now + self._lease_s / 3
            # One deployment at a time, or a job would be counted as failed twice.
            if self._redis.set(_RECOVERY_LOCK, 1, nx=True, px=max(500, int(self._lease_s * 300))):
                self._recover()

    def add(self, name: str) -> None:
        """Look after another queue, too."""
        self._queues.append(name)
        self._scheduler = self._scheduler_of(self._scheduler.name)  # whose locks it has, therefore
        self._locks_due = 0.0

    def close(self) -> None:
        """Let another deployment take over at once."""
        with contextlib.suppress(Exception):
            self._scheduler.release_locks()

    def _scheduler_of(self, name: str | None) -> RQScheduler:
        return RQScheduler(
            self._queues, self._redis, logging_level="WARNING", serializer=JSONSerializer, name=name
        )

    def _recover(self) -> None:
        for name in self._queues:
            handlers = [_note_death] if queue(name).batched else []
            rq_queue(name, self._redis).started_job_registry.cleanup(exception_handlers=handlers)
            self._recover_intermediate(name)

    def _recover_intermediate(self, name: str) -> None:
        """Put back jobs that were taken off the queue and never started, once they are seen for a lease."""
        found = rq_queue(name, self._redis)
        now = time.monotonic()
        before = self._moved.get(name, {})
        moved = {job_id: before.get(job_id, now) for job_id in found.intermediate_queue.get_job_ids()}
        for job_id in [job_id for job_id, seen in moved.items() if now - seen >= self._lease_s]:
            put_back(found, job_id)
            del moved[job_id]
            log.warning("queue_job_recovered", queue=name, jobId=job_id)
        self._moved[name] = moved


def most_together(job: Job) -> int:
    """How many jobs a batch with it may have: fewer after each death of a consumer, to find its killer."""
    return _MOST_JOBS[min(died_with(job), len(_MOST_JOBS) - 1)]


def died_with(job: Job) -> int:
    """How many consumers have died with the job."""
    return job.meta.get("deaths", 0)


def _note_death(job: Job, *_: object) -> None:
    """Called by RQ of a job whose consumer has died, before it takes an attempt off."""
    if most_together(job) > 1:  # others may be to blame
        job.retries_left = (job.retries_left or 0) + 1
    job.meta["deaths"] = died_with(job) + 1


def put_back(queue: Queue, job_id: str) -> None:
    """Put a job that was taken and not started back to the front of its queue. Raises redis.RedisError."""
    keys = (queue.intermediate_queue_key, queue.key, queue.job_class.key_for(job_id))
    queue.connection.eval(_PUT_BACK, len(keys), *keys, job_id)
