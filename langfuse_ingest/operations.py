"""What an operator does to the queues, as Dagster jobs: started in the UI, or on a schedule."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from langfuse_ingest.dead_letters import RETRIED_BY_DEFAULT, DeadLetter, dead_letters, purge, replay_all
from langfuse_ingest.deletion import retention_days
from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queues import UnknownQueueError, queue
from langfuse_ingest.replay import replay_range
from langfuse_ingest.runtime import Runtime, build_runtime
from langfuse_ingest.values import timestamp
from langfuse_worker.redis import running_redis
from langfuse_worker.settings import settings


class DeadLetterConfig(dg.Config):
    """Which dead letters are put back or removed."""

    queues: list[str] = Field(
        default=list(RETRIED_BY_DEFAULT), description="Queues whose dead letters are meant."
    )


class ListConfig(dg.Config):
    """Which dead letters are shown."""

    queues: list[str] = Field(default=[], description="Only those of these queues; without any, of all.")


class ReplayConfig(dg.Config):
    """Which part of the event log."""

    start: str = Field(description="Accepted from, such as 2026-06-01T00:00:00Z.")
    end: str = Field(description="Accepted before, such as 2026-06-02T00:00:00Z.")
    project: str | None = Field(default=None, description="Only this project.")


@dg.op
def retry_dead_letters_op(context: dg.OpExecutionContext, config: DeadLetterConfig) -> None:
    """Put dead letters back into their queues, with all their attempts."""
    with _runtime() as parts:
        count = replay_all(parts.redis, config.queues)
    context.add_output_metadata({"replayed": count})
    context.log.info("%d dead letters are back in their queues", count)


@dg.op
def purge_dead_letters_op(context: dg.OpExecutionContext, config: DeadLetterConfig) -> None:
    """Remove dead letters; what they said is in this run's metadata."""
    with _runtime() as parts:
        letters = list(dead_letters(parts.redis, config.queues))
        count = sum(purge(parts.redis, letter) for letter in letters)
    context.add_output_metadata({"purged": count, "dead_letters": _table(letters)})
    context.log.info("%d dead letters removed", count)


@dg.op
def list_dead_letters_op(context: dg.OpExecutionContext, config: ListConfig) -> None:
    """Show dead letters, with their reasons."""
    with _runtime() as parts:
        letters = list(dead_letters(parts.redis, config.queues or None))
    context.add_output_metadata({"count": len(letters), "dead_letters": _table(letters)})


@dg.op
def replay_event_log_op(context: dg.OpExecutionContext, config: ReplayConfig) -> None:
    """Queue the segments of a time range again. Rows come out the same, and what was deleted stays so."""
    with _runtime() as parts:
        count = replay_range(parts, timestamp(config.start), timestamp(config.end), config.project)
    context.add_output_metadata({"segments": count})
    context.log.info("%d segments are queued", count)


@dg.op
def data_retention_op(context: dg.OpExecutionContext) -> None:
    """Queue a retention job for each project that has one; see LANGFUSE_DATA_RETENTION."""
    with _runtime() as parts:
        days = retention_days(parts)
        jobs = [NewJob({"project": project, "days": kept}) for project, kept in days.items()]
        if jobs:
            enqueue(parts.redis, queue("data-retention-queue"), jobs)
    context.add_output_metadata({"projects": len(days), "days": dg.MetadataValue.json(days)})


@dg.job(executor_def=dg.in_process_executor)
def retry_dead_letters() -> None:
    """Puts dead letters back into their queues."""
    retry_dead_letters_op()


@dg.job(executor_def=dg.in_process_executor)
def purge_dead_letters() -> None:
    """Removes dead letters."""
    purge_dead_letters_op()


@dg.job(executor_def=dg.in_process_executor)
def list_dead_letters() -> None:
    """Shows dead letters."""
    list_dead_letters_op()


@dg.job(executor_def=dg.in_process_executor)
def replay_event_log() -> None:
    """Ingests a time range of the event log again."""
    replay_event_log_op()


@dg.job(executor_def=dg.in_process_executor)
def data_retention() -> None:
    """Deletes what has outlived its retention."""
    data_retention_op()


def build_dead_letter_schedule(*, running: bool) -> dg.ScheduleDefinition:
    """Every ten minutes, as Langfuse's own retry service; stopped unless its queue's flag is on."""
    return dg.ScheduleDefinition(
        job=retry_dead_letters,
        cron_schedule="*/10 * * * *",
        default_status=_status(running),
        description="Puts dead letters back into their queues. Off unless the queue's flag is on.",
    )


def build_retention_schedule(*, running: bool) -> dg.ScheduleDefinition:
    """Every night at 3:15 UTC, as Langfuse's."""
    return dg.ScheduleDefinition(
        job=data_retention,
        cron_schedule="15 3 * * *",
        default_status=_status(running),
        description="Removes what is older than LANGFUSE_DATA_RETENTION. Off unless that is set.",
    )


def _status(running: bool) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED


def _table(letters: list[DeadLetter]) -> dg.MetadataValue:
    records = [
        dg.TableRecord({"id": letter.id, "queue": letter.queue, "reason": letter.reason[:500]})
        for letter in letters[:200]
    ]
    columns = [dg.TableColumn(name) for name in ("id", "queue", "reason")]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


@contextmanager
def _runtime() -> Iterator[Runtime]:
    try:
        with running_redis(settings()):
            yield build_runtime(settings())
    except UnknownQueueError as error:
        raise dg.Failure(str(error)) from None
