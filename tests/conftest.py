"""What every test gets: an environment of its own, and embedded engines on demand."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from langfuse_worker.clickhouse.client import Address
from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.clickhouse.limits import QueryLimits
from langfuse_worker.logs import warn_once
from langfuse_worker.settings import Settings, settings

pytest_plugins = ["tests.servers.fixtures"]

# An example that takes long says something of the machine, and of what else it does.
_SLOW = hypothesis.HealthCheck.too_slow
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[_SLOW])
hypothesis.settings.load_profile("any machine")


# A test that ends takes its databases along, and thousands of commits that wait for the disk are minutes.
@event.listens_for(Engine, "connect")
def _do_not_wait_for_the_disk(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


_OURS = ("LANGFUSE_", "CLICKHOUSE_", "OTEL_", "DAGSTER_", "AWS_", "AZURE_", "DATABASE_URL", "ENCRYPTION_KEY")


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither variables and the `.env` of who runs the tests reach them, nor what other tests have left."""
    for name in os.environ:
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    warn_once.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def embedded_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a deployment on an embedded engine under `tmp_path`; retries wait 10 ms."""
    monkeypatch.setenv("LANGFUSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S", "0.01")
    return Settings()


@pytest.fixture
def engine(embedded_settings: Settings) -> Iterator[EmbeddedClickHouse]:
    """The embedded ClickHouse of `embedded_settings`, with Langfuse's tables; open for the whole test.

    chDB keeps some 2 MB of each time that it was opened, and a test may have a hundred queries.
    """
    address = Address.of(embedded_settings.embedded_url, embedded_settings)
    engine = EmbeddedClickHouse(address, QueryLimits.from_settings(embedded_settings))
    with engine.hold():
        yield engine
