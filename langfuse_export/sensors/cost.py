"""Shows in Dagster what exports cost ClickHouse, some minutes after they ran.

ClickHouse writes its log of queries seconds after they have ended, and not every user may read it, so no run
waits for it. This sensor reads it for the runs that have ended since its last tick, and records one
observation for each table of a run, whatever the number of its windows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import dagster as dg
from dagster._core.event_api import EventRecordsFilter
from pydantic import Field

from langfuse_export.project import ProjectExport
from langfuse_export.query_cost import QueryCost, QueryCosts, query_costs
from langfuse_export.resources import ExportOptions
from langfuse_export.sensors.cursor import Cursor
from langfuse_export.sensors.ended_runs import EndedRuns, RunRead, RunTable
from langfuse_export.telemetry import Telemetry
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.logs import warn_once

INTERVAL_S = 300
# What one tick records at most, unless one run has more; Dagster writes these one by one, at about 10 ms.
MAX_TABLES = 1000
# Of the 60 s after which Dagster ends a tick, for ClickHouse.
QUERY_TIMEOUT_S = 20

_RUN = "run"


def build_cost_sensor(projects: Sequence[ProjectExport], options: ExportOptions) -> dg.SensorDefinition:
    """The sensor of all projects."""
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
        runs = EndedRuns(context.instance, projects, options.now(), begun)
        tick = CostTick(context.instance, clickhouse, runs)
        outcome = tick.evaluate(CostCursor.parse(context.cursor))
        if outcome.unavailable:
            warn_once("query_cost_unavailable", error=outcome.unavailable)
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
    """One evaluation of the sensor."""

    def __init__(self, instance: dg.DagsterInstance, clickhouse: ClickHouse, runs: EndedRuns) -> None:
        self._instance = instance
        seconds = min(clickhouse.limits.max_execution_time_s, QUERY_TIMEOUT_S)
        self._source = clickhouse.with_limits(replace(clickhouse.limits, max_execution_time_s=seconds))
        self._runs = runs

    def evaluate(self, cursor: CostCursor) -> Outcome:
        """Read the cost of what has run since; the cursor stays where it is while that is not to be had."""
        ended, found = self._runs.since(cursor.ended, MAX_TABLES)
        tables = self._not_recorded(found)
        queries = {query_id: at for table in tables for query_id, at in table.queries.items()}
        costs = query_costs(self._source, queries.items())
        if costs.unavailable:
            return Outcome(cursor, tables=len(tables), unavailable=costs.unavailable)
        known = list(_known(tables, costs))
        return Outcome(CostCursor(ended=ended), known, len(tables), is_reading=self._runs.is_reading)

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
