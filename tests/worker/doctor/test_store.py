"""A store that refuses one of the things that the product does."""

from dataclasses import replace
from pathlib import Path

import pytest

from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.doctor import Status
from langfuse_worker.doctor.store import try_store
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

COMPLETED = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
DENIED = "<Error><Code>AccessDenied</Code><Message>denied</Message></Error>"


def test_a_store_that_works_is_left_as_it_was(s3: S3Server) -> None:
    s3.create_bucket("doctor")

    found = list(try_store("bucket", s3.store_config("doctor", "exports/")))

    assert [(f.what, f.status) for f in found] == [("bucket", Status.OK), ("clock of bucket", Status.OK)]
    assert s3.keys("doctor") == []
    assert s3.open_uploads("doctor") == {}


def test_a_directory_works_too_and_stays_empty(tmp_path: Path) -> None:
    [finding] = try_store("directory", StoreConfig(f"file://{tmp_path}/blobs/"))
    assert finding.status is Status.OK
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    ("method", "contains", "step", "right"),
    [
        ("PUT", ".bin", "cannot write an object", "PutObject"),
        ("GET", ".bin", "cannot read it", "GetObject"),
        ("POST", "uploads", "cannot overwrite it by a multipart upload", "PutObject"),
        ("DELETE", "uploadId", "cannot abort a multipart upload", "AbortMultipartUpload"),
        ("DELETE", "/exports/langfuse-doctor", "cannot delete it", "DeleteObject"),
    ],
)
def test_what_is_refused_is_named_with_the_right_that_is_missing(
    s3: S3Server, s3_proxy: S3Proxy, method: str, contains: str, step: str, right: str
) -> None:
    s3.create_bucket("doctor")
    s3_proxy.faults.append(S3Fault(method, contains, status=403, body=DENIED))

    [finding] = try_store("bucket", s3.store_config("doctor", "exports/", s3_proxy.url))

    assert finding.status is Status.PROBLEM
    assert step in finding.result
    assert right in finding.remedy
    assert [key for key in s3.keys("doctor") if right != "DeleteObject"] == []


def test_a_fault_that_no_right_mends_has_a_remedy_of_its_own(s3: S3Server) -> None:
    s3.create_bucket("doctor")
    [missing] = try_store("bucket", s3.store_config("not-there"))
    assert missing.remedy == "make the bucket or container, or correct its name"
    [private] = try_store("bucket", replace(s3.store_config("doctor"), untrusted_endpoint=True))
    assert "blocked-ip" in private.result
    assert "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_HOST" in private.remedy


def test_a_store_that_keeps_what_is_overwritten_is_a_problem(s3: S3Server, s3_proxy: S3Proxy) -> None:
    s3.create_bucket("doctor")
    s3_proxy.faults.append(S3Fault("POST", "uploadId", status=200, body=COMPLETED))
    [finding] = try_store("bucket", s3.store_config("doctor", endpoint=s3_proxy.url))
    assert "keeps an overwritten object" in finding.result
    assert "object lock" in finding.remedy


def test_a_store_that_is_not_reached_lacks_no_right() -> None:
    config = StoreConfig("s3://doctor/", "http://127.0.0.1:1", "eu", "key", "secret")
    [finding] = try_store("bucket", config)
    assert finding.status is Status.PROBLEM
    assert finding.remedy == "check the endpoint, the network, and whether the store runs"
