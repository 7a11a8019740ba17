"""File formats: how ClickHouse writes them, what counts and checks their bytes, how they are compressed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import zstandard
from isal import isal_zlib

from langfuse_export.errors import VerificationError
from langfuse_export.inspectors import (
    CsvInspector,
    Inspector,
    JsonArrayInspector,
    JsonLinesInspector,
    ParquetInspector,
)
from langfuse_export.parts import WHOLE, Part
from langfuse_export.sql import Render, csv_text, native, select, select_by_window, text
from langfuse_export.tables import Table
from langfuse_worker.clickhouse import JSON_LINES, Scalar


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


class ParquetCodec(StrEnum):
    """Compression of the pages of a Parquet file."""

    SNAPPY = "snappy"
    ZSTD = "zstd"


@dataclass(frozen=True)
class Encoding:
    """A file format with its compression.

    Attributes:
        compression: around a text file.
        codec: of the pages of a Parquet file.
    """

    format: FileFormat
    compression: Compression = Compression.NONE
    codec: ParquetCodec = ParquetCodec.SNAPPY

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

    def sql(self, table: Table, part: Part = WHOLE) -> str:
        """The query whose result is the file, or the file of a part."""
        return select(table, part, self._render)

    def sql_by_window(self, table: Table) -> str:
        """The query of the rows of several windows; text comes as one column of finished lines."""
        row_formats = {FileFormat.PARQUET: None, FileFormat.CSV: "CSV"}
        return select_by_window(table, row_formats.get(self.format, "JSONEachRow"), self._render)

    @property
    def _render(self) -> Render:
        return {FileFormat.PARQUET: native, FileFormat.CSV: csv_text}.get(self.format, text)

    def settings(self, row_group_rows: int, rows: int = 0, *, is_part: bool = False) -> Mapping[str, Scalar]:
        """ClickHouse settings of the format.

        Args:
            row_group_rows: rows of a Parquet row group at most.
            rows: rows of the window; many make larger row groups, so that the footer stays small.
            is_part: whether the file is one of several that are joined.
        """
        if self.format is FileFormat.PARQUET:
            group_bytes = min(max(_GROUP_BYTES, _GROUP_BYTES * rows // _ROWS_OF_SMALL_GROUPS), _LARGEST_GROUP)
            groups = {
                "output_format_parquet_row_group_size": row_group_rows,
                "output_format_parquet_row_group_size_bytes": group_bytes,
            }
            codec = {"output_format_parquet_compression_method": str(self.codec)}
            return {**PARQUET_SETTINGS, **codec, **groups, **(PARQUET_PART_SETTINGS if is_part else {})}
        as_array = int(self.format is FileFormat.JSON)
        return {**TEXT_SETTINGS, **BLOCKS, "output_format_json_array_of_rows": as_array}

    @property
    def of_parts(self) -> "Encoding":
        """How the files of parts are kept until they are joined."""
        is_parquet = self.format is FileFormat.PARQUET
        return replace(self, compression=Compression.NONE if is_parquet else Compression.ZSTD)

    def inspector(self, time_column: str) -> Inspector:
        """A fresh inspector of one file."""
        if self.format is FileFormat.PARQUET:
            return ParquetInspector(time_column)
        return {
            FileFormat.JSONL: JsonLinesInspector,
            FileFormat.JSON: JsonArrayInspector,
            FileFormat.CSV: CsvInspector,
        }[self.format]()

    def decompressed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The bytes of a file that `compressor` has compressed. Raises VerificationError."""
        if self.compression is Compression.NONE:
            return chunks
        assert self.compression is Compression.ZSTD
        return _decompressed(chunks)

    def compressor(self) -> "Compressor":
        """A fresh compressor of one file."""
        if self.compression is Compression.GZIP:
            stream = isal_zlib.compressobj(level=2, wbits=31)
            return Compressor(stream.compress, stream.flush)
        if self.compression is Compression.ZSTD:
            stream = zstandard.ZstdCompressor(level=3).compressobj()
            return Compressor(stream.compress, stream.flush)
        return Compressor(lambda chunk: chunk, lambda: b"")


# Exact text: no rounding through float, nothing that depends on the server's version or a user's profile, no
# lost NaN.
TEXT_SETTINGS: Mapping[str, Scalar] = {
    **JSON_LINES,
    "output_format_json_quote_denormals": 1,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_json_named_tuples_as_objects": 1,
    "output_format_decimal_trailing_zeros": 0,
    "output_format_csv_crlf_end_of_line": 0,
    "format_csv_delimiter": ",",
    "bool_true_representation": "true",
    "bool_false_representation": "false",
    "date_time_output_format": "simple",
    "date_time_64_output_format_cut_trailing_zeros_align_to_groups_of_thousands": 0,
}

# Rows of a trace can be hundreds of KB each, and ClickHouse makes blocks of as many rows as it is told where
# payload is read by PREWHERE. 6 000 rows of 200 KB took 2.4 GB in blocks of 8192 rows, 0.2 GB in such; rows
# of 0.2 KB cost no more.
BLOCKS: Mapping[str, Scalar] = {"max_block_size": 256}

# Each thread that encodes holds a row group, uncompressed. Up to so many rows, groups stay small.
_GROUP_BYTES, _LARGEST_GROUP = 16 << 20, 128 << 20
_ROWS_OF_SMALL_GROUPS = 500_000
# Payload columns gain nothing from a dictionary.
PARQUET_SETTINGS: Mapping[str, Scalar] = {
    **BLOCKS,
    # Of ZSTD. Level 3, the default, makes files 6 % smaller and takes ClickHouse a quarter more of CPU.
    "output_format_compression_level": 1,
    "output_format_parquet_batch_size": 16,
    "output_format_parquet_max_dictionary_size": 0,
    "output_format_parquet_string_as_string": 1,
}
# The page index holds offsets that joining files would have to rewrite.
PARQUET_PART_SETTINGS: Mapping[str, Scalar] = {"output_format_parquet_write_page_index": 0}


@dataclass(frozen=True)
class Compressor:
    """Two functions: one for each chunk, one for the end of the file."""

    compress: Callable[[bytes], bytes]
    flush: Callable[[], bytes]


def _decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream = zstandard.ZstdDecompressor().decompressobj()
    try:
        for chunk in chunks:
            yield stream.decompress(chunk)
    except zstandard.ZstdError as error:
        raise VerificationError(f"damaged compressed data: {error}") from error
