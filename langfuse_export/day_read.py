"""Reads a day once and splits it into its windows.

On tables that ClickHouse sorts by day and then by id, the query of an hour reads the whole day. So a run over
many windows of such a table asks for the day, with each row's window beside it, as Arrow; the rows go into
one file per window on local disk, from where each becomes an object like any other, counted and verified.

What that takes, and what other ways would, is in docs/benchmarks.md.
"""

import io
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from langfuse_export import sql
from langfuse_export.day import Day, read_together
from langfuse_export.errors import VerificationError
from langfuse_export.exporter import WindowExporter
from langfuse_export.formats import TEXT_SETTINGS, Encoding, FileFormat, ParquetCodec
from langfuse_export.resources import ExportOptions
from langfuse_export.staging import started_folders
from langfuse_export.table_export import WindowFile
from langfuse_export.tables import Table
from langfuse_export.window_source import SourceSummary
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import Scalar

_INDEX = sql.WINDOW_INDEX
_READ_BYTES = 1 << 20


@contextmanager
def day_files(
    exporter: WindowExporter, reads: Sequence[tuple[Table, Sequence[Window]]], options: ExportOptions
) -> Iterator[Mapping[Window, Mapping[str, WindowFile]]]:
    """Read tables for consecutive windows of a day, each table once; the files are gone afterwards.

    Args:
        exporter: whose project, source and progress they are.
        reads: tables, each with its windows.
        options: where files go and how much memory is used.
    """
    started = started_folders(exporter.store)
    with ExitStack() as stack:
        yield read_together(
            exporter, reads, lambda day, counted: DayRead(day, options, started).files(stack, counted)
        )


@dataclass(frozen=True)
class DayRead:
    """One read of a day.

    Attributes:
        started: folders in which an attempt has left parts of a window.
    """

    day: Day
    options: ExportOptions
    started: Set[str]

    def files(self, stack: ExitStack, counted: Sequence[SourceSummary]) -> dict[Window, WindowFile]:
        """The rows of each window, in files that are gone when the stack is closed; `counted` is its count.

        Raises:
            ClickHouseError: ClickHouse refused or broke the query.
            VerificationError: the rows are not whole.
            OSError: the files cannot be written.
        """
        day = self.day
        settings = {**TEXT_SETTINGS, **ARROW_SETTINGS}
        query = day.query(self._encoding.sql_by_window(day.table), "export-day", {}, settings)
        self.options.scratch.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:  # a table that fails leaves its room to the next one
            files = [opened.enter_context(_scratch_file(self.options.scratch)) for _ in day.windows]
            with day.exporter.source.stream(query, "ArrowStream") as chunks:
                try:
                    self._split(chunks, files)
                except pa.ArrowException as error:
                    raise VerificationError(f"ClickHouse sent no whole Arrow stream: {error}") from error
            stack.push(opened.pop_all())
        return {
            window: WindowFile(
                files[index],
                counted[index],
                query.query_id,
                has_parts=day.exporter.project.staging_folder(day.table, window) in self.started,
            )
            for index, window in enumerate(day.windows)
        }

    @property
    def _encoding(self) -> Encoding:
        return self.day.exporter.project.encoding

    def _split(self, chunks: Iterator[bytes], files: Sequence[BinaryIO]) -> None:
        """Spread the rows over the files, and finish each."""
        source = io.BufferedReader(_Readable(self._counted(chunks)), _READ_BYTES)
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
        for writer, file in zip(writers, files, strict=True):
            writer.close()
            file.flush()  # while there is another way if the disk is full

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.day.exporter.progress.bytes_read(len(chunk))
            yield chunk

    def _writer(self, file: BinaryIO, schema: pa.Schema) -> "_Writer":
        if self._encoding.format is FileFormat.PARQUET:
            rows = self.day.exporter.project.row_group_rows
            return _ParquetWriter(file, schema, rows, self._encoding.codec)
        return _TextWriter(file, self._encoding, self.day.table)


@contextmanager
def _scratch_file(directory: Path) -> Iterator[BinaryIO]:
    """A file without a name, so that a killed process leaves nothing behind."""
    file = TemporaryFile(dir=directory)  # noqa: SIM115
    try:
        yield file
    finally:
        with suppress(OSError):  # it tries once more to write what a full disk has refused
            file.close()


class _Writer(Protocol):
    """A window's file in the making."""

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        ...

    def close(self) -> None:
        """Append what ends the file."""
        ...


class _PyArrowWriter(pq.ParquetWriter):
    def __del__(self) -> None:
        """Nothing: pyarrow would end a file that was given up and is closed, and print a traceback."""


class _ParquetWriter:
    """Types, nullability and encodings as ClickHouse itself writes them."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, row_group_rows: int, codec: ParquetCodec) -> None:
        self._row_group_rows = row_group_rows
        options: dict[str, Any] = {"compression": codec, "use_dictionary": False, "store_schema": False}
        self._writer = _PyArrowWriter(file, schema, **options)

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


# Strings as they are, valid UTF-8 or not. Smaller blocks would take the worker longer to split.
ARROW_SETTINGS: Mapping[str, Scalar] = {
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_compression_method": "lz4_frame",
    "max_block_size": 1024,
}
