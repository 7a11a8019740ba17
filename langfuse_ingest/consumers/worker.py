"""RQ workers that do not fork for a job. One worker listens to one queue.

`rq worker --url redis://... -w langfuse_ingest.consumers.worker.ConsumerWorker QUEUE` obeys the role as well.
"""

import gc
import time
from collections.abc import Sequence
from ctypes import c_double
from typing import Any

import structlog
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker.base import WorkerStatus
from rq.worker_registration import clean_worker_registry

from langfuse_ingest.consumers.batch import Batch, collect, count_of
from langfuse_ingest.consumers.lease import Lease
from langfuse_ingest.consumers.outage import both_answer, casts_doubt
from langfuse_ingest.consumers.run import HOPELESS, run
from langfuse_ingest.dead_letters import add_refused
from langfuse_ingest.enqueue import rq_queue
from langfuse_ingest.ingest import Outcome
from langfuse_ingest.queue_job import QueueJob, remove_done
from langfuse_ingest.queues import QueueSpec, registered_queue
from langfuse_ingest.runtime import runtime
from langfuse_worker.settings import SettingsError, settings

log = structlog.get_logger()

_WORKER_TTL_S = 20
_WAIT_S = 1  # for a job, after which a consumer looks whether it shall stop
_BATCHES_PER_COLLECTION = 200


class ConsumerWorker(SimpleWorker):
    """Works off one queue or shard; takes the jobs of a batched queue many at a time."""

    job_class = QueueJob
    log_job_description = False
    log_result_lifespan = False
    progress: c_double | None = None

    def __init__(self, queues: Sequence[Queue], *args: Any, **kwargs: Any) -> None:
        """As RQ's workers.

        Raises:
            SettingsError: the role or a flag says that the queue is not consumed here.
        """
        kwargs.setdefault("worker_ttl", _WORKER_TTL_S)
        kwargs["serializer"] = JSONSerializer
        super().__init__([rq_queue(queue.name, queue.connection) for queue in queues], *args, **kwargs)
        if len(self.queues) != 1:
            raise SettingsError("a consumer listens to one queue, or a job could be lost on its way to it")
        self.spec: QueueSpec = registered_queue(self.queues[0].name)
        self._lease_s = settings().job_lease_s
        self._lease = Lease(self, self._lease_s)
        self._last_write = 0.0
        self._batches = 0
        self._waits_for_more = True
        self._in_doubt = False  # whether ClickHouse and the event log's store are there
        self._is_taking = False
        # The one place where RQ's main loop takes a job.
        self.queue_class = type("TakenFrom", (Queue,), {"dequeue_any": self._take})

    def work(self, burst: bool = False, *args: Any, **kwargs: Any) -> bool:
        """RQ's main loop."""
        # Events are trees without cycles; to look for cycles among them takes a third of the time.
        gc.disable()
        self._waits_for_more = not burst
        try:
            return super().work(burst, *args, **kwargs)
        finally:
            gc.enable()

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """RQ's heartbeat, which the main loop sends while it waits for jobs; counts as progress."""
        self.beat()
        super().heartbeat(*args, **kwargs)

    def clean_registries(self) -> None:
        """Forget dead workers, and leave jobs to `Recovery`.

        RQ would fail a job that is on its way to a consumer if it was lost on that way once before.
        """
        clean_worker_registry(self.queues[0])
        self.last_cleaned_at = now()

    def _shutdown(self) -> None:
        # RQ would leave its main loop here and now, and a job that has just been taken to its lease.
        if self._is_taking:
            self._stop_requested = True
        else:
            super()._shutdown()

    def unsubscribe(self) -> None:
        """As RQ does it, but at once: its thread looks whether it shall end when the answer has come."""
        if self.pubsub_thread is not None:
            self.pubsub_thread.stop()
        super().unsubscribe()

    def beat(self, ahead_s: int = 0) -> None:
        """Show whoever watches this process that its main thread gets on, and will for so many seconds."""
        if self.progress is not None:
            self.progress.value = time.monotonic() + ahead_s

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds after which a job of a dead worker is taken up by another; the lease is kept meanwhile."""
        return self._lease_s

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """The next job; while ClickHouse or the event log is down, jobs wait without using up attempts."""
        while self._in_doubt and not both_answer(self.queues[0].name):
            self.heartbeat()
            time.sleep(1)
        self._in_doubt = False
        return super().dequeue_job_and_maintain_ttl(timeout and _WAIT_S, max_idle_time)

    def _take(self, *args: Any, **kwargs: Any) -> tuple[Job, Queue] | None:
        """As RQ does it. Who asks to stop meanwhile waits for the answer, be it a job, none or an error."""
        self._is_taking = True
        taken = None
        try:
            taken = Queue.dequeue_any(*args, **kwargs)
        except Exception:
            if self._stop_requested:  # RQ would go on until it has an answer of Redis
                raise StopRequested from None
            raise
        finally:
            self._is_taking = taken is not None
        return taken

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job, or a batch that begins with it."""
        jobs = {job: self._start([job])[job]}
        self._is_taking = False
        if self.spec.batched:
            self._collect(jobs, queue)
        else:
            self.beat(self.spec.timeout_s)  # a deletion may take long, and shows nothing of it
        started = time.monotonic()
        with self._lease.held(jobs):
            outcome, failures = run(self.spec, list(jobs))
        self._in_doubt = any(map(casts_doubt, failures.values()))
        self._finish(jobs, queue, outcome, failures)
        milliseconds = (time.monotonic() - started) * 1000
        self._report(jobs, failures, len(outcome.refused), milliseconds)
        self._batches += 1
        if self._batches % _BATCHES_PER_COLLECTION == 0:
            gc.collect()
        self.beat()
        self.set_state(WorkerStatus.IDLE)

    def _start(self, jobs: Sequence[Job]) -> dict[Job, Execution]:
        """Note that the jobs are in work, and take them off the intermediate queue."""
        executions: dict[Job, Execution] = {}
        with self.connection.pipeline() as pipeline:
            for job in jobs:
                execution = Execution.create(job, self._lease_s, pipeline, worker_name=self.name)
                job.heartbeat(now(), self._lease_s, pipeline=pipeline)
                job.prepare_for_execution(self.name, pipeline=pipeline)
                pipeline.persist(job.key)
                pipeline.lrem(self.queues[0].intermediate_queue_key, 1, job.id)
                executions[job] = self.executions[execution.id] = execution
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            pipeline.execute()
        for job in jobs:
            if job.enqueued_at:
                runtime().metrics.waited(self.spec.name, (now() - job.enqueued_at).total_seconds() * 1000)
        return executions

    def _collect(self, jobs: dict[Job, Execution], queue: Queue) -> None:
        """Take further jobs until the batch is full, or the interval since the last write is over."""
        config = settings()
        deadline = self._last_write + config.ingestion_batch_interval_ms / 1000
        batch = Batch(jobs, config.ingestion_batch_size)
        with self._lease.held(jobs):
            while not batch.is_full and not self._stop_requested:
                wait = deadline - time.monotonic() if self._waits_for_more else 0
                more = collect(queue, batch, wait)
                if more:
                    jobs.update(self._start(more))
                elif wait <= 0:
                    break
        self._last_write = time.monotonic()

    def _finish(
        self,
        jobs: dict[Job, Execution],
        queue: Queue,
        outcome: Outcome,
        failures: dict[Job, BaseException],
    ) -> None:
        """Remove what is done and add dead letters, in one transaction; retry or keep what failed."""
        with self.connection.pipeline() as pipeline:
            for job, execution in jobs.items():
                if job not in failures:
                    self.cleanup_execution(job, pipeline, execution)
                    pipeline.delete(job.execution_registry.key)
                    remove_done(job, pipeline)
            # After the jobs: a replayed dead letter that is refused again has the id of its job.
            letters = add_refused(self.connection, pipeline, self.spec, outcome)
            pipeline.hincrby(self.key, "successful_job_count", len(jobs) - len(failures))
            pipeline.execute()
        runtime().metrics.dead_letter(self.spec.name, letters)
        for job, error in failures.items():
            self._fail(job, queue, jobs[job], error)

    def _fail(self, job: Job, queue: Queue, execution: Execution, error: BaseException) -> None:
        """Put a job back for its next attempt, or among the dead letters."""
        text = _text_of(error)
        if isinstance(error, HOPELESS):
            job.retries_left = 0
        # Before RQ takes one off.
        attempts = job.retries_left or 0
        log.warning(
            "queue_job_failed", queue=self.queues[0].name, jobId=job.id, error=text, attemptsLeft=attempts
        )
        if job.should_retry:
            runtime().metrics.retried(self.spec.name)
        else:
            runtime().metrics.dead_letter(self.spec.name)
        job.ended_at = now()
        self.handle_job_failure(job, queue, exc_string=text, execution=execution)

    def _report(
        self,
        jobs: dict[Job, Execution],
        failures: dict[Job, BaseException],
        refused: int,
        milliseconds: float,
    ) -> None:
        outcome = "failure" if failures else "success"
        runtime().metrics.processed(self.spec.name, outcome, milliseconds)
        log.info(
            "queue_batch_finished",
            queue=self.queues[0].name,
            jobs=len(jobs),
            events=count_of(jobs),
            durationMs=round(milliseconds),
            failedJobs=len(failures),
            refusedRows=refused,
        )


def _text_of(error: BaseException) -> str:
    # In one line, because dead letters show the last one.
    return " ".join(f"{type(error).__name__}: {error}".split())[:4000]
