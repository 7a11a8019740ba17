"""The Dagster code location of ingestion: queues as assets, and the jobs with which people operate them.

A deployment whose LANGFUSE_WORKER_ROLE leaves ingestion out gets a location without anything in it.
"""

import dagster as dg

from langfuse_ingest.operations import (
    build_dead_letter_schedule,
    build_retention_schedule,
    data_retention,
    list_dead_letters,
    purge_dead_letters,
    replay_event_log,
    retry_dead_letters,
)
from langfuse_ingest.queue_assets import build_queue_assets, build_queue_schedule
from langfuse_ingest.queues import registered_queues
from langfuse_worker.logs import configure_logging
from langfuse_worker.settings import settings


@dg.definitions
def defs() -> dg.Definitions:
    """What operates the queues of this deployment."""
    config = settings()
    configure_logging(config.log_level)
    if not config.worker_role.runs_ingestion:
        return dg.Definitions()
    specs = registered_queues(config.worker_role)
    names = {spec.name for spec in specs}
    queue_assets = build_queue_assets(specs)
    return dg.Definitions(
        assets=[queue_assets],
        jobs=[list_dead_letters, retry_dead_letters, purge_dead_letters, replay_event_log, data_retention],
        schedules=[
            build_queue_schedule(queue_assets),
            build_dead_letter_schedule(running="dead-letter-retry-queue" in names),
            build_retention_schedule(running="data-retention-queue" in names and bool(config.retention)),
        ],
        executor=dg.in_process_executor,
    )
