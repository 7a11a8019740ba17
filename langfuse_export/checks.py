"""Asset checks, evaluated inside the export: a step of their own would be skipped, as windows are recorded
as they finish and the op has no outputs. Executed by themselves, they look at the newest exported window."""

from collections.abc import Iterator, Mapping

import dagster as dg

from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.runs import ProjectRun
from langfuse_export.table_export import ExportedTable
from langfuse_export.tables import Table
from langfuse_export.windows import Window

ROWS_CHECK = "rows_match_source"
MANIFEST_CHECK = "manifest_present"


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
        )
    ]


def check_results(
    context: dg.AssetExecutionContext, project: ProjectExport, run: ProjectRun
) -> Iterator[dg.AssetCheckResult]:
    """The results of the selected checks, over all windows of the run."""
    for table in project.tables:
        key = asset_key(project, table)
        exported = run.exported.get(table.name, {})
        if dg.AssetCheckKey(key, ROWS_CHECK) in context.selected_asset_check_keys:
            yield _rows_result(key, exported)
        if dg.AssetCheckKey(key, MANIFEST_CHECK) in context.selected_asset_check_keys:
            yield _manifest_result(key, exported, run, table)


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
            "differing_windows": dg.MetadataValue.json(differing),
        },
    )


def _manifest_result(
    key: dg.AssetKey, exported: Mapping[Window, ExportedTable], run: ProjectRun, table: Table
) -> dg.AssetCheckResult:
    missing = [str(window) for window in exported if not run.has_manifest(window, table)]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=MANIFEST_CHECK,
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"windows": len(exported), "missing": dg.MetadataValue.json(missing)},
    )
