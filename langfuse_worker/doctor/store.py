"""Tries everything that the product does to a blob store, with an object of its own."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError, StoreConfig, StoreError
from langfuse_worker.doctor.clock import compare_clocks
from langfuse_worker.doctor.finding import Finding, ok, problem

_TYPE = "application/octet-stream"
_FIRST, _SECOND = b"langfuse-worker doctor, first\n", b"langfuse-worker doctor, second\n"


class _Broken(Exception):
    """What the test upload breaks with."""


def try_store(what: str, config: StoreConfig) -> Iterator[Finding]:
    """Write, read, overwrite, abort, delete. Nothing is left behind.

    Args:
        what: how findings call the store.
        config: the store.
    """
    store = BlobStore(config)
    key = f"langfuse-doctor-{uuid.uuid4()}.bin"
    step, remedy = "write an object", "allow PutObject there"
    try:
        store.write_bytes(key, _FIRST, _TYPE)
        written_at = datetime.now(UTC)
        step, remedy = "read it", "allow GetObject there"
        if store.read(key) != _FIRST:
            yield problem(what, f"{config.url} gives other content than was written", "look for a cache")
            return
        modified_at = store.modified_at(key)
        step, remedy = "overwrite it by a multipart upload", "allow PutObject, and no object lock there"
        store.write(key, iter([_SECOND]), _TYPE)
        if store.read(key) != _SECOND:
            yield problem(
                what, f"{config.url} keeps an overwritten object", "switch off object lock or caching"
            )
            return
        step, remedy = "abort a multipart upload", "allow AbortMultipartUpload there"
        if _abort_leaves_an_object(store, f"aborted-{key}"):
            yield problem(what, f"{config.url}: an upload that broke left an object", remedy)
            return
        step, remedy = "delete it", "allow DeleteObject there; only checks delete"
        store.delete(key)
    except StoreError as error:
        with suppress(StoreError):
            store.delete(key)
        yield problem(what, f"cannot {step}: {error}", remedy)
        return
    yield ok(what, f"write, read, overwrite, multipart, abort and delete work in {config.url}")
    if not config.url.startswith("file:"):
        yield compare_clocks(f"clock of {what}", modified_at, written_at)


def _abort_leaves_an_object(store: BlobStore, key: str) -> bool:
    def broken() -> Iterator[bytes]:
        yield _FIRST
        raise _Broken

    with suppress(_Broken):
        store.write(key, broken(), _TYPE)
    try:
        store.read(key)
    except ObjectNotFoundError:
        return False
    store.delete(key)
    return True
