"""Deployments on the server."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.export.sensors.deployment import Deployment
from tests.servers.clickhouse import ClickHouseServer


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path) -> Iterator[Deployment]:
    """Project p1 on an empty server, with a Dagster instance on disk."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield Deployment(clickhouse, tmp_path, instance)
