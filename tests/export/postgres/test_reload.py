"""Projects that come and go while Dagster runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import urllib3

from langfuse_export.sensors.changed_catalog import reload_location
from tests.export.postgres.deployment import Deployment

_ASSETS = "{ assetNodes { assetKey { path } } }"
_TICKS = """{
  sensorOrError(sensorSelector: {
    repositoryName: "__repository__"
    repositoryLocationName: "langfuse_export"
    sensorName: "export_catalog_sensor"
  }) { ... on Sensor { sensorState { ticks(limit: 50) { status skipReason error { message } } } } }
}"""


class Dagster:
    """`langfuse-worker start` as a process."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        command = [str(Path(sys.executable).with_name("langfuse-worker")), "start", "--port", str(self._port)]
        self._log = (home / "dagster.log").open("w")
        self._process = subprocess.Popen(
            command, env={**os.environ, "LANGFUSE_HOME": str(home)}, stdout=self._log, stderr=self._log
        )

    def query(self, query: str) -> dict[str, Any]:
        """The data of a GraphQL query; empty while nobody answers."""
        try:
            url = f"http://127.0.0.1:{self._port}/graphql"
            answer = urllib3.request("POST", url, json={"query": query}, timeout=30, retries=False)
            return answer.json().get("data") or {}
        except (urllib3.exceptions.HTTPError, ValueError):
            return {}

    def projects(self) -> set[str]:
        """Projects that have assets."""
        return {node["assetKey"]["path"][1] for node in self.query(_ASSETS).get("assetNodes", [])}

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 200) -> None:
        """Return once it holds; raises TimeoutError with what the sensor says."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = Path(self._log.name).read_text()[-3000:]
                raise TimeoutError(f"{self.projects()}; {self.query(_TICKS)}; {log}")
            time.sleep(0.5)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)
        self._log.close()


@pytest.fixture
def dagster(deployment: Deployment, tmp_path: Path) -> Iterator[Dagster]:
    """Dagster with project p1, which is up to date."""
    deployment.add(enabled=False)
    (tmp_path / "home").mkdir()
    dagster = Dagster(tmp_path / "home")
    try:
        yield dagster
    finally:
        dagster.stop()


@pytest.mark.timeout(600)
def test_a_new_row_appears_in_dagster_without_a_restart(deployment: Deployment, dagster: Dagster) -> None:
    dagster.wait_for(lambda: dagster.projects() == {"p1"})

    deployment.add("p2", enabled=False)
    dagster.wait_for(lambda: dagster.projects() == {"p1", "p2"})

    deployment.postgres.execute("UPDATE projects SET deleted_at = now() WHERE id = 'p1'")
    dagster.wait_for(lambda: dagster.projects() == {"p2"})

    ticks = dagster.query(_TICKS)["sensorOrError"]["sensorState"]["ticks"]
    assert [tick["error"] for tick in ticks if tick["status"] == "FAILURE"] == []
    assert {tick["skipReason"] for tick in ticks} >= {"the catalog has not changed"}


def test_a_webserver_that_does_not_answer_is_named() -> None:
    with pytest.raises(
        dg.Failure, match=r"DAGSTER_WEBSERVER_URL=http://127\.0\.0\.1:1: the catalog has changed"
    ):
        reload_location("http://127.0.0.1:1", "langfuse_export")
