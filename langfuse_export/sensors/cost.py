"""Shows in Dagster what exports cost ClickHouse, some minutes after they ran.

ClickHouse writes its log of queries seconds after they have ended, and not every user may read it, so no run
waits for it. This sensor reads it for the runs that have ended since its last tick, and records one
observation for each table of a run, whatever the number of its windows.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import structlog
from dagster._core.event_api import EventRecordsFilter, RunStatusChangeEventType
from pydantic import Field

from langfuse_export.metadata import manifest_entry
from langfuse_export.naming import asset_key
from langfuse_export.project import ProjectExport
from langfuse_export.query_cost import QueryCost, QueryCosts, query_costs
from langfuse_export.resources import ExportOptions
from langfuse_export.sensors.cursor import Cursor
from langfuse_export.telemetry import Telemetry
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import ClickHouse

log = structlog.get_logger()

INTERVAL_S = 300
# ClickHouse writes its log every 7.5 s unless it is told otherwise.
SETTLED_AFTER = timedelta(minutes=1)
# Runs that ended longer ago are left out: those from before this sensor was there, or before it might read.
LOOK_BACK = timedelta(days=1)
# What one tick records at most, unless one run has more; Dagster writes these one by one, at about 10 ms.
MAX_TABLES = 1000
# Of the 60 s after which Dagster ends a tick, for reading its event log, and for ClickHouse.
READ_FOR_S = 25
QUERY_TIMEOUT_S = 20

_PAGE = 100
# Materializations that are in memory at once, of some 12 KB each.
_EVENTS_PAGE = 1000
_RUN = "run"
# Failures first: they are few, and what they exported did cost something.
_ENDS: tuple[RunStatusChangeEventType, ...] = (
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
    dg.DagsterEventType.RUN_SUCCESS,
)


def build_cost_sensor(projects: Sequence[ProjectExport], options: ExportOptions) -> dg.SensorDefinition:
    """The sensor of all projects."""
    told: set[str] = set()  # what the log has been told, once in a process
    begun: dict[str, RunRead] = {}

    @dg.sensor(
        name="query_cost_sensor",
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Records on each table what its exports cost ClickHouse: rows and bytes read, peak memory and "
            "CPU, from system.query_log."
        ),
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        clickhouse: dg.ResourceParam[ClickHouse],
        telemetry: dg.ResourceParam[Telemetry],
    ) -> dg.SensorResult:
        tick = CostTick(context.instance, clickhouse, projects, options, begun)
        outcome = tick.evaluate(CostCursor.parse(context.cursor))
        if outcome.unavailable and outcome.unavailable not in told:
            told.add(outcome.unavailable)
            log.warning("query_cost_unavailable", error=outcome.unavailable)
        for table in outcome.recorded:
            telemetry.queries_cost(table.run.table, table.run.mode, **asdict(table.cost))
        telemetry.flush()
        return dg.SensorResult(
            skip_reason=outcome.summary,
            asset_events=[table.observation() for table in outcome.recorded],
            cursor=outcome.cursor.model_dump_json(),
        )

    return sensor


class CostCursor(Cursor, frozen=True):
    """Which runs are dealt with.

    Attributes:
        ended: by type of a run's last event, the storage id of the last one that was dealt with.
    """

    ended: dict[str, int] = Field(default_factory=dict)


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


@dataclass(frozen=True)
class TableCost:
    """What the queries of one table in one run cost together, as far as the log has them."""

    run: RunTable
    cost: QueryCost
    queries: int

    def observation(self) -> dg.AssetObservation:
        """For the asset's page, which plots its numbers; with a partition where it is about one window."""
        windows = self.run.windows
        return dg.AssetObservation(
            self.run.asset,
            partition=next(iter(windows)) if len(windows) == 1 else None,
            description="What the export cost ClickHouse",
            metadata={
                "read_rows": dg.MetadataValue.int(self.cost.read_rows),
                "read_bytes": dg.MetadataValue.int(self.cost.read_bytes),
                "peak_memory": dg.MetadataValue.int(self.cost.peak_memory),
                "cpu_s": dg.MetadataValue.float(self.cost.cpu_s),
                "queries": dg.MetadataValue.int(self.queries),
                "queries_not_in_log": dg.MetadataValue.int(len(self.run.queries) - self.queries),
                "windows": dg.MetadataValue.int(len(windows)),
                "window_start": dg.MetadataValue.timestamp(min(w.start for w in windows.values())),
                "window_end": dg.MetadataValue.timestamp(max(w.end for w in windows.values())),
                _RUN: dg.MetadataValue.dagster_run(self.run.run_id),
            },
        )


@dataclass(frozen=True)
class Outcome:
    """What a tick leads to.

    Attributes:
        cursor: the next one's.
        recorded: what is known.
        tables: how many there are, known or not.
        unavailable: why it could not read any cost.
        is_reading: whether a run is left that it has not read to its end.
    """

    cursor: CostCursor
    recorded: Sequence[TableCost] = ()
    tables: int = 0
    unavailable: str | None = None
    is_reading: bool = False

    @property
    def summary(self) -> str:
        """What the tick did, for its page in Dagster."""
        if self.unavailable:
            return f"what {self.tables} tables cost is not known: {self.unavailable}"
        if not self.tables and self.is_reading:
            return "a long run has been read in part; the next tick goes on with it"
        if not self.tables:
            return "no run has exported anything since the last tick"
        missing = self.tables - len(self.recorded)
        rest = f"; the log of this server does not have {missing} more" if missing else ""
        return f"recorded what {len(self.recorded)} tables cost{rest}"


class CostTick:
    """One evaluation of the sensor.

    `begun` has the runs by id that earlier ticks of this process have read and not recorded. A run may take
    longer to read than a tick has; after a restart it is read from its beginning.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        clickhouse: ClickHouse,
        projects: Iterable[ProjectExport],
        options: ExportOptions,
        begun: dict[str, RunRead],
    ) -> None:
        self._begun = begun
        self._instance = instance
        seconds = min(clickhouse.limits.max_execution_time_s, QUERY_TIMEOUT_S)
        self._source = clickhouse.with_limits(replace(clickhouse.limits, max_execution_time_s=seconds))
        self._tables = {
            asset_key(project, table): (project, table) for project in projects for table in project.tables
        }
        self._now = options.now()

    def evaluate(self, cursor: CostCursor) -> Outcome:
        """Read the cost of what has run since; the cursor stays where it is while that is not to be had."""
        after, found = self._ended_since(cursor)
        tables = self._not_recorded(found)
        queries = {query_id: at for table in tables for query_id, at in table.queries.items()}
        costs = query_costs(self._source, queries.items())
        if costs.unavailable:
            return Outcome(cursor, tables=len(tables), unavailable=costs.unavailable)
        is_reading = any(not read.is_whole for read in self._begun.values())
        return Outcome(after, list(_known(tables, costs)), len(tables), is_reading=is_reading)

    def _not_recorded(self, tables: Sequence[RunTable]) -> list[RunTable]:
        """Those that no tick has recorded: a killed one leaves observations, and the cursor as it was."""
        if not tables:
            return []
        # In one query, and not one for each asset. What a tick left is among the newest that there are.
        observations = EventRecordsFilter(dg.DagsterEventType.ASSET_OBSERVATION)
        at_most = max(MAX_TABLES, len(tables))
        newest = self._instance.event_log_storage.get_event_records(observations, limit=at_most)
        recorded = {_recorded_run(record.event_log_entry) for record in newest}
        return [table for table in tables if (table.asset, table.run_id) not in recorded]

    def _ended_since(self, cursor: CostCursor) -> tuple[CostCursor, list[RunTable]]:
        """The tables of runs that ended since, as many as a tick may take, and the cursor after them."""
        deadline = time.monotonic() + READ_FOR_S
        ended, found = dict(cursor.ended), list[RunTable]()
        seen = set[str]()
        for kind, record in self._all_ends(cursor):
            if record.run_id in seen:  # a run that takes too long fails, and its process says: cancelled
                ended[kind.value] = record.storage_id
                continue
            tables = self._tables_of(record.run_id, deadline)
            if tables is None or (found and len(found) + len(tables) > MAX_TABLES):
                break
            found += tables
            ended[kind.value] = record.storage_id
            seen.add(record.run_id)
            del self._begun[record.run_id]
            if len(found) >= MAX_TABLES or time.monotonic() > deadline:
                break
        return CostCursor(ended=ended), found

    def _all_ends(self, cursor: CostCursor) -> Iterator[tuple[RunStatusChangeEventType, dg.EventLogRecord]]:
        for kind in _ENDS:
            for record in self._ends(kind, cursor.ended.get(kind.value)):
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


def _recorded_run(entry: dg.EventLogEntry) -> tuple[dg.AssetKey, str] | None:
    """Asset and run that an observation of this sensor is about."""
    event = entry.asset_observation
    run = event.metadata.get(_RUN) if event else None
    return (event.asset_key, str(run.value)) if event and run else None


def _known(tables: Iterable[RunTable], costs: QueryCosts) -> Iterator[TableCost]:
    """The tables that the log knows anything of; it forgets, and other servers' queries are not in it."""
    for table in tables:
        if cost := costs.of(table.queries):
            yield TableCost(table, cost, len(table.queries.keys() & costs.by_id.keys()))
