"""A catch-up under Dagster's daemon: launched, cancelled and resumed, as a person does in the UI."""

import math
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from langfuse_export.naming import PRIORITY_TAG, SCHEDULE_TAG
from langfuse_export.windows import Window
from tests.export.backfill.deployment import FREQUENCY, Deployment
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.dagster import DagsterServer, Run
from tests.servers.postgres import PostgresServer

_START_S = 35  # until Dagster is there and has begun a backfill
_BEFORE_TICK_S = 8  # until a backfill has runs that wait


@pytest.fixture(params=["sqlite", "postgres"])
def dagster_yaml(request: pytest.FixtureRequest) -> dict[str, object]:
    """Dagster's storage as on a laptop, and as in production."""
    if request.param == "sqlite":
        return {}
    server: PostgresServer = request.getfixturevalue("postgres")
    return {"storage": server.dagster_storage("backfills")}


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, dagster_yaml: dict[str, object], tmp_path: Path) -> Deployment:
    """Two projects, whose next steady window becomes due while the test works."""
    tick = datetime.fromtimestamp(math.ceil((time.time() + _START_S) / 60) * 60, UTC)
    deployment = Deployment(tmp_path, clickhouse, ("p1", "p2"), tick, dagster_yaml)
    deployment.fill()
    return deployment


def fully_exported(deployment: Deployment) -> set[tuple[str, Window]]:
    """Projects and windows whose tables have all been exported, as Dagster recorded it."""
    times = deployment.times_exported()
    return {
        (project, window)
        for project in deployment.projects
        for window in deployment.backfilled
        if all(FREQUENCY.key(window) in done for asset, done in times.items() if asset.path[1] == project)
    }


def wait_for(dagster: DagsterServer, backfill: str, status: str) -> None:
    """Return once the backfill has the status."""
    dagster.wait_for(
        lambda: dagster.progress(backfill).status == status, 150, lambda: dagster.progress(backfill)
    )


def statuses(dagster: DagsterServer, backfill: str) -> set[str]:
    """Those of its runs."""
    return {run.status for run in dagster.runs(dagster__backfill=backfill)}


def steady_runs(dagster: DagsterServer) -> list[Run]:
    """Runs that the schedule asked for and that have ended."""
    return [run for run in dagster.runs() if SCHEDULE_TAG in run.tags and run.ended]


@pytest.mark.timeout(600)
def test_a_backfill_is_cancelled_and_resumed_and_steady_windows_go_first(deployment: Deployment) -> None:
    keys = [FREQUENCY.key(window) for window in deployment.backfilled]
    with deployment.started() as dagster:
        backfill = dagster.launch(deployment.assets(), keys)
        dagster.wait_for(lambda: dagster.progress(backfill).materialized > 0, 60)
        dagster.cancel(backfill)
        wait_for(dagster, backfill, "CANCELED")

        # Dagster calls a backfill cancelled whose runs are about to be.
        dagster.wait_for(lambda: statuses(dagster, backfill) <= {"CANCELED", "SUCCESS"}, 60)
        assert "CANCELED" in statuses(dagster, backfill)
        assert dagster.progress(backfill).targeted == len(keys) * len(deployment.assets())
        finished, manifests = fully_exported(deployment), deployment.manifests()
        assert 0 < len(finished) < 2 * len(keys)
        assert finished <= manifests.keys()
        deployment.named_objects()

        time.sleep(max(0.0, deployment.tick.timestamp() - _BEFORE_TICK_S - time.time()))
        resumed = dagster.reexecute_from_failure(backfill)
        # The newest window of each project, and those that it has missed.
        dagster.wait_for(lambda: len(steady_runs(dagster)) == 2 * len(deployment.projects), 150)
        wait_for(dagster, resumed, "COMPLETED_SUCCESS")
        steady, catch_up = steady_runs(dagster), dagster.runs(dagster__backfill=resumed)
        assert "ASSET_MATERIALIZATION" not in dagster.log

    assert min(priority(run) for run in steady) > max(priority(run) for run in catch_up)
    assert {
        run.run_id: overtaking(run, catch_up) for run in steady if len(overtaking(run, catch_up)) > 1
    } == {}
    checks = deployment.checks_of({run.run_id for run in steady})
    assert checks.keys() == {"SUCCEEDED"}  # none is planned twice, and looks skipped
    once = Counter([*keys, *(FREQUENCY.key(window) for window in deployment.due)])
    assert deployment.times_exported() == dict.fromkeys(deployment.assets(), once)
    assert {key: deployment.manifests()[key] for key in finished} == {key: manifests[key] for key in finished}
    assert deployment.named_objects() == deployment.objects()


def priority(run: Run) -> int:
    """Which of the runs that wait goes first: the highest."""
    return int(run.tags.get(PRIORITY_TAG, "0"))


def overtaking(run: Run, others: list[Run]) -> list[Run]:
    """The others that were launched while the run waited.

    One of a backfill may: the daemon was already launching what it had read from the queue before.
    """
    assert run.queued is not None
    assert run.launched is not None
    return [other for other in others if other.launched and run.queued < other.launched < run.launched]
