"""What runs here and where its local state is."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from langfuse_worker.role import WorkerRole


class DeploymentSettings(BaseSettings):
    """What runs here and where its local state is."""

    worker_role: WorkerRole = Field(
        default=WorkerRole.ALL,
        validation_alias="LANGFUSE_WORKER_ROLE",
        description="What this deployment runs: all, ingestion or export.",
    )
    home: Path = Field(
        default=Path(".langfuse"),
        validation_alias="LANGFUSE_HOME",
        description="Directory of the embedded engine, its exports and local state.",
    )
