"""A worker that is stopped in the middle of a window, gently and otherwise."""

import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from langfuse_export.day import Day
from langfuse_export.tables import TABLES
from tests.command import WORKER
from tests.export.http.exporting import HOUR, JSONL, Deployment
from tests.export.project import write_catalog
from tests.rows import NOON, PROJECT, trace
from tests.servers.clickhouse_http import Fault, Request
from tests.servers.s3 import S3Fault, S3Proxy, S3Server
from tests.waiting import wait_for

BUCKET = "stopped"
MANIFEST = f"{PROJECT}/manifests/2026-06-01T13-00-00.json"
OBJECT = f"{PROJECT}/traces/2026-06-01T13-00-00.jsonl"
ROWS = 3000


@dataclass
class Worker:
    """`langfuse-worker export run` of the window, as a shell starts it."""

    deployment: Deployment
    directory: Path

    def write_catalog(self, **destination: Any) -> None:
        """Write exports.yaml; keyword arguments are further keys of the destination."""
        store = self.deployment.project.destination
        names = ("url", "endpoint", "region", "access_key_id", "secret_access_key")
        bucket = {name: getattr(store, name) for name in names} | destination
        project = {"tables": ["traces"], "format": str(self.deployment.encoding.format)}
        write_catalog(self.directory, project, destination=bucket)

    def start(self, until: str = "2026-06-01T13:00") -> subprocess.Popen[str]:
        """Start it, for the windows from noon."""
        environment = {
            **os.environ,
            **self.deployment.server.environment_of_a_worker,
            "LANGFUSE_EXPORT_CONFIG": str(self.directory / "exports.yaml"),
            "DAGSTER_HOME": str(self.directory),
        }
        command = [WORKER, "export", "run"]
        command += ["--project", PROJECT, "--from", "2026-06-01T12:00", "--to", until]
        return subprocess.Popen(
            command, env=environment, cwd=self.directory, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def worker(deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy, tmp_path: Path) -> Worker:
    """A worker whose ClickHouse stalls after 20 of 30 MB."""
    s3.create_bucket(BUCKET)
    destination = s3.store_config(BUCKET, endpoint=s3_proxy.url)
    deployment.insert("traces", *[trace(f"t{n}", input="x" * 10_000) for n in range(ROWS)])
    deployment.server.break_next(Fault("stall", match="t.input", after_bytes=20_000_000))
    on_s3 = deployment.with_(destination=destination, encoding=JSONL, tables=[TABLES["traces"]])
    worker = Worker(on_s3, tmp_path)
    worker.write_catalog(part_bytes=5 << 20)
    return worker


def test_a_worker_that_is_killed_leaves_no_object_and_the_next_run_repairs_it(
    worker: Worker, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    first = worker.start()
    s3_proxy.wait_for("PUT", "partNumber")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert s3.keys(BUCKET) == []
    worker.deployment.server.break_next()

    second = worker.start()

    _, logs = second.communicate()
    assert second.returncode == 0, logs
    assert s3.keys(BUCKET) == [MANIFEST, OBJECT]
    assert len(worker.deployment.ids("traces")) == ROWS


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_worker_that_is_asked_to_stop_kills_its_query_and_aborts_its_upload(
    worker: Worker, s3: S3Server, s3_proxy: S3Proxy, stop: signal.Signals
) -> None:
    server = worker.deployment.server
    process = worker.start()
    s3_proxy.wait_for("PUT", "partNumber")
    server.wait_for_running_exports(1)

    process.send_signal(stop)

    server.wait_for_running_exports(0)
    server.break_next()  # the stalled answer ends
    _, logs = process.communicate(timeout=60)
    assert process.returncode not in (0, None), logs
    assert "Traceback" not in logs
    assert '"reason": "cancelled"' in logs
    assert s3.keys(BUCKET) == []
    assert s3.open_uploads(BUCKET) == {}


def test_a_worker_that_is_asked_to_stop_begins_no_further_window(
    deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy, tmp_path: Path
) -> None:
    s3.create_bucket(BUCKET)
    times = [NOON + timedelta(hours=n) for n in range(6)]
    deployment.insert("traces", *[trace(f"t{n}", at) for n, at in enumerate(times)])
    destination = s3.store_config(BUCKET, endpoint=s3_proxy.url)
    worker = Worker(
        deployment.with_(destination=destination, encoding=JSONL, tables=[TABLES["traces"]]), tmp_path
    )
    worker.write_catalog()
    released = threading.Event()
    s3_proxy.faults = [S3Fault("PUT", "/traces/", until=released)]
    process = worker.start(until="2026-06-01T18:00")
    for hour in range(13, 17):  # four windows are under way at once
        s3_proxy.wait_for("PUT", f"/traces/2026-06-01T{hour}-")

    process.send_signal(signal.SIGTERM)
    s3_proxy.faults = []
    released.set()

    _, logs = process.communicate(timeout=60)
    assert process.returncode not in (0, None), logs
    assert "Traceback" not in logs
    assert not [r for r in s3_proxy.requests if "/traces/2026-06-01T18-" in r.path and r.method == "PUT"]
    assert s3.open_uploads(BUCKET) == {}


def test_the_count_of_a_day_is_killed_when_its_run_is_stopped(deployment: Deployment) -> None:
    server, stalled = deployment.server, "length_ms"
    server.break_next(Fault("stall", stalled))
    earlier = len(server.requests)

    def requests_with(text: str) -> list[Request]:
        return [request for request in server.requests[earlier:] if text in request.sql]

    def stop() -> None:
        wait_for(lambda: requests_with(stalled), lambda: "no count has arrived")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(KeyboardInterrupt):
        Day(deployment.exporter(), TABLES["traces"], [HOUR]).count()
    stopping.join()

    killed = [request.parameters["param_id"] for request in requests_with("KILL QUERY")]
    assert killed == [request.parameters["query_id"] for request in requests_with(stalled)]
