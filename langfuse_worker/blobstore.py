"""One blob store from a URL: file://, s3://, az:// or gs://, through obstore.

Objects appear whole or not at all: streams go up as multipart uploads (on disk: as a staged file) that are
aborted when the stream raises.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from langfuse_worker.endpoints import AllowList, EndpointError, EndpointReason, validate_endpoint
from langfuse_worker.settings import settings
from langfuse_worker.store_faults import AccessFault, access_fault

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

PART_BYTES = 32 << 20
PARTS_IN_FLIGHT = 3
MAX_PARTS = 10_000  # S3's limit for one multipart upload
_FILE_CHUNK_BYTES = 4 << 20  # a file has no parts to be counted, and smaller buffers are faster
# obstore stages a file as `name#1` and renames it. One that grows is somebody's upload.
_STAGED = re.compile(r"\.\w+#\d+$")
_ABANDONED_S = 3600
SCHEMES = ("file", "s3", "az", "gs")


class StoreError(Exception):
    """The blob store failed; trying again may help."""


class StoreAccessError(StoreError):
    """The blob store says no, and somebody has to change something.

    Attributes:
        fault: what has to be changed.
    """

    def __init__(self, message: str, fault: AccessFault = AccessFault.CREDENTIALS) -> None:
        super().__init__(message)
        self.fault = fault


class ObjectTooLargeError(StoreError):
    """The stream does not fit into an upload's number of parts."""


class ObjectNotFoundError(StoreError):
    """There is no such object."""


@dataclass(frozen=True)
class StoreConfig:
    """Where a store is and how to get in. Without keys, the ambient credentials are used.

    Attributes:
        url: `file:///dir/`, `s3://bucket/prefix/`, `az://container/prefix/` or `gs://bucket/prefix/`. What
            follows the bucket is put before every key as it is.
        endpoint: address of an S3-compatible store, or of an Azure emulator.
        part_bytes: size of an upload's parts; 10 000 of them bound an object's size. Files have none.
        untrusted_endpoint: whether a user chose where the store is, as in Langfuse's Postgres. Every address
            is then checked before it is connected to (`langfuse_worker.endpoints`).
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    part_bytes: int = PART_BYTES
    untrusted_endpoint: bool = False


@dataclass(frozen=True)
class WrittenObject:
    """An object that has been committed; the key is its whole key in the bucket, prefix included."""

    key: str
    uri: str
    bytes: int
    e_tag: str | None


class BlobStore:
    """Reads and writes objects below a prefix. Thread-safe."""

    def __init__(self, config: StoreConfig) -> None:
        """Nothing is opened before it is used."""
        self.config = config
        parts = urlsplit(config.url)
        self._scheme = parts.scheme
        self._prefix = "" if parts.scheme == "file" else unquote(parts.path).lstrip("/")

    @cached_property
    def _store(self) -> Any:
        try:
            _check_endpoint(self.config)
            return _open(self.config)
        except EndpointError as error:
            message = f"{self.config.url}: {error}"
            if error.reason is EndpointReason.DNS_LOOKUP_FAILED:
                raise StoreError(message) from error
            raise StoreAccessError(message, AccessFault.ENDPOINT) from error
        except OSError as error:  # only a directory is made at once
            message = f"{self.config.url}: cannot make the directory: {error}"
            raise StoreAccessError(message, AccessFault.BUCKET) from error

    def write(self, key: str, chunks: Iterator[bytes], content_type: str) -> WrittenObject:
        """Upload a stream as one object; an exception in the stream aborts the upload.

        Args:
            key: key below the store's prefix.
            chunks: the content.
            content_type: MIME type.

        Raises:
            StoreError: nothing has been committed.
        """
        counted = _Counted(chunks, None if self._scheme == "file" else self.config.part_bytes * MAX_PARTS)
        with _errors(self.uri(key), counted):
            self._remove_leftovers(key)
            result = obstore.put(
                self._store,
                self._prefix + key,
                counted,
                attributes=self._attributes(content_type),
                use_multipart=True,
                chunk_size=_FILE_CHUNK_BYTES if self._scheme == "file" else self.config.part_bytes,
                max_concurrency=PARTS_IN_FLIGHT,
            )
        return WrittenObject(self._prefix + key, self.uri(key), counted.bytes, result["e_tag"])

    def write_bytes(self, key: str, data: bytes, content_type: str) -> WrittenObject:
        """Write a small object at once. Raises StoreError."""
        with _errors(self.uri(key)):
            result = obstore.put(
                self._store,
                self._prefix + key,
                data,
                attributes=self._attributes(content_type),
                use_multipart=False,
            )
        return WrittenObject(self._prefix + key, self.uri(key), len(data), result["e_tag"])

    def read(self, key: str) -> bytes:
        """The content of a small object. Raises ObjectNotFoundError, StoreError."""
        with _errors(self.uri(key)):
            return bytes(obstore.get(self._store, self._prefix + key).bytes())

    def e_tag(self, key: str) -> str | None:
        """The entity tag of the object as it is now. Raises ObjectNotFoundError, StoreError."""
        with _errors(self.uri(key)):
            return obstore.head(self._store, self._prefix + key)["e_tag"]

    def delete(self, key: str) -> None:
        """Delete an object. Raises StoreError."""
        with _errors(self.uri(key)):
            obstore.delete(self._store, self._prefix + key)

    def keys(self, below: str) -> list[str]:
        """Keys that start with the folder `below`, sorted. Raises StoreError."""
        with _errors(self.uri(below)):
            pages = obstore.list(self._store, prefix=(self._prefix + below).rstrip("/") or None)
            found = [meta["path"] for page in pages for meta in page]
        return sorted(path.removeprefix(self._prefix) for path in found)

    def folders(self, below: str) -> list[str]:
        """Names of the folders directly in the folder `below`, sorted. Raises StoreError."""
        with _errors(self.uri(below)):
            prefix = (self._prefix + below).rstrip("/") or None
            found = obstore.list_with_delimiter(self._store, prefix=prefix)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def uri(self, key: str) -> str:
        """The object's URI, for people and for readers such as DuckDB."""
        parts = urlsplit(self.config.url)
        if self._scheme == "file":
            return f"file://{Path(unquote(parts.path)).absolute()}/{key}"
        return f"{self._scheme}://{parts.netloc}/{self._prefix}{key}"

    def _attributes(self, content_type: str) -> dict[str, str] | None:
        if self._scheme == "file":  # a file has no place for them
            return None
        attributes = {"Content-Type": content_type}
        if self.config.storage_class:
            attributes["Storage-Class"] = self.config.storage_class
        return attributes

    def _remove_leftovers(self, key: str) -> None:
        """Remove what killed processes left staged in the directory that is written to."""
        if self._scheme != "file":
            return
        directory = (Path(unquote(urlsplit(self.config.url).path)) / key).parent
        if not directory.is_dir():
            return
        abandoned = time.time() - _ABANDONED_S
        for entry in os.scandir(directory):
            if _STAGED.search(entry.name):
                with suppress(FileNotFoundError):  # its writer has finished meanwhile
                    if entry.stat().st_mtime < abandoned:
                        os.unlink(entry)


class _Counted(Iterator[bytes]):
    """Counts the bytes and remembers the exception of a stream while another library consumes it."""

    def __init__(self, chunks: Iterator[bytes], limit: int | None) -> None:
        self._chunks = chunks
        self._limit = limit
        self.bytes = 0
        self.error: BaseException | None = None

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
            self.bytes += len(chunk)
            if self._limit is not None and self.bytes > self._limit:
                raise ObjectTooLargeError(
                    f"the object is larger than {MAX_PARTS} parts of "
                    f"{self._limit // MAX_PARTS} bytes; raise the destination's part_bytes"
                )
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        return chunk


_ACCESS = (
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.UnknownConfigurationKeyError,
)


# What obstore writes between the request, whose names are somebody's own words, and the store's answer.
_ANSWER = re.compile(r" in [\d.]+\w*s - ")


@contextmanager
def _errors(uri: str, stream: _Counted | None = None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if stream is not None and stream.error is not None:
            raise stream.error from None
        message = f"{uri}: {_brief(error)}"
        fault = access_fault(_ANSWER.split(_without_dump(error))[-1])
        if fault or isinstance(error, _ACCESS):
            raise StoreAccessError(message, fault or AccessFault.CREDENTIALS) from error
        if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
            raise ObjectNotFoundError(message) from error
        if isinstance(error, exceptions.BaseError | OSError):
            raise StoreError(message) from error
        raise


def _brief(error: Exception) -> str:
    return _without_dump(error).strip()[:1000]


def _without_dump(error: Exception) -> str:
    """The message without the debug dump that obstore appends."""
    return str(error).partition("\n\nDebug source:")[0]


def _check_endpoint(config: StoreConfig) -> None:
    if config.untrusted_endpoint and config.endpoint:
        validate_endpoint(config.endpoint, AllowList.from_settings(settings()))


def _open(config: StoreConfig) -> Any:
    parts = urlsplit(config.url)
    client: ClientConfig = {"timeout": timedelta(minutes=10), "connect_timeout": timedelta(seconds=10)}
    if config.endpoint and config.endpoint.startswith("http://"):
        client["allow_http"] = True
    retry: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(minutes=3)}
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)), mkdir=True)
    if parts.scheme == "s3":
        return S3Store(parts.netloc, config=_s3(config), client_options=client, retry_config=retry)
    if parts.scheme == "az":
        return AzureStore(parts.netloc, config=_azure(config), client_options=client, retry_config=retry)
    if parts.scheme == "gs":
        return GCSStore(parts.netloc, client_options=client, retry_config=retry)
    message = f"{config.url}: must start with {', '.join(s + '://' for s in SCHEMES)}"
    raise StoreAccessError(message, AccessFault.ENDPOINT)


def _s3(config: StoreConfig) -> Any:
    options = {
        "endpoint": config.endpoint,
        "region": config.region or "us-east-1",
        "access_key_id": config.access_key_id,
        "secret_access_key": config.secret_access_key,
        "server_side_encryption": "aws:kms" if config.sse_kms_key_id else None,
        "sse_kms_key_id": config.sse_kms_key_id,
        # SHA-256 of every part would double the CPU of an upload; TLS and the manifest's sum cover it.
        "unsigned_payload": "false" if (config.endpoint or "").startswith("http://") else "true",
    }
    return {name: value for name, value in options.items() if value is not None}


def _azure(config: StoreConfig) -> Any:
    options = {
        "account_name": config.access_key_id,
        "account_key": config.secret_access_key,
        "endpoint": config.endpoint,
    }
    return {name: value for name, value in options.items() if value is not None}
