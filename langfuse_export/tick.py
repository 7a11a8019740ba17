"""What an evaluation of a schedule or a sensor knows of windows: attempted, on their way, to be asked for."""

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime

import dagster as dg
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from langfuse_export.health.recorder import adopt_failed
from langfuse_export.health.state import Health
from langfuse_export.health.store import HealthStore
from langfuse_export.naming import PRIORITY_TAG, asset_key
from langfuse_export.partition_statuses import (
    Statuses,
    failed_partitions,
    partition_statuses,
    unattempted_partitions,
    unfinished_partitions,
)
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
        self._statuses: dict[dg.AssetKey, Statuses] = {}
        self._unfinished: dict[dg.AssetKey, set[str]] = {}
        self._unattempted: dict[dg.AssetKey, set[str]] = {}

    def read_statuses(self, projects: Sequence[ProjectExport], windows: Sequence[Window]) -> None:
        """Read what became of the windows of all projects at once, rather than when it is asked for."""
        keys = [self._frequency.key(window) for window in windows]
        probes = [_probe(project) for project in projects]
        for asset, known in partition_statuses(self._instance, probes, keys, self._partitions).items():
            self._statuses.setdefault(asset, {}).update(known)
        others = [asset_key(project, table) for project in projects for table in project.tables[1:]]
        for asset, found in unfinished_partitions(self._instance, others, keys).items():
            self._unfinished.setdefault(asset, set()).update(found)
        for asset, found in unattempted_partitions(self._instance, others, keys).items():
            self._unattempted.setdefault(asset, set()).update(found)

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
        """Those of the windows that the schedule has to ask for."""
        wanted = [window for window in windows if window.start >= project.scheduled_from]
        return self.never_attempted(project, wanted)

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
        known = set(health.windows if health else ())
        status = self._status(project, windows)
        orphans = {key for key, value in status.items() if value is AssetPartitionStatus.FAILED}
        orphans -= known | self._requested_keys(project)
        for table in project.tables[1:]:
            orphans |= self._failed_of(asset_key(project, table), status.keys() - known)
        store, now = HealthStore(self._instance), options.now()
        adopt_failed(store, project.project_id, orphans, options.health, now)

    def _failed_of(self, asset: dg.AssetKey, keys: Set[str]) -> set[str]:
        """Of the keys, those that failed and are not on their way, as far as `read_statuses` has looked.

        Most assets take no query for it.
        """
        return failed_partitions(self._instance, asset, sorted(self._doubtful(asset, keys)), self._partitions)

    def _doubtful(self, asset: dg.AssetKey, keys: Set[str]) -> set[str]:
        """Of the keys, those whose last attempt has left nothing and is over."""
        return self._unfinished.get(asset, set()) & keys - self._requested.by_asset.get(asset, set())

    def never_attempted(self, project: ProjectExport, windows: Sequence[Window]) -> list[Window]:
        """Those of the windows of which no run has had, or has now, every table.

        As far as `read_statuses` has looked: elsewhere one table stands for all.
        """
        status = self._status(project, windows)
        partly = self._partly_attempted(project, status.keys())
        found = [(window, self._frequency.key(window)) for window in self.not_requested(project, windows)]
        return [window for window, key in found if status.get(key) is None or key in partly]

    def _partly_attempted(self, project: ProjectExport, keys: Set[str]) -> set[str]:
        """Of the keys, those of which somebody exported some tables alone, or cancelled the others."""
        found: set[str] = set()
        for table in project.tables[1:]:
            asset = asset_key(project, table)
            doubtful = sorted(self._doubtful(asset, keys))
            statuses = (
                partition_statuses(self._instance, [asset], doubtful, self._partitions) if doubtful else {}
            )
            found |= self._unattempted.get(asset, set()) & keys
            found |= {key for key, value in statuses.get(asset, {}).items() if value is None}
            found -= self._requested.by_asset.get(asset, set())
        return found

    def not_requested(self, project: ProjectExport, windows: Sequence[Window]) -> list[Window]:
        """Those of the windows that are not on their way."""
        requested = self._requested_keys(project)
        return [window for window in windows if self._frequency.key(window) not in requested]

    def is_busy(self, project: ProjectExport) -> bool:
        """Whether a run of the project waits or runs now."""
        return bool(self._requested_keys(project))

    def _requested_keys(self, project: ProjectExport) -> set[str]:
        return self._requested.by_asset.get(_probe(project), set())

    def _status(
        self, project: ProjectExport, windows: Sequence[Window]
    ) -> Mapping[str, AssetPartitionStatus | None]:
        keys = [self._frequency.key(window) for window in windows if window.start >= project.start]
        probe = _probe(project)
        known = self._statuses.setdefault(probe, {})
        unknown = [key for key in keys if key not in known]
        if unknown:
            known |= partition_statuses(self._instance, [probe], unknown, self._partitions)[probe]
        return {key: known[key] for key in keys}


def _probe(project: ProjectExport) -> dg.AssetKey:
    """The table that stands for all of a project's."""
    return asset_key(project, project.tables[0])
