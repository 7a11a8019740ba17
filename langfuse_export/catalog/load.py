"""From settings to the catalog that the rest of the product works with."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from langfuse_export.catalog.destination import DestinationModel
from langfuse_export.catalog.discovery import discover
from langfuse_export.catalog.encryption import DecryptionError
from langfuse_export.catalog.errors import CatalogError
from langfuse_export.catalog.integration_export import (
    IntegrationError,
    integration_export,
    start_of,
)
from langfuse_export.catalog.model import EVERY_PROJECT, CatalogModel
from langfuse_export.catalog.postgres import Integration, Rejection, read_integrations
from langfuse_export.catalog.project import ProjectModel, can_be_folder
from langfuse_export.catalog.yaml_file import read_yaml
from langfuse_export.formats import ParquetCodec
from langfuse_export.layout import first_clash
from langfuse_export.project import ProjectExport
from langfuse_export.tables import ALL_TABLES
from langfuse_export.windows import Frequency
from langfuse_worker.clickhouse import ClickHouseError, QueryLimits, connect
from langfuse_worker.postgres import Database
from langfuse_worker.settings import Settings

log = structlog.get_logger()

_COULD_CLASH = "another project could write the same objects: end the prefix with a slash, or use another"


@dataclass(frozen=True)
class Catalog:
    """Every export of this deployment.

    Attributes:
        rejections: projects in Langfuse's Postgres that are left out, and why.
        fingerprint: of what it was made of.
    """

    projects: tuple[ProjectExport, ...]
    rejections: tuple[Rejection, ...] = ()
    fingerprint: str = ""

    def project(self, project_id: str) -> ProjectExport:
        """The export of a project; raises CatalogError naming those there are, or why it is left out."""
        for project in self.projects:
            if project.project_id == project_id:
                return project
        for rejection in self.rejections:
            if rejection.project_id == project_id:
                raise CatalogError(f"project {project_id!r} is left out: {rejection.error}")
        known = ", ".join(p.project_id for p in self.projects) or "none"
        raise CatalogError(f"no project {project_id!r} in the catalog; there are: {known}")


@dataclass(frozen=True)
class Sources:
    """What a catalog is made of.

    Attributes:
        model: exports.yaml, or the embedded default; None where Postgres alone is the catalog.
        rows: what Langfuse's Postgres has.
        first_rows: time of the first row of each project in ClickHouse, as far as it matters.
        discovery_error: why ClickHouse did not tell, where only rows of Postgres needed to know.
    """

    model: CatalogModel | None
    rows: Sequence[Integration | Rejection] = ()
    first_rows: Mapping[str, datetime] = field(default_factory=dict)
    discovery_error: str | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with what is exported and how, and not with how far exports are."""
        found = sorted(self.first_rows) if self.model and self.model.finds_projects else []
        rows = [row.identity if isinstance(row, Integration) else vars(row) for row in self.rows]
        parts = [repr(self.model), repr(found), repr(rows), repr(self.discovery_error)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_catalog(settings: Settings) -> Catalog:
    """Read exports.yaml and Langfuse's Postgres, whichever are set; ask ClickHouse for what they leave open.

    Raises:
        CatalogError: a catalog is missing or wrong, or Postgres does not answer.
        ClickHouseError: exports.yaml leaves projects or starts open and ClickHouse does not answer.
    """
    return resolve(read_sources(settings), settings, datetime.now(UTC))


def read_sources(settings: Settings) -> Sources:
    """What `load_catalog` makes the catalog of. Raises as it does."""
    model = read_model(settings)
    rows = read_integrations(Database(settings.database_url)) if settings.database_url else []
    of_model = model.tables_to_discover if model else set()
    of_rows = {
        table for row in rows if isinstance(row, Integration) and row.needs_first_row for table in row.tables
    }
    if not of_model | of_rows:
        return Sources(model, rows)
    source = connect(settings)
    try:
        tables = [table for name, table in ALL_TABLES.items() if name in of_model | of_rows]
        first_rows = discover(source, tables, settings.home / "cache", settings.export_source_url)
    except ClickHouseError as error:
        if of_model:
            raise
        return Sources(model, rows, discovery_error=str(error))
    finally:
        source.close()
    return Sources(model, rows, first_rows)


def read_model(settings: Settings) -> CatalogModel | None:
    """The catalog as written, the embedded default, or None where Postgres alone is the catalog.

    Raises:
        CatalogError: it is missing or wrong.
    """
    if settings.export_config is not None:
        return read_yaml(settings.export_config)
    if settings.database_url is not None:
        return None
    if not settings.embedded:
        raise CatalogError(
            "LANGFUSE_EXPORT_CONFIG is not set: with a ClickHouse server, an exports.yaml or Langfuse's "
            "Postgres (DATABASE_URL) must say which projects go where"
        )
    blobs = (settings.home / "blobs").absolute().as_uri()
    return CatalogModel(
        destinations={"blobs": DestinationModel(url=f"{blobs}/")},
        projects=[ProjectModel(id=EVERY_PROJECT, destination="blobs")],
    )


def resolve(sources: Sources, settings: Settings, now: datetime) -> Catalog:
    """Turn what was read into exports. A project that both have is exports.yaml's; `*` takes neither's.

    Args:
        sources: what was read.
        settings: the deployment's limits and defaults.
        now: start of projects that have no rows and no `start`.

    Raises:
        CatalogError: a project in exports.yaml raises a limit, a mask lacks its key, prices lack a database,
            or projects could share keys.
    """
    listed = {project.id for project in sources.model.projects} if sources.model else set()
    for row in sources.rows:
        if row.project_id in listed:
            log.info("catalog_project_in_both", projectId=row.project_id, used="LANGFUSE_EXPORT_CONFIG")
    rows = [row for row in sources.rows if row.project_id not in listed]
    taken = listed | {row.project_id for row in rows}
    others = _folders(sorted(sources.first_rows.keys() - taken))
    from_yaml = _from_yaml(sources.model, sources.first_rows, others, settings, now) if sources.model else ()
    exports = {export.project_id: export for export in from_yaml}
    resolved = {row.project_id: _from_postgres(row, sources, settings, now) for row in rows}
    exports |= {id: export for id, export in resolved.items() if isinstance(export, ProjectExport)}
    rejections = [export for export in resolved.values() if isinstance(export, Rejection)]
    while clash := first_clash(shape for export in exports.values() for shape in export.key_shapes()):
        # Who may write rows of Postgres must not be able to stop everybody's exports.
        left_out = next((id for id in reversed(clash) if id in resolved), None)
        if left_out is None:
            raise _clash_error(*(exports[id] for id in clash))
        rejections.append(Rejection(left_out, _COULD_CLASH, exports.pop(left_out).enabled))
    return Catalog(
        tuple(exports.values()),
        tuple(rejection for rejection in rejections if rejection.enabled),
        sources.fingerprint,
    )


def _folders(found: Sequence[str]) -> list[str]:
    """The projects that were found in ClickHouse, without those whose objects could have no keys."""
    for project_id in found:
        if not can_be_folder(project_id):
            error = "its id cannot be a folder of the object keys"
            log.warning("catalog_row_rejected", projectId=project_id, error=error)
    return [project_id for project_id in found if can_be_folder(project_id)]


def _clash_error(first: ProjectExport, second: ProjectExport) -> CatalogError:
    return CatalogError(
        f"projects: key: {first.project_id!r} with {first.layout.text!r} and {second.project_id!r} with "
        f"{second.layout.text!r} could write the same object; use another prefix for one of them"
    )


def _from_yaml(
    model: CatalogModel,
    first_rows: Mapping[str, datetime],
    others: Sequence[str],
    settings: Settings,
    now: datetime,
) -> Iterator[ProjectExport]:
    limits = QueryLimits.from_settings(settings)
    # From midnight on, so that the runs of a backfill, some days each, read no day twice.
    first_days = {project: Frequency.DAILY.floor(first) for project, first in first_rows.items()}
    for project in model.projects:
        for project_id in others if project.id == EVERY_PROJECT else [project.id]:
            start = project.start_utc or first_days.get(project_id, now)
            yield _export(model, project, project_id, start, limits, settings)


def _from_postgres(
    row: Integration | Rejection, sources: Sources, settings: Settings, now: datetime
) -> ProjectExport | Rejection:
    if isinstance(row, Rejection):
        return row
    if row.needs_first_row and sources.discovery_error:
        return Rejection(
            row.project_id, f"its first row is not known: {sources.discovery_error}", row.enabled
        )
    try:
        return integration_export(row, start_of(row, sources.first_rows, now), settings)
    except (IntegrationError, DecryptionError) as error:
        return Rejection(row.project_id, str(error), row.enabled)


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
    try:
        tables = project.exported_tables(settings.export_mask_key)
    except ValueError as error:
        raise CatalogError(f"projects: {project.id!r}: {error}") from None
    if project.prices and settings.database_url is None:
        raise CatalogError(
            f"projects: {project.id!r}: prices: true needs DATABASE_URL, which is not set: set it to "
            "Langfuse's Postgres, where prices of models are"
        )
    return ProjectExport(
        project_id=project_id,
        name=project.name or project_id,
        enabled=project.enabled,
        tables=tables,
        frequency=project.frequency,
        start=project.frequency.floor(start),
        encoding=project.encoding(ParquetCodec(settings.export_parquet_compression)),
        limits=lowered,
        row_group_rows=project.parquet_row_group_size or settings.export_parquet_row_group_size,
        destination=model.destinations[project.destination].store_config(),
        destination_name=project.destination,
        timing=project.schedule.timing if project.schedule else None,
        layout=project.key_template,
        named_collection=model.named_collection_of(project),
        skip_empty=project.skip_empty,
        owners=tuple(project.owners),
        retention_days=settings.days_kept(project_id),
    )
