"""Rows -> ClickHouse in large inserts; a row that ClickHouse refuses is found and set aside.

An insert that fails on the way is repeated with the same deduplication token, so that a server which stored
it and could not say so does not store it twice (replicated tables deduplicate by default, others with
`non_replicated_deduplication_window`; FINAL sees one row in any case).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import structlog
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from langfuse_ingest.event_log import EntityKey
from langfuse_ingest.tables import Row
from langfuse_worker.clickhouse import ClickHouse, ClickHouseError, Query, QueryComment

log = structlog.get_logger()

_INSERT_SETTINGS = {
    "async_insert": 0,
    "date_time_input_format": "best_effort",
    "input_format_null_as_default": 1,
    "input_format_skip_unknown_fields": 1,
    "input_format_defaults_for_omitted_fields": 1,
    # A row that ClickHouse does not take is an error, not passed over; so is one that a view does not take.
    "input_format_allow_errors_num": 0,
    "input_format_allow_errors_ratio": 0,
    "materialized_views_ignore_errors": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # A batch has events of any months, and all of its jobs would fail for one client whose clock is wild.
    "max_partitions_per_insert_block": 0,
}
_MAX_INSERT_BYTES = 32 << 20
# Codes that speak of the server, not of the rows: memory, time, too many parts or queries, quotas, read-only,
# network, disks and object stores, missing tables, rights, shutdown.
_OF_THE_SERVER = frozenset(
    {60, 74, 75, 76, 81, 95, 96, 158, 159, 160, 164, 173, 192, 193, 194, 198, 201, 202, 203, 209, 210, 218}
    | {225, 236, 241, 242, 243, 252, 279, 285, 286, 319, 335, 394, 425, 439, 473, 497, 499, 516, 693, 700}
    | {733, 735, 737, 745, 749, 999, 1000, 1001}
)


@dataclass(frozen=True)
class PendingRow:
    """A row on its way, with the entity that it belongs to; `data` is its JSON."""

    key: EntityKey
    data: bytes


@dataclass(frozen=True)
class RefusedRow:
    """A row that ClickHouse does not take, and what it says."""

    key: EntityKey
    table: str
    reason: str


def pending(key: EntityKey, row: Row, version: str) -> PendingRow:
    """The row as JSON with its version, an ISO time; the row is changed."""
    row["event_ts"] = row["updated_at"] = version
    return PendingRow(key, orjson.dumps(row))


def is_transient(error: BaseException) -> bool:
    """Whether the same insert may succeed later."""
    return isinstance(error, ClickHouseError) and (error.code is None or error.code in _OF_THE_SERVER)


class Writer:
    """Inserts rows and says which were refused."""

    def __init__(self, clickhouse: ClickHouse, attempts: int, stored: Callable[[str, int], None]) -> None:
        """Nothing is sent yet.

        Args:
            clickhouse: where to.
            attempts: tries of an insert while the server has trouble.
            stored: told the table and the number of rows after each insert.
        """
        self._clickhouse = clickhouse
        self._attempts = attempts
        self._stored = stored

    def write(self, table: str, rows: Sequence[PendingRow]) -> list[RefusedRow]:
        """Insert the rows; all of them are stored when this returns, except for those returned.

        Raises:
            ClickHouseError: the server has trouble that outlasts the attempts; any part may be stored.
        """
        refused: list[RefusedRow] = []
        for block in _blocks(rows):
            refused += self._write_block(table, block)
        return refused

    def insert(self, table: str, data: bytes) -> None:
        """Insert JSON rows that are known to be good. Raises ClickHouseError."""
        token = hashlib.sha256(data).hexdigest()
        comment = QueryComment(purpose="ingest-write", table=table)
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        for attempt in Retrying(
            retry=retry_if_exception(is_transient),
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(initial=0.1, max=2),
            reraise=True,
        ):
            with attempt:
                query = Query(f"INSERT INTO {table} FORMAT JSONEachRow", comment, settings=settings)
                self._clickhouse.execute(query, data)

    def _write_block(self, table: str, rows: Sequence[PendingRow]) -> list[RefusedRow]:
        try:
            self.insert(table, b"\n".join(row.data for row in rows))
        except ClickHouseError as error:
            if is_transient(error):
                raise
            if len(rows) == 1:
                reason = " ".join(str(error).split())[:2000]  # dead letters show the last line of theirs
                log.warning("ingestion_row_refused", table=table, entityId=rows[0].key.id, error=reason)
                return [RefusedRow(rows[0].key, table, reason)]
            middle = len(rows) // 2
            return [*self._write_block(table, rows[:middle]), *self._write_block(table, rows[middle:])]
        self._stored(table, len(rows))
        return []


def _blocks(rows: Sequence[PendingRow]) -> list[list[PendingRow]]:
    """Rows in inserts that are bounded by bytes."""
    blocks: list[list[PendingRow]] = []
    size = 0
    for row in rows:
        size += len(row.data)
        if not blocks or size > _MAX_INSERT_BYTES:
            blocks.append([])
            size = len(row.data)
        blocks[-1].append(row)
    return blocks
