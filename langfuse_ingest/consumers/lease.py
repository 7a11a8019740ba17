"""Keeps the jobs of a live consumer from being taken up by another."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.executions import Execution
from rq.job import Job

log = structlog.get_logger()


class Lease:
    """Renews the leases of jobs while they are worked on. A killed process renews nothing."""

    def __init__(self, worker: SimpleWorker, seconds: int) -> None:
        """Nothing is renewed yet.

        Args:
            worker: whose jobs they are.
            seconds: how long a lease lasts.
        """
        self._worker = worker
        self._seconds = seconds

    @contextmanager
    def held(self, jobs: Mapping[Job, Execution]) -> Iterator[None]:
        """Renew the leases of the jobs, which may grow meanwhile, until the context is left."""
        done = threading.Event()
        thread = threading.Thread(target=self._renew, args=(jobs, done), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _renew(self, jobs: Mapping[Job, Execution], done: threading.Event) -> None:
        while not done.wait(self._seconds / 3):
            try:
                with self._worker.connection.pipeline() as pipeline:
                    for job, execution in list(jobs.items()):
                        execution.heartbeat(job.started_job_registry, self._seconds, pipeline)
                    pipeline.expire(self._worker.key, self._worker.worker_ttl + 60)
                    pipeline.execute()
            except RedisError as error:
                log.warning("lease_not_renewed", jobs=len(jobs), error=str(error))
