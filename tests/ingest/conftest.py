"""A deployment that ingests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ingest.deployment import Deployment, ingesting
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.redis import RedisServer


@pytest.fixture
def deployment(
    clickhouse: ClickHouseServer, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """Ingests into a server of the session."""
    with ingesting(clickhouse, redis, tmp_path, monkeypatch) as deployment:
        yield deployment


@pytest.fixture
def poison(deployment: Deployment) -> Iterator[Deployment]:
    """A deployment whose traces must not be called poison."""
    deployment.refuse_poison()
    yield deployment
    deployment.take_poison()
