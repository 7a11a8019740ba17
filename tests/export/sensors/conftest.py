"""Deployments on the server."""

from pathlib import Path

import dagster as dg
import pytest

from tests.export.sensors.deployment import Deployment
from tests.servers.clickhouse import ClickHouseServer


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path, instance: dg.DagsterInstance) -> Deployment:
    """Project p1 on an empty server."""
    return Deployment(clickhouse, tmp_path, instance)
