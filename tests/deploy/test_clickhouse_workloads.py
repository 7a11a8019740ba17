"""deploy/clickhouse/workloads.sql, run in the real engine, with the profiles that name its workloads.

chDB schedules queries but not their threads; so what the shares do to threads stays untested.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import (
    PASSWORDS,
    SHIPPED_USERS,
    SHIPPED_WORKLOADS,
    administrator,
    write_users,
)


@pytest.fixture(params=["export", "ingestion", "interactive"])
def profile(request: pytest.FixtureRequest) -> str:
    """A profile of the shipped file."""
    return request.param


@pytest.fixture
def server(tmp_path: Path, profile: str) -> Iterator[ClickHouseServer]:
    """A server on which every query has that profile."""
    overrides = (SHIPPED_USERS, administrator(profile))
    users = write_users(tmp_path / "users", "administrator", *overrides)
    with ClickHouseServer(tmp_path, "administrator", "secret", PASSWORDS, users) as server:
        yield server


def test_queries_of_a_profile_are_scheduled_in_its_workload(server: ClickHouseServer, profile: str) -> None:
    server.execute("SELECT 1")  # a workload that does not exist changes nothing
    for statement in 2 * SHIPPED_WORKLOADS:
        server.execute(statement)  # twice, as somebody does who has changed a share

    server.execute("CREATE RESOURCE slots (QUERY)")
    server.execute("SELECT 1")

    parents = {row["name"]: row["parent"] for row in server.rows("SELECT name, parent FROM system.workloads")}
    assert parents == {"all": "", **dict.fromkeys(("default", "interactive", "ingestion", "export"), "all")}
    scheduled = server.rows(
        "SELECT path FROM system.scheduler "
        "WHERE resource = 'slots' AND type = 'fifo' AND dequeued_requests > 0"
    )
    assert [f"/{profile}/" in row["path"] for row in scheduled] == [True]
