"""Which windows have been exported, as the Dagster instance recorded it."""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Window

# Steady exports ask for one or two windows. Who asks for more reads all at once.
_PROBES = 3


@dataclass(frozen=True)
class InstanceHistory:
    """Implements `langfuse_export.listeners.History`."""

    instance: dg.DagsterInstance

    def exported_until(self, project: ProjectExport, since: datetime) -> datetime:
        """See `History`."""
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

    def _is_exported(self, project: ProjectExport, window: Window) -> bool:
        keys = [project.frequency.key(window)]
        return all(
            self.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key(project, table), asset_partitions=keys), limit=1
            ).records
            for table in project.tables
        )

    def _exported_keys(self, project: ProjectExport) -> set[str]:
        tables = [asset_key(project, table) for table in project.tables]
        return set.intersection(*(self.instance.get_materialized_partitions(table) for table in tables))
