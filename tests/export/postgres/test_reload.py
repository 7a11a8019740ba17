"""Projects that come and go while Dagster runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from langfuse_export.sensors.changed_catalog import reload_location
from tests.export.postgres.deployment import Deployment
from tests.servers.dagster import DagsterServer

_TICKS = """{
  sensorOrError(sensorSelector: {
    repositoryName: "__repository__"
    repositoryLocationName: "langfuse_export"
    sensorName: "export_catalog_sensor"
  }) { ... on Sensor { sensorState { ticks(limit: 50) { status skipReason error { message } } } } }
}"""


@pytest.fixture
def dagster(deployment: Deployment, tmp_path: Path) -> Iterator[DagsterServer]:
    """Dagster with project p1, which is up to date."""
    deployment.add(enabled=False)
    (tmp_path / "home").mkdir()
    with DagsterServer(tmp_path / "home") as dagster:
        yield dagster


def wait_for_projects(dagster: DagsterServer, *projects: str) -> None:
    """Return once Dagster has these; raises TimeoutError with what the sensor says."""
    dagster.wait_for(
        lambda: dagster.projects() == set(projects), 200, lambda: (dagster.projects(), dagster.query(_TICKS))
    )


def ticks(dagster: DagsterServer) -> list[dict[str, Any]]:
    """What the sensor did, newest first; empty while nobody answers."""
    sensor = dagster.query(_TICKS).get("sensorOrError", {})
    return sensor.get("sensorState", {}).get("ticks", [])


@pytest.mark.timeout(900)
def test_a_new_row_appears_in_dagster_without_a_restart(
    deployment: Deployment, dagster: DagsterServer
) -> None:
    wait_for_projects(dagster, "p1")

    deployment.add("p2", enabled=False)
    wait_for_projects(dagster, "p1", "p2")

    deployment.postgres.execute("UPDATE projects SET deleted_at = now() WHERE id = 'p1'")
    wait_for_projects(dagster, "p2")

    dagster.wait_for(lambda: "the catalog has not changed" in {tick["skipReason"] for tick in ticks(dagster)})
    assert [tick["error"] for tick in ticks(dagster) if tick["status"] == "FAILURE"] == []


def test_a_webserver_that_does_not_answer_is_named() -> None:
    with pytest.raises(
        dg.Failure, match=r"DAGSTER_WEBSERVER_URL=http://127\.0\.0\.1:1: the catalog has changed"
    ):
        reload_location("http://127.0.0.1:1", "langfuse_export")
