"""Whether ClickHouse keeps exports out of the way, asked of servers with and without the shipped profiles."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from langfuse_export.doctor.isolation import CHECKS, check_profile
from langfuse_export.doctor.subject import Subject
from langfuse_worker.doctor import Finding, Status
from langfuse_worker.doctor.clickhouse import check_connection
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault
from tests.servers.clickhouse_users import PASSWORDS, SHIPPED_USERS, administrator, analyst_with, write_users


def subject(server: ClickHouseServer, **environment: str) -> Subject:
    """A deployment that exports from the server."""
    return Subject(server.settings(**environment))


def find(what: str, deployment: Subject) -> Finding:
    """The finding of that name."""
    check = CHECKS.get(f"clickhouse: {what}", check_profile)
    return next(finding for finding in check(deployment) if finding.what == f"clickhouse: {what}")


@pytest.fixture(scope="module")
def export_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """A server whose user is `export` of the shipped file."""
    directory = tmp_path_factory.mktemp("export")
    users = write_users(directory / "users", "export", SHIPPED_USERS)
    with ClickHouseServer(directory):
        pass  # makes the tables, which this user may not
    with ClickHouseServer(directory, "export", "secret", PASSWORDS, users) as server:
        yield server


def test_the_shipped_profile_has_nothing_to_complain_about(export_user: ClickHouseServer) -> None:
    for check in ("user", "constraints", "cancelling"):
        finding = find(check, subject(export_user))
        assert (check, finding.status) == (check, Status.OK), finding
    [connection] = check_connection("clickhouse", subject(export_user).connect, "here")
    assert connection.status is Status.OK


def test_limits_above_the_profile_are_a_problem_of_the_connection(export_user: ClickHouseServer) -> None:
    too_many = subject(export_user, LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS="64")
    [finding] = check_connection("clickhouse", too_many.connect, "here")
    assert finding.status is Status.PROBLEM
    assert "max_threads shouldn't be greater than 10" in finding.result
    assert "raise the constraints of the profile" in finding.remedy


def test_a_user_without_a_profile_may_do_and_raise_everything(clickhouse: ClickHouseServer) -> None:
    user = find("user", subject(clickhouse))
    assert user.status is Status.WARNING
    constraints = find("constraints", subject(clickhouse))
    assert "may raise max_threads, max_memory_usage, max_execution_time, priority" in constraints.result
    cancelling = find("cancelling", subject(clickhouse))
    assert cancelling.status is Status.WARNING
    assert "readonly = 2" in cancelling.remedy


@pytest.mark.parametrize(
    ("name", "value"), [("filter", "1"), ("output_format_float_precision", "2"), ("apply_patch_parts", "0")]
)
def test_a_profile_that_changes_every_result_is_a_problem(tmp_path: Path, name: str, value: str) -> None:
    users = analyst_with(tmp_path, {name: value})
    with ClickHouseServer(tmp_path / "server", users=users) as server:
        finding = find("results", subject(server))
    assert finding.status is Status.PROBLEM
    assert f"{name} is '{value}'" in finding.result


def test_exports_yield_where_people_have_the_profile_for_them(tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", "administrator", SHIPPED_USERS, administrator("interactive"))
    with ClickHouseServer(tmp_path, "administrator", "secret", PASSWORDS, users) as server:
        server.execute("SELECT 'a page'")
        server.execute("SYSTEM FLUSH LOGS query_log")
        finding = find("priorities", subject(server))
        assert finding.status is Status.OK
        assert "exports (2) yield to all" in finding.result
        assert find("query_log", subject(server)).status is Status.OK
        shared = find("user", subject(server))
        assert shared.status is Status.WARNING
        assert "also sent" in shared.result


def test_exports_that_yield_to_nobody_are_a_warning(clickhouse: ClickHouseServer) -> None:
    clickhouse.execute("SELECT 'a page'")
    clickhouse.execute("SYSTEM FLUSH LOGS query_log")
    finding = find("priorities", subject(clickhouse))
    assert finding.status is Status.WARNING
    assert "have no more urgent priority" in finding.result
    assert "a profile with priority 1" in finding.remedy

    off = subject(clickhouse, LANGFUSE_CLICKHOUSE_DATA_EXPORT_PRIORITY="0")
    assert "switches priorities off" in find("priorities", off).result


@pytest.mark.parametrize(("code", "says"), [(497, "may not be read"), (60, "there is none")])
def test_a_log_that_cannot_be_read_is_a_warning(clickhouse: ClickHouseServer, code: int, says: str) -> None:
    clickhouse.break_next(Fault("refuse", "query_log", code=code, times=-1))
    log = find("query_log", subject(clickhouse))
    assert (log.status, says in log.result) == (Status.WARNING, True)
    priorities = find("priorities", subject(clickhouse))
    assert priorities.status is Status.WARNING
    assert "GRANT SELECT ON system.query_log" in priorities.remedy


@pytest.mark.parametrize(
    ("version", "status"), [("25.8.3.1", Status.WARNING), ("25.11.1.1", Status.OK), ("26.1", Status.OK)]
)
def test_a_server_that_does_not_mark_exceptions_is_a_warning(
    clickhouse: ClickHouseServer, version: str, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langfuse_worker.doctor.clickhouse.ask", lambda *_: [(version, "export")])
    [finding] = check_connection("clickhouse", subject(clickhouse).connect, "here")
    assert finding.status is status


def test_a_server_that_is_not_there_is_a_problem_that_names_the_settings(tmp_path: Path) -> None:
    nowhere = Subject(ClickHouseServer(tmp_path, port=1).settings())
    [finding] = check_connection("clickhouse", nowhere.connect, nowhere.settings.export_source_url)
    assert finding.status is Status.PROBLEM
    assert "CLICKHOUSE_URL" in finding.remedy
    assert "p@ss" not in str(finding)
