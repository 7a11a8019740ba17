"""A machine that loses its power in the middle of a run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.export.backfill.deployment import FREQUENCY, Deployment
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault
from tests.servers.dagster import DagsterServer, Run

# Run monitoring looks every two minutes, and a lease is five, where nobody says otherwise.
_OFTEN = {"run_monitoring": {"enabled": True, "max_runtime_seconds": 43_200, "poll_interval_seconds": 2}}
_LEASE = {"LANGFUSE_BLOB_STORAGE_EXPORT_RUN_LEASE_S": "30"}


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path) -> Deployment:
    """A project of which nothing is due while the test works."""
    tick = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=20)
    deployment = Deployment(tmp_path, clickhouse, ("p1",), tick, _OFTEN, _LEASE)
    deployment.fill()
    return deployment


def with_status(dagster: DagsterServer, *statuses: str) -> list[Run]:
    """The runs that have one of them."""
    return [run for run in dagster.runs() if run.status in statuses]


@pytest.mark.timeout(600)
def test_a_run_that_was_killed_with_everything_around_it_is_noticed_and_exported_again(
    deployment: Deployment,
) -> None:
    window = deployment.backfilled[0]
    deployment.clickhouse.break_next(Fault("stall", match="t.input", times=-1))
    with deployment.started() as dagster:
        backfill = dagster.launch(deployment.assets(), [FREQUENCY.key(window)])
        dagster.wait_for(
            lambda: any(deployment.lease_of(run.run_id) for run in with_status(dagster, "STARTED"))
        )
        dagster.kill()
    deployment.clickhouse.break_next()
    assert deployment.manifests() == {}

    with deployment.started() as dagster:
        dagster.wait_for(lambda: dagster.progress(backfill).status == "COMPLETED_SUCCESS", 300)
        [killed], [retried] = with_status(dagster, "FAILURE"), with_status(dagster, "SUCCESS")
    assert retried.tags["dagster/parent_run_id"] == killed.run_id
    assert deployment.manifests().keys() == {("p1", window)}
    assert deployment.named_objects() == deployment.objects()
