"""`langfuse-worker start` as a process, and what a person does in Dagster's UI, by its GraphQL API."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import dagster as dg
import urllib3
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._grpc.types import ExecuteRunArgs

from langfuse_export import definitions
from langfuse_export.naming import PARTITION_TAG
from tests.servers.port import free_port
from tests.servers.processes import kill_tree

# The backfill daemon looks for work every 30 s, and Dagster has no setting for that.
_HURRY = """import sys
if "dagster._daemon" in sys.orig_argv:
    from dagster._daemon import controller
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
"""
_LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_CANCEL = "mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename } }"
_REEXECUTE = """mutation($id: String!) {
  reexecutePartitionBackfill(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_EXECUTE = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
  status assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
    numPartitionsTargeted numPartitionsInProgress numPartitionsMaterialized numPartitionsFailed } } } } } }"""
_RUNS = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}, limit: 500) { ... on Runs {
  results { runId status endTime tags { key value }
    stats { ... on RunStatsSnapshot { enqueuedTime launchTime } } } } } }"""


@dataclass(frozen=True)
class Run:
    """A run as the UI lists it; times in seconds since 1970, None for what has not happened.

    Attributes:
        queued: when it came into the queue of runs.
        launched: when the queue let it go.
    """

    run_id: str
    status: str
    queued: float | None
    launched: float | None
    ended: float | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Progress:
    """What the UI says of a backfill: its status, and table partitions by what became of them."""

    status: str
    targeted: int
    in_progress: int
    materialized: int
    failed: int


def command_of_a_run(
    instance: dg.DagsterInstance, job_name: str, assets: set[dg.AssetKey] | None, partition: str
) -> list[str]:
    """Create a run; the command with which launchers start its process in a pod or a container.

    Args:
        assets: what it selects of the job; None is all of it.
    """
    repository = ReconstructableRepository.for_module(definitions.__name__, "defs")
    job = repository.get_reconstructable_job(job_name)
    run = instance.create_run_for_job(
        job.get_subset(asset_selection=assets).get_definition(),
        tags={PARTITION_TAG: partition},
        asset_selection=assets,
        job_code_origin=job.get_python_origin(),
    )
    arguments = ExecuteRunArgs(job.get_python_origin(), run.run_id, instance.get_ref())
    program, *rest = arguments.get_command_args()
    return [str(Path(sys.executable).with_name(program)), *rest]


class DagsterServer:
    """Webserver, daemon and code location; the instance is in `home/dagster`.

    Args:
        home: LANGFUSE_HOME; must exist.
        environment: variables beyond those of this process.
        hurry: have the backfill daemon look every 2 s instead of 30.
        command: what runs them, without the port.
    """

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str] | None = None,
        *,
        hurry: bool = False,
        command: Sequence[str] = ("langfuse-worker", "start"),
    ) -> None:
        self.home = home
        self._command = command
        self._environment = {**os.environ, "LANGFUSE_HOME": str(home), **(environment or {})}
        if hurry:
            (home / "hurry").mkdir(exist_ok=True)
            (home / "hurry" / "sitecustomize.py").write_text(_HURRY)
            self._environment["PYTHONPATH"] = str(home / "hurry")
        self.port = free_port()

    def __enter__(self) -> Self:
        program, *arguments = self._command
        command = [str(Path(sys.executable).with_name(program)), *arguments, "--port", str(self.port)]
        self._log = (self.home / "dagster.log").open("w")
        self.process = subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)
        self._log.close()

    def kill(self) -> None:
        """End all of its processes, those of runs too, as a machine that loses its power does."""
        kill_tree(self.process.pid)
        self.process.wait()

    @property
    def log(self) -> str:
        """What its processes have printed."""
        return Path(self._log.name).read_text()

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL query; empty while nobody answers."""
        try:
            url = f"http://127.0.0.1:{self.port}/graphql"
            body = {"query": query, "variables": variables}
            answer = urllib3.request("POST", url, json=body, timeout=120, retries=False)
            return answer.json().get("data") or {}
        except (urllib3.exceptions.HTTPError, ValueError):
            return {}

    def projects(self) -> set[str]:
        """Projects that have assets."""
        nodes = self.query("{ assetNodes { assetKey { path } } }").get("assetNodes", [])
        return {node["assetKey"]["path"][1] for node in nodes}

    def wait_for(
        self,
        condition: Callable[[], bool],
        timeout_s: float = 200,
        explain: Callable[[], object] = lambda: "",
    ) -> None:
        """Return once it holds; raises TimeoutError with what `explain` says and the end of the log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"{explain()}; {self.log[-3000:]}")
            time.sleep(0.3)

    def launch(self, assets: Sequence[dg.AssetKey], partitions: Sequence[str]) -> str:
        """Launch a backfill of the partitions of all the assets; its id."""
        params = {"assetSelection": [{"path": key.path} for key in assets], "partitionNames": partitions}
        return self.query(_LAUNCH, params=params)["launchPartitionBackfill"]["backfillId"]

    def execute_check(self, asset: dg.AssetKey, name: str) -> str:
        """Run a check by itself, as the button on its page does; the run's id."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "langfuse_export",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [],
            "assetCheckSelection": [{"assetKey": {"path": asset.path}, "name": name}],
        }
        params = {"selector": selector, "mode": "default", "runConfigData": {}}
        return self.query(_EXECUTE, params=params)["launchPipelineExecution"]["run"]["runId"]

    def cancel(self, backfill: str) -> None:
        """Cancel a backfill, as its page does."""
        assert self.query(_CANCEL, id=backfill)["cancelPartitionBackfill"]["__typename"] == (
            "CancelBackfillSuccess"
        )

    def reexecute_from_failure(self, backfill: str) -> str:
        """Launch a backfill of what another one has not materialized; its id."""
        return self.query(_REEXECUTE, id=backfill)["reexecutePartitionBackfill"]["backfillId"]

    def progress(self, backfill: str) -> Progress:
        """What a backfill's page shows."""
        found = self.query(_BACKFILL, id=backfill)["partitionBackfillOrError"]
        counts = (found["assetBackfillData"] or {}).get("assetBackfillStatuses", [])
        names = ("Targeted", "InProgress", "Materialized", "Failed")
        return Progress(
            found["status"], *(sum(count[f"numPartitions{name}"] for count in counts) for name in names)
        )

    def runs(self, **tags: str) -> list[Run]:
        """Runs that have the tags (`dagster__backfill` for `dagster/backfill`), newest first, 500 at most."""
        wanted = [{"key": key.replace("__", "/"), "value": value} for key, value in tags.items()]
        return [
            Run(
                run["runId"],
                run["status"],
                run["stats"].get("enqueuedTime"),
                run["stats"].get("launchTime"),
                run["endTime"],
                {tag["key"]: tag["value"] for tag in run["tags"]},
            )
            for run in self.query(_RUNS, tags=wanted)["runsOrError"]["results"]
        ]
