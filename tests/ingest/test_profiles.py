"""Consumers whose user has a profile that changes what is read and written, as other tools may want it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from langfuse_ingest.event_log import Group
from langfuse_ingest.events import Entity
from tests.ingest.deployment import Deployment, ingesting
from tests.ingest.sessions import START, event
from tests.rows import insert, observation
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import analyst_with
from tests.servers.redis import RedisServer

PROFILE = {
    "output_format_json_map_as_array_of_tuples": "1",
    "output_format_json_array_of_rows": "1",
    "output_format_json_quote_decimals": "1",
    "output_format_json_quote_64bit_floats": "1",
    "input_format_defaults_for_omitted_fields": "0",
    "input_format_allow_errors_num": "100",
    "input_format_allow_errors_ratio": "1",
    "materialized_views_ignore_errors": "1",
    "limit": "1",
}


@pytest.fixture
def odd(redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Ingests as that user."""
    with ClickHouseServer(tmp_path / "server"):
        pass  # makes the tables
    users = analyst_with(tmp_path, PROFILE)
    with (
        ClickHouseServer(tmp_path / "server", users=users) as server,
        ingesting(server, redis, tmp_path, monkeypatch) as deployment,
    ):
        yield deployment


def rows(deployment: Deployment, columns: str, table: str) -> list[dict]:
    """Rows as FINAL sees them, as text."""
    settings = "SETTINGS limit = 0, output_format_json_array_of_rows = 0"
    return deployment.clickhouse.rows(f"SELECT {columns} FROM {table} FINAL ORDER BY 1 {settings}")


def test_rows_that_cannot_be_read_are_dead_letters(odd: Deployment) -> None:
    body = {"id": "o", "completionStartTime": "soon"}  # as no producer of ours writes it
    unreadable = {"id": "e", "timestamp": "2026-06-01T08:00:00.000000Z", "type": "generation-create"}
    odd.log_unchecked(Group(Entity.OBSERVATION, "o", [{**unreadable, "body": body}]))

    odd.work()

    [letter] = odd.letters
    assert "completion_start_time" in letter.reason


def test_rows_that_a_view_does_not_take_are_dead_letters(odd: Deployment) -> None:
    odd.clickhouse.execute("ALTER TABLE events_core ADD CONSTRAINT no_poison CHECK name != 'poison'")

    odd.ingest([event("span-create", START, {"id": "o", "traceId": "t", "name": "poison"})])

    assert "no_poison" in odd.letters[0].reason


def test_a_stored_row_is_merged_as_it_is(odd: Deployment) -> None:
    cost = {"cost_details": {"total": "0.5"}, "total_cost": "0.5", "metadata": {"k": "v"}}
    insert(odd.clickhouse.execute, "observations", [observation("o", START, **cost)])
    insert(odd.clickhouse.execute, "observations", [observation("p", START, **cost)])

    odd.ingest([event("span-update", START, {"id": id, "traceId": "t", "name": "new"}) for id in "op"])

    columns = "id, name, toString(total_cost) AS cost, metadata['k'] AS k"
    assert rows(odd, columns, "observations") == [
        {"id": "o", "name": "new", "cost": "0.5", "k": "v"},
        {"id": "p", "name": "new", "cost": "0.5", "k": "v"},
    ]
    assert odd.letters == []


def test_columns_that_are_left_out_have_the_tables_defaults(odd: Deployment) -> None:
    odd.ingest([event("score-create", START, {"id": "s", "traceId": "t", "name": "n", "value": 1})])
    odd.ingest([event("span-create", START, {"id": "o", "traceId": "t"})])

    for table in ("scores", "events_full"):
        [row] = rows(odd, "project_id, ingestion_sdk_name", table)
        assert row["ingestion_sdk_name"] == "unknown"
