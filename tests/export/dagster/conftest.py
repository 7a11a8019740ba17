"""Deployments."""

import dagster as dg
import pytest

from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.settings import Settings
from tests.export.dagster.deployment import Deployment


@pytest.fixture
def deployment(
    embedded_settings: Settings, engine: EmbeddedClickHouse, instance: dg.DagsterInstance
) -> Deployment:
    """Project p1 on an empty embedded engine."""
    return Deployment(embedded_settings, engine, instance, engine)
