"""What has to hold before a command does its work: the role lets it, and Redis answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from langfuse_ingest.runtime import Runtime, build_runtime
from langfuse_worker.console import fail
from langfuse_worker.logs import configure_logging
from langfuse_worker.redis import running_redis, shown_redis
from langfuse_worker.settings import Settings, settings


def ingestion_settings() -> Settings:
    """The settings, unless the role leaves ingestion to others; then the command ends with exit code 2."""
    config = settings()
    if not config.worker_role.runs_ingestion:
        fail(f"LANGFUSE_WORKER_ROLE={config.worker_role.value}: this deployment does not ingest", code=2)
    configure_logging(config.log_level)
    return config


@contextmanager
def open_runtime(config: Settings) -> Iterator[Runtime]:
    """What the commands work with; a Redis that does not answer ends the command with exit code 1."""
    try:
        with running_redis(config) as redis:
            redis.ping()
            parts = build_runtime(config)
            yield parts
            parts.metrics.shutdown()
    except RedisError as error:
        fail(f"{shown_redis(config)}: {error}", code=1)
