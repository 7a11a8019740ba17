"""Tries everything that the product does to a blob store, with an object of its own."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from langfuse_worker.blobstore import (
    BlobStore,
    ObjectNotFoundError,
    StoreAccessError,
    StoreConfig,
    StoreError,
    StoreFullError,
    StoreUnreachableError,
)
from langfuse_worker.doctor.clock import compare_clocks
from langfuse_worker.doctor.directory import directory_remedy
from langfuse_worker.doctor.finding import Finding, ok, problem
from langfuse_worker.store_faults import AccessFault

_TYPE = "application/octet-stream"
# Of one length.
_FIRST, _SECOND = b"langfuse-worker doctor, before\n", b"langfuse-worker doctor, after.\n"
# Of faults that no right on the store mends.
_REMEDIES = {
    AccessFault.BUCKET: "make the bucket or container, or correct its name",
    AccessFault.ENDPOINT: "correct the endpoint and the region; a private one that is meant goes into "
    "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_HOST, _IPS or _IP_SEGMENTS",
}


class _Broken(Exception):
    """What the test upload breaks with."""


def try_store(what: str, config: StoreConfig) -> Iterator[Finding]:
    """Write, read, overwrite, abort, delete. Nothing is left behind.

    Args:
        what: how findings call the store.
        config: the store.
    """
    store = BlobStore(config)
    # Its parts are so small that what is written takes one.
    in_parts = BlobStore(replace(config, part_bytes=len(_FIRST)))
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
        in_parts.write(key, iter([_SECOND]), _TYPE)
        if store.read(key) != _SECOND:
            yield problem(
                what, f"{config.url} keeps an overwritten object", "switch off object lock or caching"
            )
            return
        step, remedy = "abort a multipart upload", "allow AbortMultipartUpload there"
        if _abort_leaves_an_object(in_parts, f"aborted-{key}"):
            yield problem(what, f"{config.url}: an upload that broke left an object", remedy)
            return
        step, remedy = (
            "delete it",
            "allow DeleteObject there: parts of heavy windows and objects of emptied ones are deleted",
        )
        store.delete(key)
    except StoreError as error:
        with suppress(StoreError):
            store.delete(key)
        yield problem(what, f"cannot {step}: {error}", _remedy(config, error, remedy))
        return
    yield ok(what, f"write, read, overwrite, multipart, abort and delete work in {config.url}")
    if not config.url.startswith("file:"):
        yield compare_clocks(f"clock of {what}", modified_at, written_at)


def _remedy(config: StoreConfig, error: StoreError, right: str) -> str:
    """What to do; `right` is the one that the step takes."""
    if config.scheme == "file":
        return directory_remedy(str(error))
    if isinstance(error, StoreFullError):
        return "make room in the store, or raise the bucket's quota"
    if isinstance(error, StoreUnreachableError):
        return "check the endpoint, the network, and whether the store runs"
    if not isinstance(error, StoreAccessError):
        return right
    return _REMEDIES.get(error.fault, f"check the keys, and {right}")


def _abort_leaves_an_object(store: BlobStore, key: str) -> bool:
    """Break an upload. Raises StoreError where the store refuses to abort it."""

    def broken() -> Iterator[bytes]:
        yield _FIRST
        raise _Broken

    try:
        store.write(key, broken(), _TYPE)
    except _Broken as error:
        if isinstance(error.__cause__, StoreError):
            raise error.__cause__ from None
    try:
        store.read(key)
    except ObjectNotFoundError:
        return False
    store.delete(key)
    return True
