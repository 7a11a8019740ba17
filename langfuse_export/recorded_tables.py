"""Tables as Dagster's event log knows them, whether or not the catalog still has them."""

from dataclasses import dataclass
from typing import Self

import dagster as dg

from langfuse_export.catalog import Catalog, CatalogError
from langfuse_export.naming import asset_key, project_key
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table


@dataclass(frozen=True)
class RecordedTable:
    """A table of a project, with its windows of every frequency that the project has had."""

    project_id: str
    name: str
    asset: dg.AssetKey

    @classmethod
    def of(cls, project: ProjectExport, table: Table) -> Self:
        """A table of the catalog."""
        return cls(project.project_id, table.name, asset_key(project, table))


def recorded_tables(
    instance: dg.DagsterInstance, catalog: Catalog, project_id: str | None
) -> list[RecordedTable]:
    """All tables of the catalog; or those of one project, with what is no longer exported of it.

    Raises CatalogError for a project that is neither in the catalog nor in Dagster's event log.
    """
    if project_id is None:
        return [RecordedTable.of(project, table) for project in catalog.projects for table in project.tables]
    removed = [
        RecordedTable(project_id, key.path[2], key)
        for key in instance.get_asset_keys(prefix=project_key(project_id))
        if key.path[:2] == project_key(project_id)
    ]
    try:
        project = catalog.project(project_id)
    except CatalogError as error:
        if not removed:
            raise CatalogError(f"{error}{_exported_before(instance, catalog)}") from None
        return removed
    known = {asset_key(project, table): RecordedTable.of(project, table) for table in project.tables}
    return [*known.values(), *(table for table in removed if table.asset not in known)]


def _exported_before(instance: dg.DagsterInstance, catalog: Catalog) -> str:
    [product, *_] = project_key("")
    names = {key.path[1] for key in instance.get_asset_keys(prefix=[product]) if key.path[0] == product}
    names -= {project_key(project.project_id)[1] for project in catalog.projects}
    return f"; exported before: {', '.join(sorted(names))}" if names else ""
