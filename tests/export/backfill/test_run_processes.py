"""What the processes of runs build of the code location, started as Dagster's launchers start them."""

import json
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from langfuse_export.checks import ROWS_CHECK, check_specs
from langfuse_export.naming import job_name
from langfuse_worker.dagster_home import dagster_home
from langfuse_worker.settings import settings
from tests.export.backfill.deployment import FREQUENCY, Deployment
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.dagster import command_of_a_run


@pytest.fixture
def deployment(clickhouse: ClickHouseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Three projects; nothing is due while the test works."""
    tick = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=10)
    deployment = Deployment(tmp_path, clickhouse, ("p1", "p2", "p3"), tick)
    deployment.fill()
    monkeypatch.setenv("LANGFUSE_LOG_LEVEL", "debug")
    return deployment


def assets_of(deployment: Deployment, *projects: str) -> set[dg.AssetKey]:
    """The tables of the projects."""
    return {asset for asset in deployment.assets() if asset.path[1] in projects}


def exported(deployment: Deployment) -> dict[dg.AssetKey, Counter[str]]:
    """The windows that have been exported, of the tables that have any."""
    return {asset: times for asset, times in deployment.times_exported().items() if times}


def checks_of(deployment: Deployment, assets: set[dg.AssetKey]) -> set[dg.AssetCheckKey]:
    """The checks of the tables."""
    specs = (spec for project in deployment.exports() for spec in check_specs(project))
    return {spec.key for spec in specs if spec.asset_key in assets}


def passed_checks(deployment: Deployment, instance: dg.DagsterInstance) -> set[dg.AssetCheckKey]:
    """The checks whose last evaluation passed."""
    keys = checks_of(deployment, set(deployment.assets()))
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    passed = AssetCheckExecutionRecordStatus.SUCCEEDED
    return {key for key, record in records.items() if record.status is passed}


def built(log: str) -> list[tuple[int, int]]:
    """For each process of a run, how many projects it built, and of how many."""
    lines = [json.loads(line) for line in log.splitlines() if '"run_definitions_built"' in line]
    return [(line["projects"], line["projectsInCatalog"]) for line in lines]


@pytest.mark.timeout(900)
def test_the_default_launchers_process_builds_the_project_that_it_exports_or_checks(
    deployment: Deployment,
) -> None:
    window = FREQUENCY.key(deployment.backfilled[0])
    with deployment.started() as dagster:
        wanted = assets_of(deployment, "p2")
        backfill = dagster.launch(sorted(wanted), [window])
        dagster.wait_for(lambda: dagster.progress(backfill).status == "COMPLETED_SUCCESS")
        dagster.execute_check(min(wanted), ROWS_CHECK)
        dagster.wait_for(lambda: [run.status for run in dagster.runs()] == ["SUCCESS"] * 2)

    assert built(dagster.log) == [(1, 3)] * 2
    assert exported(deployment) == {asset: Counter([window]) for asset in wanted}
    with dg.DagsterInstance.from_config(str(deployment.directory / "home" / "dagster")) as instance:
        assert passed_checks(deployment, instance) == checks_of(deployment, wanted)


@pytest.mark.parametrize(
    ("selected", "count"),
    [(("p2",), 1), ((), 3)],
    ids=["a project", "the whole job"],
)
def test_the_process_of_a_pod_builds_what_its_run_has_selected(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, selected: tuple[str, ...], count: int
) -> None:
    deployment.write_catalog()
    for name, value in deployment.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LANGFUSE_HOME", str(deployment.directory / "home"))
    settings.cache_clear()
    window = FREQUENCY.key(deployment.backfilled[0])
    wanted = assets_of(deployment, *(selected or deployment.projects))

    with dg.DagsterInstance.from_config(str(dagster_home(settings()))) as instance:
        command = command_of_a_run(instance, job_name(FREQUENCY), wanted if selected else None, window)
        ended = subprocess.run(command, capture_output=True, text=True, check=True)

        assert built(ended.stderr) == [(count, 3)]
        assert exported(deployment) == {asset: Counter([window]) for asset in wanted}
        assert passed_checks(deployment, instance) == checks_of(deployment, wanted)
