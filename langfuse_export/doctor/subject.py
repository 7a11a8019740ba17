"""The deployment that is checked."""

from dataclasses import dataclass
from functools import cached_property

from langfuse_export.catalog import Catalog, load_catalog
from langfuse_worker.blobstore import StoreConfig
from langfuse_worker.clickhouse import ClickHouse, connect
from langfuse_worker.settings import Settings


@dataclass
class Subject:
    """Settings, and what they lead to."""

    settings: Settings

    @cached_property
    def catalog(self) -> Catalog:
        """What is exported. Raises CatalogError, ClickHouseError."""
        return load_catalog(self.settings)

    @property
    def server_mode(self) -> dict[str, tuple[StoreConfig, str]]:
        """Destinations that ClickHouse writes to itself, and with which collection, by name.

        Raises CatalogError, ClickHouseError.
        """
        return {
            project.destination_name: (project.destination, project.named_collection)
            for project in self.catalog.projects
            if project.enabled and project.named_collection is not None
        }

    def connect(self) -> ClickHouse:
        """ClickHouse as exports reach it."""
        return connect(self.settings)
