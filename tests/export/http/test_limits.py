"""What ClickHouse's own log says of the queries that an export sends."""

import json
from dataclasses import replace

import pytest

from langfuse_export.catalog.discovery import query_projects
from langfuse_export.tables import TABLES
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment, connect
from tests.export.http.exporting import HOUR, Deployment
from tests.rows import PROJECT, trace
from tests.servers.clickhouse import ClickHouseServer, cores_of
from tests.servers.clickhouse_http import Fault


def default_limits(server: ClickHouseServer) -> dict[str, str]:
    """The limits of a query by default: of the ten threads, as many as the server has cores."""
    return {
        "max_threads": str(min(10, cores_of(server))),
        "priority": "2",
        "max_memory_usage": "20000000000",
        "max_execution_time": "3600",
    }


def test_every_query_of_an_export_carries_the_limits(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t1"))
    seen = len(deployment.server.exports_in_query_log())

    deployment.export()
    query_projects(deployment.source, list(TABLES.values()))
    deployment.source.kill("no-such-query")

    queries = deployment.server.exports_in_query_log()[seen:]
    purposes = [json.loads(query["comment"])["purpose"] for query in queries]
    assert purposes.count("export") == 4
    assert purposes.count("count") == 4
    assert {"handshake", "discover", "kill"} <= set(purposes)
    usual = default_limits(deployment.server)
    for purpose, query in zip(purposes, queries, strict=True):
        # The driver's handshake comes before anybody knows the cores.
        expected = {**usual, "max_threads": "10"} if purpose == "handshake" else usual
        assert {name: query["settings"].get(name) for name in expected} == expected, query


def test_no_request_of_the_client_lacks_the_limits(deployment: Deployment) -> None:
    seen = len(deployment.server.requests)

    deployment.export()

    requests = deployment.server.requests[seen:]
    ours = [request for request in requests if "langfuse-export" in request.client]
    assert len(ours) > 8  # more than the queries of the tables: the driver's handshake too
    usual = default_limits(deployment.server)
    for request in ours:
        is_handshake = '"handshake"' in request.parameters["log_comment"]
        expected = {**usual, "max_threads": "10"} if is_handshake else usual
        assert {name: request.parameters.get(name) for name in expected} == expected, request.sql


def test_a_query_has_no_more_threads_than_the_server_has_cores(deployment: Deployment) -> None:
    deployment.source.rows(Query("SELECT 1", QueryComment(purpose="warm-up")))
    seen = len(deployment.server.exports_in_query_log())

    many = {"LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS": "1000"}
    with deployment.with_(environment=many) as exporting:
        exporting.export()

    queries = deployment.server.exports_in_query_log()[seen:]
    purposes = {json.loads(query["comment"])["purpose"]: query["settings"] for query in queries}
    for purpose in ("count", "export"):
        assert purposes[purpose]["max_threads"] == str(cores_of(deployment.server))


def test_a_server_that_could_not_say_how_many_cores_it_has_is_asked_again(deployment: Deployment) -> None:
    deployment.server.break_next(Fault("refuse", match="SELECT default FROM system.settings"))
    query = Query("SELECT 'asked'", QueryComment(purpose="test"))
    with deployment.with_(environment={"LANGFUSE_CLICKHOUSE_DATA_EXPORT_MAX_THREADS": "1000"}) as exporting:
        with pytest.raises(ClickHouseError):
            exporting.source.rows(query)
        exporting.source.rows(query)

    [request] = [request for request in deployment.server.requests if request.sql.startswith(query.sql)]
    assert request.parameters["max_threads"] == str(cores_of(deployment.server))


def test_the_comment_names_product_project_table_and_window(deployment: Deployment) -> None:
    seen = len(deployment.server.exports_in_query_log())

    deployment.export(tables=[TABLES["traces"]])

    comments = [json.loads(q["comment"]) for q in deployment.server.exports_in_query_log()[seen:]]
    [comment] = [comment for comment in comments if comment["purpose"] == "export"]
    assert comment == {
        "product": "langfuse-export",
        "purpose": "export",
        "project": PROJECT,
        "table": "traces",
        "window": str(HOUR),
    }


def test_the_settings_of_the_deployment_reach_the_server(deployment: Deployment) -> None:
    prefix = "LANGFUSE_CLICKHOUSE_DATA_EXPORT_"
    own = {prefix + "MAX_THREADS": "1", prefix + "PRIORITY": "7", prefix + "REQUEST_TIMEOUT_MS": "90500"}
    own[prefix + "MAX_MEMORY_USAGE"] = "500000000"
    seen = len(deployment.server.exports_in_query_log())

    deployment.with_(environment=own).export()

    for query in deployment.server.exports_in_query_log()[seen:]:
        settings = query["settings"]
        assert (settings["max_threads"], settings["priority"]) == ("1", "7")
        assert (settings["max_memory_usage"], settings["max_execution_time"]) == ("500000000", "91")


def test_a_project_with_lower_limits_has_them_on_its_queries(deployment: Deployment) -> None:
    project = deployment.project
    project = replace(project, limits=replace(project.limits, max_threads=1, priority=9))
    deployment.source.rows(Query("SELECT 1", QueryComment(purpose="warm-up")))
    seen = len(deployment.server.exports_in_query_log())

    deployment.exporter(project).export(HOUR, project.tables)

    queries = deployment.server.exports_in_query_log()[seen:]
    assert len(queries) == 8
    assert {(q["settings"]["max_threads"], q["settings"]["priority"]) for q in queries} == {("1", "9")}


def test_a_parquet_row_group_has_at_most_the_rows_of_the_setting(deployment: Deployment) -> None:
    seen = len(deployment.server.requests)
    own = {"LANGFUSE_CLICKHOUSE_DATA_EXPORT_PARQUET_ROW_GROUP_SIZE": "1234"}

    deployment.with_(environment=own).export()

    sizes = {
        r.parameters.get("output_format_parquet_row_group_size") for r in deployment.server.requests[seen:]
    }
    assert sizes == {None, "1234"}


def test_exports_use_an_address_of_their_own_when_there_is_one(deployment: Deployment) -> None:
    server = deployment.server
    settings = server.settings(CLICKHOUSE_URL="http://primary.invalid:8123", CLICKHOUSE_EXPORT_URL=server.url)
    source = connect(settings)
    assert source.rows(Query("SELECT 1", QueryComment(purpose="test"))) == [(1,)]
    source.close()
