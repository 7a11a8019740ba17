"""Destinations over the wire: what they are told, and what happens when they are not there."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from langfuse_export.errors import WindowError, is_transient, reason_of
from langfuse_export.exporter import NoProgress
from langfuse_export.tables import TABLES
from langfuse_worker.blobstore import BlobStore, StoreAccessError
from tests.export.http.exporting import HOUR, Deployment
from tests.rows import PROJECT, trace
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

BUCKET = "destinations"
DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
MISSING = "<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>"


@pytest.fixture
def on_s3(deployment: Deployment, s3: S3Server, s3_proxy: S3Proxy) -> Deployment:
    """Exports to a bucket, through the proxy."""
    s3.create_bucket(BUCKET)
    deployment.insert("traces", trace("t1"))
    return deployment.with_(destination=s3.store_config(BUCKET, "langfuse/", s3_proxy.url))


def test_objects_lie_below_the_prefix_and_the_manifest_comes_last(
    on_s3: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    on_s3.export()

    assert s3.keys(BUCKET) == [
        f"langfuse/{PROJECT}/manifests/2026-06-01T13-00-00.json",
        f"langfuse/{PROJECT}/observations/2026-06-01T13-00-00.parquet",
        f"langfuse/{PROJECT}/observations_v2/2026-06-01T13-00-00.parquet",
        f"langfuse/{PROJECT}/scores/2026-06-01T13-00-00.parquet",
        f"langfuse/{PROJECT}/traces/2026-06-01T13-00-00.parquet",
    ]
    written = [request.path for request in s3_proxy.requests if request.method == "PUT"]
    assert "manifests" in written[-1]
    manifest = json.loads(s3.read(BUCKET, f"langfuse/{PROJECT}/manifests/2026-06-01T13-00-00.json"))
    assert [file["key"] for file in manifest["files"]] == [
        f"langfuse/{PROJECT}/{table}/2026-06-01T13-00-00.parquet"
        for table in ("scores", "traces", "observations", "observations_v2")
    ]
    head = s3.head(BUCKET, manifest["files"][1]["key"])
    assert head["ContentType"] == "application/vnd.apache.parquet"
    assert head["ContentLength"] == manifest["files"][1]["sizeBytes"]


def test_encryption_with_a_key_and_the_storage_class_are_asked_for(
    on_s3: Deployment, s3_proxy: S3Proxy
) -> None:
    assert on_s3.destination is not None
    destination = replace(on_s3.destination, sse_kms_key_id="arn:aws:kms:k", storage_class="STANDARD_IA")

    on_s3.with_(destination=destination).export(tables=[TABLES["traces"]])

    in_parts = BlobStore(replace(destination, part_bytes=5 << 20))
    in_parts.write("large", iter([bytes(5 << 20)]), "text/plain")

    small, *_ = [r for r in s3_proxy.requests if r.method == "PUT"]
    [large] = [r for r in s3_proxy.requests if r.method == "POST" and r.query.startswith("uploads")]
    for created in (small, large):
        assert created.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert created.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "arn:aws:kms:k"
        assert created.headers["x-amz-storage-class"] == "STANDARD_IA"


def test_what_fits_into_a_part_takes_one_request(on_s3: Deployment, s3_proxy: S3Proxy) -> None:
    on_s3.export()

    writes = [request for request in s3_proxy.requests if request.method in ("PUT", "POST")]
    assert len(writes) == len(on_s3.project.tables) + 1  # and the manifest


def test_a_pod_exports_with_its_web_identity(
    deployment: Deployment, s3: S3Server, s3_tls_proxy: S3Proxy, pod_token: Path
) -> None:
    s3.create_bucket(BUCKET)
    deployment.insert("traces", trace("t1"))
    destination = s3.store_config(BUCKET, "langfuse/", s3_tls_proxy.url)
    on_s3 = deployment.with_(destination=replace(destination, access_key_id=None, secret_access_key=None))

    on_s3.export()

    assert len(s3.keys(BUCKET)) == len(on_s3.project.tables) + 1
    written = [request for request in s3_tls_proxy.requests if request.method == "PUT"]
    assert all("Credential=ASIA" in request.headers["authorization"] for request in written)
    asked = [r.body for r in s3_tls_proxy.requests if b"AssumeRoleWithWebIdentity" in r.body]
    assert all(pod_token.read_bytes() in body for body in asked)
    assert asked


@pytest.mark.parametrize(
    "fault",
    [S3Fault("PUT", "traces", 403, DENIED), S3Fault("PUT", "traces", 404, MISSING)],
    ids=["access denied", "no such bucket"],
)
def test_a_destination_that_says_no_is_permanent_and_named(
    on_s3: Deployment, s3: S3Server, s3_proxy: S3Proxy, fault: S3Fault
) -> None:
    s3_proxy.faults = [fault]

    with pytest.raises(WindowError, match=f"s3://{BUCKET}/langfuse/{PROJECT}/traces") as failure:
        on_s3.export(tables=[TABLES["traces"]])

    assert reason_of(failure.value) == "destination_access"
    assert not is_transient(failure.value)
    assert "secret" not in str(failure.value)
    assert s3.keys(BUCKET) == []


def test_a_bucket_that_does_not_exist_is_said_before_clickhouse_streams(
    deployment: Deployment, s3: S3Server
) -> None:
    missing = deployment.with_(destination=s3.store_config("no-such-bucket"))
    seen = len(deployment.server.requests)

    with pytest.raises(StoreAccessError, match="no-such-bucket"):
        missing.export()

    assert not [request for request in deployment.server.requests[seen:] if "t.input" in request.sql]


def test_a_moment_of_unavailability_is_retried_within_the_export(
    on_s3: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    s3_proxy.faults = [S3Fault("PUT", "partNumber", 503, times=2), S3Fault("POST", "uploadId", 500, times=1)]

    on_s3.export(tables=[TABLES["traces"]])

    assert s3.keys(BUCKET) == [f"langfuse/{PROJECT}/traces/2026-06-01T13-00-00.parquet"]
    assert s3.open_uploads(BUCKET) == {}


def test_a_slow_destination_holds_the_stream_back_instead_of_filling_memory(
    on_s3: Deployment, s3: S3Server, s3_proxy: S3Proxy
) -> None:
    gate = threading.Event()
    s3_proxy.faults = [S3Fault("PUT", "partNumber", until=gate)]
    rows = 20_000
    for part in range(4):
        values = f"SELECT toString(number), '{PROJECT}', '2026-06-01 12:30:00', randomPrintableASCII(5000)"
        on_s3.server.execute(
            f"INSERT INTO traces (id, project_id, timestamp, input) {values} "
            f"FROM numbers({part * rows // 4}, {rows // 4})"
        )
    assert on_s3.destination is not None
    slow = on_s3.with_(destination=replace(on_s3.destination, part_bytes=5 << 20), tables=[TABLES["traces"]])
    received: list[int] = []
    too_much = threading.Event()

    class Counting(NoProgress):
        """Notes the bytes that come from ClickHouse."""

        def bytes_read(self, count: int) -> None:
            """See `Progress`."""
            received.append(count)
            if sum(received) > 40e6:
                too_much.set()

    exporter = slow.exporter()
    exporter.progress = Counting()
    thread = threading.Thread(target=lambda: exporter.export(HOUR, [TABLES["traces"]]))
    thread.start()
    s3_proxy.wait_for("PUT", "partNumber")
    assert not too_much.wait(2)  # some parts of 5 MiB are in flight or buffered, and no more
    gate.set()
    thread.join()

    assert sum(received) > 80e6
    assert len(s3.keys(BUCKET)) == 2
