"""File formats: how ClickHouse writes them, how their bytes are counted and checked, how they are compressed.

Nothing is parsed row by row: text rows are counted by their newlines, Parquet rows by the footer.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import zstandard
from isal import isal_zlib

from langfuse_export.errors import VerificationError
from langfuse_export.parquet_footer import MAGIC, FooterError, parse_footer
from langfuse_export.parts import Part
from langfuse_export.sql import TEXT_SETTINGS, Scalar, select, select_by_window
from langfuse_export.tables import Table

# A footer takes about 100 bytes a column and row group; this is enough for some 4,000 row groups.
FOOTER_TAIL_BYTES = 16 << 20


class FileFormat(StrEnum):
    """The file formats of an export."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"
    JSON = "json"


class Compression(StrEnum):
    """Compression around a text file; Parquet compresses its own pages."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True)
class Content:
    """What a complete stream held.

    Attributes:
        rows: rows.
        times: smallest and largest value of the time column as the file has them, where the format tells.
    """

    rows: int
    times: tuple[int, int] | None = None


class Inspector(Protocol):
    """Looks at a stream as it passes and says at the end whether it was complete."""

    def feed(self, chunk: bytes) -> None:
        """See the next bytes of the uncompressed file."""
        ...

    def finish(self) -> Content:
        """Called once at the end of the stream. Raises VerificationError when the file is not whole."""
        ...


@dataclass(frozen=True)
class Encoding:
    """A file format with its compression."""

    format: FileFormat
    compression: Compression = Compression.NONE

    @property
    def extension(self) -> str:
        """File name extension without the leading dot, such as `jsonl.gz`."""
        suffix = {Compression.NONE: "", Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}
        return f"{self.format}{suffix[self.compression]}"

    @property
    def content_type(self) -> str:
        """MIME type, as Langfuse sets it."""
        if self.compression is Compression.GZIP:
            return "application/gzip"
        if self.compression is Compression.ZSTD:
            return "application/zstd"
        return {
            FileFormat.PARQUET: "application/vnd.apache.parquet",
            FileFormat.JSONL: "application/x-ndjson; charset=utf-8",
            FileFormat.CSV: "text/csv; charset=utf-8",
            FileFormat.JSON: "application/json; charset=utf-8",
        }[self.format]

    @property
    def manifest_name(self) -> str:
        """The manifest's `format`: parquet, json-raw, csv-gzip and so on."""
        if self.format is FileFormat.PARQUET:
            return "parquet"
        return f"{self.format}-{'raw' if self.compression is Compression.NONE else self.compression}"

    @property
    def clickhouse_format(self) -> str:
        """ClickHouse's FORMAT."""
        return {
            FileFormat.PARQUET: "Parquet",
            FileFormat.JSONL: "JSONEachRow",
            FileFormat.CSV: "CSVWithNames",
            FileFormat.JSON: "JSONEachRow",
        }[self.format]

    def sql(self, table: Table, part: Part | None = None) -> str:
        """The query whose result is the file, or the file of a part."""
        is_text, is_csv = self.format is not FileFormat.PARQUET, self.format is FileFormat.CSV
        return select(table, part, as_text=is_text, as_csv=is_csv)

    def sql_by_window(self, table: Table) -> str:
        """The query of the rows of several windows; text comes as one column of finished lines."""
        if self.format is FileFormat.PARQUET:
            return select_by_window(table, None)
        row_format = "CSV" if self.format is FileFormat.CSV else "JSONEachRow"
        return select_by_window(table, row_format, as_text=True, as_csv=self.format is FileFormat.CSV)

    def settings(self, row_group_rows: int) -> Mapping[str, Scalar]:
        """ClickHouse settings of the format.

        Args:
            row_group_rows: rows of a Parquet row group at most.
        """
        if self.format is FileFormat.PARQUET:
            return {**PARQUET_SETTINGS, "output_format_parquet_row_group_size": row_group_rows}
        as_array = int(self.format is FileFormat.JSON)
        return {**TEXT_SETTINGS, "output_format_json_array_of_rows": as_array}

    def inspector(self, time_column: str) -> Inspector:
        """A fresh inspector of one file."""
        if self.format is FileFormat.PARQUET:
            return ParquetInspector(time_column)
        return {
            FileFormat.JSONL: JsonLinesInspector,
            FileFormat.JSON: JsonArrayInspector,
            FileFormat.CSV: CsvInspector,
        }[self.format]()

    def compressor(self) -> "Compressor":
        """A fresh compressor of one file."""
        if self.compression is Compression.GZIP:
            stream = isal_zlib.compressobj(level=2, wbits=31)
            return Compressor(stream.compress, stream.flush)
        if self.compression is Compression.ZSTD:
            stream = zstandard.ZstdCompressor(level=3).compressobj()
            return Compressor(stream.compress, stream.flush)
        return Compressor(lambda chunk: chunk, lambda: b"")


# Rows of a trace can be hundreds of KB each: blocks and row groups are bounded by bytes as well as rows, and
# payload columns gain nothing from a dictionary.
PARQUET_SETTINGS: Mapping[str, Scalar] = {
    "output_format_parquet_compression_method": "zstd",
    "output_format_parquet_row_group_size_bytes": 128 << 20,
    "output_format_parquet_batch_size": 16,
    "output_format_parquet_max_dictionary_size": 0,
    "output_format_parquet_string_as_string": 1,
    "max_block_size": 8192,
    "preferred_block_size_bytes": 4 << 20,
}


@dataclass(frozen=True)
class Compressor:
    """Two functions: one for each chunk, one for the end of the file."""

    compress: Callable[[bytes], bytes]
    flush: Callable[[], bytes]


class ParquetInspector:
    """Keeps the head and the tail of the file and reads its footer."""

    def __init__(self, time_column: str) -> None:
        self._time_column = time_column
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """See `Inspector.feed`."""
        if len(self._head) < len(MAGIC):
            self._head += chunk[: len(MAGIC) - len(self._head)]
        self._size += len(chunk)
        self._tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes - len(self._tail[0]) >= FOOTER_TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        if self._head != MAGIC:
            raise VerificationError(f"a Parquet file starts with PAR1, this one with {self._head!r}")
        try:
            footer = parse_footer(b"".join(self._tail), self._size, self._time_column)
        except FooterError as error:
            raise VerificationError(f"{error}; {self._size} bytes arrived") from error
        if sum(footer.row_group_rows) != footer.rows:
            raise VerificationError(
                f"the footer counts {footer.rows} rows, its row groups {sum(footer.row_group_rows)}"
            )
        if footer.data_end != footer.start:
            raise VerificationError(
                f"the footer says the data is {footer.data_end} bytes long, {footer.start} bytes arrived"
            )
        if footer.time_min is None or footer.time_max is None:
            return Content(footer.rows)
        return Content(footer.rows, (footer.time_min, footer.time_max))


class _TextInspector:
    """Remembers how a text file begins and ends."""

    def __init__(self) -> None:
        self._head = b""
        self._last = b""
        self._newlines = 0

    def feed(self, chunk: bytes) -> None:
        """See `Inspector.feed`."""
        if len(self._head) < 2:
            self._head = (self._head + chunk[:2])[:2]
        self._last = (self._last + chunk[-4:])[-4:]
        self._newlines += self._count(chunk)

    def _count(self, chunk: bytes) -> int:
        return chunk.count(b"\n")

    def _expect(self, is_whole: bool) -> None:
        if not is_whole:
            raise VerificationError(
                f"the file begins with {self._head!r} and ends with {self._last!r}: cut, or an error"
            )


class JsonLinesInspector(_TextInspector):
    """One JSON object a line; JSON escapes newlines, so lines are rows."""

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        self._expect(self._head[:1] in (b"", b"{") and self._last[-2:] in (b"", b"}\n"))
        return Content(self._newlines)


class JsonArrayInspector(_TextInspector):
    """ClickHouse's array of rows: `[`, one object a line, `]`."""

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        is_empty = self._last == b"[\n\n]\n"[-4:]
        self._expect(self._head == b"[\n" and (is_empty or self._last == b"}\n]\n"))
        return Content(0 if is_empty else self._newlines - 2)


_NOT_QUOTE_OR_NEWLINE = bytes(set(range(256)) - set(b'"\n'))


class CsvInspector(_TextInspector):
    """A header and rows with every value quoted: rows are the newlines outside of quotes."""

    def __init__(self) -> None:
        super().__init__()
        self._quoted = False

    def _count(self, chunk: bytes) -> int:
        marks = chunk.translate(None, _NOT_QUOTE_OR_NEWLINE).replace(b'""', b"")
        parts = marks.split(b'"')
        outside = parts[1::2] if self._quoted else parts[0::2]
        self._quoted ^= len(parts) % 2 == 0
        return sum(len(part) for part in outside)

    def finish(self) -> Content:
        """See `Inspector.finish`."""
        self._expect(not self._quoted and self._head[:1] == b'"' and self._last[-2:] == b'"\n')
        return Content(self._newlines - 1)
