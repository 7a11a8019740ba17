"""What the jobs of the queues call. Arguments are JSON values; every function can run more than once."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError
from rq.timeouts import JobTimeoutException

from langfuse_ingest import dead_letters, deletion
from langfuse_ingest.ingest import IngestJob, Outcome
from langfuse_ingest.runtime import runtime
from langfuse_ingest.writer import is_transient


class PoisonedJobError(Exception):
    """The job itself is at fault, so trying again does not help."""


def ingest(**arguments: Any) -> None:
    """Ingest what one job says, see `ingest_job`; our own consumers take many at once, by `ingest_batch`.

    Raises:
        PoisonedJobError: ClickHouse refuses rows of it, or it cannot be read.
    """
    outcome = ingest_batch([ingest_job(**arguments)])
    for error in outcome.failed.values():
        raise error
    if outcome.refused:
        raise PoisonedJobError(outcome.refused[0].reason)


def ingest_job(segment: str, shard: int = 0, shards: int = 1, entity: list[str] | None = None) -> IngestJob:
    """The arguments of a job as `Ingestion` takes them."""
    return IngestJob(segment, shard, shards, (entity[0], entity[1]) if entity else None)


def ingest_batch(jobs: Sequence[IngestJob]) -> Outcome:
    """Ingest many segments at once; if that fails because of one of them, the others are ingested without it.

    Raises:
        ClickHouseError, redis.RedisError, JobTimeoutException: what every job would meet.
    """
    try:
        return runtime().ingestion.ingest(jobs)
    except (RedisError, JobTimeoutException):
        raise
    except Exception as error:
        if is_transient(error):
            raise
        if len(jobs) == 1:
            return Outcome(failed={0: error})
        middle = len(jobs) // 2
        return ingest_batch(jobs[:middle]).followed_by(ingest_batch(jobs[middle:]), middle)


def delete_traces(project: str, trace_ids: list[str], is_noted: bool = False) -> None:
    """Delete traces with their observations and scores."""
    deletion.delete_traces(runtime(), project, trace_ids, is_noted=is_noted)


def delete_scores(project: str, score_ids: list[str], is_noted: bool = False) -> None:
    """Delete scores."""
    deletion.delete_scores(runtime(), project, score_ids, is_noted=is_noted)


def delete_project(project: str, is_noted: bool = False) -> None:
    """Delete everything of a project, its event log included."""
    deletion.delete_project(runtime(), project, is_noted=is_noted)


def apply_retention(project: str, days: int) -> None:
    """Delete what is older than a number of days."""
    deletion.apply_retention(runtime(), project, days)


def retry_dead_letters(queues: list[str] | None = None) -> None:
    """Put dead letters back into their queues."""
    dead_letters.replay_all(runtime().redis, queues)
