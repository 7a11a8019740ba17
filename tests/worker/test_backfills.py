"""Backfills in Dagster's daemon, with what `langfuse-worker start` sets for it."""

import logging
import time

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.backfill import execute_backfill_iteration

from langfuse_worker.start import DAEMON_VARIABLES
from tests.servers.port import free_port

_DAYS = dg.DailyPartitionsDefinition("2026-06-01", end_date="2026-06-04")


@dg.asset(partitions_def=_DAYS)
def traces() -> None:
    """A table of a location whose server is gone, or cannot load its catalog."""


@pytest.mark.filterwarnings("ignore:Error loading repository location")
def test_a_backfill_goes_on_when_its_code_location_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in DAEMON_VARIABLES.items():
        monkeypatch.setenv(name, value)
    port = free_port()
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="langfuse_export")
    graph = dg.Definitions([traces]).resolve_asset_graph()

    with dg.instance_for_test() as instance, WorkspaceProcessContext(instance, target) as workspace:
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="year",
            asset_graph=graph,
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
