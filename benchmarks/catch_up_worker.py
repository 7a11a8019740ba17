"""The worker of `benchmarks.catch_up`: exports a day of observations in one of the ways that are compared.

A process of its own that imports nothing but the product, so that CPU and memory are the product's. Prints
what it took as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from langfuse_export import sql
from langfuse_export.exporter import WindowExporter
from langfuse_export.resources import ExportOptions
from langfuse_export.tables import OBSERVATIONS
from langfuse_export.verified_stream import VerifiedStream
from langfuse_export.window_source import Cancellation, SourceSummary, WindowSource
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import Query, QueryComment
from langfuse_worker.settings import Settings
from tests.export.http.peak_memory import START, observations_exporter
from tests.peak import peak_bytes
from tests.rows import PROJECT

DAY = Frequency.DAILY.window(Frequency.DAILY.floor(START))


@dataclass(frozen=True)
class Work:
    """What a worker is told.

    Attributes:
        way: one of `WAYS`.
        run_id: what its queries are found by.
        bucket, endpoint, region: of an S3 server that takes any key pair.
        scratch: a directory for files on their way.
    """

    way: str
    run_id: str
    frequency: Frequency
    bucket: str
    endpoint: str
    region: str
    scratch: str


@dataclass(frozen=True)
class Taken:
    """What exporting the day took in the worker's process."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class DayExport:
    """A day and what exports it."""

    work: Work
    exporter: WindowExporter
    windows: Sequence[Window]

    def query_by_query(self) -> None:
        """A query for each window."""
        for window in self.windows:
            self.exporter.export(window, [OBSERVATIONS])

    def split_by_the_worker(self) -> None:
        """The product: one read of the day, split by the worker."""
        from langfuse_export.day_read import day_files  # noqa: PLC0415  # imports pyarrow

        options = replace(ExportOptions.from_settings(Settings()), scratch=Path(self.work.scratch))
        with day_files(self.exporter, [(OBSERVATIONS, self.windows)], options) as files:
            for window in self.windows:
                self.exporter.export(window, [OBSERVATIONS], read_ahead=files[window])

    def partitioned_by_clickhouse(self) -> None:
        """ClickHouse writes an object a window, with the row groups of an export."""
        self._partition({})

    def partitioned_in_small_groups(self) -> None:
        """The same with row groups that take as much memory together as the worker's buffer."""
        group_bytes = Settings().export_catchup_buffer_bytes // len(self.windows)
        self._partition({"output_format_parquet_row_group_size_bytes": group_bytes})

    def partitioned_and_verified(self) -> None:
        """The same, and every object is read back: footer, rows against ClickHouse's count, SHA-256."""
        counted = self._count()
        self.partitioned_in_small_groups()
        for window, summary in zip(self.windows, counted, strict=True):
            if summary.rows:
                self._read_back(window, summary)

    def _partition(self, settings: Mapping[str, sql.Scalar]) -> None:
        project, work = self.exporter.project, self.work
        minutes = project.frequency.length // timedelta(minutes=1)
        window_end = (
            f"toStartOfInterval(start_time + INTERVAL {minutes} MINUTE, INTERVAL {minutes} MINUTE, 'UTC')"
        )
        stamp = f"formatDateTime({window_end}, '%Y-%m-%dT%H-%i-%S', 'UTC')"
        first = self.windows[0]
        key = project.object_key(OBSERVATIONS, first).replace(first.stamp, "{_partition_id}")
        self._execute(
            f"INSERT INTO FUNCTION s3('{work.endpoint}/{work.bucket}/{key}', 'key', 'secret', 'Parquet')\n"
            f"PARTITION BY {stamp}\n{project.encoding.sql(OBSERVATIONS)}",
            {
                **sql.FINAL_SETTINGS,
                **project.encoding.settings(project.row_group_rows),
                "s3_truncate_on_insert": 1,
                **settings,
            },
        )

    def _count(self) -> list[SourceSummary]:
        length_ms = self.windows[0].end_ms - self.windows[0].start_ms
        query = self._query(sql.summary_by_window(OBSERVATIONS), sql.FINAL_SETTINGS)
        more = {"length_ms": length_ms, "windows": len(self.windows)}
        rows = self.exporter.source.rows(replace(query, parameters={**query.parameters, **more}))
        return [SourceSummary(*row) for row in rows]

    def _read_back(self, window: Window, summary: SourceSummary) -> None:
        source, project = self.exporter.source, self.exporter.project
        cancellation = Cancellation(source)
        window_source = WindowSource(source, project, OBSERVATIONS, window, self.work.run_id, cancellation)
        stream = VerifiedStream(project.encoding, OBSERVATIONS, cancellation, lambda _: None)
        chunks = self.exporter.store.stream(project.object_key(OBSERVATIONS, window))
        for _ in stream.pass_through(chunks, lambda rows: window_source.agree(rows, summary)):
            pass

    def _execute(self, text: str, settings: Mapping[str, sql.Scalar] = MappingProxyType({})) -> None:
        self.exporter.source.execute(self._query(text, settings))

    def _query(self, text: str, settings: Mapping[str, sql.Scalar]) -> Query:
        comment = QueryComment("catch-up", PROJECT, OBSERVATIONS.name, str(DAY), self.work.run_id)
        return Query(text, comment, sql.parameters(OBSERVATIONS, PROJECT, DAY), settings)


WAYS: Mapping[str, Callable[[DayExport], None]] = {
    "a query a window": DayExport.query_by_query,
    "split by the worker": DayExport.split_by_the_worker,
    "PARTITION BY": DayExport.partitioned_by_clickhouse,
    "PARTITION BY, small groups": DayExport.partitioned_in_small_groups,
    "PARTITION BY, verified": DayExport.partitioned_and_verified,
}


def main(options: str) -> None:
    """Args: the work as JSON."""
    work = Work(**json.loads(options))
    destination = StoreConfig(
        f"s3://{work.bucket}/",
        endpoint=work.endpoint,
        region=work.region,
        access_key_id="key",
        secret_access_key="secret",
    )
    frequency = Frequency(work.frequency)
    exporter = observations_exporter(PROJECT, destination, frequency, work.run_id)
    day = DayExport(work, exporter, list(frequency.windows(DAY.start, DAY.end)))
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    WAYS[work.way](day)
    after, wall_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps(asdict(Taken(wall_s, cpu_s, peak_bytes()))))


if __name__ == "__main__":
    main(sys.argv[1])
