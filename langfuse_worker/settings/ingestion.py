"""What consumers write, and how their processes behave."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from langfuse_worker.settings.types import CommaSeparated, Retention

WRITE_PREFIX = "LANGFUSE_INGESTION_CLICKHOUSE_WRITE_"

WriteMode = Literal["legacy", "dual", "events_only"]


class IngestionSettings(BaseSettings):
    """What consumers write, and how their processes behave."""

    write_mode: WriteMode = Field(
        default="events_only",
        validation_alias="LANGFUSE_MIGRATION_V4_WRITE_MODE",
        description="legacy: traces and observations; events_only: events_full; dual: both. Scores always.",
    )
    ingestion_batch_size: int = Field(
        default=5_000,
        validation_alias=WRITE_PREFIX + "BATCH_SIZE",
        ge=1,
        le=1_000_000,
        description="Events after which a consumer stops collecting jobs and writes.",
    )
    ingestion_batch_interval_ms: int = Field(
        default=1_000,
        validation_alias=WRITE_PREFIX + "INTERVAL_MS",
        ge=0,
        le=60_000,
        description="Least time between two writes of a consumer that are not full, ms.",
    )
    ingestion_write_attempts: int = Field(
        default=3,
        validation_alias="LANGFUSE_INGESTION_CLICKHOUSE_MAX_ATTEMPTS",
        ge=1,
        le=100,
        description="Attempts of one insert before its jobs go back to the queue.",
    )
    ingestion_max_event_bytes: int = Field(
        default=10_000_000,
        validation_alias="LANGFUSE_INGESTION_MAX_EVENT_BYTES",
        ge=10_000,
        le=500_000_000,
        description="Largest event or span that is accepted, bytes of JSON. Exports are rejected whole.",
    )
    skip_read_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_SKIP_INGESTION_CLICKHOUSE_READ_PROJECT_IDS",
        description="Projects, or *, that only this product has written to: merges need not read their rows.",
    )
    secondary_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_SECONDARY_INGESTION_QUEUE_ENABLED_PROJECT_IDS",
        description="Projects whose events go to secondary-ingestion-queue, separated by commas.",
    )
    secondary_otel_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_SECONDARY_OTEL_INGESTION_QUEUE_ENABLED_PROJECT_IDS",
        description="Projects whose spans go to secondary-otel-ingestion-queue, separated by commas.",
    )
    retention: Retention = Field(
        default_factory=dict,
        validation_alias="LANGFUSE_DATA_RETENTION",
        description="Days to keep, by project: support-bot=30,*=365. Unset: everything is kept.",
    )
    health_port: int = Field(
        default=3030,
        validation_alias="LANGFUSE_WORKER_HEALTH_PORT",
        ge=0,
        le=65535,
        description="Port of /healthz and /readyz of the consumers; 0 picks one.",
    )
    shutdown_deadline_s: float = Field(
        default=30.0,
        validation_alias="LANGFUSE_WORKER_SHUTDOWN_DEADLINE_S",
        ge=0,
        le=3600,
        description="Seconds that consumers have to finish their batch when they are stopped.",
    )
    stuck_after_s: float = Field(
        default=300.0,
        validation_alias="LANGFUSE_WORKER_STUCK_AFTER_S",
        gt=0,
        le=86_400,
        description="Seconds without progress after which /healthz calls a consumer wedged.",
    )
    job_lease_s: int = Field(
        default=30,
        validation_alias="LANGFUSE_WORKER_JOB_LEASE_S",
        ge=2,
        le=3600,
        description="Seconds after which the jobs of a consumer that died are taken up by another.",
    )
    retry_delay_factor: float = Field(
        default=1.0,
        validation_alias="LANGFUSE_WORKER_RETRY_DELAY_FACTOR",
        gt=0,
        le=100,
        description="Multiplies the delays between the attempts of a job.",
    )

    def days_kept(self, project_id: str) -> int | None:
        """Days after which a project's rows are deleted; None: never."""
        return self.retention.get(project_id, self.retention.get("*"))
