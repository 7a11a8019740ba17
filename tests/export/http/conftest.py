"""A ClickHouse server for all tests of this package, empty at the start of each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.http.exporting import Deployment
from tests.servers.clickhouse import ClickHouseServer


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """One server for the session."""
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def clickhouse(clickhouse_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """The server without rows and faults."""
    clickhouse_server.empty()
    yield clickhouse_server
    clickhouse_server.break_next()


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path) -> Iterator[Deployment]:
    """Exports of project p1 from the server to files."""
    with Deployment(clickhouse, tmp_path / "blobs") as deployment:
        yield deployment
