"""The store that the rest of the product writes to and reads from."""

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore

from langfuse_worker.blobstore.azure_delete import SignedDeletes
from langfuse_worker.blobstore.config import StoreConfig
from langfuse_worker.blobstore.errors import ObjectTooLargeError, refused, store_errors
from langfuse_worker.blobstore.gate import Guard
from langfuse_worker.blobstore.open import open_store
from langfuse_worker.blobstore.parts import PartPlan, plan_parts

if TYPE_CHECKING:
    from obstore import GetOptions

_FILE_PLAN = PartPlan(4 << 20, 3, None)  # a file has no parts to be counted, and smaller buffers are faster
_READ_CHUNK_BYTES = 8 << 20
# obstore stages a file as `name#1` and renames it. One that grows is somebody's upload.
_STAGED = re.compile(r"\.\w+#\d+$")
_ABANDONED_S = 3600


@dataclass(frozen=True)
class WrittenObject:
    """An object that has been committed; the key is its whole key in the bucket, prefix included."""

    key: str
    uri: str
    bytes: int
    e_tag: str | None


@dataclass(frozen=True)
class ObjectEnd:
    """The end of an object, and what the store says of the very object that it was read from.

    Attributes:
        data: its last bytes.
        bytes: size of the whole object.
    """

    data: bytes
    bytes: int
    e_tag: str | None
    content_type: str | None


class BlobStore:
    """Reads and writes objects below a prefix. Thread-safe."""

    def __init__(self, config: StoreConfig) -> None:
        """Nothing is opened before it is used."""
        self.config = config
        self._scheme = config.scheme
        self._prefix = "" if config.scheme == "file" else config.path
        self._guard = Guard() if config.untrusted_endpoint else None

    @cached_property
    def _store(self) -> Any:
        return open_store(self.config, self._guard)

    @cached_property
    def _signed_deletes(self) -> SignedDeletes:
        return SignedDeletes(self.config, self._guard)

    def write(
        self, key: str, chunks: Iterator[bytes], content_type: str, expected_bytes: int = 0
    ) -> WrittenObject:
        """Upload a stream as one object; an exception in the stream aborts the upload.

        What fits into one part is sent in one request, once the stream has ended.

        Args:
            key: key below the store's prefix.
            chunks: the content.
            content_type: MIME type.
            expected_bytes: about how large the object will be, 0 if unknown; parts grow with it.

        Raises:
            StoreError: nothing has been committed.
            Exception: that of the stream; its cause is a StoreError if the store refuses the abort.
        """
        is_file = self._scheme == "file"
        plan = _FILE_PLAN if is_file else plan_parts(self._scheme, self.config.part_bytes, expected_bytes)
        counted = _Counted(chunks, plan)
        with self._errors(key, counted):
            self._remove_leftovers(key)
            is_whole, content = _first_part(counted, plan.part_bytes)
            result = obstore.put(
                self._store,
                self._prefix + key,
                content,
                attributes=self._attributes(content_type),
                use_multipart=not is_whole,
                chunk_size=plan.part_bytes,
                max_concurrency=plan.in_flight,
            )
        return WrittenObject(self._prefix + key, self.uri(key), counted.bytes, result["e_tag"])

    def write_bytes(self, key: str, data: bytes, content_type: str) -> WrittenObject:
        """Write a small object at once. Raises StoreError."""
        with self._errors(key):
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
        with self._errors(key):
            return bytes(obstore.get(self._store, self._prefix + key).bytes())

    def stream(self, key: str) -> Iterator[bytes]:
        """The content of a large object, some MB at a time; one piece is read ahead.

        Pieces, because a request for all of it would time out when its reader is slow. In a thread of its
        own, because an upload that consumes this may not wait for another request of obstore's.

        Raises:
            ObjectNotFoundError, StoreError: a piece could not be read.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
            size = pool.submit(self._size, key).result()
            starts = range(0, size, _READ_CHUNK_BYTES)
            ahead = deque(pool.submit(self._piece, key, start, size) for start in starts[:1])
            for start in starts[1:]:
                ahead.append(pool.submit(self._piece, key, start, size))
                yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _size(self, key: str) -> int:
        with self._errors(key):
            return obstore.head(self._store, self._prefix + key)["size"]

    def _piece(self, key: str, start: int, size: int) -> bytes:
        length = min(_READ_CHUNK_BYTES, size - start)
        with self._errors(key):
            return bytes(obstore.get_range(self._store, self._prefix + key, start=start, length=length))

    def end(self, key: str, length: int) -> ObjectEnd:
        """The last `length` bytes of an object, or all of a smaller one.

        Raises:
            ObjectNotFoundError: there is no such object.
            StoreError: it could not be read, or was replaced meanwhile.
        """
        with self._errors(key):
            meta = obstore.head(self._store, self._prefix + key)
            size, e_tag = meta["size"], meta["e_tag"]
            if size == 0:  # which has no range
                return ObjectEnd(b"", 0, e_tag, None)
            options: GetOptions = {"range": (max(0, size - length), size), "if_match": e_tag}
            result = obstore.get(self._store, self._prefix + key, options=options)
            content_type = result.attributes.get("Content-Type")
            return ObjectEnd(bytes(result.bytes()), size, e_tag, content_type)

    def copy(self, key: str, to: str) -> None:
        """Have the store copy an object, over what is at `to`. S3 refuses objects of more than 5 GiB.

        Raises ObjectNotFoundError, StoreError.
        """
        with self._errors(key):
            obstore.copy(self._store, self._prefix + key, self._prefix + to)

    def e_tag(self, key: str) -> str | None:
        """The entity tag of the object as it is now. Raises ObjectNotFoundError, StoreError."""
        with self._errors(key):
            return obstore.head(self._store, self._prefix + key)["e_tag"]

    def modified_at(self, key: str) -> datetime:
        """When the object was written, by the store's clock. Raises ObjectNotFoundError, StoreError."""
        with self._errors(key):
            return obstore.head(self._store, self._prefix + key)["last_modified"]

    def delete(self, key: str) -> None:
        """Delete an object. Raises StoreError."""
        with self._errors(key):
            if self.config.scheme == "az" and self.config.sas_token and not self.config.account_key:
                self._signed_deletes.delete(self._prefix + key)
            else:
                obstore.delete(self._store, self._prefix + key)

    def keys(self, below: str, after: str | None = None) -> list[str]:
        """Keys that start with the folder `below`, sorted; only those greater than `after`.

        Raises StoreError.
        """
        offset = None if after is None else self._prefix + after
        with self._errors(below):
            pages = obstore.list(self._store, prefix=self._folder(below), offset=offset)
            found = [meta["path"] for page in pages for meta in page]
        return sorted(path.removeprefix(self._prefix) for path in found)

    def folders(self, below: str) -> list[str]:
        """Names of the folders directly in the folder `below`, sorted. Raises StoreError."""
        with self._errors(below):
            listed = obstore.list_with_delimiter(self._store, prefix=self._folder(below))
            found = listed["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def whole_key(self, key: str) -> str:
        """The key in the bucket, prefix included."""
        return self._prefix + key

    def uri(self, key: str) -> str:
        """The object's URI, for people and for readers such as DuckDB."""
        if self._scheme == "file":
            return f"file://{Path(self.config.path).absolute()}/{key}"
        return f"{self._scheme}://{self.config.bucket}/{self._prefix}{key}"

    def _folder(self, below: str) -> str | None:
        return (self._prefix + below).rstrip("/") or None

    @contextmanager
    def _errors(self, key: str, stream: "_Counted | None" = None) -> Iterator[None]:
        try:
            with store_errors(self.uri(key)):
                yield
        except Exception as error:
            if stream is not None and stream.error is not None:
                # With what the store said where it would not abort the upload either.
                refused_abort = error if error is not stream.error else None
                raise stream.error from refused_abort
            if self._guard is not None and (refusal := self._guard.take_refusal()):
                raise refused(self.uri(key), refusal) from error
            raise

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
        directory = (Path(self.config.path) / key).parent
        if not directory.is_dir():
            return
        abandoned = time.time() - _ABANDONED_S
        for entry in os.scandir(directory):
            if _STAGED.search(entry.name):
                with suppress(FileNotFoundError):  # its writer has finished meanwhile
                    if entry.stat().st_mtime < abandoned:
                        os.unlink(entry)


def _first_part(chunks: Iterator[bytes], part_bytes: int) -> tuple[bool, Iterator[bytes]]:
    """Whether less than a part is all there is, and the same chunks; as many as make a part are read."""
    first: deque[bytes] = deque()
    size = 0
    for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size >= part_bytes:
            return False, chain(_drained(first), chunks)
    return True, iter(first)


def _drained(chunks: deque[bytes]) -> Iterator[bytes]:
    """The chunks, none of which is kept in memory once it has been taken."""
    while chunks:
        yield chunks.popleft()


class _Counted(Iterator[bytes]):
    """Counts the bytes and remembers the exception of a stream while another library consumes it."""

    def __init__(self, chunks: Iterator[bytes], plan: PartPlan) -> None:
        self._chunks = chunks
        self._plan = plan
        self.bytes = 0
        self.error: BaseException | None = None

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
            self.bytes += len(chunk)
            if self._plan.max_bytes is not None and self.bytes > self._plan.max_bytes:
                raise ObjectTooLargeError(
                    f"the object is larger than {self._plan.max_bytes} bytes, all that fits into its parts "
                    f"of {self._plan.part_bytes} bytes; raise the destination's part_bytes"
                )
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        return chunk
