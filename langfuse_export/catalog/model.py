"""The shape of `exports.yaml`; its JSON schema is published as docs/exports.schema.json."""

from typing import Self

from pydantic import Field, model_validator

from langfuse_export.catalog.destination import DestinationModel
from langfuse_export.catalog.project import ProjectModel
from langfuse_export.catalog.strict import StrictModel
from langfuse_export.formats import FileFormat

EVERY_PROJECT = "*"


class CatalogModel(StrictModel):
    """`exports.yaml`."""

    destinations: dict[str, DestinationModel] = Field(min_length=1)
    projects: list[ProjectModel] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for project in self.projects:
            if project.id in seen:
                raise ValueError(f"projects: {project.id!r} is listed twice")
            seen.add(project.id)
            if project.destination not in self.destinations:
                raise ValueError(
                    f"projects: {project.id!r} has destination {project.destination!r}; "
                    f"there are {', '.join(self.destinations)}"
                )
            if self.named_collection_of(project) and project.format is not FileFormat.PARQUET:
                raise ValueError(
                    f"projects: {project.id!r}: format: {project.format} cannot be written to "
                    f"{project.destination!r}, whose transfer: server has only parquet verified without "
                    "reading it all"
                )
        return self

    def named_collection_of(self, project: ProjectModel) -> str | None:
        """ClickHouse's named collection where it writes the project's objects itself, else None."""
        return self.destinations[project.destination].named_collection

    @property
    def finds_projects(self) -> bool:
        """Whether the projects are whatever ClickHouse has."""
        return any(project.id == EVERY_PROJECT for project in self.projects)

    @property
    def tables_to_discover(self) -> set[str]:
        """Tables to ask ClickHouse for projects and first rows; empty if the catalog leaves nothing open."""
        unknown = [p for p in self.projects if p.id == EVERY_PROJECT or p.start is None]
        return {table for project in unknown for table in project.tables}
