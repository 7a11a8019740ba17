"""Rows that ClickHouse has: what a merge starts from, and what a changed sorting key leaves behind."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson

from langfuse_ingest.event_log import EntityKey
from langfuse_ingest.records import Record
from langfuse_ingest.sql_text import SETTINGS, quoted_list
from langfuse_ingest.tables import Row, Target
from langfuse_ingest.values import utc_text
from langfuse_worker.clickhouse import ClickHouse, Query, QueryComment
from langfuse_worker.clickhouse.literals import quoted

_JSON = {**SETTINGS, "date_time_output_format": "iso", "output_format_json_quote_64bit_integers": 0}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = ("timestamp", "start_time", "end_time", "completion_start_time", "created_at")
_NOT_OF_THE_ENTITY = ("updated_at", "event_ts", "is_deleted", "event_bytes")


@dataclass(frozen=True)
class StoredRow:
    """The identifying columns of a row that is there, in the target's names."""

    columns: Row
    created_at: str


def stored_rows(
    clickhouse: ClickHouse, target: Target, project: str, ids: Iterable[str], dates: Iterable[str]
) -> dict[str, list[StoredRow]]:
    """Rows of the ids, by id, whose day is one of the dates or next to one. Raises ClickHouseError."""
    wanted = [target.id_prefix + entity_id for entity_id in ids]
    names = (target.id_column, *target.key_columns)
    # FINAL would read the sorting key of every row of these days, and ClickHouse takes three to ten times as
    # long: what it leaves of the wanted rows is said by their versions alone.
    newest = [f"argMax({_micros(column)}, event_ts)" for column in (target.time_column, "created_at")]
    columns = ", ".join([*newest, *names])
    moment = target.time_column if target.exact_time else f"toDate({target.time_column})"
    where = (
        f"WHERE {_where(target, project, wanted, dates)} "
        f"GROUP BY {moment}, {', '.join(names)} HAVING argMax(is_deleted, event_ts) = 0"
    )
    tables = (target.table, *target.copies)
    sql = " UNION DISTINCT ".join(f"SELECT {columns} FROM {table} {where}" for table in tables)
    found: dict[str, list[StoredRow]] = defaultdict(list)
    for time, created_at, *values in clickhouse.rows(_query(target.table, project, sql)):
        columns = {**dict(zip(names, values, strict=True)), target.time_column: _utc(time)}
        entity_id = columns[target.id_column].removeprefix(target.id_prefix)
        found[entity_id].append(StoredRow(columns, _utc(created_at)))
    return found


def stored_records(
    clickhouse: ClickHouse, target: Target, project: str, ids: Iterable[str], dates: Iterable[str]
) -> dict[str, Record]:
    """Whole rows of the ids as a merge takes them. Raises ClickHouseError."""
    wanted = [target.id_prefix + entity_id for entity_id in ids]
    sql = f"SELECT * FROM {target.table} FINAL WHERE {_where(target, project, wanted, dates)}"
    records: dict[str, Record] = {}
    for row in _read(clickhouse, target.table, project, sql):
        entity_id = row[target.id_column].removeprefix(target.id_prefix)
        for name in _NOT_OF_THE_ENTITY:
            row.pop(name, None)
        for name in _TIMES:
            if row.get(name):
                row[name] = utc_text(datetime.fromisoformat(row[name]))
        records[entity_id] = _from_event(row, target) if target.table == "events_full" else row
    return records


def days_around(times: Iterable[str]) -> set[str]:
    """The dates of ISO times and their neighbours: a stored time may differ, and so may ClickHouse's zone."""
    days = {date.fromisoformat(time[:10]) for time in times}
    return {str(day + timedelta(offset)) for day in days for offset in (-1, 0, 1)}


def tombstone(target: Target, key: EntityKey, stored: StoredRow) -> Row:
    """A row that deletes the stored one; it has no payload."""
    return {**stored.columns, "project_id": key.project, "created_at": stored.created_at, "is_deleted": 1}


def _where(target: Target, project: str, ids: Iterable[str], dates: Iterable[str]) -> str:
    return (
        f"project_id = {quoted(project)} AND toDate({target.time_column}) IN ({quoted_list(sorted(dates))}) "
        f"AND {target.id_column} IN ({quoted_list(ids)})"
    )


def _query(table: str, project: str, sql: str) -> Query:
    return Query(sql, QueryComment(purpose="ingest-read", project=project, table=table), settings=_JSON)


def _read(clickhouse: ClickHouse, table: str, project: str, sql: str) -> list[Row]:
    with clickhouse.stream(_query(table, project, sql), "JSONEachRow") as chunks:
        data = b"".join(chunks)
    return [orjson.loads(line) for line in data.splitlines()]


def _micros(column: str) -> str:
    return f"toUnixTimestamp64Micro(toDateTime64({column}, 6))"


def _utc(microseconds: int) -> str:
    return utc_text(_EPOCH + timedelta(microseconds=microseconds))  # exact, as keys are compared


_TEXTS = ("name", "version", "level", "status_message", "prompt_name", "provided_model_name")
_TEXTS += ("model_parameters", "input", "output", "release", "user_id", "session_id")


def _from_event(row: Row, target: Target) -> Record:
    """A row of events_full in the names of the merge; its empty strings are what is absent elsewhere."""
    record: Record = {"kept": {name: row[name] for name in row if name not in target.merged}}
    record |= {name: row[name] for name in _TEXTS if row[name] != ""}
    for name in (
        "environment",
        "created_at",
        "end_time",
        "completion_start_time",
        "prompt_version",
        "public",
    ):
        if row[name] is not None:
            record[name] = row[name]
    record["metadata"] = dict(zip(row["metadata_names"], row["metadata_values"], strict=True))
    if target.id_prefix:
        return {**record, "timestamp": row["start_time"], "tags": row["tags"], "api": True}
    details: dict[str, Any] = {name: row[name] for name in row if name.endswith("_details") and row[name]}
    parent = row["parent_span_id"]
    if parent and not parent.startswith("t-"):
        record["parent_observation_id"] = parent
    if row["source"] == "otel":
        record["otel"] = {}  # all of it is kept
    return {
        **record,
        **details,
        "type": row["type"],
        "trace_id": row["trace_id"],
        "start_time": row["start_time"],
    }
