"""What changed in ClickHouse, found without reading payload. Plain Python, no Dagster.

A look at rows that were written lately is cheap and names windows that may have changed. Fingerprints, which
cost as much as counting rows, say whether they have.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from langfuse_export import sql
from langfuse_export.tables import Table
from langfuse_export.windows import EPOCH, Window
from langfuse_worker.clickhouse import ACCESS_DENIED, ClickHouse, ClickHouseError, Query, QueryComment
from langfuse_worker.logs import warn_once

# So that a look fits into a sensor's tick, which Dagster ends after 60 s.
LOOK_TIMEOUT_S = 40
# Beyond that their names would make the query longer than the rows that they save.
_MAX_NAMED_PROJECTS = 100


@dataclass(frozen=True)
class Slot:
    """20 minutes of one project; every window is made of slots."""

    project_id: str
    start: datetime


@dataclass(frozen=True)
class Changes:
    """Looks for changed rows.

    Attributes:
        source: ClickHouse; its execution time is cut to what a tick has.
    """

    source: ClickHouse

    @classmethod
    def of(cls, source: ClickHouse, within_s: float = LOOK_TIMEOUT_S) -> "Changes":
        """Looks into that ClickHouse, with its limits, a query of so many seconds at most."""
        seconds = min(source.limits.max_execution_time_s, LOOK_TIMEOUT_S, max(1, int(within_s)))
        return cls(source.with_limits(replace(source.limits, max_execution_time_s=seconds)))

    def clock(self) -> datetime:
        """ClickHouse's clock. Raises ClickHouseError."""
        [(now,)] = self.source.rows(Query(f"SELECT {sql.CLOCK}", QueryComment(purpose="clock")))
        return _moment(now)

    def newest_parts(self, tables: Sequence[Table]) -> dict[str, datetime]:
        """By table name, when its newest part was written or merged.

        A table that is not among them has no parts here, or the user may not see them.

        Raises:
            ClickHouseError: ClickHouse does not answer.
        """
        try:
            rows = self.source.rows(Query(sql.newest_parts(tables), QueryComment(purpose="late-parts")))
        except ClickHouseError as error:
            if error.code != ACCESS_DENIED:
                raise
            warn_once("late_rows_without_parts", error=str(error), grant="SELECT ON system.parts")
            return {}
        by_source = {source: datetime.fromtimestamp(seconds, UTC) for source, seconds in rows}
        return {table.name: by_source[table.source] for table in tables if table.source in by_source}

    def written_since(
        self,
        table: Table,
        project_ids: Collection[str],
        since: datetime,
        rows_between: Window,
        *,
        recent_parts: bool,
    ) -> dict[Slot, datetime]:
        """The slots of the table in which rows were written since a moment, with the latest such write.

        Args:
            table: where to look.
            project_ids: projects that matter; others may be in the answer.
            since: by the clocks of those who write.
            rows_between: time of the rows.
            recent_parts: leave out parts that have been as they are since then.

        Raises:
            ClickHouseError: ClickHouse does not answer.
        """
        named = project_ids if len(project_ids) <= _MAX_NAMED_PROJECTS else None
        parameters = {"oldest_ms": rows_between.start_ms, "until_ms": rows_between.end_ms}
        query = Query(
            sql.changes(table, named, recent_parts=recent_parts),
            QueryComment(purpose="late-rows", table=table.name),
            {**parameters, "since_ms": round(since.timestamp() * 1000)},
        )
        return {
            Slot(project, EPOCH + slot * sql.SLOT): _moment(changed)
            for project, slot, changed in self.source.rows(query)
        }

    def fingerprints(self, project_id: str, table: Table, windows: Sequence[Window]) -> Mapping[Window, int]:
        """Which version of which rows each of the windows holds now, in one query. Raises ClickHouseError."""
        span = Window(min(w.start for w in windows), max(w.end for w in windows))
        query = Query(
            sql.fingerprints(table),
            QueryComment("late-windows", project_id, table.name, str(span)),
            sql.parameters(table, project_id, span),
            sql.FINAL_SETTINGS,
        )
        ordered = sorted(windows)
        found = dict.fromkeys(ordered, 0)
        for slot, value in self.source.rows(query):
            at = EPOCH + slot * sql.SLOT
            window = ordered[bisect_right(ordered, at, key=lambda w: w.start) - 1]
            if at < window.end:
                found[window] = (found[window] + value) % 2**64
        return found


def _moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
