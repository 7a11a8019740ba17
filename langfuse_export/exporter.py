"""Exports a window of a project: its tables side by side, then the manifest. Plain Python, no Dagster."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from langfuse_export.emptied import remove_emptied, standing_tag
from langfuse_export.errors import ConflictError, OccupiedError, WindowError
from langfuse_export.export_journal import ExportJournal
from langfuse_export.exported_table import ExportedTable
from langfuse_export.manifest import CONTENT_TYPE, Manifest, ManifestFile, build_manifest
from langfuse_export.parts import PartSize
from langfuse_export.prices import AttemptPrices
from langfuse_export.project import ProjectExport
from langfuse_export.table_export import TableExport, WindowRows
from langfuse_export.tables import Table
from langfuse_export.telemetry import Telemetry
from langfuse_export.window_source import Cancellation, WindowSource
from langfuse_export.windows import Window
from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError
from langfuse_worker.clickhouse import ClickHouse

# The order of Langfuse's own manifests; what Langfuse does not export comes after it.
_FILE_ORDER = {name: at for at, name in enumerate(("scores", "traces", "observations", "observations_v2"))}


class Progress(Protocol):
    """Hears of an export as it goes. Called from several threads."""

    def bytes_read(self, count: int) -> None:
        """So many more bytes came from ClickHouse."""
        ...

    def table_exported(self, window: Window, exported: ExportedTable) -> None:
        """An object was committed."""
        ...

    def window_finished(self, window: Window) -> None:
        """A window has all its objects, or has failed."""
        ...


class NoProgress:
    """Nobody watches."""

    def bytes_read(self, count: int) -> None:
        """See `Progress`."""

    def table_exported(self, window: Window, exported: ExportedTable) -> None:
        """See `Progress`."""

    def window_finished(self, window: Window) -> None:
        """See `Progress`."""


@dataclass(frozen=True)
class WindowResult:
    """A window's committed objects by table name.

    Attributes:
        revision: of the window's manifest, None if it has none yet because other tables are missing.
    """

    exported: dict[str, ExportedTable]
    revision: int | None


@dataclass
class WindowExporter:
    """Exports windows of one project. Thread-safe, for windows that have been read ahead.

    Attributes:
        source: ClickHouse, with the project's limits.
        store: the project's destination.
        mode: `steady`, `late` or `catchup`, for the manifest, metrics and logs.
        prices: of this attempt, for tables with columns of prices.
        table_concurrency: tables of a window exported side by side.
        part_sizes: by table name, what the last window taught of heavy tables; kept up to date.
        cancellation: ends all exports that go on, and those that begin afterwards.
    """

    source: ClickHouse
    store: BlobStore
    project: ProjectExport
    telemetry: Telemetry
    mode: str
    prices: AttemptPrices
    run_id: str | None = None
    table_concurrency: int = 2
    progress: Progress = field(default_factory=NoProgress)
    part_sizes: dict[str, PartSize] = field(default_factory=dict)
    cancellation: Cancellation = field(init=False)

    def __post_init__(self) -> None:
        self.cancellation = Cancellation(self.source)

    def export(
        self,
        window: Window,
        tables: Sequence[Table],
        known: Mapping[str, ManifestFile] | None = None,
        read_ahead: Mapping[str, WindowRows] | None = None,
    ) -> WindowResult:
        """Export tables of a window; write the manifest once every table of the project has its object.

        A manifest that stands is kept up to date before that, if the project has got another table since.

        Where the project skips empty tables, objects that these have from before go after the manifest.

        Args:
            window: what to export.
            tables: the tables to export now.
            known: objects of the project's other tables that earlier runs committed, by table name.
            read_ahead: rows of the tables that have been read already, by table name.

        Raises:
            OccupiedError: the keys hold a window of another frequency. Nothing was written.
            WindowError: tables failed; its `exported` has those that did not.
            ConflictError: another run wrote the same objects meanwhile.
        """
        started = time.monotonic()
        try:
            result = self._export(window, tables, known or {}, read_ahead or {})
        except BaseException as error:
            self._journal.window_failed(window, started, error)
            raise
        finally:
            self.progress.window_finished(window)
        self._journal.window_exported(window, started)
        return result

    def count(self, table: Table, window: Window) -> int:
        """Rows that ClickHouse has in the window now. Raises ClickHouseError."""
        return self._source(table, window).summarise().rows

    def _source(self, table: Table, window: Window) -> WindowSource:
        return WindowSource(self.source, self.project, table, window, self.run_id, self.cancellation)

    @property
    def _journal(self) -> ExportJournal:
        return ExportJournal(self.project, self.telemetry, self.mode, self.run_id)

    def _export(
        self,
        window: Window,
        tables: Sequence[Table],
        known: Mapping[str, ManifestFile],
        read_ahead: Mapping[str, WindowRows],
    ) -> WindowResult:
        existing = self._existing_manifest(window)
        revision = existing.revision + 1 if existing else 1
        exported, failures = self._export_tables(window, tables, read_ahead)
        standing = self._files_of(existing, window)
        files = {**standing, **known} | {name: table.file for name, table in exported.items()}
        is_whole = files.keys() == {table.name for table in self.project.tables}
        # Neither a table that fails nor one that the project has got since may leave a manifest that
        # contradicts the tables that were overwritten.
        written_revision = revision if exported and (is_whole or standing) else None
        if written_revision is not None:
            self._write_manifest(window, files, exported, written_revision)
        if failures:
            raise _window_error(self.project, window, failures, exported, written_revision)
        return WindowResult(exported, written_revision)

    def _export_tables(
        self, window: Window, tables: Sequence[Table], read_ahead: Mapping[str, WindowRows]
    ) -> tuple[dict[str, ExportedTable], dict[str, Exception]]:
        exported: dict[str, ExportedTable] = {}
        failures: dict[str, Exception] = {}
        with ThreadPoolExecutor(self.table_concurrency, thread_name_prefix="export") as pool:
            futures: dict[str, Future[ExportedTable]] = {
                table.name: pool.submit(self._export_table, table, window, read_ahead.get(table.name))
                for table in tables
            }
        for name, future in futures.items():
            error = future.exception()
            if error is None:
                exported[name] = future.result()
            elif isinstance(error, Exception):
                failures[name] = error
            else:
                raise error
        return exported, failures

    def _export_table(self, table: Table, window: Window, read_ahead: WindowRows | None) -> ExportedTable:
        started = time.monotonic()
        try:
            exported = TableExport(
                self._source(self.prices.put_into(table), window),
                self.store,
                on_bytes=self.progress.bytes_read,
                read_ahead=read_ahead,
                on_split=lambda error, parts: self._journal.window_split(table, window, error, parts),
                part_size=self.part_sizes.get(table.name),
            ).run()
        except BaseException as error:
            self._journal.table_failed(table, window, started, error)
            raise
        if exported.part_size is not None:
            self.part_sizes[table.name] = exported.part_size
        self._journal.table_exported(table, window, started, exported)
        self.progress.table_exported(window, exported)
        return exported

    def _existing_manifest(self, window: Window) -> Manifest | None:
        """The manifest that stands at the window's key, of this window or of a shorter one that it replaces.

        A window is known by its end alone, so a project that changes its frequency could overwrite a day
        with its last hour. That is refused; a longer window may replace a shorter one, whose rows it has.
        """
        key = self.project.manifest_key(window)
        try:
            manifest = Manifest.model_validate_json(self.store.read(key))
        except ObjectNotFoundError:
            return None
        except ValueError:  # not of ours: Langfuse's own manifests lack the added fields
            return None
        written = manifest.window.as_window()
        if not window.contains(written):
            raise OccupiedError(
                f"{self.store.uri(key)} belongs to the window {written}; exporting {window} would overwrite "
                "its objects. Use another destination or prefix for the new frequency, or delete them first"
            )
        return manifest

    def _files_of(self, manifest: Manifest | None, window: Window) -> dict[str, ManifestFile]:
        if manifest is None or manifest.window.as_window() != window:
            return {}
        by_path = {entry.table: entry for entry in manifest.entries}
        return {table.name: by_path[table.path] for table in self.project.tables if table.path in by_path}

    def _write_manifest(
        self,
        window: Window,
        files: Mapping[str, ManifestFile],
        exported: Mapping[str, ExportedTable],
        revision: int,
    ) -> None:
        self._check_unchanged(window, exported)
        ordered = sorted(files.values(), key=lambda file: _FILE_ORDER.get(file.table, len(_FILE_ORDER)))
        manifest = build_manifest(
            self.project.project_id, window, ordered, datetime.now(UTC), revision=revision, mode=self.mode
        )
        key = self.project.manifest_key(window)
        written = self.store.write_bytes(key, manifest.to_bytes(), CONTENT_TYPE)
        # Two runs of one window: whoever finds the other's object after its own manifest exports again,
        # so the last manifest always describes the last objects.
        self._check_unchanged(window, exported)
        left = {name: table.e_tag for name, table in exported.items()}
        has_removed = remove_emptied(self.store, self.project, window, files, left)
        # Another run may have written its object just before the removal, and its manifest since.
        if has_removed and written.e_tag is not None and standing_tag(self.store, key) != written.e_tag:
            raise ConflictError(f"another run wrote {written.uri} at the same time")

    def _check_unchanged(self, window: Window, exported: Mapping[str, ExportedTable]) -> None:
        """Raises ConflictError if another object stands where one of the window's has been committed."""
        tags = {
            self.project.object_key(self.project.table(name), window): table.e_tag
            for name, table in exported.items()
            if table.e_tag is not None or not table.file.has_object
        }
        if not tags:
            return
        with ThreadPoolExecutor(len(tags), thread_name_prefix="unchanged") as pool:
            standing = pool.map(lambda key: standing_tag(self.store, key), tags)
            changed = [key for key, tag in zip(tags, standing, strict=True) if tag != tags[key]]
        if changed:
            raise ConflictError(f"another run wrote {self.store.uri(changed[0])} at the same time")


def _window_error(
    project: ProjectExport,
    window: Window,
    failures: dict[str, Exception],
    exported: dict[str, ExportedTable],
    revision: int | None,
) -> WindowError:
    # Where ClickHouse or the store is away, all tables say the same: people read it once.
    tables: dict[str, list[str]] = defaultdict(list)
    for name, error in failures.items():
        tables[str(error)].append(name)
    details = "; ".join(f"{', '.join(names)}: {error}" for error, names in tables.items())
    return WindowError(f"{project.project_id} {window}: {details}", failures, exported, revision)
