"""Asking Dagster for runs: which windows are on their way, and requests for those that are not."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import dagster as dg
from dagster import AssetKey, DagsterRunStatus, RunsFilter

from langfuse_export.naming import (
    MAX_RUNTIME_TAG,
    PARTITION_TAG,
    PROJECT_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    asset_key,
    job_name,
    safe_name,
)
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import Window

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
]

# Seconds after which a run is taken for hung, and those of each window. Of backfills Dagster says it.
_MAX_RUNTIME_S, _MAX_WINDOW_S = 4 * 3600, 600


@dataclass(frozen=True)
class RequestedPartitions:
    """Partitions of unfinished runs: windows that are on their way."""

    by_asset: dict[AssetKey, set[str]]

    @classmethod
    def read(
        cls, instance: dg.DagsterInstance, partitions: dg.TimeWindowPartitionsDefinition
    ) -> "RequestedPartitions":
        """Read them from the runs that wait or run now, whoever started them."""
        found: dict[AssetKey, set[str]] = {}
        for run in instance.get_runs(RunsFilter(statuses=_UNFINISHED)):
            keys = _partitions_of(run, partitions)
            for asset in run.asset_selection or ():
                found.setdefault(asset, set()).update(keys)
        return cls(found)


def _partitions_of(run: dg.DagsterRun, partitions: dg.TimeWindowPartitionsDefinition) -> list[str]:
    if key := run.tags.get(PARTITION_TAG):
        return [key]
    first = run.tags.get(RANGE_START_TAG)
    last = run.tags.get(RANGE_END_TAG)
    if first is None or last is None:
        return []
    try:
        return list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))
    except (ValueError, dg.DagsterInvalidInvocationError, dg.DagsterUnknownPartitionError):
        return []  # of another frequency


def consecutive(windows: Iterable[Window], at_most: int) -> Iterator[tuple[Window, Window]]:
    """First and last of each unbroken row of windows in order, cut into rows of `at_most`."""
    row: list[Window] = []
    for window in windows:
        if row and (row[-1].end != window.start or len(row) == at_most):
            yield row[0], row[-1]
            row = []
        row.append(window)
    if row:
        yield row[0], row[-1]


def run_request(
    project: ProjectExport,
    tables: Iterable[Table],
    first: Window,
    last: Window,
    tags: Mapping[str, str],
    attempt: str = "",
) -> dg.RunRequest:
    """A run of a project's windows from the first to the last.

    Args:
        attempt: tells a request from earlier ones of the same windows; Dagster ignores what it has seen.
    """
    start, end = project.frequency.key(first), project.frequency.key(last)
    windows = (last.end - first.start) // project.frequency.length
    max_runtime_s = max(_MAX_RUNTIME_S, windows * _MAX_WINDOW_S)
    project_tags = {PROJECT_TAG: safe_name(project.project_id), MAX_RUNTIME_TAG: str(max_runtime_s)}
    ranged = {} if first == last else {RANGE_START_TAG: start, RANGE_END_TAG: end}
    return dg.RunRequest(
        run_key=":".join(part for part in (project.project_id, start, end, attempt) if part),
        job_name=job_name(project.frequency),
        partition_key=start if first == last else None,
        asset_selection=[asset_key(project, table) for table in tables],
        tags={**project_tags, **tags, **ranged},
    )
