"""One table of one window in ClickHouse: what there is to read, and its bytes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from langfuse_export import sql
from langfuse_export.errors import CancelledError, VerificationError
from langfuse_export.estimate import expected_bytes
from langfuse_export.parts import SAMPLE_KEYS, WHOLE, Part, SortedKeys
from langfuse_export.project import ProjectExport
from langfuse_export.tables import Table
from langfuse_export.windows import Window
from langfuse_worker.clickhouse import ClickHouse, Parameter, Query, QueryComment


class Cancellation:
    """Stops exports: streams end at their next chunk, their queries are killed."""

    def __init__(self, source: ClickHouse) -> None:
        self._source = source
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._queries: set[str] = set()

    def cancel(self) -> None:
        """Cancel what runs and what has not started."""
        with self._lock:
            self._cancelled.set()
            running = list(self._queries)
        for query_id in running:
            self._source.kill(query_id)

    def check(self) -> None:
        """Raises CancelledError once cancelled."""
        if self._cancelled.is_set():
            raise CancelledError("the export was cancelled")

    @contextmanager
    def watching(self, query: Query) -> Iterator[None]:
        """Have the query killed on `cancel` while the context is open.

        Raises CancelledError after it, also for whatever goes wrong: a killed query's error does not say why.
        """
        with self._lock:
            self.check()
            self._queries.add(query.query_id)
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            with self._lock:
                self._queries.discard(query.query_id)


@dataclass(frozen=True)
class SourceSummary:
    """What ClickHouse has in a window or a part; times are microseconds since the epoch, 0 without rows.

    Attributes:
        fingerprint: which version of which rows there are; 0 without rows.
        read_at_ms: ClickHouse's clock when it began to read, ms since the epoch.
        query_id: the query that counted.
    """

    rows: int
    min_us: int
    max_us: int
    fingerprint: int
    read_at_ms: int
    query_id: str = ""


@dataclass(frozen=True)
class WindowSource:
    """One table of one window of a project."""

    clickhouse: ClickHouse
    project: ProjectExport
    table: Table
    window: Window
    run_id: str | None
    cancellation: Cancellation

    @property
    def prices_as_of(self) -> datetime | None:
        """The moment of the prices in the columns of prices, UTC; None without such columns."""
        return self.table.prices.as_of if self.table.prices else None

    def with_prices_as_of(self, moment: datetime | None) -> "WindowSource":
        """The same with the same prices as of another moment."""
        if self.table.prices is None or moment is None:
            return self
        return replace(self, table=self.table.priced(replace(self.table.prices, as_of=moment)))

    def summarise(self, part: Part = WHOLE) -> SourceSummary:
        """Count rows, without reading their payload. Raises ClickHouseError."""
        query = self._counting(sql.summary(self.table, part), "count", part)
        [summary] = self._rows(query)
        return SourceSummary(*summary, query_id=query.query_id)

    def agree(self, rows: int, before: SourceSummary, part: Part = WHOLE) -> SourceSummary:
        """Compare the rows that were read with ClickHouse's own count.

        Rows may arrive or be deleted while they are read, so a difference counts only if a second count does
        not explain it.

        Raises:
            VerificationError: the rows are not those of the window.
        """
        if rows == before.rows:
            return before
        after = self.summarise(part)
        if min(before.rows, after.rows) <= rows <= max(before.rows, after.rows):
            return after
        raise VerificationError(
            f"the stream holds {rows} rows, ClickHouse counts {before.rows} before and {after.rows} after it"
        )

    def sample_keys(self) -> SortedKeys:
        """Keys to cut the window into parts by. Raises ClickHouseError."""
        [(keys,)] = self._rows(self._counting(sql.part_keys(self.table, SAMPLE_KEYS), "sample", WHOLE))
        return SortedKeys(keys)

    def expected_bytes(self, rows: int) -> int:
        """About how large the window's file will be. Raises ClickHouseError."""
        return expected_bytes(self.table, rows, self._row_bytes)

    def query(self, part: Part | None = None, rows: int = 0) -> Query:
        """The query whose result is the window's file, or that of a part; `rows` are the window's."""
        encoding = self.project.encoding
        settings = encoding.settings(self.project.row_group_rows, rows, is_part=part is not None)
        return Query(
            encoding.sql(self.table, part or WHOLE),
            self._comment("export"),
            self._parameters(part or WHOLE),
            {**sql.FINAL_SETTINGS, **settings},
            secrets=sql.secrets(self.table),
            lists=sql.lists(self.table),
        )

    def query_without_rows(self) -> Query:
        """The query whose result is the Parquet file of a window without rows; it reads nothing."""
        return replace(self.query(), sql=sql.select_no_rows(self.table))

    @contextmanager
    def stream(self, query: Query) -> Iterator[Iterator[bytes]]:
        """The result as it is written; the query is killed if this is left early or cancelled."""
        with (
            self.cancellation.watching(query),
            self.clickhouse.stream(query, self.project.encoding.clickhouse_format) as chunks,
        ):
            yield chunks

    def _row_bytes(self, one_in: int) -> float:
        parameters = {**self._parameters(WHOLE), "one_in": one_in}
        query = Query(
            sql.row_bytes(self.table), self._comment("estimate"), parameters, lists=sql.lists(self.table)
        )
        [(row_bytes,)] = self._rows(query)
        return row_bytes

    def _counting(self, text: str, purpose: str, part: Part) -> Query:
        return Query(text, self._comment(purpose), self._parameters(part), sql.FINAL_SETTINGS)

    def _rows(self, query: Query) -> list[tuple[Any, ...]]:
        with self.cancellation.watching(query):
            return self.clickhouse.rows(query)

    def _parameters(self, part: Part) -> dict[str, Parameter]:
        window = sql.parameters(self.table, self.project.project_id, self.window)
        return {**window, **sql.part_parameters(part)}

    def _comment(self, purpose: str) -> QueryComment:
        return QueryComment(
            purpose=purpose,
            project=self.project.project_id,
            table=self.table.name,
            window=str(self.window),
            run=self.run_id,
        )
