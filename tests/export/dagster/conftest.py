"""Deployments."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.settings import Settings
from tests.export.dagster.deployment import Deployment


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk, as `dagster dev` has it."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield instance


@pytest.fixture
def deployment(
    embedded_settings: Settings, engine: EmbeddedClickHouse, instance: dg.DagsterInstance
) -> Deployment:
    """Project p1 on an empty embedded engine."""
    return Deployment(embedded_settings, engine, instance, engine)
