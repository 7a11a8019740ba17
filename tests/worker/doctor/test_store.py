"""A store that refuses one of the things that the product does."""

from pathlib import Path

import pytest

from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.doctor import Status
from langfuse_worker.doctor.store import try_store
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

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
    ],
)
def test_what_is_refused_is_named_with_the_right_that_is_missing(
    s3: S3Server, s3_proxy: S3Proxy, method: str, contains: str, step: str, right: str
) -> None:
    s3.create_bucket("doctor")
    s3_proxy.faults.append(S3Fault(method, contains, status=403, body=DENIED))

    [finding] = try_store("bucket", s3.store_config("doctor", endpoint=s3_proxy.url))

    assert finding.status is Status.PROBLEM
    assert step in finding.result
    assert right in finding.remedy
    assert s3.keys("doctor") == []
