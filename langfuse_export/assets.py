"""One multi-asset per project, one key per table, partitioned by window.

A run exports one or more windows of one project in one step. Each finished table of a window is recorded at
once with its own numbers, so that a run that fails keeps what it finished.
"""

from collections.abc import Iterator

import dagster as dg

from langfuse_export.checks import check_results, check_specs, health_results
from langfuse_export.exporter import Progress
from langfuse_export.listeners import Listeners
from langfuse_export.metadata import definition_metadata
from langfuse_export.naming import PROJECT_TAG, asset_key, op_name, safe_name
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.runs import ProjectRun
from langfuse_export.tables import Table
from langfuse_export.telemetry import Telemetry
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.postgres import Database

MAX_RETRIES = 3


def build_project_assets(
    project: ProjectExport, partitions: dg.TimeWindowPartitionsDefinition, options: ExportOptions
) -> dg.AssetsDefinition:
    """The assets of a project; any subset of its tables can be materialized."""
    retries = dg.RetryPolicy(
        max_retries=MAX_RETRIES,
        delay=options.retry_delay_s,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )

    @dg.multi_asset(
        name=op_name(project),
        description=f"Exports windows of {project.name} to {project.destination.url}, verified.",
        specs=[_spec(project, table, partitions) for table in project.tables],
        check_specs=check_specs(project),
        can_subset=True,
        pool=op_name(project),
        backfill_policy=dg.BackfillPolicy.multi_run(options.windows_per_run_of(project.frequency)),
    )
    def export(
        context: dg.AssetExecutionContext,
        clickhouse: dg.ResourceParam[ClickHouse],
        telemetry: dg.ResourceParam[Telemetry],
        progress: dg.ResourceParam[Progress],
        listeners: dg.ResourceParam[Listeners],
        postgres: dg.ResourceParam[Database | None],
    ) -> Iterator[dg.AssetCheckResult]:
        resources = ExportResources(clickhouse, telemetry, progress, listeners, postgres)
        run = ProjectRun(context, project, resources, options)
        try:
            with clickhouse.hold():
                if context.has_partition_key or context.has_partition_key_range:
                    run.export_windows(retries)
                else:  # somebody executes checks by themselves
                    run.recall_health()
                    run.recall_newest_windows()
            yield from check_results(context, project, run)
        except dg.Failure:
            yield from health_results(context, project, run.health)
            raise
        finally:
            # The process of this run may end before the next periodic export of metrics.
            telemetry.flush()

    return export


def _spec(
    project: ProjectExport, table: Table, partitions: dg.TimeWindowPartitionsDefinition
) -> dg.AssetSpec:
    scheme = project.destination.url.partition(":")[0]
    storage = {"gs": "gcs", "az": "azure"}.get(scheme, scheme)
    return dg.AssetSpec(
        asset_key(project, table),
        skippable=True,
        partitions_def=partitions,
        group_name=safe_name(project.project_id),
        description=(
            # The catalog shows it as it is, without rendering Markdown.
            f"{table.source} of project {project.name} by {table.time_column}: one "
            f"{project.encoding.extension} object per window ({project.frequency.value.replace('_', ' ')}) "
            f"in {project.destination.url}"
        ),
        kinds={"clickhouse", str(project.encoding.format), storage},
        owners=list(project.owners),
        tags={PROJECT_TAG: safe_name(project.project_id), "langfuse/table": table.name},
        metadata=definition_metadata(project, table),
        code_version="1",
    )
