"""What runs that have ended exported, and by which queries, from Dagster's event log a little at a time."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.event_api import RunStatusChangeEventType

from langfuse_export.metadata import manifest_entry
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.windows import Window

# ClickHouse writes its log every 7.5 s unless it is told otherwise.
SETTLED_AFTER = timedelta(minutes=1)
# Runs that ended longer ago are left out: those from before there was a sensor, or before it might read.
LOOK_BACK = timedelta(days=1)
# Of the 60 s after which Dagster ends a tick, for reading its event log.
READ_FOR_S = 25

_PAGE = 100
# Materializations that are in memory at once, of some 12 KB each.
_EVENTS_PAGE = 1000
# Failures first: they are few, and what they exported did cost something.
_ENDS: tuple[RunStatusChangeEventType, ...] = (
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
    dg.DagsterEventType.RUN_SUCCESS,
)


@dataclass
class RunTable:
    """One table in one run: the windows that it exported, and when their queries had ended, by id."""

    run_id: str
    asset: dg.AssetKey
    table: str
    mode: str
    windows: dict[str, Window] = field(default_factory=dict)
    queries: dict[str, datetime] = field(default_factory=dict)


@dataclass
class RunRead:
    """How far the materializations of a run have been read; `cursor` is Dagster's, of the last one."""

    tables: dict[dg.AssetKey, RunTable] = field(default_factory=dict)
    cursor: str | None = None
    is_whole: bool = False


class EndedRuns:
    """Reads what runs of the projects exported.

    `begun` has the runs by id that earlier ticks of this process have read in part. A run may take longer to
    read than a tick has; after a restart it is read from its beginning.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        projects: Iterable[ProjectExport],
        now: datetime,
        begun: dict[str, RunRead],
    ) -> None:
        self._instance = instance
        self._now = now
        self._begun = begun
        self._tables = {
            asset_key(project, table): (project, table) for project in projects for table in project.tables
        }

    @property
    def is_reading(self) -> bool:
        """Whether a run is left that has not been read to its end."""
        return any(not read.is_whole for read in self._begun.values())

    def since(self, ended: Mapping[str, int], at_most: int) -> tuple[dict[str, int], list[RunTable]]:
        """The tables of runs that ended since, and which ends have been dealt with then.

        Args:
            ended: by type of a run's last event, the storage id of the last one that was dealt with.
            at_most: tables, unless one run has more.
        """
        deadline = time.monotonic() + READ_FOR_S
        after, found = dict(ended), list[RunTable]()
        seen = set[str]()
        for kind, record in self._all_ends(ended):
            if record.run_id in seen:  # a run that takes too long fails, and its process says: cancelled
                after[kind.value] = record.storage_id
                continue
            tables = self._tables_of(record.run_id, deadline)
            if tables is None or (found and len(found) + len(tables) > at_most):
                break
            found += tables
            after[kind.value] = record.storage_id
            seen.add(record.run_id)
            del self._begun[record.run_id]
            if len(found) >= at_most or time.monotonic() > deadline:
                break
        else:  # what is left has ended too long ago, or was deleted
            self._begun.clear()
        return after, found

    def _all_ends(
        self, ended: Mapping[str, int]
    ) -> Iterator[tuple[RunStatusChangeEventType, dg.EventLogRecord]]:
        for kind in _ENDS:
            for record in self._ends(kind, ended.get(kind.value)):
                yield kind, record

    def _ends(self, kind: RunStatusChangeEventType, after: int | None) -> Iterator[dg.EventLogRecord]:
        """Ends of runs, the oldest first, up to one so young that ClickHouse may not have logged its queries.

        After that time no event with a smaller id is on its way into the storage either.
        """
        oldest = (self._now - LOOK_BACK).timestamp()
        settled = (self._now - SETTLED_AFTER).timestamp()
        while True:
            records = dg.RunStatusChangeRecordsFilter(kind, after_timestamp=oldest, after_storage_id=after)
            page = self._instance.fetch_run_status_changes(records, limit=_PAGE, ascending=True)
            for record in page.records:
                if record.timestamp > settled:
                    return
                yield record
                after = record.storage_id
            if not page.has_more:
                return

    def _tables_of(self, run_id: str, deadline: float) -> Sequence[RunTable] | None:
        """The tables of a run; None if there is no time for all of its events. A page is read in any case."""
        read = self._begun.setdefault(run_id, RunRead())
        while not read.is_whole:
            page = self._instance.get_records_for_run(
                run_id, read.cursor, dg.DagsterEventType.ASSET_MATERIALIZATION, _EVENTS_PAGE
            )
            for record in page.records:
                self._add(read.tables, run_id, record.event_log_entry)
            read.cursor, read.is_whole = page.cursor, not page.has_more
            if not read.is_whole and time.monotonic() > deadline:
                return None
        return list(read.tables.values())

    def _add(self, found: dict[dg.AssetKey, RunTable], run_id: str, entry: dg.EventLogEntry) -> None:
        event = entry.asset_materialization
        file = manifest_entry(event) if event else None
        if event is None or file is None or event.partition is None or event.asset_key not in self._tables:
            return  # of somebody else, or of a project that is gone
        project, table = self._tables[event.asset_key]
        for window in project.frequency.windows_of_keys([event.partition]):
            mode = event.metadata.get("mode")
            run = RunTable(run_id, event.asset_key, table.name, str(mode.value) if mode else "")
            run = found.setdefault(event.asset_key, run)
            run.windows[event.partition] = window
            # One read of a day serves many windows, and a heavy window takes many.
            ended = datetime.fromtimestamp(entry.timestamp, UTC)
            run.queries |= dict.fromkeys(file.queries, ended)
