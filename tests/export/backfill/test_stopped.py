"""A deployment that is stopped in the middle of a run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.export.backfill.deployment import FREQUENCY, Deployment
from tests.rows import insert, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault
from tests.servers.s3 import S3Server

BUCKET = "stopped"


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, s3: S3Server, tmp_path: Path) -> Deployment:
    """A project on S3 with 30 MB in a window, of which ClickHouse stalls after 20."""
    s3.create_bucket(BUCKET)
    store = s3.store_config(BUCKET)
    names = ("url", "endpoint", "region", "access_key_id", "secret_access_key")
    destination = {name: getattr(store, name) for name in names} | {"part_bytes": 5 << 20}
    tick = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=20)
    project = {"format": "jsonl", "tables": ["traces"]}
    deployment = Deployment(tmp_path, clickhouse, ("p1",), tick, destination=destination, each=project)
    at = deployment.backfilled[0].start
    insert(clickhouse.execute, "traces", [trace(f"t{n}", at, input="x" * 10_000) for n in range(3000)])
    clickhouse.break_next(Fault("stall", match="t.input", after_bytes=20_000_000))
    return deployment


@contextmanager
def ending_the_answer_of_the_killed_query(clickhouse: ClickHouseServer) -> Iterator[None]:
    """End it as soon as no export runs any more."""

    def end() -> None:
        clickhouse.wait_for_running_exports(1)
        clickhouse.wait_for_running_exports(0)
        clickhouse.break_next()

    thread = threading.Thread(target=end)
    thread.start()
    yield
    thread.join()


@pytest.mark.timeout(600)
def test_a_run_that_is_stopped_with_its_deployment_aborts_its_upload_and_is_tried_again(
    deployment: Deployment, s3: S3Server
) -> None:
    with ending_the_answer_of_the_killed_query(deployment.clickhouse), deployment.started() as dagster:
        backfill = dagster.launch(deployment.assets(), [FREQUENCY.key(deployment.backfilled[0])])
        dagster.wait_for(lambda: s3.open_uploads(BUCKET) != {})
    assert s3.open_uploads(BUCKET) == {}
    assert s3.keys(BUCKET) == []

    with deployment.started() as dagster:
        dagster.wait_for(lambda: dagster.progress(backfill).status == "COMPLETED_SUCCESS", 300)
        assert sorted(run.status for run in dagster.runs()) == ["FAILURE", "SUCCESS"]
    assert [key.split("/")[1] for key in s3.keys(BUCKET)] == ["manifests", "traces"]


@pytest.mark.timeout(600)
def test_a_code_server_that_is_signalled_alone_ends_after_its_runs_which_abort_their_uploads(
    deployment: Deployment, s3: S3Server
) -> None:
    with (
        ending_the_answer_of_the_killed_query(deployment.clickhouse),
        deployment.with_code_server() as (dagster, code_server),
    ):
        dagster.launch(deployment.assets(), [FREQUENCY.key(deployment.backfilled[0])])
        dagster.wait_for(lambda: s3.open_uploads(BUCKET) != {})
        code_server.terminate()
        assert code_server.wait(90) == 0
        assert s3.open_uploads(BUCKET) == {}
        assert s3.keys(BUCKET) == []
        assert "FAILURE" in {run.status for run in dagster.runs()}
