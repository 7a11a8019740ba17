"""Whether exports ask for more threads than the server has cores, asked of a server, as the shipped user."""

import os
from pathlib import Path

import pytest

from langfuse_export.doctor import threads
from langfuse_export.doctor.subject import Subject
from langfuse_export.doctor.threads import check_threads
from langfuse_worker.doctor import Finding, Status
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import PASSWORDS, SHIPPED_USERS, write_users

SETTING = "LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS"


def find(server: ClickHouseServer, max_threads: int) -> Finding:
    """The finding about a deployment with so many threads."""
    [finding] = check_threads(Subject(server.settings(**{SETTING: str(max_threads)})))
    return finding


def test_more_threads_than_cores_are_a_warning_that_says_which_number_to_set(tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", "export", SHIPPED_USERS)
    with ClickHouseServer(tmp_path / "data"):
        pass  # makes the tables, which this user may not
    with ClickHouseServer(tmp_path / "data", "export", "secret", PASSWORDS, users) as server:
        too_many = find(server, 10)
        if (os.cpu_count() or 1) < 10:
            assert too_many.status is Status.WARNING
            setting, _, cores = too_many.remedy.removeprefix("set ").partition("=")
            assert setting == SETTING
            assert 1 <= int(cores) <= (os.cpu_count() or 1)
        assert find(server, 1).status is Status.OK


@pytest.mark.parametrize("default", ["auto(4)", "'auto(4)'"])
def test_the_default_is_understood_as_old_and_new_servers_write_it(
    clickhouse: ClickHouseServer, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "ask", lambda *_: [(default,)])
    assert find(clickhouse, 5).remedy == f"set {SETTING}=4"
    assert find(clickhouse, 4).status is Status.OK
