"""ClickHouse servers that have loaded what the product ships for them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.rows import event, insert, observation, run_item, score, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import PASSWORDS, SHIPPED_USERS, write_users

StartAs = Callable[[str], ClickHouseServer]


@pytest.fixture(scope="module")
def acting_as(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartAs]:
    """Starts a server with a row in each table, on which every query is one of a user of the shipped file."""
    started: dict[str, ClickHouseServer] = {}
    with ExitStack() as stack:

        def start(user: str) -> ClickHouseServer:
            if user not in started:
                directory = tmp_path_factory.mktemp(user)
                with ClickHouseServer(directory) as administrator:
                    insert(administrator.execute, "traces", [trace("t1")])
                    insert(administrator.execute, "observations", [observation("o1")])
                    insert(administrator.execute, "scores", [score("s1")])
                    insert(administrator.execute, "events_full", [event("e1")])
                    insert(administrator.execute, "dataset_run_items_rmt", [run_item("i1")])
                users = write_users(directory / "users", user, SHIPPED_USERS)
                server = ClickHouseServer(directory, user, "secret", PASSWORDS, users)
                started[user] = stack.enter_context(server)
            return started[user]

        yield start
