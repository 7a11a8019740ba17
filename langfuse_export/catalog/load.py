"""From settings to the catalog that the rest of the product works with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from langfuse_export.catalog.discovery import discover
from langfuse_export.catalog.model import (
    EVERY_PROJECT,
    CatalogError,
    CatalogModel,
    DestinationModel,
    ProjectModel,
)
from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_export.formats import Encoding
from langfuse_export.project import ProjectExport
from langfuse_export.tables import TABLES, Table
from langfuse_export.windows import Frequency
from langfuse_worker.clickhouse import QueryLimits, connect
from langfuse_worker.settings import Settings


@dataclass(frozen=True)
class Catalog:
    """Every export of this deployment."""

    projects: tuple[ProjectExport, ...]

    def project(self, project_id: str) -> ProjectExport:
        """The export of a project; raises CatalogError naming those there are."""
        for project in self.projects:
            if project.project_id == project_id:
                return project
        known = ", ".join(p.project_id for p in self.projects) or "none"
        raise CatalogError(f"no project {project_id!r} in the catalog; there are: {known}")


def load_catalog(settings: Settings) -> Catalog:
    """Read the catalog; ask ClickHouse for projects and first rows only if it leaves them open.

    Raises:
        CatalogError: the catalog is missing or wrong.
        ClickHouseError: projects must be discovered and ClickHouse does not answer.
    """
    model = read_model(settings)
    first_rows: Mapping[str, datetime] = {}
    if model.tables_to_discover:
        source = connect(settings)
        try:
            tables = [TABLES[name] for name in TABLES if name in model.tables_to_discover]
            first_rows = discover(source, tables, settings.home / "cache", settings.export_source_url)
        finally:
            source.close()
    return resolve(model, settings, first_rows, datetime.now(UTC))


def read_model(settings: Settings) -> CatalogModel:
    """The catalog as written, or the embedded default. Raises CatalogError."""
    if settings.export_config is not None:
        return read_yaml(settings.export_config)
    if not settings.embedded:
        raise CatalogError(
            "LANGFUSE_EXPORT_CONFIG is not set: with a ClickHouse server, an exports.yaml must say which "
            "projects go where"
        )
    blobs = (settings.home / "blobs").absolute().as_uri()
    return CatalogModel(
        destinations={"blobs": DestinationModel(url=f"{blobs}/")},
        projects=[ProjectModel(id=EVERY_PROJECT, destination="blobs")],
    )


def resolve(
    model: CatalogModel, settings: Settings, first_rows: Mapping[str, datetime], now: datetime
) -> Catalog:
    """Turn the model into exports.

    Args:
        model: the catalog as written.
        settings: the deployment's limits and defaults.
        first_rows: time of the first row of each project in ClickHouse.
        now: start of projects that have no rows and no `start`.

    Raises:
        CatalogError: a project raises a limit.
    """
    limits = QueryLimits.from_settings(settings)
    listed = {project.id for project in model.projects}
    # From midnight on, so that the runs of a backfill, a day each, read no day twice.
    first_days = {project: Frequency.DAILY.floor(first) for project, first in first_rows.items()}

    def exports() -> Iterator[ProjectExport]:
        for project in model.projects:
            ids = sorted(set(first_rows) - listed) if project.id == EVERY_PROJECT else [project.id]
            for project_id in ids:
                start = project.start_utc or first_days.get(project_id, now)
                yield _export(model, project, project_id, start, limits, settings)

    return Catalog(tuple(exports()))


def _export(
    model: CatalogModel,
    project: ProjectModel,
    project_id: str,
    start: datetime,
    limits: QueryLimits,
    settings: Settings,
) -> ProjectExport:
    try:
        lowered = project.limits.lower(limits)
    except ValueError as error:
        raise CatalogError(f"projects: {project.id!r}: limits.{error}") from None
    return ProjectExport(
        project_id=project_id,
        name=project.name or project_id,
        enabled=project.enabled,
        tables=tuple(_table(project, name) for name in project.tables),
        frequency=project.frequency,
        start=project.frequency.floor(start),
        encoding=Encoding(project.format, project.compression),
        limits=lowered,
        row_group_rows=project.parquet_row_group_size or settings.export_parquet_row_group_size,
        destination=model.destinations[project.destination].store_config(),
        destination_name=project.destination,
    )


def _table(project: ProjectModel, name: str) -> Table:
    columns = dict(project.columns).get(name)  # type: ignore[call-overload]
    return TABLES[name].only(columns=columns, groups=project.field_groups)
