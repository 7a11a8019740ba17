"""A deployment that ingests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ingest.deployment import Deployment, clear_caches, configure
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.redis import RedisServer


@pytest.fixture
def deployment(
    clickhouse: ClickHouseServer, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """Ingests into traces, observations, scores and events_full; short delays and leases."""
    variables = {
        **clickhouse.environment_of_a_worker,
        **redis.environment_of_a_worker,
        "LANGFUSE_HOME": str(tmp_path / "home"),
        "LANGFUSE_MIGRATION_V4_WRITE_MODE": "dual",
        "LANGFUSE_WORKER_JOB_LEASE_S": "2",
        "LANGFUSE_WORKER_RETRY_DELAY_FACTOR": "0.1",
        "LANGFUSE_INGESTION_CLICKHOUSE_WRITE_INTERVAL_MS": "100",
    }
    configure(monkeypatch, **variables)
    yield Deployment(clickhouse, redis, tmp_path, variables)
    clear_caches()


@pytest.fixture
def poison(deployment: Deployment) -> Iterator[Deployment]:
    """A deployment whose traces must not be called poison."""
    deployment.refuse_poison()
    yield deployment
    deployment.take_poison()
