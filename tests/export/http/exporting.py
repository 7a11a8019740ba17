"""Exports of one project from a ClickHouse server, without Dagster around them."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq
import zstandard

from langfuse_export.exporter import WindowExporter, WindowResult
from langfuse_export.formats import Compression, Encoding, FileFormat, ParquetCodec
from langfuse_export.layout import LANGFUSE, KeyTemplate
from langfuse_export.manifest import Manifest
from langfuse_export.prices import AttemptPrices
from langfuse_export.project import ProjectExport
from langfuse_export.tables import ALL_TABLES, TABLES, Table
from langfuse_export.telemetry import Telemetry, build_telemetry
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import BlobStore, StoreConfig
from langfuse_worker.clickhouse import ClickHouse, connect
from langfuse_worker.postgres import Database
from tests.export.project import project_export
from tests.rows import insert
from tests.servers.clickhouse import ClickHouseServer

HOUR = Window(datetime(2026, 6, 1, 12, tzinfo=UTC), datetime(2026, 6, 1, 13, tzinfo=UTC))
PARQUET = Encoding(FileFormat.PARQUET)
ZSTD_PARQUET = Encoding(FileFormat.PARQUET, codec=ParquetCodec.ZSTD)
JSONL = Encoding(FileFormat.JSONL)
CSV = Encoding(FileFormat.CSV)
JSON = Encoding(FileFormat.JSON)
ENCODINGS = [PARQUET, JSONL, CSV, JSON, Encoding(FileFormat.JSONL, Compression.GZIP)]
ENCODINGS += [Encoding(FileFormat.CSV, Compression.ZSTD)]


@dataclass
class Deployment:
    """A server, a destination and what runs between them; project p1, all tables, hourly."""

    server: ClickHouseServer
    blobs: Path
    environment: dict[str, str] = field(default_factory=dict)
    destination: StoreConfig | None = None
    tables: Sequence[Table] = tuple(TABLES.values())
    encoding: Encoding = PARQUET
    frequency: Frequency = Frequency.HOURLY
    layout: KeyTemplate = LANGFUSE
    named_collection: str | None = None
    postgres: Database | None = None
    skip_empty: bool = False

    @cached_property
    def source(self) -> ClickHouse:
        """The worker's client."""
        return connect(self.server.settings(**self.environment))

    @cached_property
    def telemetry(self) -> Telemetry:
        """Metrics, as the environment says."""
        return build_telemetry(self.server.settings(**self.environment))

    @property
    def store(self) -> BlobStore:
        """The destination."""
        return BlobStore(self.project.destination)

    @property
    def project(self) -> ProjectExport:
        """The export of p1."""
        return project_export(
            self.server.settings(**self.environment),
            tables=tuple(self.tables),
            frequency=self.frequency,
            start=datetime(2026, 1, 1, tzinfo=UTC),
            encoding=self.encoding,
            destination=self.destination or StoreConfig(f"file://{self.blobs}/"),
            layout=self.layout,
            named_collection=self.named_collection,
            skip_empty=self.skip_empty,
        )

    def exporter(self, project: ProjectExport | None = None) -> WindowExporter:
        """What exports windows of the project."""
        project = project or self.project
        source = self.source.with_limits(project.limits)
        store, prices = BlobStore(project.destination), AttemptPrices(self.postgres, project.project_id)
        return WindowExporter(source, store, project, self.telemetry, "catchup", prices)

    def export(self, window: Window = HOUR, tables: Sequence[Table] | None = None) -> WindowResult:
        """Export a window."""
        return self.exporter().export(window, tables or self.project.tables)

    def insert(self, table: str, *rows: dict[str, Any]) -> None:
        """Insert rows as one part."""
        insert(self.server.execute, table, rows)

    def rows(self, table: str, window: Window = HOUR) -> list[dict[str, Any]]:
        """The rows of the exported object, as a reader of that format sees them."""
        key = self.project.object_key(ALL_TABLES[table], window)
        return read_rows(self.store.read(key), self.encoding)

    def codecs(self, table: str, window: Window = HOUR) -> set[str]:
        """What the pages of the exported Parquet file are compressed with."""
        key = self.project.object_key(ALL_TABLES[table], window)
        footer = pq.read_metadata(io.BytesIO(self.store.read(key)))
        columns = range(footer.num_columns)
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        return {group.column(column).compression for group in groups for column in columns}

    def ids(self, table: str, window: Window = HOUR) -> list[str]:
        """The ids in the exported object, sorted."""
        return sorted(row["id"] for row in self.rows(table, window))

    def manifest(self, window: Window = HOUR) -> Manifest:
        """The window's manifest."""
        return Manifest.model_validate_json(self.store.read(self.project.manifest_key(window)))

    def files(self) -> list[str]:
        """Everything that lies below a file:// destination, half-written files too."""
        return sorted(str(p.relative_to(self.blobs)) for p in self.blobs.rglob("*") if p.is_file())

    def with_(self, **changes: Any) -> "Deployment":
        """The same deployment with other attributes; it connects on its own."""
        return replace(self, **changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.telemetry.shutdown()


def decompressed(data: bytes, encoding: Encoding) -> bytes:
    """The file without the compression around it."""
    if encoding.compression is Compression.GZIP:
        return gzip.decompress(data)
    if encoding.compression is Compression.ZSTD:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def read_rows(data: bytes, encoding: Encoding) -> list[dict[str, Any]]:
    """The rows of a file; maps of Parquet become dicts."""
    data = decompressed(data, encoding)
    if encoding.format is FileFormat.PARQUET:
        return pq.read_table(io.BytesIO(data)).to_pylist(maps_as_pydicts="strict")
    text = data.decode()
    if encoding.format is FileFormat.CSV:
        csv.field_size_limit(1 << 30)
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if encoding.format is FileFormat.JSON:
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n")[:-1]]
