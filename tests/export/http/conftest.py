"""Exports from the ClickHouse server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export.http.exporting import Deployment
from tests.servers.clickhouse import ClickHouseServer


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path) -> Iterator[Deployment]:
    """Exports of project p1 from the server to files."""
    with Deployment(clickhouse, tmp_path / "blobs") as deployment:
        yield deployment
