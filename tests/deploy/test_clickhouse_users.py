"""deploy/clickhouse/users.d/langfuse.xml, loaded into the real engine.

chDB cannot switch users. Each server here is one whose only user has got profile and grants of a user of the
file by ClickHouse's own rules of merging (tests/servers/clickhouse_users.py); the HTTP interface of the tests
checks name and password. What chDB lacks stays untested: cancelling on a closed connection.
"""

import re
import threading
from pathlib import Path

import pytest

from langfuse_export.tables import ALL_TABLES
from langfuse_ingest.doctor import check_tables
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment, connect_for_ingestion
from langfuse_worker.clickhouse.limits import INGESTION_LIMITS
from langfuse_worker.settings import Settings
from tests.deploy.conftest import StartAs
from tests.export.http.exporting import Deployment
from tests.rows import NOON, PROJECT
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import PASSWORDS, SHIPPED_USERS, write_users
from tests.waiting import wait_for


def value_of(server: ClickHouseServer, expression: str, **settings: str | int) -> str:
    """Run a query with these settings alone, as somebody would who does not use this product."""
    suffix = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
    return server.execute(f"SELECT {expression}{' SETTINGS ' + suffix if suffix else ''}").strip()


@pytest.mark.defect("F3")
@pytest.mark.parametrize(
    ("user", "name", "value"),
    [
        ("export", "priority", "2"),
        ("export", "max_threads", "10"),
        ("export", "max_memory_usage", "20000000000"),
        ("export", "max_execution_time", "3600"),
        ("export", "workload", "export"),
        ("export", "readonly", "2"),
        ("export", "cancel_http_readonly_queries_on_client_close", "true"),
        ("ingestion", "priority", "1"),
        ("ingestion", "max_threads", "4"),
        ("ingestion", "workload", "ingestion"),
        ("interactive", "priority", "1"),
        ("interactive", "workload", "interactive"),
        ("interactive", "max_execution_time", "0"),
    ],
)
def test_a_query_without_settings_has_those_of_the_profile(
    acting_as: StartAs, user: str, name: str, value: str
) -> None:
    assert value_of(acting_as(user), f"getSetting('{name}')") == value


@pytest.mark.defect("F3", "F4")
@pytest.mark.parametrize(
    ("user", "name", "value"),
    [
        ("export", "max_threads", 11),
        ("export", "max_memory_usage", 20_000_000_001),
        ("export", "max_memory_usage", 0),
        ("export", "max_execution_time", 3601),
        ("export", "max_execution_time", 0),
        ("export", "priority", 1),
        ("export", "priority", 0),
        ("export", "workload", "default"),
        ("export", "cancel_http_readonly_queries_on_client_close", 0),
        ("ingestion", "max_threads", 5),
        ("ingestion", "max_memory_usage", 0),
        ("ingestion", "priority", 0),
        ("interactive", "priority", 0),
    ],
)
def test_a_query_that_raises_a_limit_is_refused(
    acting_as: StartAs, user: str, name: str, value: int | str
) -> None:
    with pytest.raises(AssertionError, match="SETTING_CONSTRAINT_VIOLATION"):
        value_of(acting_as(user), "1", **{name: value})


@pytest.mark.parametrize(
    ("user", "name", "value"),
    [
        ("export", "max_threads", 1),
        ("export", "max_memory_usage", 500_000_000),
        ("export", "max_execution_time", 5),
        ("export", "priority", 9),
        ("export", "workload", "export"),
        ("ingestion", "max_threads", 1),
        ("ingestion", "priority", 2),
        ("interactive", "priority", 3),
        ("interactive", "max_execution_time", 3605),
    ],
)
def test_a_query_may_lower_its_limits(acting_as: StartAs, user: str, name: str, value: int | str) -> None:
    assert value_of(acting_as(user), f"getSetting('{name}')", **{name: value}) == str(value)


def test_the_limits_of_the_product_are_the_ceilings(acting_as: StartAs) -> None:
    defaults = Settings()
    ceilings = {
        "max_threads": defaults.export_max_threads,
        "max_memory_usage": defaults.export_max_memory_usage,
        "max_execution_time": defaults.export_request_timeout_ms // 1000,
        "priority": defaults.export_priority,
    }
    for user, limits in (("export", ceilings), ("ingestion", INGESTION_LIMITS.settings())):
        for name, value in limits.items():
            assert value_of(acting_as(user), f"getSetting('{name}')") == str(value), (user, name)


def test_an_export_runs_unchanged_as_the_user_of_exports(acting_as: StartAs, tmp_path: Path) -> None:
    with Deployment(acting_as("export"), tmp_path / "blobs") as deployment:
        result = deployment.export()

        assert result.revision == 1
        assert {name: deployment.ids(name) for name in ("traces", "observations", "scores", "events")} == {
            "traces": ["t1"],
            "observations": ["o1"],
            "scores": ["s1"],
            "events": ["e1"],
        }


def test_a_deployment_that_asks_for_more_than_the_profile_is_told_which_setting(
    acting_as: StartAs, tmp_path: Path
) -> None:
    own = {"LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS": "64"}
    with Deployment(acting_as("export"), tmp_path / "blobs", own) as deployment:
        with pytest.raises(ClickHouseError, match="max_threads shouldn't be greater than 10"):
            deployment.source.rows(Query("SELECT 1", QueryComment(purpose="test")))
        assert deployment.files() == []


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO traces (id) VALUES ('x')",
        "ALTER TABLE traces DELETE WHERE 1",
        "DROP TABLE traces",
        "CREATE TABLE mine (a Int8) ENGINE = Memory",
        "SELECT * FROM blob_storage_file_log",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
        "SYSTEM FLUSH LOGS",
    ],
)
def test_the_user_of_exports_may_do_nothing_else(acting_as: StartAs, sql: str) -> None:
    with pytest.raises(AssertionError, match=r"ACCESS_DENIED|READONLY"):
        acting_as("export").execute(sql)


def test_every_table_that_can_be_exported_may_be_read(acting_as: StartAs) -> None:
    server = acting_as("export")
    for table in ALL_TABLES.values():
        assert value_of(server, f"count() FROM {table.source}") == "1", table.name


def test_the_user_of_exports_kills_its_own_queries_without_a_grant(acting_as: StartAs) -> None:
    server = acting_as("export")
    errors: list[str] = []

    def run_for_ever() -> None:
        try:
            server.execute("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 0")
        except AssertionError as error:
            errors.append(str(error))

    query = threading.Thread(target=run_for_ever)
    query.start()
    its_text = "query LIKE 'SELECT count() FROM numbers%'"
    running = f"count() FROM system.processes WHERE {its_text}"
    wait_for(lambda: value_of(server, running) != "0", lambda: f"it does not run: {errors}")
    server.execute(f"KILL QUERY WHERE {its_text} SYNC")
    query.join(60)
    assert "QUERY_WAS_CANCELLED" in errors[0]


def test_the_user_of_exports_sees_what_its_queries_cost(acting_as: StartAs) -> None:
    server = acting_as("export")
    value_of(server, "count() FROM traces")
    # The engine writes its log twice a second here.
    wait_for(lambda: server.execute("EXISTS TABLE system.query_log").strip() != "0", lambda: "no query_log")
    logged = "count() FROM system.query_log WHERE query LIKE 'SELECT count() FROM traces%'"
    wait_for(lambda: value_of(server, logged) != "0", lambda: "the query is not in query_log")


def test_the_user_of_ingestion_writes_reads_and_deletes(acting_as: StartAs) -> None:
    server = acting_as("ingestion")
    client = connect_for_ingestion(server.settings())
    comment = QueryComment(purpose="test")
    keys = {"project_id": PROJECT, "timestamp": f"{NOON:%Y-%m-%d %H:%M:%S}"}
    row = "".join(f'"{name}": "{value}", ' for name, value in keys.items())
    client.execute(Query("INSERT INTO traces FORMAT JSONEachRow", comment), f'{{{row}"id": "t2"}}\n'.encode())
    client.execute(
        Query("INSERT INTO events_full FORMAT JSONEachRow", comment),
        f'{{"project_id": "{PROJECT}", "span_id": "e2"}}\n'.encode(),
    )
    assert client.rows(Query("SELECT count() FROM traces", comment)) == [(2,)]
    assert client.rows(Query("SELECT count() FROM events_core", comment)) == [(2,)]
    client.execute(Query("DELETE FROM traces WHERE id = 't2'", comment))
    assert client.rows(Query("SELECT id FROM traces", comment)) == [("t1",)]
    client.close()
    with pytest.raises(AssertionError, match="ACCESS_DENIED"):
        server.execute("DROP TABLE traces")


def test_the_user_of_ingestion_may_create_the_index_of_the_event_log_and_others_are_told(
    acting_as: StartAs,
) -> None:
    # With chDB, who may not read files may create nothing; tests/ingest/test_lookups.py has it created.
    assert index_of(acting_as("ingestion")) == "consumers create event_log_index with their first batch"
    assert (
        index_of(acting_as("interactive")) == "there is no event_log_index, and this user may not create it"
    )


def index_of(server: ClickHouseServer) -> str:
    """What `doctor` finds."""
    return next(f.result for f in check_tables(server.settings()) if f.what == "index of the event log")


def test_langfuses_own_user_gets_the_profile_of_people_and_keeps_its_rights(tmp_path: Path) -> None:
    pages = (Path(__file__).parents[2] / "docs/operations.md").read_text("utf-8")
    [snippet] = re.findall(r"```xml\n\s*(<clickhouse>.*?)```", pages, re.DOTALL)
    own = "<clickhouse><users><clickhouse><password>own</password><profile>default</profile><quota>default"
    own += "</quota><networks><ip>::/0</ip></networks></clickhouse></users></clickhouse>"
    overrides = (own, SHIPPED_USERS, snippet)
    users = write_users(tmp_path / "users", "clickhouse", *overrides)
    with ClickHouseServer(tmp_path, "clickhouse", "own", PASSWORDS, users) as server:
        assert value_of(server, "getSetting('priority')") == "1"
        server.execute("CREATE TABLE mine (a Int8) ENGINE = Memory")
