"""Exports one table of one window: a verified object in the store, or nothing."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from functools import cached_property
from typing import BinaryIO

from langfuse_export.emptied import standing_tag
from langfuse_export.errors import TooEarlyError, is_too_heavy
from langfuse_export.exported_table import ExportedTable
from langfuse_export.inspectors import Content
from langfuse_export.manifest import ManifestColumn, ManifestFile
from langfuse_export.part_reader import LostPartError, PartReader
from langfuse_export.parts import PartSize
from langfuse_export.server_transfer import ServerTransfer, StagedWindow
from langfuse_export.staging import Plan, Staging
from langfuse_export.verified_stream import Verified, VerifiedStream
from langfuse_export.window_source import SourceSummary, WindowSource
from langfuse_export.windows import EPOCH, iso
from langfuse_worker.blobstore import BlobStore, WrittenObject
from langfuse_worker.clickhouse import ClickHouseError, Query

_FILE_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class WindowFile:
    """A window's rows on local disk, read together with those of other windows.

    Attributes:
        file: the object's content before compression; an open file without a name.
        counted: what ClickHouse counted in the window before the rows were read.
        query_id: the query that read them.
        has_parts: whether an attempt that read the window by itself has left parts of it in the store.
    """

    file: BinaryIO
    counted: SourceSummary
    query_id: str
    has_parts: bool = False

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return os.fstat(self.file.fileno()).st_size


# The rows of a window that were read together with those of other windows.
WindowRows = WindowFile | StagedWindow


def _ignore(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class TableExport:
    """The export of one table of one window.

    Attributes:
        source: the table and the window.
        on_bytes: hears of bytes that came from ClickHouse.
        read_ahead: the window's rows, if they have been read already.
        on_split: hears of an error that made the window be read in parts, and of their number.
        part_size: what the table's last window left.
    """

    source: WindowSource
    store: BlobStore
    on_bytes: Callable[[int], None]
    read_ahead: WindowRows | None = None
    on_split: Callable[[ClickHouseError, int], None] = _ignore
    part_size: PartSize | None = None

    def run(self) -> ExportedTable:
        """Stream, count, verify, commit; in parts, if ClickHouse cannot do it at once.

        Raises:
            TooEarlyError: by ClickHouse's clock the window has not ended; nothing is committed.
            VerificationError: the stream was not the whole result; nothing is committed.
            TooHeavyError: even small parts are too heavy for ClickHouse; nothing is committed.
            ClickHouseError, StoreError: one side failed; nothing is committed.
            CancelledError: the run was cancelled; nothing is committed.
        """
        started = time.monotonic()
        read = self.read_ahead
        before = read.counted if read else self.source.summarise()
        if before.read_at_ms < self.source.window.end_ms:
            clock = iso(EPOCH + timedelta(milliseconds=before.read_at_ms))
            raise TooEarlyError(f"it is {clock} by ClickHouse's clock; this machine's must be ahead")
        if self.source.project.skip_empty and before.rows == 0:
            left = standing_tag(self.store, self._key)
            if left is not None:  # counted after the object was there, so that it cannot be what is new
                read, before = None, self.source.summarise()
            if before.rows == 0:
                return self._leave_empty(started, before, left)
        if isinstance(read, WindowFile):
            return self._export_from_disk(started, read)
        if isinstance(read, StagedWindow):
            return self._export_staged(started, read)
        return self._export_from_source(started, before)

    def _export_from_source(self, started: float, before: SourceSummary) -> ExportedTable:
        plan = self._parts.begin(before.rows, self.part_size)
        if plan is None:
            query = self.source.query(rows=before.rows)
            try:
                return self._export_at_once(started, before, query)
            except ClickHouseError as error:
                if not is_too_heavy(error):
                    raise
                plan = self._parts.halve(None, None, query, error)
        return self._export_in_parts(started, before, plan)

    def _export_from_disk(self, started: float, read: WindowFile) -> ExportedTable:
        stream = self._verified_stream(self.on_bytes)
        read.file.seek(0)
        chunks = iter(lambda: read.file.read(_FILE_CHUNK_BYTES), b"")
        written = self._write(stream, chunks, read.counted, read.bytes)
        if read.has_parts:
            self._staging.remove()
        return self._exported(started, read.counted, stream.verified, written, read.query_id)

    def _export_staged(self, started: float, staged: StagedWindow) -> ExportedTable:
        if not staged.has_object:
            return self._export_by_server(started, staged.counted, self.source.query_without_rows())
        staged.is_taken = True
        written, verified = self._server_transfer.put_in_place(staged.key, self._key, staged.counted)
        self.on_bytes(written.bytes)
        return self._exported(started, staged.counted, verified, written, staged.query_id)

    def _export_at_once(self, started: float, before: SourceSummary, query: Query) -> ExportedTable:
        if self.source.project.named_collection is not None:
            return self._export_by_server(started, before, query)
        expected_bytes = self.source.expected_bytes(before.rows)
        stream = self._verified_stream(self.on_bytes)
        with self.source.stream(query) as chunks:
            written = self._write(stream, chunks, before, expected_bytes)
        return self._exported(started, before, stream.verified, written, query.query_id)

    def _export_by_server(self, started: float, before: SourceSummary, query: Query) -> ExportedTable:
        written, verified = self._server_transfer.run(query, self._key, before)
        self.on_bytes(written.bytes)
        return self._exported(started, before, verified, written, query.query_id)

    def _export_in_parts(self, started: float, before: SourceSummary, plan: Plan) -> ExportedTable:
        plan = self._parts.read(plan, before.rows)
        stream = self._verified_stream(_ignore)
        expected_bytes = sum(part.bytes for part in plan.staged)
        try:
            written = self._write(stream, self._parts.joined(plan), before, expected_bytes)
        except LostPartError as error:
            self._parts.give_up(plan, error.planned)
            raise
        self._staging.remove()
        return self._exported(started, before, stream.verified, written, plan.staged[0].query_id, plan)

    def _leave_empty(self, started: float, counted: SourceSummary, left: str | None) -> ExportedTable:
        """Nothing is written. What is left of earlier revisions goes once the manifest says so."""
        # What a killed attempt of the server's left has no plan.
        if self.source.project.named_collection is not None or self._staging.load() is not None:
            self._staging.remove()
        verified = Verified(Content(rows=0), counted, None, self.source.project.encoding.content_type)
        nothing = WrittenObject(self.store.whole_key(self._key), "", 0, left)
        exported = self._exported(started, counted, verified, nothing, counted.query_id)
        file = exported.file.model_copy(update={"has_object": False, "parts": 0})
        return replace(exported, uri=None, file=file)

    def _verified_stream(self, on_bytes: Callable[[int], None]) -> VerifiedStream:
        return VerifiedStream(
            self.source.project.encoding, self.source.table, self.source.cancellation, on_bytes
        )

    def _write(
        self, stream: VerifiedStream, chunks: Iterator[bytes], before: SourceSummary, expected_bytes: int
    ) -> WrittenObject:
        checked = stream.pass_through(chunks, lambda rows: self.source.agree(rows, before))
        return self.store.write(self._key, checked, self.source.project.encoding.content_type, expected_bytes)

    @property
    def _key(self) -> str:
        return self.source.project.object_key(self.source.table, self.source.window)

    @property
    def _server_transfer(self) -> ServerTransfer:
        assert self.source.project.named_collection is not None
        return ServerTransfer(self.source, self._staging, self.source.project.named_collection)

    @cached_property
    def _staging(self) -> Staging:
        return Staging(self.store, self.source.project.staging_folder(self.source.table, self.source.window))

    @cached_property
    def _parts(self) -> PartReader:
        return PartReader(self.source, self._staging, self.on_bytes, self.on_split)

    def _exported(
        self,
        started: float,
        before: SourceSummary,
        verified: Verified,
        written: WrittenObject,
        query_id: str,
        plan: Plan | None = None,
    ) -> ExportedTable:
        encoding, summary, content = self.source.project.encoding, verified.agreed, verified.content
        low, high = self._times(content) or (summary.min_us, summary.max_us)
        has_rows = content.rows > 0
        prices_as_of = plan.prices_as_of if plan else self.source.prices_as_of
        # Of the first look, whatever the stream agreed with: later changes may not be in it.
        read_at = EPOCH + timedelta(milliseconds=before.read_at_ms)
        file = ManifestFile(
            key=written.key,
            table=self.source.table.path,
            file_type=encoding.format.upper(),
            format=encoding.manifest_name,
            compressed=encoding.compression != "none",
            content_type=verified.content_type,
            size_bytes=written.bytes,
            row_count=content.rows,
            sha256=verified.sha256,
            time_column=self.source.table.time_column,
            min_time=self._iso(low) if has_rows else None,
            max_time=self._iso(high) if has_rows else None,
            query_id=query_id,
            duration_ms=round((time.monotonic() - started) * 1000),
            read_at=iso(min([read_at, *(part.read_at for part in plan.staged)] if plan else [read_at])),
            source_fingerprint=f"{before.fingerprint:016x}",
            parts=len(plan.parts) if plan else 1,
            query_ids=plan.queries if plan else None,
            prices_as_of=iso(prices_as_of) if prices_as_of else None,
            where=self.source.table.chosen_rows or None,
            columns=[ManifestColumn.of(column) for column in self.source.table.columns],
        )
        size = self._next_part_size(plan)
        return ExportedTable(self.source.table.name, written.uri, written.e_tag, summary.rows, file, size)

    def _next_part_size(self, plan: Plan | None) -> PartSize | None:
        if plan is None:
            return self.part_size
        if plan.reason is None and self.part_size is not None:
            return self.part_size.after_parts()
        return PartSize(max(1, plan.rows_that_worked))

    def _times(self, content: Content) -> tuple[int, int] | None:
        """Of the file's rows, microseconds; None where the file does not tell.

        Their unit is that of ClickHouse's column, whatever its type: in no other do they lie in the window.
        """
        for nanoseconds in (1_000_000, 1_000, 1) if content.times else ():
            low, high = (time * nanoseconds // 1_000 for time in content.times or ())
            if self.source.window.start_ms * 1_000 <= low <= high < self.source.window.end_ms * 1_000:
                return low, high
        return None

    def _iso(self, microseconds: int) -> str:
        moment = EPOCH + timedelta(microseconds=microseconds)
        is_rounded = self.source.table.has_millisecond_time and microseconds % 1_000 == 0
        precision = "milliseconds" if is_rounded else "microseconds"
        return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
