"""Dagster's daemon while the code server is down, with what the product sets for it."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from langfuse_worker.dagster_home import dagster_home
from langfuse_worker.settings import Settings
from langfuse_worker.start import DAEMON_VARIABLES

_DAYS = dg.DailyPartitionsDefinition("2026-06-01", end_date="2026-06-04")
_NOBODY = GrpcServerTarget(host="127.0.0.1", port=1, socket=None, location_name="langfuse_export")

pytestmark = pytest.mark.filterwarnings("ignore:Error loading repository location")


@dg.asset(partitions_def=_DAYS)
def traces() -> None:
    """A table of the location."""


@dg.job(name="export_hourly")
def export_hourly() -> None:
    """A job of the location."""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceProcessContext]:
    """What the daemon knows, with the product's dagster.yaml and variables."""
    for name, value in DAEMON_VARIABLES.items():
        monkeypatch.setenv(name, value)
    home = dagster_home(Settings(LANGFUSE_HOME=str(tmp_path)))  # pyright: ignore[reportCallIssue]
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, _NOBODY) as workspace,
    ):
        yield workspace


def test_a_backfill_goes_on_when_its_code_location_is_back(workspace: WorkspaceProcessContext) -> None:
    instance = workspace.instance
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="year",
        asset_graph=dg.Definitions([traces]).resolve_asset_graph(),
        partition_names=_DAYS.get_partition_keys(),
        asset_selection=[traces.key],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)

    list(execute_backfill_iteration(workspace, logging.getLogger(__name__)))

    left = instance.get_backfill("year")
    assert left is not None
    assert left.status is BulkActionStatus.REQUESTED, left.error


def test_a_run_that_is_due_waits_in_the_queue(workspace: WorkspaceProcessContext) -> None:
    instance = workspace.instance
    location = GrpcServerCodeLocationOrigin(_NOBODY.host, _NOBODY.port, location_name="langfuse_export")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), export_hourly.name)
    run = instance.create_run_for_job(export_hourly, remote_job_origin=origin)
    instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)

    for moment in (0, 600):
        list(daemon.run_iteration(workspace, fixed_iteration_time=moment))

    [waiting] = instance.get_runs()
    assert waiting.status is dg.DagsterRunStatus.QUEUED
