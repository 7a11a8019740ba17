"""Deployments whose catalog is Langfuse's Postgres."""

from pathlib import Path

import dagster as dg
import pytest

from langfuse_worker.settings import Settings
from tests.export.postgres.deployment import Deployment, settings_of
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.langfuse_postgres import LangfusePostgres
from tests.servers.s3 import S3Server


@pytest.fixture
def deployment(
    langfuse: LangfusePostgres,
    clickhouse: ClickHouseServer,
    s3: S3Server,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Deployment:
    """Postgres without rows, ClickHouse without rows, an empty bucket `exports`."""
    s3.create_bucket("exports")
    deployment = Deployment(langfuse, clickhouse, s3, instance)
    for name, value in deployment.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    return deployment


@pytest.fixture
def settings(langfuse: LangfusePostgres, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A deployment whose only catalog is Postgres."""
    return settings_of(langfuse, monkeypatch)
