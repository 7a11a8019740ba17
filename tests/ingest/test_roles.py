"""A deployment of each role, looked at from outside: its log, Dagster's GraphQL API, the queues of RQ."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from rq import Worker

from tests.command import WORKER, langfuse_worker
from tests.ingest.deployment import Deployment
from tests.ingest.sessions import sessions
from tests.servers.port import free_port
from tests.servers.processes import kill_tree
from tests.servers.redis import RedisServer
from tests.waiting import wait_for

_CATALOG = """
destinations: {{files: {{url: "file://{directory}/blobs/"}}}}
projects: [{{id: p1, destination: files, start: 2026-06-01}}]
"""
_QUERY = """{ repositoriesOrError { ... on RepositoryConnection { nodes {
  location { name } assetNodes { id } schedules { name } jobs { name isJob } } } } }"""
_LAUNCH = """mutation($location: String!, $job: String!) { launchRun(executionParams: {
  selector: {repositoryLocationName: $location, repositoryName: "__repository__", jobName: $job},
  runConfigData: {}
}) { __typename } }"""


@dataclass
class Started:
    """`langfuse-worker start` of a role."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    def graphql(self, query: str, **variables: Any) -> Any:
        """What Dagster answers."""
        body = {"query": query, "variables": variables}
        return urllib3.request("POST", f"{self.url}/graphql", json=body, timeout=60, retries=False).json()

    def repositories(self) -> dict[str, Any]:
        """What Dagster has loaded, by location; raises if it does not answer yet."""
        nodes = self.graphql(_QUERY)["data"]["repositoriesOrError"]["nodes"]
        return {node["location"]["name"]: node for node in nodes}


@contextmanager
def started(deployment: Deployment, role: str) -> Iterator[Started]:
    """A deployment of the role, once Dagster answers."""
    (deployment.directory / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    catalog = deployment.directory / "exports.yaml"
    catalog.write_text(_CATALOG.format(directory=deployment.directory))
    log, port = deployment.directory / f"{role}.log", free_port()
    # As in the background of a script, where SIGINT is ignored.
    command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", WORKER, "start", "--port", str(port)]
    environment = {**os.environ, "LANGFUSE_WORKER_ROLE": role, "LANGFUSE_WORKER_HEALTH_PORT": "0"}
    environment |= {"DAGSTER_HOME": str(deployment.directory), "LANGFUSE_EXPORT_CONFIG": str(catalog)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=deployment.directory, start_new_session=True
        )
    running = Started(process, log, f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: _answers(running), log.read_text)
        yield running
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "\x1b[" not in log.read_text()
    finally:
        if process.poll() is None:
            kill_tree(process.pid)
            process.wait()


def _answers(running: Started) -> bool:
    assert running.process.poll() is None, running.log.read_text()
    try:
        return bool(running.repositories())
    except (urllib3.exceptions.HTTPError, KeyError, TypeError, ValueError):
        return False


def queues_of_workers(deployment: Deployment) -> set[str]:
    """Queues that some process listens to, as RQ reports."""
    return {name for worker in Worker.all(deployment.redis.client) for name in worker.queue_names()}


def clients_of(redis: RedisServer) -> int:
    """Connections other than the tests' own."""
    return len(redis.client.client_list())


def test_export_registers_only_blob_storage_export(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(2)))
    before = clients_of(deployment.redis)
    with started(deployment, "export") as running:
        first_line = running.log.read_text().splitlines()[0]
        assert first_line.startswith("Worker role: export; registered: langfuse_export; ")
        assert (
            "not registered (LANGFUSE_WORKER_ROLE=export): langfuse_ingest, ingestion-queue, " in first_line
        )
        repositories = running.repositories()
        assert list(repositories) == ["langfuse_export"]
        assert len(repositories["langfuse_export"]["assetNodes"]) == 4
        assert [s["name"] for s in repositories["langfuse_export"]["schedules"]] == ["export_hourly_schedule"]
        assert queues_of_workers(deployment) == set()
        assert clients_of(deployment.redis) <= before
        assert "Use 'dg dev' instead" not in running.log.read_text()  # Dagster's advice, not the product's


def test_ingestion_registers_no_export_and_cannot_run_one(deployment: Deployment) -> None:
    deployment.accept(list(sessions(2)))
    with started(deployment, "ingestion") as running:
        first_line = running.log.read_text().splitlines()[0]
        assert first_line.startswith("Worker role: ingestion; registered: langfuse_ingest, ingestion-queue, ")
        assert "not registered (LANGFUSE_WORKER_ROLE=ingestion): langfuse_export" in first_line
        repositories = running.repositories()
        assert list(repositories) == ["langfuse_ingest"]
        names = json.dumps(repositories)
        assert "export" not in names
        assert "replay_event_log" in names
        launched = running.graphql(_LAUNCH, location="langfuse_ingest", job="export_hourly")
        assert launched["data"]["launchRun"]["__typename"] == "PipelineNotFoundError"
        wait_for(lambda: len(queues_of_workers(deployment)) == 8, running.log.read_text)
        deployment.wait_until_empty()
    assert len(deployment.ids("traces")) == 2


def test_all_registers_everything(deployment: Deployment) -> None:
    deployment.ingest(list(sessions(2)))
    with started(deployment, "all") as running:
        assert sorted(running.repositories()) == ["langfuse_export", "langfuse_ingest"]
        wait_for(lambda: len(queues_of_workers(deployment)) == 8, running.log.read_text)


@pytest.mark.parametrize(
    ("role", "command", "says"),
    [
        ("export", ["consume"], "LANGFUSE_WORKER_ROLE=export: this deployment does not ingest"),
        ("export", ["ingest", "-", "--project", "p"], "does not ingest"),
        ("export", ["dead-letters", "list"], "does not ingest"),
        (
            "ingestion",
            ["export", "status"],
            "LANGFUSE_WORKER_ROLE=ingestion: this deployment does not export",
        ),
        ("export", ["queues"], None),
    ],
)
def test_commands_obey_the_role_and_export_opens_no_redis(
    deployment: Deployment, role: str, command: list[str], says: str | None
) -> None:
    ended = langfuse_worker(*command, LANGFUSE_WORKER_ROLE=role, REDIS_PORT="1")
    assert ended.code == (0 if says is None else 2), ended.err
    assert (says or "") in ended.err


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"LANGFUSE_WORKER_ROLE": "export"},
            "LANGFUSE_WORKER_ROLE=export: trace-delete is not consumed here",
        ),
        ({"QUEUE_CONSUMER_TRACE_DELETE_QUEUE_IS_ENABLED": "false"}, "trace-delete is not consumed here"),
        ({}, None),
    ],
)
def test_rqs_own_command_obeys_role_and_flags(
    deployment: Deployment, variables: dict[str, str], says: str | None
) -> None:
    worker = "langfuse_ingest.consumers.worker.ConsumerWorker"
    command = [str(Path(sys.executable).with_name("rq")), "worker", "-w", worker, "--burst", "trace-delete"]
    command += ["--url", f"redis://127.0.0.1:{deployment.redis.port}"]
    ended = subprocess.run(
        command,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        cwd=deployment.directory,
        check=False,
    )
    assert (ended.returncode == 0) is (says is None), ended.stderr
    assert (says or "") in ended.stderr
