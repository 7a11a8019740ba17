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
from pathlib import Path

from langfuse_export.day_by_server import day_objects
from langfuse_export.exporter import WindowExporter
from langfuse_export.resources import ExportOptions
from langfuse_export.tables import OBSERVATIONS
from langfuse_export.windows import Frequency, Window
from langfuse_worker.blobstore import StoreConfig
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
        collection: with which ClickHouse writes into the bucket.
    """

    way: str
    run_id: str
    frequency: Frequency
    bucket: str
    endpoint: str
    region: str
    scratch: str
    collection: str


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

    def query_by_query_by_server(self) -> None:
        """A query for each window, with which ClickHouse writes the object."""
        self._by_server.query_by_query()

    def split_by_the_server(self) -> None:
        """The product with `transfer: server`: one read of the day that ClickHouse splits."""
        day, options = self._by_server, ExportOptions.from_settings(Settings())
        reads = [(OBSERVATIONS, day.windows)]
        with day_objects(day.exporter, reads, self.work.collection, options) as objects:
            for window in day.windows:
                day.exporter.export(window, [OBSERVATIONS], read_ahead=objects[window])

    @property
    def _by_server(self) -> "DayExport":
        project = replace(self.exporter.project, named_collection=self.work.collection)
        return replace(self, exporter=replace(self.exporter, project=project))


WAYS: Mapping[str, Callable[[DayExport], None]] = {
    "a query a window": DayExport.query_by_query,
    "a query a window, by server": DayExport.query_by_query_by_server,
    "split by the worker": DayExport.split_by_the_worker,
    "split by the server": DayExport.split_by_the_server,
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
