"""Exports from the ClickHouse server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.http.exporting import Deployment
from tests.export.http.server_mode import writing_to_s3
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.s3 import S3Proxy, S3Server


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path) -> Iterator[Deployment]:
    """Exports of project p1 from the server to files."""
    with Deployment(clickhouse, tmp_path / "blobs") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def way(s3: S3Server) -> Iterator[S3Proxy]:
    """The way from ClickHouse to the bucket."""
    with S3Proxy(s3) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def writing_server(way: S3Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """ClickHouse with the collection of server mode, which takes that way."""
    with writing_to_s3(tmp_path_factory.mktemp("server-mode"), way.url) as server:
        yield server
