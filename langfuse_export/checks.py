"""Asset checks, evaluated inside the export: a step of their own would be skipped, as windows are recorded
as they finish and the op has no outputs. Executed by themselves, they look at the newest exported window."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from langfuse_export.exported_table import ExportedTable
from langfuse_export.health.describe import describe
from langfuse_export.health.state import Health, State
from langfuse_export.manifest import Manifest, ManifestFile
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.runs import ProjectRun
from langfuse_export.windows import Window
from langfuse_worker.blobstore import BlobStore, StoreError

ROWS_CHECK = "rows_match_source"
MANIFEST_CHECK = "manifest_present"
HEALTH_CHECK = "project_is_exported"

_READERS = 8  # of manifests, side by side; a request to a bucket takes some 20 ms


def check_specs(project: ProjectExport) -> list[dg.AssetCheckSpec]:
    """The checks of a project's assets."""
    return [
        spec
        for table in project.tables
        for spec in (
            dg.AssetCheckSpec(
                ROWS_CHECK,
                asset=asset_key(project, table),
                description="The object has as many rows as ClickHouse counts in the window.",
            ),
            dg.AssetCheckSpec(
                MANIFEST_CHECK,
                asset=asset_key(project, table),
                description="The window's manifest stands in the destination and names the object.",
            ),
            dg.AssetCheckSpec(
                HEALTH_CHECK,
                asset=asset_key(project, table),
                description="The project is not stopped, and no window of it waits for a retry.",
            ),
        )
    ]


def check_results(
    context: dg.AssetExecutionContext, project: ProjectExport, run: ProjectRun
) -> Iterator[dg.AssetCheckResult]:
    """The results of the selected checks, over all windows of the run."""
    yield from health_results(context, project, run.health)
    selected = context.selected_asset_check_keys
    wants_manifests = any(key.name == MANIFEST_CHECK for key in selected)
    manifests = _standing_manifests(project, run.exported) if wants_manifests else {}
    for table in project.tables:
        key = asset_key(project, table)
        exported = run.exported.get(table.name, {})
        if dg.AssetCheckKey(key, ROWS_CHECK) in selected:
            yield _rows_result(key, exported)
        if dg.AssetCheckKey(key, MANIFEST_CHECK) in selected:
            yield _manifest_result(key, exported, manifests)


def health_results(
    context: dg.AssetExecutionContext, project: ProjectExport, health: Health | None
) -> Iterator[dg.AssetCheckResult]:
    """The selected checks of the project's health; those of a run that fails, too."""
    waits = health is not None and health.waits
    retries = health is not None and health.state is State.RETRYING
    for key in (asset_key(project, table) for table in project.tables):
        if dg.AssetCheckKey(key, HEALTH_CHECK) in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                asset_key=key,
                check_name=HEALTH_CHECK,
                passed=not waits and not retries,
                severity=dg.AssetCheckSeverity.ERROR if waits else dg.AssetCheckSeverity.WARN,
                description=describe(health) if health else None,
                metadata=_health_metadata(health) if health else {},
            )


def _health_metadata(health: Health) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "state": dg.MetadataValue.text(health.state.value),
        "failed_windows": dg.MetadataValue.int(len(health.windows)),
        "attempts": dg.MetadataValue.int(health.attempts),
    }
    if health.since:
        metadata["since"] = dg.MetadataValue.timestamp(health.since)
    if health.next_attempt:
        metadata["next_attempt"] = dg.MetadataValue.timestamp(health.next_attempt)
    if health.failure:
        metadata["reason"] = dg.MetadataValue.text(health.failure.reason)
        metadata["error"] = dg.MetadataValue.text(health.failure.error)
    return metadata


def _rows_result(key: dg.AssetKey, exported: Mapping[Window, ExportedTable]) -> dg.AssetCheckResult:
    differing = [str(window) for window, e in exported.items() if e.file.row_count != e.source_rows]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=ROWS_CHECK,
        # Rows may arrive while a window streams; the export itself refuses what that cannot explain.
        passed=not differing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "windows": len(exported),
            "rows": sum(e.file.row_count for e in exported.values()),
            "source_rows": sum(e.source_rows for e in exported.values()),
            **({"differing_windows": dg.MetadataValue.json(differing)} if differing else {}),
        },
    )


def _manifest_result(
    key: dg.AssetKey, exported: Mapping[Window, ExportedTable], manifests: Mapping[Window, Manifest]
) -> dg.AssetCheckResult:
    missing = [
        str(window)
        for window, table in exported.items()
        if window not in manifests or not _describes(manifests[window], table.file)
    ]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=MANIFEST_CHECK,
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "windows": len(exported),
            **({"missing": dg.MetadataValue.json(missing)} if missing else {}),
        },
    )


def _standing_manifests(
    project: ProjectExport, exported: Mapping[str, Mapping[Window, ExportedTable]]
) -> dict[Window, Manifest]:
    """The manifests that stand in the store now, of windows that have been exported."""
    store, windows = BlobStore(project.destination), sorted(set().union(*exported.values()))

    def read(window: Window) -> Manifest | None:
        try:
            return Manifest.model_validate_json(store.read(project.manifest_key(window)))
        except (StoreError, ValueError):
            return None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="manifests") as pool:
        return {
            window: found for window, found in zip(windows, pool.map(read, windows), strict=True) if found
        }


def _describes(manifest: Manifest, file: ManifestFile) -> bool:
    ours = (file.key, file.query_id, file.sha256)
    return any((entry.key, entry.query_id, entry.sha256) == ours for entry in manifest.entries)
