"""What an evaluation of a schedule or a sensor knows of windows: attempted, on their way, to be asked for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from datetime import datetime

import dagster as dg
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from langfuse_export.health.recorder import adopt_failed
from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import PRIORITY_TAG, asset_key
from langfuse_export.partition_statuses import Statuses, unattempted_partitions, unfinished_partitions
from langfuse_export.project import ProjectExport
from langfuse_export.resources import ExportOptions
from langfuse_export.run_requests import RequestedPartitions, consecutive, run_request
from langfuse_export.windows import Frequency, Window

NEWEST_PRIORITY = "10"
MISSED_PRIORITY = "5"


class Tick:
    """One evaluation of a schedule, or of a sensor that asks for windows of one frequency."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        frequency: Frequency,
        partitions: dg.TimeWindowPartitionsDefinition,
        windows_per_run: int,
    ) -> None:
        self._instance = instance
        self._frequency = frequency
        self._partitions = partitions
        self._windows_per_run = windows_per_run
        self._requested = RequestedPartitions.read(instance, partitions)
        self._unattempted: dict[dg.AssetKey, set[str]] = defaultdict(set)
        self._unfinished: dict[dg.AssetKey, set[str]] = defaultdict(set)
        self._statuses: dict[dg.AssetKey, Statuses] = defaultdict(dict)  # of unfinished ones

    def read(self, projects: Sequence[ProjectExport], windows: Sequence[Window]) -> None:
        """Read what became of the windows of all projects at once; of no others the rest of it knows."""
        keys = [self._frequency.key(window) for window in windows]
        assets = [asset for project in projects for asset in _assets(project)]
        for asset, found in unattempted_partitions(self._instance, assets, keys).items():
            self._unattempted[asset] |= found
        for asset, found in unfinished_partitions(self._instance, assets, keys).items():
            self._unfinished[asset] |= found

    def requests(
        self, project: ProjectExport, windows: Sequence[Window], asked_until: datetime
    ) -> Iterator[dg.RunRequest]:
        """Runs for the windows that ended after `asked_until`, then for earlier ones, which were missed.

        What has failed is left to the recovery sensor: asking again each tick would hammer ClickHouse.
        """
        missing = self.missing(project, windows)
        newest = [window for window in missing if window.end > asked_until]
        missed = [window for window in missing if window.end <= asked_until]
        for part, priority in ((newest, NEWEST_PRIORITY), (missed, MISSED_PRIORITY)):
            for first, last in consecutive(part, self._windows_per_run):
                yield run_request(project, project.tables, first, last, {PRIORITY_TAG: priority})

    def missing(self, project: ProjectExport, windows: Sequence[Window]) -> list[Window]:
        """Those of the windows that have to be asked for: a table of theirs was never attempted.

        Somebody may have exported some tables alone, or cancelled the others. What is on its way has been
        attempted, but not what others of its window need.
        """
        by_key = {self._frequency.key(w): w for w in windows if w.start >= project.scheduled_from}
        found: set[str] = set()
        for asset in _assets(project):
            keys = by_key.keys() - self._requested.by_asset.get(asset, set())
            found |= self._unattempted[asset] & keys
            statuses = self._unfinished_statuses(asset, keys - found)
            found |= {key for key, status in statuses.items() if status is None}
        return [window for key, window in by_key.items() if key in found]

    def is_settled(self, project: ProjectExport, windows: Sequence[Window]) -> bool:
        """Whether the schedule has none of the windows to ask for, and none is on its way."""
        is_on_its_way = len(self.not_requested(project, windows)) < len(windows)
        return not is_on_its_way and not self.missing(project, windows)

    def adopt_failed(
        self,
        project: ProjectExport,
        windows: Sequence[Window],
        health: Health | None,
        options: ExportOptions,
    ) -> None:
        """Have windows tried again whose run could not report its failure, because its process was killed."""
        keys = {self._frequency.key(window) for window in windows if window.start >= project.start}
        keys -= set(health.windows if health else ())
        orphans = {
            key
            for asset in _assets(project)
            for key, status in self._unfinished_statuses(asset, keys).items()
            if status is AssetPartitionStatus.FAILED
        }
        store, now = HealthStore(self._instance), options.now()
        adopt_failed(store, project.project_id, orphans, options.health, now)

    def not_requested(self, project: ProjectExport, windows: Sequence[Window]) -> list[Window]:
        """Those of the windows of which no table is on its way."""
        requested = self._requested_keys(project)
        return [window for window in windows if self._frequency.key(window) not in requested]

    def is_busy(self, project: ProjectExport) -> bool:
        """Whether a run of the project waits or runs now."""
        return bool(self._requested_keys(project))

    def _requested_keys(self, project: ProjectExport) -> set[str]:
        return set().union(*(self._requested.by_asset.get(asset, ()) for asset in _assets(project)))

    def _unfinished_statuses(self, asset: dg.AssetKey, keys: Set[str]) -> Statuses:
        """Of partitions whose last attempt is over and has left nothing; without any there is no query."""
        over = self._unfinished[asset] & keys - self._requested.by_asset.get(asset, set())
        known = self._statuses[asset]
        if unknown := sorted(over - known.keys()):
            found = self._instance.get_status_by_partition(asset, unknown, self._partitions) or {}
            known |= {key: found.get(key) for key in unknown}
        return {key: known[key] for key in over}


def _assets(project: ProjectExport) -> list[dg.AssetKey]:
    return [asset_key(project, table) for table in project.tables]
