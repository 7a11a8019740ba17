"""Connections of a ClickHouse client."""

import gc

import pytest
import urllib3

from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment, connect
from langfuse_worker.settings import Settings


def _pools() -> int:
    gc.collect()
    return sum(isinstance(found, urllib3.PoolManager) for found in gc.get_objects())


def test_attempts_at_a_server_that_never_answered_leave_nothing_behind() -> None:
    source = connect(Settings(clickhouse_url="http://127.0.0.1:1"))
    before = _pools()
    for _ in range(20):
        with pytest.raises(ClickHouseError):
            source.rows(Query("SELECT 1", QueryComment(purpose="test")))
    assert _pools() - before <= 2
