"""Lists that are longer than a URL, and than what ClickHouse parses by default."""

from collections.abc import Iterator

import pytest

from langfuse_worker.clickhouse import ClickHouse, Query, QueryComment, connect
from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from tests.servers.clickhouse import ClickHouseServer

VALUES = [f"model {n} of 'many' \\ {{x:String}}" for n in range(20_000)]


@pytest.fixture(params=["server", "embedded"])
def source(
    request: pytest.FixtureRequest, clickhouse: ClickHouseServer, engine: EmbeddedClickHouse
) -> Iterator[ClickHouse]:
    """A ClickHouse of either kind."""
    source = connect(clickhouse.settings()) if request.param == "server" else engine
    yield source
    source.close()


def _query(text: str) -> Query:
    return Query(text, QueryComment(purpose="test"), {"n": 7}, lists={"values": VALUES})


def test_a_long_list_arrives_whole(source: ClickHouse) -> None:
    text = "WITH {values:Array(String)} AS v SELECT length(v), v[{n:UInt32} + 1]"
    assert source.rows(_query(text)) == [(len(VALUES), VALUES[7])]
    text = "WITH {values:Array(String)} AS v SELECT arrayJoin(v) AS value WHERE {n:UInt32} = 7"
    with source.stream(_query(text), "JSONEachRow") as chunks:
        assert b"".join(chunks).count(b"\n") == len(VALUES)
