"""Exports one table of one window: a verified object in the store, or nothing."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, BinaryIO

from langfuse_export import sql
from langfuse_export.errors import CancelledError, VerificationError
from langfuse_export.estimate import expected_bytes
from langfuse_export.formats import Content, Encoding
from langfuse_export.manifest import ManifestColumn, ManifestFile
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import EPOCH, Window, iso
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.clickhouse import ClickHouse, Query, QueryComment

_FILE_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ExportedTable:
    """A committed object.

    Attributes:
        table: the catalog's name of the table.
        uri: where the object is.
        e_tag: the store's tag of exactly this content.
        source_rows: rows that ClickHouse counted in the window.
        file: the object's entry in the manifest.
    """

    table: str
    uri: str
    e_tag: str | None
    source_rows: int
    file: ManifestFile


class Cancellation:
    """Stops the exports of a window: streams end at their next chunk, their queries are killed."""

    def __init__(self, source: ClickHouse) -> None:
        self._source = source
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._queries: set[str] = set()

    def cancel(self) -> None:
        """Cancel what runs and what has not started."""
        self._cancelled.set()
        with self._lock:
            running = list(self._queries)
        for query_id in running:
            self._source.kill(query_id)

    def check(self) -> None:
        """Raises CancelledError once cancelled."""
        if self._cancelled.is_set():
            raise CancelledError("the export was cancelled")

    def watch(self, query: Query) -> Query:
        """Have the query killed on `cancel`."""
        self.check()
        with self._lock:
            self._queries.add(query.query_id)
        return query

    def forget(self, query: Query) -> None:
        """The query has ended."""
        with self._lock:
            self._queries.discard(query.query_id)


@dataclass(frozen=True)
class SourceSummary:
    """What ClickHouse has in a window; times are microseconds since the epoch, 0 without rows.

    Attributes:
        fingerprint: which version of which rows there are; 0 without rows.
        read_at_ms: ClickHouse's clock when it began to read, ms since the epoch.
    """

    rows: int
    min_us: int
    max_us: int
    fingerprint: int
    read_at_ms: int


@dataclass(frozen=True)
class WindowFile:
    """A window's rows on local disk, read together with those of other windows.

    Attributes:
        file: the object's content before compression; an open file without a name.
        counted: what ClickHouse counted in the window before the rows were read.
        query_id: the query that read them.
    """

    file: BinaryIO
    counted: SourceSummary
    query_id: str


@dataclass(frozen=True)
class TableExport:
    """The export of one table of one window; `on_disk` if its rows have been read already."""

    source: ClickHouse
    store: BlobStore
    project: ProjectExport
    table: Table
    window: Window
    run_id: str | None
    cancellation: Cancellation
    on_bytes: Callable[[int], None]
    on_disk: WindowFile | None = None

    def run(self) -> ExportedTable:
        """Stream, count, verify, commit.

        Raises:
            VerificationError: the stream was not the whole result; nothing is committed.
            ClickHouseError, StoreError: one side failed; nothing is committed.
            CancelledError: the run was cancelled; nothing is committed.
        """
        started = time.monotonic()
        before = self.on_disk.counted if self.on_disk else self.summarise()
        expected = self._expected_bytes(before.rows)
        encoding = self.project.encoding
        query = Query(
            encoding.sql(self.table),
            self._comment("export"),
            sql.parameters(self.table, self.project.project_id, self.window),
            {**sql.FINAL_SETTINGS, **encoding.settings(self.project.row_group_rows)},
            secrets=sql.secrets(self.table),
        )
        stream = _VerifiedStream(encoding, self.table, self.cancellation, self.on_bytes)
        with self._content(query) as chunks:
            key = self.project.object_key(self.table, self.window)
            checked = stream.pass_through(chunks, lambda rows: self._agree(rows, before))
            written = self.store.write(key, checked, encoding.content_type, expected)
        summary = stream.agreed
        low, high = stream.times or (summary.min_us, summary.max_us)
        has_rows = stream.rows > 0
        file = ManifestFile(
            key=written.key,
            table=self.table.path,
            file_type=encoding.format.upper(),
            format=encoding.manifest_name,
            compressed=encoding.compression != "none",
            content_type=encoding.content_type,
            size_bytes=written.bytes,
            row_count=stream.rows,
            sha256=stream.sha256,
            time_column=self.table.time_column,
            min_time=self._iso(low) if has_rows else None,
            max_time=self._iso(high) if has_rows else None,
            query_id=self.on_disk.query_id if self.on_disk else query.query_id,
            duration_ms=round((time.monotonic() - started) * 1000),
            # Of the first look, whatever the stream agreed with: later changes may not be in it.
            read_at=iso(EPOCH + timedelta(milliseconds=before.read_at_ms)),
            source_fingerprint=f"{before.fingerprint:016x}",
            where=self.table.chosen_rows or None,
            columns=[ManifestColumn.of(column) for column in self.table.columns],
        )
        return ExportedTable(self.table.name, written.uri, written.e_tag, summary.rows, file)

    @contextmanager
    def _content(self, query: Query) -> Iterator[Iterator[bytes]]:
        """The bytes of the file, from ClickHouse or from disk."""
        if self.on_disk is not None:
            file = self.on_disk.file
            file.seek(0)
            yield iter(lambda: file.read(_FILE_CHUNK_BYTES), b"")
            return
        self.cancellation.watch(query)
        try:
            with self.source.stream(query, self.project.encoding.clickhouse_format) as chunks:
                yield chunks
        finally:
            self.cancellation.forget(query)

    def summarise(self) -> SourceSummary:
        """Count the window's rows in ClickHouse, without reading their payload."""
        query = Query(
            sql.summary(self.table),
            self._comment("count"),
            sql.parameters(self.table, self.project.project_id, self.window),
            sql.FINAL_SETTINGS,
        )
        [summary] = self._ask(query)
        return SourceSummary(*summary)

    def _ask(self, query: Query) -> list[tuple[Any, ...]]:
        self.cancellation.watch(query)
        try:
            return self.source.rows(query)
        finally:
            self.cancellation.forget(query)

    def _expected_bytes(self, rows: int) -> int:
        if self.on_disk is not None:
            return os.fstat(self.on_disk.file.fileno()).st_size
        return expected_bytes(self.table, rows, self._row_bytes)

    def _row_bytes(self, one_in: int) -> float:
        parameters = sql.parameters(self.table, self.project.project_id, self.window)
        [(row_bytes,)] = self._ask(
            Query(sql.row_bytes(self.table), self._comment("estimate"), {**parameters, "one_in": one_in})
        )
        return row_bytes

    def _agree(self, rows: int, before: SourceSummary) -> SourceSummary:
        """Compare the rows in the stream with ClickHouse's own count.

        Rows may arrive or be deleted while the window streams, so a difference counts only if a second
        count does not explain it.
        """
        if rows == before.rows:
            return before
        after = self.summarise()
        if min(before.rows, after.rows) <= rows <= max(before.rows, after.rows):
            return after
        raise VerificationError(
            f"the stream holds {rows} rows, ClickHouse counts {before.rows} before and {after.rows} after it"
        )

    def _comment(self, purpose: str) -> QueryComment:
        return QueryComment(
            purpose=purpose,
            project=self.project.project_id,
            table=self.table.name,
            window=str(self.window),
            run=self.run_id,
        )

    def _iso(self, microseconds: int) -> str:
        moment = EPOCH + timedelta(microseconds=microseconds)
        precision = "milliseconds" if self._is_milliseconds() else "microseconds"
        return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")

    def _is_milliseconds(self) -> bool:
        return "(3)" in self.table.column(self.table.time_column).type


class _VerifiedStream:
    """Passes bytes on while it counts, sums and checks them; ends in an exception instead of a bad end."""

    def __init__(
        self,
        encoding: Encoding,
        table: Table,
        cancellation: Cancellation,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._inspector = encoding.inspector(table.time_column)
        self._compressor = encoding.compressor()
        self._cancellation = cancellation
        self._on_bytes = on_bytes
        self._unit_us = 1000 if "(3)" in table.column(table.time_column).type else 1
        self._digest = hashlib.sha256()
        self._content: Content | None = None
        self._agreed: SourceSummary | None = None

    def pass_through(self, chunks: Iterator[bytes], agree: Callable[[int], SourceSummary]) -> Iterator[bytes]:
        """The bytes of the object. The store commits only if this ends without an exception."""
        for chunk in chunks:
            self._cancellation.check()
            self._inspector.feed(chunk)
            self._on_bytes(len(chunk))
            yield from self._out(self._compressor.compress(chunk))
        self._content = self._inspector.finish()
        self._agreed = agree(self._content.rows)
        yield from self._out(self._compressor.flush())
        self._cancellation.check()

    def _out(self, data: bytes) -> Iterator[bytes]:
        if data:
            self._digest.update(data)
            yield data

    @property
    def rows(self) -> int:
        """Rows in the stream."""
        assert self._content is not None
        return self._content.rows

    @property
    def times(self) -> tuple[int, int] | None:
        """Smallest and largest time in the file, microseconds since the epoch, where the file tells."""
        assert self._content is not None
        if self._content.times is None:
            return None
        low, high = self._content.times
        return low * self._unit_us, high * self._unit_us

    @property
    def agreed(self) -> SourceSummary:
        """ClickHouse's count that the stream agrees with."""
        assert self._agreed is not None
        return self._agreed

    @property
    def sha256(self) -> str:
        """SHA-256 of the object, hex."""
        return self._digest.hexdigest()
