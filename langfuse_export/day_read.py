"""Reads a day once and splits it into its windows.

On tables that ClickHouse sorts by day and then by id, the query of an hour reads the whole day. So a run over
many windows of such a table asks for the day, with each row's window beside it, as Arrow; the rows go into
one file per window on local disk, from where each becomes an object like any other, counted and verified.

What that takes, and what other ways would, is in docs/benchmarks.md.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
import structlog

from langfuse_export import sql
from langfuse_export.errors import PricesError
from langfuse_export.exporter import WindowExporter
from langfuse_export.formats import Encoding, FileFormat
from langfuse_export.resources import ExportOptions
from langfuse_export.table_export import Cancellation, SourceSummary, WindowFile
from langfuse_export.tables import Table
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import ClickHouseError, Query, QueryComment

log = structlog.get_logger()

_INDEX = sql.WINDOW_INDEX
_READ_BYTES = 1 << 20


@contextmanager
def day_files(
    exporter: WindowExporter, reads: Sequence[tuple[Table, Sequence[Window]]], options: ExportOptions
) -> Iterator[Mapping[Window, Mapping[str, WindowFile]]]:
    """Read tables for consecutive windows of a day, each table once; the files are gone afterwards.

    A table that cannot be read this way, for want of memory, time, disk space or prices, is left out: its
    windows are read one by one.

    Args:
        exporter: whose project, source and progress they are.
        reads: tables, each with its windows.
        options: where files go and how much memory is used.
    """
    files: dict[Window, dict[str, WindowFile]] = defaultdict(dict)
    options.scratch.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for table, windows in reads:
            try:
                found = DayRead(exporter, exporter.prices.put_into(table), windows, options).files(stack)
            except (ClickHouseError, OSError, pa.ArrowException, PricesError) as error:
                day = str(windows[0].start.date())
                log.warning("blob_export_day_read_failed", table=table.name, day=day, error=str(error))
                continue
            for window, file in found.items():
                files[window][table.name] = file
        yield files


@dataclass(frozen=True)
class DayRead:
    """One read of a table for consecutive windows of a day."""

    exporter: WindowExporter
    table: Table
    windows: Sequence[Window]
    options: ExportOptions

    @cached_property
    def _cancellation(self) -> Cancellation:
        return Cancellation(self.exporter.source)

    def files(self, stack: ExitStack) -> dict[Window, WindowFile]:
        """The rows of each window, in files that are gone when the stack is closed.

        Raises:
            ClickHouseError: ClickHouse refused or broke the query.
            OSError: the files cannot be written.
        """
        counted = self._count()
        query = self._query(self.exporter.project.encoding.sql_by_window(self.table), "export-day")
        files = [stack.enter_context(_scratch_file(self.options.scratch)) for _ in self.windows]
        self._cancellation.watch(query)
        try:
            with self.exporter.source.stream(query, "ArrowStream") as chunks:
                self._split(chunks, files)
        finally:
            self._cancellation.forget(query)
        return {
            window: WindowFile(files[index], counted[index], query.query_id)
            for index, window in enumerate(self.windows)
        }

    def _count(self) -> list[SourceSummary]:
        """What each window holds, in one query that reads no payload."""
        query = self._cancellation.watch(self._query(sql.summary_by_window(self.table), "count"))
        try:
            return [SourceSummary(*summary) for summary in self.exporter.source.rows(query)]
        finally:
            self._cancellation.forget(query)

    def _query(self, text: str, purpose: str) -> Query:
        period = Window(self.windows[0].start, self.windows[-1].end)
        project_id = self.exporter.project.project_id
        comment = QueryComment(purpose, project_id, self.table.name, str(period), self.exporter.run_id)
        length_ms = self.windows[0].end_ms - self.windows[0].start_ms
        parameters = {
            **sql.parameters(self.table, project_id, period),
            "length_ms": length_ms,
            "windows": len(self.windows),
        }
        settings = {**sql.FINAL_SETTINGS, **sql.TEXT_SETTINGS, **ARROW_SETTINGS}
        secrets, lists = sql.secrets(self.table), sql.lists(self.table)
        return Query(text, comment, parameters, settings, secrets=secrets, lists=lists)

    def _split(self, chunks: Iterator[bytes], files: Sequence[BinaryIO]) -> None:
        """Spread the rows over the files, and finish each."""
        source = io.BufferedReader(_Readable(self._watched(chunks)), _READ_BYTES)
        reader = pa.ipc.open_stream(source)
        schema = reader.schema.remove(reader.schema.get_field_index(_INDEX))
        writers = [self._writer(file, schema) for file in files]
        held = _Held(writers, self.options.catchup_buffer_bytes)
        for batch in reader:
            held.add(batch)
        # Arrow stops at its own end of the stream; an exception of ClickHouse would come after it.
        while source.read(_READ_BYTES):
            pass
        held.flush()
        for writer in writers:
            writer.close()

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._cancellation.check()
            self.exporter.progress.bytes_read(len(chunk))
            yield chunk

    def _writer(self, file: BinaryIO, schema: pa.Schema) -> "_Writer":
        if self.exporter.project.encoding.format is FileFormat.PARQUET:
            return _ParquetWriter(file, schema, self.exporter.project.row_group_rows)
        return _TextWriter(file, self.exporter.project.encoding, self.table)


@contextmanager
def _scratch_file(directory: Path) -> Iterator[BinaryIO]:
    """A file without a name, so that a killed process leaves nothing behind."""
    with TemporaryFile(dir=directory) as file:
        yield file


class _Writer(Protocol):
    """A window's file in the making."""

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Append what ends the file."""
        ...


class _ParquetWriter:
    """Types, nullability and encodings as ClickHouse itself writes them."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, row_group_rows: int) -> None:
        self._row_group_rows = row_group_rows
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "store_schema": False}
        self._writer = pq.ParquetWriter(file, schema, **options)

    def write(self, rows: pa.Table) -> None:
        """See `_Writer.write`."""
        self._writer.write_table(rows, row_group_size=self._row_group_rows)

    def close(self) -> None:
        """See `_Writer.close`."""
        self._writer.close()


class _TextWriter:
    """Rows arrive as ClickHouse wrote them; what is before, between and after them is added here."""

    def __init__(self, file: BinaryIO, encoding: Encoding, table: Table) -> None:
        self._file = file
        self._is_array = encoding.format is FileFormat.JSON
        self._is_empty = True
        if encoding.format is FileFormat.CSV:
            file.write(",".join(f'"{name}"' for name in table.column_names).encode() + b"\n")
        if self._is_array:
            file.write(b"[\n")

    def write(self, rows: pa.Table) -> None:
        """See `_Writer.write`."""
        for lines in rows.column(0).chunks:
            text = _bytes_of(lines)
            if self._is_array and text:
                # A JSON string holds no newline, so this is where one row ends and the next begins.
                text = text[:-1].replace(b"}\n{", b"},\n{")
                text = text if self._is_empty else b",\n" + text
            self._file.write(text)
            self._is_empty = self._is_empty and not text

    def close(self) -> None:
        """See `_Writer.close`."""
        if self._is_array:
            self._file.write(b"\n]\n")


class _Held:
    """Rows in memory until there are enough of them to be spread over the windows and written."""

    def __init__(self, writers: Sequence[_Writer], limit_bytes: int) -> None:
        self._writers = writers
        self._limit_bytes = limit_bytes
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= self._limit_bytes:
            self.flush()

    def flush(self) -> None:
        rows = pa.Table.from_batches(self._batches) if self._batches else None
        self._batches, self._bytes = [], 0
        if rows is None:
            return
        index = rows.column(_INDEX)
        rows = rows.drop_columns([_INDEX])
        # Sorting by window would be one step, but need the memory of all rows twice more.
        for window in index.unique().to_pylist():
            self._writers[window].write(
                rows.filter(pc.call_function("equal", [index, pa.scalar(window, index.type)]))
            )


class _Readable(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _bytes_of(lines: pa.Array) -> bytes:
    """The texts of a string array one after the other, without making Python objects of them."""
    if len(lines) == 0:
        return b""
    _, offsets, data = lines.buffers()
    bounds = memoryview(offsets).cast("i")
    return memoryview(data)[bounds[lines.offset] : bounds[lines.offset + len(lines)]].tobytes()


# Strings as they are, valid UTF-8 or not; blocks that are bounded by bytes as in `formats`.
ARROW_SETTINGS: Mapping[str, sql.Scalar] = {
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_compression_method": "lz4_frame",
    "max_block_size": 8192,
    "preferred_block_size_bytes": 4 << 20,
}
