"""Runs that wait in Dagster's queue, with the dagster.yaml of the product."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from langfuse_worker.dagster_home import dagster_home
from langfuse_worker.settings import Settings
from tests.servers.port import free_port


@dg.job(name="export_hourly")
def export_hourly() -> None:
    """A job of a location whose server is gone."""


@pytest.mark.filterwarnings("ignore:Error loading repository location")
def test_a_run_that_is_due_while_its_code_server_is_down_waits_in_the_queue(tmp_path: Path) -> None:
    home = dagster_home(Settings(LANGFUSE_HOME=str(tmp_path)))  # pyright: ignore[reportCallIssue]
    port = free_port()
    location = GrpcServerCodeLocationOrigin("127.0.0.1", port, location_name="langfuse_export")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), export_hourly.name)
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="langfuse_export")

    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        run = instance.create_run_for_job(export_hourly, remote_job_origin=origin)
        instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)
        daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
        for moment in (0, 600):
            list(daemon.run_iteration(workspace, fixed_iteration_time=moment))
        [waiting] = instance.get_runs()

    assert waiting.status is dg.DagsterRunStatus.QUEUED
