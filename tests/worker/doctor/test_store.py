"""A store that refuses one of the things that the product does."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.doctor import Status
from langfuse_worker.doctor.store import try_store
from tests.servers.s3 import S3Fault, S3Proxy, S3Server

COMPLETED = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
# Tries the directory that it is given, and prints what is found.
TRY_DIRECTORY = """
import sys
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.doctor.store import try_store
for found in try_store("directory", StoreConfig(f"file://{sys.argv[1]}/")):
    print(found.status, found.result, found.remedy)
"""
# Root without its right to write everywhere.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
IN_OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]
DENIED = "<Error><Code>AccessDenied</Code><Message>denied</Message></Error>"


@pytest.fixture
def bucket(s3: S3Server, s3_proxy: S3Proxy) -> StoreConfig:
    """An empty bucket, through the proxy."""
    s3.create_bucket("doctor")
    return s3.store_config("doctor", "exports/", s3_proxy.url)


def test_a_store_that_works_is_left_as_it_was(bucket: StoreConfig, s3: S3Server) -> None:
    found = list(try_store("bucket", bucket))

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
    bucket: StoreConfig, s3: S3Server, s3_proxy: S3Proxy, method: str, contains: str, step: str, right: str
) -> None:
    s3_proxy.faults.append(S3Fault(method, contains, status=403, body=DENIED))

    [finding] = try_store("bucket", bucket)

    assert finding.status is Status.PROBLEM
    assert step in finding.result
    assert right in finding.remedy
    assert len(s3.keys("doctor")) == (1 if right == "DeleteObject" else 0)


def test_a_fault_that_no_right_mends_has_a_remedy_of_its_own(bucket: StoreConfig, s3: S3Server) -> None:
    [missing] = try_store("bucket", s3.store_config("not-there"))
    assert missing.remedy == "make the bucket or container, or correct its name"
    [private] = try_store("bucket", replace(bucket, untrusted_endpoint=True))
    assert "blocked-ip" in private.result
    assert "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_HOST" in private.remedy


# Each makes the directory $1 one that cannot be written to.
FULL = "mount -t tmpfs -o size=4k tmpfs $1 && head -c 4096 /dev/zero > $1/full"
READ_ONLY = "mount -t tmpfs -o ro tmpfs $1"


@pytest.mark.parametrize(
    ("broken_by", "said", "remedy"),
    [
        (FULL, "No space left on device", "the disk is full: make room there"),
        (READ_ONLY, "Read-only file system", "the file system is read-only: mount it for writing"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing_has_a_remedy_of_its_own(
    tmp_path: Path, broken_by: str, said: str, remedy: str
) -> None:
    if subprocess.run([*IN_OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody but root may mount here")

    tried = [sys.executable, "-c", TRY_DIRECTORY, str(tmp_path)]
    script = f'{broken_by} && shift && exec "$@"'
    command = [*IN_OWN_MOUNTS, "sh", "-c", script, "sh", str(tmp_path), *tried]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)

    assert said in ended.stdout
    assert remedy in ended.stdout


def test_a_directory_of_somebody_else_has_a_remedy_of_its_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    rights = WITHOUT_RIGHTS if os.geteuid() == 0 else []
    command = [*rights, sys.executable, "-c", TRY_DIRECTORY]
    for directory in (tmp_path, tmp_path / "below"):
        ended = subprocess.run([*command, str(directory)], capture_output=True, text=True, check=True)
        assert "Permission denied" in ended.stdout
        assert "let the user of this process (id " in ended.stdout


def test_a_directory_that_cannot_be_has_a_remedy_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    [on_file] = try_store("directory", StoreConfig(f"file://{tmp_path}/file/"))
    [below_file] = try_store("directory", StoreConfig(f"file://{tmp_path}/file/below/"))
    [nowhere] = try_store("directory", StoreConfig("file:///proc/nowhere/"))
    assert "a file is where a directory has to be" in on_file.remedy
    assert "a file is where a directory has to be" in below_file.remedy
    assert "there is no such directory and none can be made there" in nowhere.remedy


def test_a_minio_without_room_has_a_remedy_of_its_own(bucket: StoreConfig, s3_proxy: S3Proxy) -> None:
    s3_proxy.faults.append(S3Fault("PUT", status=400, body="<Error><Code>XMinioStorageFull</Code></Error>"))
    [finding] = try_store("bucket", bucket)
    assert finding.remedy == "make room in the store, or raise the bucket's quota"


def test_a_store_that_keeps_what_is_overwritten_is_a_problem(bucket: StoreConfig, s3_proxy: S3Proxy) -> None:
    s3_proxy.faults.append(S3Fault("POST", "uploadId", status=200, body=COMPLETED))
    [finding] = try_store("bucket", bucket)
    assert "keeps an overwritten object" in finding.result
    assert "object lock" in finding.remedy


def test_a_store_that_is_not_reached_lacks_no_right() -> None:
    config = StoreConfig("s3://doctor/", "http://127.0.0.1:1", "eu", "key", "secret")
    [finding] = try_store("bucket", config)
    assert finding.status is Status.PROBLEM
    assert finding.remedy == "check the endpoint, the network, and whether the store runs"
