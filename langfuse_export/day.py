"""Windows of a day that are read together, because the query of each of them would read the whole day.

Tables that ClickHouse sorts by time are read so where windows hold few rows, since each query has its price.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from langfuse_export import sql
from langfuse_export.errors import PricesError, VerificationError, reason_of
from langfuse_export.exporter import WindowExporter
from langfuse_export.tables import Table
from langfuse_export.window_source import SourceSummary
from langfuse_export.windows import Window
from langfuse_worker.blobstore import StoreError
from langfuse_worker.clickhouse import ClickHouseError, Parameter, Query, QueryComment, Scalar

log = structlog.get_logger()

Rows = TypeVar("Rows")

# Of a window in the mean. Here a query of its own takes as much CPU as having the worker split so many rows.
_FEW_ROWS = 100

_READ_ONE_BY_ONE = (ClickHouseError, StoreError, OSError, VerificationError, PricesError)


@dataclass(frozen=True)
class Day:
    """A table's consecutive windows of a day.

    Attributes:
        exporter: whose project, source and progress they are.
        table: with its prices, if it has any.
    """

    exporter: WindowExporter
    table: Table
    windows: Sequence[Window]

    def count(self) -> list[SourceSummary]:
        """What each window holds, in one query that reads no payload. Raises ClickHouseError."""
        query = self.query(sql.summary_by_window(self.table), "count", {"windows": len(self.windows)})
        rows = self.exporter.source.rows(query)
        return [SourceSummary(*summary, query_id=query.query_id) for summary in rows]

    def query(
        self,
        text: str,
        purpose: str,
        parameters: Mapping[str, Parameter],
        settings: Mapping[str, Scalar] | None = None,
    ) -> Query:
        """A query of the rows of all windows; `parameters` and `settings` are further ones."""
        period = Window(self.windows[0].start, self.windows[-1].end)
        project_id = self.exporter.project.project_id
        length_ms = self.windows[0].end_ms - self.windows[0].start_ms
        return Query(
            text,
            QueryComment(purpose, project_id, self.table.name, str(period), self.exporter.run_id),
            {**sql.parameters(self.table, project_id, period), "length_ms": length_ms, **parameters},
            {**sql.FINAL_SETTINGS, **(settings or {})},
            secrets=sql.secrets(self.table),
            lists=sql.lists(self.table),
        )


def read_together(
    exporter: WindowExporter,
    reads: Sequence[tuple[Table, Sequence[Window]]],
    read: Callable[[Day, Sequence[SourceSummary]], Mapping[Window, Rows]],
) -> Mapping[Window, Mapping[str, Rows]]:
    """Read tables, each for its windows; what was read, by window and name of the table.

    `read` gets a table's windows with what each of them holds. A table whose windows are better read one by
    one is left out, and one that cannot be read together, for want of memory, time, disk space or prices.
    """
    found: dict[Window, dict[str, Rows]] = defaultdict(dict)
    for table, windows in reads:
        try:
            day = Day(exporter, exporter.prices.put_into(table), windows)
            counted = day.count()
            rows_by_window = read(day, counted) if _is_worth_it(table, counted) else {}
        except BaseException as error:
            fields = {"table": table.name, "day": str(windows[0].start.date()), "reason": reason_of(error)}
            log.warning("blob_export_day_read_failed", **fields, error=str(error))
            if not isinstance(error, _READ_ONE_BY_ONE):
                raise
            continue
        for window, rows in rows_by_window.items():
            found[window][table.name] = rows
    return found


def _is_worth_it(table: Table, counted: Sequence[SourceSummary]) -> bool:
    return not table.sorted_by_time or sum(window.rows for window in counted) <= _FEW_ROWS * len(counted)
