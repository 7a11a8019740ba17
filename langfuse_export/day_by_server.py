"""Has ClickHouse read a day once and write the object of each of its windows.

`PARTITION BY` a row's window puts each object where the window's own query would have put it. From there it
takes the same way: verified by its footer, then copied to its key.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from langfuse_export import sql
from langfuse_export.day import Day, read_together
from langfuse_export.exporter import WindowExporter
from langfuse_export.resources import ExportOptions
from langfuse_export.server_transfer import PARTITION_ID, StagedWindow, write_by_server
from langfuse_export.staging import Staging, discard
from langfuse_export.tables import Table
from langfuse_export.window_source import SourceSummary
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import Query, Scalar

# All objects of the day are open until its last row is read, so each may hold little. By default several
# threads encode, with a row group each, and an upload holds 16 MB, or 32 MB while it could still become a
# single request.
_SETTINGS: Mapping[str, Scalar] = {
    "output_format_parquet_parallel_encoding": 0,
    "max_insert_threads": 1,
}
_LEAST_GROUP_BYTES = 1 << 20
_PART_BYTES = 5 << 20  # the least that S3 takes
_UPLOADS: Mapping[str, Scalar] = {
    "min_upload_part_size": _PART_BYTES,
    "max_single_part_upload_size": _PART_BYTES,
    "max_inflight_parts_for_one_file": 2,
}
_SETTING_PREFIXES = {"s3": "s3_", "az": "azure_"}


@contextmanager
def day_objects(
    exporter: WindowExporter,
    reads: Sequence[tuple[Table, Sequence[Window]]],
    collection: str,
    options: ExportOptions,
) -> Iterator[Mapping[Window, Mapping[str, StagedWindow]]]:
    """Have tables written for consecutive windows of a day, each table read once.

    What has not been put in place is gone afterwards.

    Args:
        exporter: whose project, source and destination they are.
        reads: tables, each with its windows.
        collection: ClickHouse's named collection with the bucket's address and credentials.
        options: how much memory is used.
    """
    buffer_bytes = options.catchup_buffer_bytes
    with ExitStack() as stack:
        yield read_together(
            exporter,
            reads,
            lambda day, counted: DayByServer(day, collection, buffer_bytes).objects(stack, counted),
        )


@dataclass(frozen=True)
class DayByServer:
    """One read of a day whose windows ClickHouse writes.

    Attributes:
        buffer_bytes: about what ClickHouse holds of the day's rows to write them in row groups.
    """

    day: Day
    collection: str
    buffer_bytes: int

    def objects(self, stack: ExitStack, counted: Sequence[SourceSummary]) -> dict[Window, StagedWindow]:
        """What waits to be verified and put in place, until the stack is closed; `counted` is each window's.

        Raises:
            ClickHouseError: the query failed, or the collection may not or cannot be used.
            StoreError: the bucket does not take the objects from ClickHouse.
        """
        query = self._query()
        staged = {
            window: StagedWindow(self._staging(window).written_by(query.query_id), summary, query.query_id)
            for window, summary in zip(self.day.windows, counted, strict=True)
        }
        written = [window for window in staged.values() if window.has_object]
        try:
            if written:
                self._write(query)
        except BaseException:
            self._discard(written)
            raise
        stack.callback(self._discard, written)
        return staged

    def _query(self) -> Query:
        """The rows of the day, with what puts each into its window's folder."""
        project = self.day.exporter.project
        group_bytes = max(_LEAST_GROUP_BYTES, self.buffer_bytes // len(self.day.windows))
        prefix = _SETTING_PREFIXES[project.destination.scheme]
        settings = {
            **project.encoding.settings(project.row_group_rows),
            **_SETTINGS,
            "output_format_parquet_row_group_size_bytes": group_bytes,
            **{prefix + name: value for name, value in _UPLOADS.items()},
        }
        folders = [project.staging_folder(self.day.table, window) for window in self.day.windows]
        text = project.encoding.sql(self.day.table)
        return self.day.query(text, "export-day", {"folders": folders}, settings)

    def _write(self, query: Query) -> None:
        day = self.day
        store = day.exporter.store
        key = Staging(store, PARTITION_ID).written_by(query.query_id)
        folder = sql.folder_of_window(day.table)
        write_by_server(day.exporter.source, store, self.collection, key, query, folder)

    def _staging(self, window: Window) -> Staging:
        exporter = self.day.exporter
        return Staging(exporter.store, exporter.project.staging_folder(self.day.table, window))

    def _discard(self, windows: Sequence[StagedWindow]) -> None:
        """Delete what nobody has taken. What cannot be deleted stays for its window's next export."""
        store = self.day.exporter.store
        for window in windows:
            if not window.is_taken and not discard(store, window.key):
                return  # the others would wait as long for the same answer
