"""Runs jobs that were taken, a batch of events at once. It knows neither the queue nor who takes them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from rq.exceptions import DeserializationError
from rq.job import Job
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty

from langfuse_ingest.consumers.recovery import died_with
from langfuse_ingest.event_log import SegmentError
from langfuse_ingest.ingest import IngestJob, Outcome
from langfuse_ingest.jobs import PoisonedJobError, ingest_batch, ingest_job
from langfuse_ingest.queues import QueueSpec, handler_of
from langfuse_worker.blobstore import ObjectNotFoundError

# The same arguments will fail in the same way.
HOPELESS = (SegmentError, ObjectNotFoundError, PoisonedJobError)


def run(spec: QueueSpec, jobs: Sequence[Job]) -> tuple[Outcome, dict[Job, BaseException]]:
    """What became of the jobs, and those that failed with their errors.

    Args:
        spec: their queue, which says what they call, and how long they may take.
        jobs: any number if the queue is batched, else one.
    """
    try:
        with UnixSignalDeathPenalty(spec.timeout_s, JobTimeoutException):
            if spec.batched:
                return _ingest(jobs)
            [job] = jobs
            handler: Callable[..., object] = handler_of(spec)
            handler(*job.args, **job.kwargs)
            return Outcome(), {}
    except Exception as error:
        return Outcome(), dict.fromkeys(jobs, error)


def _ingest(jobs: Sequence[Job]) -> tuple[Outcome, dict[Job, BaseException]]:
    understood: list[tuple[Job, IngestJob]] = []
    failures: dict[Job, BaseException] = {}
    for job in jobs:
        try:
            arguments = ingest_job(**job.kwargs)
            understood.append((job, replace(arguments, was_abandoned=died_with(job) > 0)))
        except (TypeError, LookupError, DeserializationError) as error:
            failures[job] = PoisonedJobError(f"not the arguments of an ingestion job: {error}")
    outcome = ingest_batch([arguments for _, arguments in understood])
    failures |= {understood[index][0]: error for index, error in outcome.failed.items()}
    return outcome, failures
