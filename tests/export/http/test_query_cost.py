"""What queries cost, from the engine's own log."""

import uuid
from datetime import UTC, datetime

import pytest

from langfuse_export.query_cost import query_costs
from tests.export.http.exporting import Deployment
from tests.rows import trace
from tests.servers.clickhouse_http import Fault

NOW = datetime.now(UTC)


def test_the_cost_of_an_export_is_what_the_engine_logged(deployment: Deployment) -> None:
    deployment.insert("traces", *(trace(f"t{n}", input="x" * 1000) for n in range(500)))
    result = deployment.export()
    deployment.server.execute("SYSTEM FLUSH LOGS query_log")
    ids = {name: exported.file.query_id for name, exported in result.exported.items()}

    costs = query_costs(deployment.source, [(query_id, NOW) for query_id in [*ids.values(), "no-such-id"]])

    assert costs.unavailable is None
    assert set(costs.by_id) == set(ids.values())
    traces = costs.by_id[ids["traces"]]
    assert traces.read_rows == 2 * 500  # FINAL reads their keys, then their other columns are read
    assert traces.read_bytes > 500 * 1000
    assert traces.peak_memory > 0
    assert traces.cpu_s > 0
    assert costs.by_id[ids["scores"]].read_rows == 0


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (497, "GRANT SELECT ON system.query_log"),
        (60, "has no system.query_log"),
        (241, "refused by the test"),
    ],
)
def test_a_log_that_cannot_be_read_is_said_and_no_failure(
    deployment: Deployment, code: int, says: str
) -> None:
    deployment.server.break_next(Fault("refuse", "query_log", code=code))
    costs = query_costs(deployment.source, [("some-id", NOW)])
    assert says in (costs.unavailable or "")
    assert costs.by_id == {}


def test_the_queries_of_a_long_run_are_found_among_thousands(deployment: Deployment) -> None:
    """Their ids are too long for a URL."""
    query_id = deployment.export().exported["traces"].file.query_id
    deployment.server.execute("SYSTEM FLUSH LOGS query_log")
    others = [str(uuid.uuid4()) for _ in range(2500)]

    costs = query_costs(deployment.source, [(name, NOW) for name in [*others, query_id]])

    assert costs.unavailable is None
    assert set(costs.by_id) == {query_id}


def test_nothing_is_asked_when_there_is_nothing_to_ask_for(deployment: Deployment) -> None:
    seen = len(deployment.server.requests)
    assert query_costs(deployment.source, []).by_id == {}
    assert len(deployment.server.requests) == seen
