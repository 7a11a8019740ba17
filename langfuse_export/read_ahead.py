"""Reads rows of a day before its windows are exported, where that is better than a query for each of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from langfuse_export.day_by_server import day_objects
from langfuse_export.exporter import WindowExporter
from langfuse_export.manifest import ManifestFile
from langfuse_export.resources import ExportOptions
from langfuse_export.server_transfer import StagedWindow
from langfuse_export.table_export import WindowRows
from langfuse_export.tables import Table
from langfuse_export.windows import Window

# A day's windows, each with the objects that an earlier attempt has committed of it, by table name.
CommittedDay = Mapping[Window, Mapping[str, ManifestFile]]
# What has been read of a day's windows, by table name.
DayRows = Mapping[Window, Mapping[str, WindowRows]]

_SMALL_BYTES = 4 << 20  # of an upload that takes no longer than the requests around it


@contextmanager
def read_ahead(
    exporter: WindowExporter, tables: Sequence[Table], done: CommittedDay, options: ExportOptions
) -> Iterator[DayRows]:
    """Rows of the tables of which several windows are left to be exported; they are gone afterwards.

    Args:
        exporter: whose project, source and destination they are.
        tables: what is exported.
        done: the windows.
        options: where rows go meanwhile, and how much memory is used.
    """
    reads: list[tuple[Table, list[Window]]] = []
    for table in tables:
        wanted = [window for window in done if table.name not in done[window]]
        if len(wanted) > 1:
            reads.append((table, [window for window in done if wanted[0] <= window <= wanted[-1]]))
    if not reads:
        yield {}
        return
    collection = exporter.project.named_collection
    if collection is not None:
        with day_objects(exporter, reads, collection, options) as objects:
            yield objects
        return
    # Takes a third of a second, which a run of one window has no use for.
    from langfuse_export.day_read import day_files  # noqa: PLC0415

    with day_files(exporter, reads, options) as files:
        yield files


def waits_for_store_alone(tables: Sequence[Table], done: CommittedDay, rows: DayRows) -> bool:
    """Whether all that is left of the windows are requests to the store: no query, and little memory."""
    names = {table.name for table in tables}
    return all(
        names <= committed.keys() | rows.get(window, {}).keys()
        and all(map(_asks_store_alone, rows.get(window, {}).values()))
        for window, committed in done.items()
    )


def _asks_store_alone(read: WindowRows) -> bool:
    return read.has_object if isinstance(read, StagedWindow) else read.bytes <= _SMALL_BYTES
