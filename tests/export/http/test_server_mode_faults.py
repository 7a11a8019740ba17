"""What goes wrong in server mode leaves no object, is named, and is put right by the next attempt."""

import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from langfuse_export.errors import WindowError, is_transient, reason_of, user_fault
from langfuse_export.tables import TABLES
from langfuse_worker.store_faults import AccessFault
from tests.export.http.exporting import HOUR, Deployment
from tests.export.http.server_mode import BUCKET, SECRET, to_bucket
from tests.export.http.test_stopping import Worker
from tests.rows import PROJECT, trace
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_http import Fault
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

TRACES = TABLES["traces"]
OBJECT = f"langfuse/{PROJECT}/traces/2026-06-01T13-00-00.parquet"
DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
MISSING = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>"


@pytest.fixture
def archiving(
    writing_server: ClickHouseServer, way: S3Proxy, s3: S3Server, s3_proxy: S3Proxy
) -> Iterator[Deployment]:
    """Exports of two traces in server mode, the worker's requests through a proxy of their own."""
    s3.create_bucket(BUCKET)
    writing_server.empty()
    way.faults, way.requests = [], []
    with to_bucket(writing_server, s3, s3_proxy.url).with_(tables=[TRACES]) as deployment:
        deployment.insert("traces", trace("t1"), trace("t2"))
        yield deployment
    way.faults = []


def failure_of(deployment: Deployment) -> WindowError:
    """How the export fails."""
    with pytest.raises(WindowError) as failure:
        deployment.export()
    return failure.value


def kills(deployment: Deployment, since: int = 0) -> list[str]:
    """The ids of queries that were killed."""
    requests = deployment.server.requests[since:]
    return [r.parameters["param_id"] for r in requests if r.sql.startswith("KILL QUERY")]


def inserts(deployment: Deployment, since: int = 0) -> list[str]:
    """The ids of queries that write into the bucket."""
    requests = deployment.server.requests[since:]
    return [r.parameters["query_id"] for r in requests if r.sql.startswith("INSERT INTO FUNCTION")]


@pytest.mark.parametrize(
    ("fault", "reason", "transient"),
    [
        (S3Fault("PUT", "_incomplete", 403, DENIED), "destination_access", False),
        (S3Fault("HEAD", "_incomplete", 403), "destination_access", False),
        (S3Fault("PUT", "_incomplete", 404, MISSING), "destination_access", False),
        (S3Fault("PUT", "_incomplete", 503, SLOW_DOWN), "destination_unavailable", True),
    ],
    ids=["denied", "may not look", "no bucket", "overloaded"],
)
def test_a_bucket_that_refuses_clickhouse_is_named(
    archiving: Deployment, way: S3Proxy, s3: S3Server, fault: S3Fault, reason: str, transient: bool
) -> None:
    way.faults = [fault]

    failure = failure_of(archiving)

    assert (reason_of(failure), is_transient(failure)) == (reason, transient)
    assert user_fault(failure) is (None if transient else AccessFault.CREDENTIALS)
    assert "with the named collection langfuse_archive" in str(failure)
    assert f"s3://{BUCKET}/langfuse/_incomplete/" in str(failure)
    assert SECRET not in str(failure)
    assert s3.keys(BUCKET) == []

    way.faults = []
    archiving.export()
    assert archiving.ids("traces") == ["t1", "t2"]
    assert archiving.store.keys("_incomplete") == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (497, "NAMED COLLECTION ON langfuse_archive, WRITE ON S3"),
        (36, "it needs the keys of the examples"),
    ],
)
def test_what_clickhouse_does_not_allow_says_what_to_do(archiving: Deployment, code: int, says: str) -> None:
    archiving.server.break_next(Fault("refuse", match="INSERT INTO FUNCTION", code=code))

    failure = failure_of(archiving)

    assert (reason_of(failure), is_transient(failure)) == ("clickhouse_refused", False)
    assert says in str(failure)
    assert "deploy/clickhouse/server-mode" in str(failure)


def test_a_collection_that_is_not_there_is_named(archiving: Deployment) -> None:
    failure = failure_of(archiving.with_(named_collection="no_such_archive"))

    assert (reason_of(failure), is_transient(failure)) == ("clickhouse_refused", False)
    assert "named_collection no_such_archive: ClickHouse has none" in str(failure)


def test_a_collection_of_another_bucket_is_said(archiving: Deployment, s3: S3Server) -> None:
    s3.create_bucket("another")
    elsewhere = archiving.with_(destination=s3.store_config("another", "langfuse/"))

    failure = failure_of(elsewhere)

    assert reason_of(failure) == "verification"
    assert "langfuse_archive must be that of the destination's bucket" in str(failure)
    assert s3.keys("another") == []


def test_a_connection_that_is_cut_has_the_query_killed_and_its_object_deleted(
    archiving: Deployment, s3: S3Server
) -> None:
    seen = len(archiving.server.requests)
    archiving.server.break_next(Fault("cut", match="INSERT INTO FUNCTION"))

    failure = failure_of(archiving)

    assert (reason_of(failure), is_transient(failure)) == ("clickhouse_unavailable", True)
    assert kills(archiving, seen) == inserts(archiving, seen)
    assert len(kills(archiving, seen)) == 1
    assert s3.keys(BUCKET) == []


def staged_in(s3: S3Server) -> str:
    """The one object that is not yet in place."""
    [key] = [key for key in s3.keys(BUCKET) if "_incomplete" in key]
    return key


class Interrupted:
    """An export that waits in front of a request of the worker's."""

    def __init__(self, deployment: Deployment, proxy: S3Proxy, method: str, contains: str) -> None:
        self._gate = threading.Event()
        proxy.faults = [S3Fault(method, contains, until=self._gate, times=1)]
        self.failures: list[WindowError] = []
        self._thread = threading.Thread(target=self._export, args=[deployment])
        self._thread.start()
        proxy.wait_for(method, contains)

    def _export(self, deployment: Deployment) -> None:
        try:
            deployment.export()
        except WindowError as failure:
            self.failures.append(failure)

    def go_on(self) -> None:
        """Let it go on to its end."""
        self._gate.set()
        self._thread.join()


def parquet(**columns: list[Any]) -> bytes:
    """A file of somebody else's."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (parquet(id=["t1"]), "holds 1 rows, ClickHouse counts 2"),
        (parquet(id=["t1", "t2"])[:-100], "not with a Parquet footer"),
        (parquet(id=["t1", "t2"])[40:], "the footer says the data is"),
        (b"", "not with a Parquet footer"),
    ],
    ids=["fewer rows", "cut at the end", "cut at the start", "empty"],
)
def test_an_object_that_is_not_the_result_is_never_put_in_place(
    archiving: Deployment, s3: S3Server, s3_proxy: S3Proxy, content: bytes, says: str
) -> None:
    export = Interrupted(archiving, s3_proxy, "HEAD", "_incomplete")
    s3.client.put_object(Bucket=BUCKET, Key=staged_in(s3), Body=content)

    export.go_on()

    [failure] = export.failures
    assert (reason_of(failure), is_transient(failure)) == ("verification", True)
    assert says in str(failure)
    assert s3.keys(BUCKET) == []


def test_a_row_that_arrives_while_clickhouse_writes_is_no_fault(
    archiving: Deployment, s3_proxy: S3Proxy
) -> None:
    export = Interrupted(archiving, s3_proxy, "HEAD", "_incomplete")
    archiving.insert("traces", trace("late"))

    export.go_on()

    assert export.failures == []
    assert archiving.ids("traces") == ["t1", "t2"]


def test_attempts_at_the_same_time_do_not_mix(archiving: Deployment, s3: S3Server, s3_proxy: S3Proxy) -> None:
    first = Interrupted(archiving, s3_proxy, "HEAD", OBJECT)  # its object is in place, its manifest is not
    archiving.insert("traces", trace("t3", input="x" * 500))
    archiving.export()

    first.go_on()

    [failure] = first.failures
    assert (reason_of(failure), is_transient(failure)) == ("conflict", True)
    assert archiving.ids("traces") == ["t1", "t2", "t3"]
    [file] = archiving.manifest().files
    assert (file.row_count, file.size_bytes) == (3, s3.head(BUCKET, OBJECT)["ContentLength"])
    assert archiving.store.keys("_incomplete") == []


def test_a_copy_that_fails_leaves_what_was_there_before(
    archiving: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    archiving.export()
    before = s3.read(BUCKET, OBJECT)
    archiving.insert("traces", trace("late"))
    s3_proxy.faults = [S3Fault("PUT", OBJECT, 403, DENIED)]

    failure = failure_of(archiving)

    assert reason_of(failure) == "destination_access"
    assert s3.read(BUCKET, OBJECT) == before
    assert archiving.store.keys("_incomplete") == []


def test_what_a_dead_worker_left_is_removed_by_the_next_attempt(archiving: Deployment, s3: S3Server) -> None:
    folder = archiving.project.staging_folder(TRACES, HOUR)
    s3.client.put_object(Bucket=BUCKET, Key=f"langfuse/{folder}/of-a-dead-worker", Body=b"half")

    archiving.export()

    assert archiving.store.keys("_incomplete") == []


def test_a_worker_that_is_asked_to_stop_kills_the_query_that_writes(
    archiving: Deployment, way: S3Proxy, s3: S3Server, tmp_path: Path
) -> None:
    gate = threading.Event()
    way.faults = [S3Fault("PUT", "_incomplete", until=gate)]
    seen = len(archiving.server.requests)
    worker = Worker(archiving, tmp_path)
    worker.write_catalog(transfer="server", named_collection="langfuse_archive")
    process = worker.start()
    way.wait_for("PUT", "_incomplete")

    process.send_signal(signal.SIGTERM)

    archiving.server.wait_for_running_exports(0)
    gate.set()
    _, logs = process.communicate(timeout=60)
    assert process.returncode not in (0, None), logs
    assert '"reason": "cancelled"' in logs
    assert set(kills(archiving, seen)) == set(inserts(archiving, seen)) != set()
    assert [key for key in s3.keys(BUCKET) if "_incomplete" not in key] == []
