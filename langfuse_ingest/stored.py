"""Rows that ClickHouse has: what a merge starts from, and what a changed sorting key leaves behind."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from langfuse_ingest.event_log import EntityKey
from langfuse_ingest.merge import History
from langfuse_ingest.records import Record
from langfuse_ingest.sql_text import SETTINGS, quoted_list
from langfuse_ingest.surrogates import read_json
from langfuse_ingest.tables import Row, Target
from langfuse_ingest.values import utc_text
from langfuse_worker.clickhouse import JSON_LINES, ClickHouse, Query, QueryComment
from langfuse_worker.clickhouse.literals import quoted

# As `Target.record` takes them.
_JSON = {**SETTINGS, **JSON_LINES, "date_time_output_format": "iso"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("timestamp", "start_time", "end_time", "completion_start_time", "created_at")
_NOT_OF_THE_ENTITY = ("updated_at", "event_ts", "is_deleted", "event_bytes")


@dataclass(frozen=True)
class StoredRow:
    """The identifying columns of a row that is there, in the target's names."""

    columns: Row
    created_at: str


def stored_rows(
    clickhouse: ClickHouse, target: Target, histories: Sequence[History]
) -> dict[str, list[StoredRow]]:
    """Rows of entities of one project, by id. Raises ClickHouseError."""
    if not histories:
        return {}
    names = (target.id_column, *target.key_columns)
    # FINAL would read the sorting key of every row of these days, and ClickHouse takes three to ten times as
    # long: what it leaves of the wanted rows is said by their versions alone.
    newest = [f"argMax({_micros(column)}, event_ts)" for column in (target.time_column, "created_at")]
    columns = ", ".join([*newest, *names])
    moment = target.time_column if target.exact_time else f"toDate({target.time_column})"
    where = (
        f"WHERE {_where(target, histories)} "
        f"GROUP BY {moment}, {', '.join(names)} HAVING argMax(is_deleted, event_ts) = 0"
    )
    sql = " UNION DISTINCT ".join(f"SELECT {columns} FROM {table} {where}" for table in target.tables)
    found: dict[str, list[StoredRow]] = defaultdict(list)
    for time, created_at, *values in clickhouse.rows(_query(target, histories, sql)):
        columns = {**dict(zip(names, values, strict=True)), target.time_column: _utc(time)}
        entity_id = columns[target.id_column].removeprefix(target.id_prefix)
        found[entity_id].append(StoredRow(columns, _utc(created_at)))
    return found


def stored_records(clickhouse: ClickHouse, target: Target, histories: Sequence[History]) -> dict[str, Record]:
    """Whole rows of entities of one project as a merge takes them, by id. Raises ClickHouseError."""
    if not histories:
        return {}
    sql = f"SELECT * FROM {target.table} FINAL WHERE {_where(target, histories)}"
    with clickhouse.stream(_query(target, histories, sql), "JSONEachRow") as chunks:
        data = b"".join(chunks)
    records: dict[str, Record] = {}
    for row in map(read_json, data.splitlines()):
        entity_id = row[target.id_column].removeprefix(target.id_prefix)
        for name in _NOT_OF_THE_ENTITY:
            row.pop(name, None)
        for name in _TIMES:
            if row.get(name):
                row[name] = utc_text(datetime.fromisoformat(row[name]))
        records[entity_id] = target.record(row)
    return records


def tombstone(target: Target, key: EntityKey, stored: StoredRow) -> Row:
    """A row that deletes the stored one; it has no payload."""
    return {**stored.columns, "project_id": key.project, "created_at": stored.created_at, "is_deleted": 1}


def _where(target: Target, histories: Sequence[History]) -> str:
    days = sorted(set().union(*(history.days for history in histories)))
    ids = (target.id_prefix + history.key.id for history in histories)
    return (
        f"project_id = {quoted(histories[0].key.project)} "
        f"AND toDate({target.time_column}) IN ({quoted_list(days)}) "
        f"AND {target.id_column} IN ({quoted_list(ids)})"
    )


def _query(target: Target, histories: Sequence[History], sql: str) -> Query:
    comment = QueryComment(purpose="ingest-read", project=histories[0].key.project, table=target.table)
    return Query(sql, comment, settings=_JSON)


def _micros(column: str) -> str:
    return f"toUnixTimestamp64Micro(toDateTime64({column}, 6))"


def _utc(microseconds: int) -> str:
    return utc_text(_EPOCH + timedelta(microseconds=microseconds))  # exact, as keys are compared
