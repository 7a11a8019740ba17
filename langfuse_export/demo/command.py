"""`langfuse-worker demo`: realistic data in the embedded engine, exported through the Dagster assets."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from pydantic import BaseModel
from rich.progress import Progress
from rich.table import Table as RichTable

from langfuse_export.build import build_defs
from langfuse_export.catalog import Catalog, load_catalog
from langfuse_export.catalog.discovery import forget
from langfuse_export.commands.progress import WindowProgress
from langfuse_export.commands.run import RunReport, run_windows
from langfuse_export.demo.data import PROJECTS, batches
from langfuse_export.instance import open_instance
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions, ExportResources
from langfuse_export.windows import Window
from langfuse_worker.blobstore import BlobStore, StoreError
from langfuse_worker.clickhouse.client import Address
from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse
from langfuse_worker.clickhouse.limits import QueryLimits
from langfuse_worker.console import err, fail, out
from langfuse_worker.logs import configure_logging
from langfuse_worker.settings import Settings, settings

DAYS = 3


class DemoPeriod(BaseModel):
    """The days that the first demo filled, so that later ones find the same data."""

    start: datetime
    days: int

    @property
    def end(self) -> datetime:
        """The first instant after the period."""
        return self.start + timedelta(days=self.days)


def demo() -> None:
    """Seed the embedded engine with two projects and export them to LANGFUSE_HOME/blobs.

    Takes about a minute. A second run finds everything in place, changes nothing and says so.

    Example: langfuse-worker demo
    """
    config = settings()
    if not config.embedded or config.export_config is not None:
        fail(
            "the demo runs on the embedded engine and its default catalog: unset CLICKHOUSE_URL, "
            "CLICKHOUSE_EXPORT_URL and LANGFUSE_EXPORT_CONFIG",
            code=2,
        )
    configure_logging("error" if err.is_terminal else "warning")
    period = _seeded_period(config)
    catalog = load_catalog(config)
    reports = _export(config, catalog, period)
    _summarise(config, catalog, reports)
    sys.exit(1 if any(report.failures for report in reports) else 0)


def _seeded_period(config: Settings) -> DemoPeriod:
    marker = config.home / "demo.json"
    if marker.exists():
        period = DemoPeriod.model_validate_json(marker.read_text())
        out.print(f"Found {period.days} days of demo data in {config.home}; nothing to seed.", markup=False)
        return period
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    period = DemoPeriod(start=today - timedelta(days=DAYS), days=DAYS)
    engine = EmbeddedClickHouse(Address.of(config.embedded_url, config), QueryLimits.from_settings(config))
    with engine.client() as client, Progress(console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task("[bold]seeding", total=None)
        rows = 0
        for project in PROJECTS:
            for batch in batches(project, period.start, DAYS):
                client.insert(batch.table, batch.rows, column_names=batch.columns)
                bar.advance(task, len(batch.rows))
                rows += len(batch.rows)
    forget(config.home / "cache")
    marker.write_text(period.model_dump_json())
    out.print(
        f"Seeded {rows:,} rows ({len(PROJECTS)} projects, {DAYS} days) into the embedded ClickHouse.",
        markup=False,
    )
    return period


def _export(config: Settings, catalog: Catalog, period: DemoPeriod) -> list[RunReport]:
    reports = []
    with open_instance() as instance:
        for project in catalog.projects:
            windows = list(project.frequency.windows(max(period.start, project.start), period.end))
            missing = _missing(instance, project, windows)
            if not missing:
                reports.append(RunReport(project.project_id, 0))
                continue
            with WindowProgress(len(missing), project.project_id) as progress:
                options = ExportOptions.from_settings(config)
                resources = ExportResources.from_settings(config, progress)
                defs = build_defs(catalog=catalog, options=options, resources=resources)
                per_run = options.windows_per_run_of(project.frequency)
                reports.append(run_windows(defs, instance, project, project.tables, missing, per_run))
    return reports


def _missing(instance: dg.DagsterInstance, project: ProjectExport, windows: Sequence[Window]) -> list[Window]:
    """Windows that Dagster does not know as exported, or whose manifest is gone."""
    done = set.intersection(
        *(instance.get_materialized_partitions(asset_key(project, table)) for table in project.tables)
    )
    store = BlobStore(project.destination)

    def is_there(window: Window) -> bool:
        try:
            store.read(project.manifest_key(window))
        except StoreError:
            return False
        return project.frequency.key(window) in done

    return [window for window in windows if not is_there(window)]


def _summarise(config: Settings, catalog: Catalog, reports: list[RunReport]) -> None:
    for report in reports:
        for failure in report.failures:
            err.print(failure, style="red", markup=False)
    if all(report.windows == 0 for report in reports):
        out.print("Every window has been exported already; nothing changed.")
    else:
        table = RichTable("Project", "Windows", "Objects", "Rows", "MB", "Seconds", box=None)
        for report in reports:
            table.add_row(
                report.project,
                f"{report.exported_windows} of {report.windows}",
                str(len(report.objects)),
                f"{report.rows:,}",
                f"{report.bytes / 1e6:.1f}",
                f"{report.duration_s:.1f}",
            )
        out.print(table)
    _next_steps(config.home / "blobs", catalog)


def _next_steps(blobs: Path, catalog: Catalog) -> None:
    project = catalog.projects[0].project_id
    out.print(
        f"""
Read the result:
  DuckDB      SELECT type, sum(total_cost) FROM '{blobs}/{project}/observations/*.parquet' GROUP BY type
  pandas      pandas.read_parquet('{blobs}/{project}/traces')
  manifests   {blobs}/{project}/manifests/

See the partitions and launch a backfill:
  make ui     then open http://127.0.0.1:3000""",
        markup=False,
        soft_wrap=True,
    )
