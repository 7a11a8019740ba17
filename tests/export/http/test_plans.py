"""How ClickHouse runs the queries of an export."""

import pytest

from langfuse_export import sql
from langfuse_export.formats import Encoding
from langfuse_export.tables import TABLES
from langfuse_worker.clickhouse import Query, QueryComment
from tests.export.http.exporting import CSV, HOUR, PARQUET, Deployment
from tests.rows import PROJECT, event, observation, score, trace

# Steps that need all rows before the first one can leave.
BLOCKING = ("Sorting", "LimitBy", "Aggregating", "Distinct", "Window")


def _fill(deployment: Deployment) -> None:
    deployment.insert("traces", trace("t"))
    deployment.insert("observations", observation("o"))
    deployment.insert("scores", score("s"))
    deployment.insert("events_full", event("e"))


@pytest.mark.defect("F7")
@pytest.mark.parametrize("encoding", [PARQUET, CSV], ids=lambda e: e.extension)
@pytest.mark.parametrize("table", list(TABLES))
def test_no_export_sorts_or_groups_its_payload(
    deployment: Deployment, table: str, encoding: Encoding
) -> None:
    _fill(deployment)
    query = Query(
        f"EXPLAIN {encoding.sql(TABLES[table])}",
        QueryComment(purpose="test"),
        sql.parameters(TABLES[table], PROJECT, HOUR),
        sql.FINAL_SETTINGS,
    )

    plan = [str(line) for (line,) in deployment.source.rows(query)]

    assert any("ReadFromMergeTree" in line for line in plan)
    assert [line for line in plan if line.strip().startswith(BLOCKING)] == []


@pytest.mark.defect("F7")
def test_clickhouse_is_never_asked_to_hold_a_result_back(deployment: Deployment) -> None:
    _fill(deployment)
    seen = len(deployment.server.requests)

    deployment.export()

    payload = [r for r in deployment.server.requests[seen:] if "FORMAT Parquet" in r.sql]
    assert len(payload) == len(TABLES)
    for request in payload:
        assert request.parameters.get("wait_end_of_query", "0") == "0", request.sql
