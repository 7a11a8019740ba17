"""Stores: an object appears whole or not at all."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from langfuse_worker.blobstore import (
    BlobStore,
    ObjectNotFoundError,
    ObjectTooLargeError,
    StoreAccessError,
    StoreConfig,
)
from langfuse_worker.blobstore.parts import LIMITS, Limits
from tests.servers.azure import AzureServer
from tests.servers.google import GoogleServer
from tests.servers.s3 import S3Server

BUCKET = "blobstore"
PART = 5 << 20
KEYS = [
    "plain.parquet",
    "with space/a b.csv",
    "100%/50%25.json",
    "plus+and&.txt",
    "ünï/çødé 日本.jsonl",
    "a#b.txt",
]


@pytest.fixture(params=["file", "s3", "az", "gs"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    """A store of each kind, empty."""
    if request.param == "file":
        return StoreConfig(f"file://{tmp_path}/blobs/", part_bytes=PART)
    return replace(_store_config(request), part_bytes=PART)


def _store_config(request: pytest.FixtureRequest) -> StoreConfig:
    if request.param == "az":
        azure: AzureServer = request.getfixturevalue("azure")
        azure.create_container(BUCKET)
        return azure.store_config(BUCKET, "some/prefix/")
    if request.param == "gs":
        google: GoogleServer = request.getfixturevalue("google")
        google.create_bucket(BUCKET)
        return google.store_config(BUCKET, "some/prefix/")
    s3: S3Server = request.getfixturevalue("s3")
    s3.create_bucket(BUCKET)
    return s3.store_config(BUCKET, "some/prefix/")


def _broken(size: int, error: Exception) -> Iterator[bytes]:
    for _ in range(0, size, 1 << 20):
        yield b"x" * (1 << 20)
    raise error


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_is_read_back_under_any_key(config: StoreConfig, key: str) -> None:
    store = BlobStore(config)

    written = store.write(key, iter([b"one ", b"", b"two"]), "text/plain")

    assert store.read(key) == b"one two"
    assert written.bytes == 7
    assert written.uri == store.uri(key)
    assert store.e_tag(key) == written.e_tag
    assert store.keys("") == [key]
    store.delete(key)
    with pytest.raises(ObjectNotFoundError):
        store.read(key)


def test_objects_of_many_parts_arrive_whole(config: StoreConfig) -> None:
    chunks = [bytes([n]) * (1 << 20) for n in range(18)]
    written = BlobStore(config).write("large.bin", iter(chunks), "application/octet-stream")
    assert written.bytes == 18 << 20
    assert BlobStore(config).read("large.bin") == b"".join(chunks)


def test_the_e_tag_changes_with_the_content(config: StoreConfig) -> None:
    store = BlobStore(config)
    first = store.write("a.txt", iter([b"one"]), "text/plain")
    second = store.write("a.txt", iter([b"other"]), "text/plain")
    assert first.e_tag != second.e_tag
    assert store.e_tag("a.txt") == second.e_tag


@pytest.mark.parametrize(
    "size", [0, 1 << 20, 3 * PART], ids=["at once", "within a part", "after three parts"]
)
def test_an_exception_in_the_stream_comes_back_and_leaves_nothing(
    config: StoreConfig, request: pytest.FixtureRequest, tmp_path: Path, size: int
) -> None:
    error = ValueError("the stream broke")

    with pytest.raises(ValueError, match="the stream broke") as raised:
        BlobStore(config).write("a/b.bin", _broken(size, error), "text/plain")

    assert raised.value is error
    assert BlobStore(config).keys("") == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # Azure has no open uploads: blocks without a blob are invisible, and gone after a week.
    if config.scheme == "s3":
        assert request.getfixturevalue("s3").open_uploads(BUCKET) == {}
    if config.scheme == "gs":
        assert request.getfixturevalue("google").uploads == {}


def test_an_object_that_is_not_there_is_said_with_its_address(config: StoreConfig) -> None:
    with pytest.raises(ObjectNotFoundError, match="missing"):
        BlobStore(config).read("missing.json")
    with pytest.raises(ObjectNotFoundError, match="missing"):
        BlobStore(config).e_tag("missing.json")


@pytest.mark.defect("D9")
def test_what_s3_answers_is_one_line_of_its_code_and_message(s3: S3Server) -> None:
    store = BlobStore(s3.store_config("nowhere"))
    with pytest.raises(StoreAccessError) as error:
        store.write_bytes("a.csv", b"x", "text/csv")
    assert str(error.value) == "s3://nowhere/a.csv: NoSuchBucket: The specified bucket does not exist"


def test_an_upload_that_has_no_more_parts_fails(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defect D9 of Langfuse."""
    s3.create_bucket(BUCKET)
    monkeypatch.setitem(LIMITS, "s3", Limits(parts=2, object_bytes=1 << 40))
    chunks = (b"x" * (1 << 20) for _ in range(11))
    with pytest.raises(ObjectTooLargeError, match="part_bytes"):
        BlobStore(replace(s3.store_config(BUCKET), part_bytes=PART)).write("a.bin", chunks, "text/plain")
    assert s3.keys(BUCKET) == []
    assert s3.open_uploads(BUCKET) == {}


def test_what_a_killed_process_left_is_removed_and_what_grows_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    old, young, other = folder / "a.parquet#1", folder / "b.parquet#2", folder / "notes"
    for path in (old, young, other):
        path.write_bytes(b"x")
    two_hours_ago = time.time() - 7200
    for path in (old, other):
        os.utime(path, (two_hours_ago, two_hours_ago))

    BlobStore(StoreConfig(f"file://{tmp_path}/")).write("traces/c.parquet", iter([b"x"]), "text/plain")

    assert sorted(path.name for path in folder.iterdir()) == ["b.parquet#2", "c.parquet", "notes"]


def test_a_full_disk_is_an_error_and_leaves_no_object(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WRITE_10_MB, f"file://{tmp_path}/"],
        preexec_fn=_allow_files_of_one_mb,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "StoreError" in ended.stdout, ended.stderr
    assert not (tmp_path / "a.bin").exists()


_WRITE_10_MB = """
import signal, sys
from langfuse_worker.blobstore import BlobStore, StoreConfig, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    BlobStore(StoreConfig(sys.argv[1])).write("a.bin", iter([b"x" * (10 << 20)]), "text/plain")
except StoreError as error:
    print("StoreError", error)
"""


def _allow_files_of_one_mb() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def test_secrets_of_a_destination_are_masked() -> None:
    config = StoreConfig(
        "s3://b/", secret_access_key="one", session_token="two", account_key="three", sas_token="four"
    )
    assert config.masked("one two three four") == "*** *** *** ***"


def test_the_key_of_a_service_account_is_masked_and_the_path_of_its_file_is_not() -> None:
    key = '{"private_key": "hunter2"}'
    assert StoreConfig("gs://b/", service_account=key).masked(f"no key: {key}") == "no key: ***"
    path = "/run/secrets/account.json"
    assert StoreConfig("gs://b/", service_account=path).masked(f"{path}: no such file").startswith(path)


def test_keys_of_a_destination_are_in_no_representation() -> None:
    config = StoreConfig(
        "s3://b/",
        access_key_id="AKIA",
        secret_access_key="hunter2",
        session_token="hunter2",
        account_key="hunter2",
        sas_token="hunter2",
        service_account="hunter2",
    )
    assert "hunter2" not in repr(config)
    assert "AKIA" not in repr(config)
