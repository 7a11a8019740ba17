"""Which windows have been exported, as the Dagster instance recorded it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from langfuse_export.manifest import ManifestFile
from langfuse_export.metadata import manifest_entry, object_uri, part_size
from langfuse_export.naming import asset_key
from langfuse_export.parts import PartSize
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import Window
from langfuse_worker.blobstore import BlobStore

# Steady exports ask for one or two windows. Who asks for more reads all at once.
_PROBES = 3


def newest_files(
    instance: dg.DagsterInstance, project: ProjectExport, table: Table, windows: Iterable[Window]
) -> dict[Window, ManifestFile]:
    """The table's newest file of each window, of those windows that have one."""
    newest = _newest_materializations(instance, project, table, windows)
    entries = {window: manifest_entry(materialization) for window, materialization in newest.items()}
    return {window: entry for window, entry in entries.items() if entry}


def displaced_windows(
    instance: dg.DagsterInstance, project: ProjectExport, table: Table, windows: Iterable[Window]
) -> set[Window]:
    """Those whose newest object of the table is not where the project has its objects now, in any format."""
    newest = _newest_materializations(instance, project, table, windows)
    uris = {window: object_uri(materialization) for window, materialization in newest.items()}
    store, extension = BlobStore(project.destination), project.encoding.extension
    places = {w: store.uri(project.object_key(table, w)).removesuffix(extension) for w in uris}
    return {window for window, uri in uris.items() if uri and not uri.startswith(places[window])}


def _newest_materializations(
    instance: dg.DagsterInstance, project: ProjectExport, table: Table, windows: Iterable[Window]
) -> dict[Window, dg.AssetMaterialization]:
    by_key = {project.frequency.key(window): window for window in windows}
    asset = asset_key(project, table)
    ids = instance.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION, set(by_key)
    )
    if not ids:
        return {}
    newest = dg.AssetRecordsFilter(asset, storage_ids=list(ids.values()))
    found: dict[Window, dg.AssetMaterialization] = {}
    for record in instance.fetch_materializations(newest, limit=len(ids)).records:
        if record.asset_materialization and record.partition_key in by_key:
            found[by_key[record.partition_key]] = record.asset_materialization
    return found


def newest_record(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> dg.EventLogRecord | None:
    """The newest materialization of a window's partition, if it has been exported."""
    records = dg.AssetRecordsFilter(asset, asset_partitions=[partition])
    return next(iter(instance.fetch_materializations(records, limit=1).records), None)


@dataclass(frozen=True)
class History:
    """What has been exported, a run's own windows included."""

    instance: dg.DagsterInstance

    def exported_until(self, project: ProjectExport, since: datetime) -> datetime:
        """End of the unbroken row of exported windows from the one that holds `since` on, UTC.

        A window counts once every table of the project has its object. Without any, the start of the
        window that holds `since`.
        """
        end = project.frequency.floor(since)
        all_keys: set[str] | None = None
        for count, window in enumerate(project.frequency.windows(end, datetime.now(UTC))):
            if count == _PROBES:
                all_keys = self._exported_keys(project)
            key = project.frequency.key(window)
            if not (self._is_exported(project, window) if all_keys is None else key in all_keys):
                break
            end = window.end
        return end

    def part_sizes(self, project: ProjectExport) -> dict[str, PartSize]:
        """By table name, how many rows of heavy tables could be read at once in the last windows."""
        sizes: dict[str, PartSize] = {}
        for table in project.tables:
            event = self.instance.get_latest_materialization_event(asset_key(project, table))
            size = part_size(event.asset_materialization) if event and event.asset_materialization else None
            if size is not None:
                sizes[table.name] = size
        return sizes

    def _is_exported(self, project: ProjectExport, window: Window) -> bool:
        key = project.frequency.key(window)
        return all(newest_record(self.instance, asset_key(project, table), key) for table in project.tables)

    def _exported_keys(self, project: ProjectExport) -> set[str]:
        tables = [asset_key(project, table) for table in project.tables]
        return set.intersection(*(self.instance.get_materialized_partitions(table) for table in tables))
