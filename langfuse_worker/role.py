"""Which work this deployment does: the one setting `LANGFUSE_WORKER_ROLE`, and what each value loads."""

from enum import StrEnum


class WorkerRole(StrEnum):
    """`all` runs everything, `ingestion` everything except blob storage export, `export` only that."""

    ALL = "all"
    INGESTION = "ingestion"
    EXPORT = "export"

    @property
    def runs_export(self) -> bool:
        """Whether the Dagster location `langfuse_export` has assets, jobs and schedules here."""
        return self is not WorkerRole.INGESTION

    @property
    def runs_ingestion(self) -> bool:
        """Whether the consumers that ingest events belong here."""
        return self is not WorkerRole.EXPORT
