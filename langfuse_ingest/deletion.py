"""Deletes traces, scores, projects and what has outlived its retention.

The order makes a deletion final: first the event log forgets the entity, so that no merge or replay finds its
events; then rows without payload mark it as deleted, with a version that any merge still on its way cannot
beat; then the stored rows are removed from disk. Of a project nothing stays that could be marked, see
`noted_deletions`, where traces and scores are, too: what waits, or is in work, has no rows yet.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from langfuse_ingest.event_log import time_of
from langfuse_ingest.event_log_index import HASH, with_index
from langfuse_ingest.event_log_index import TABLE as INDEX
from langfuse_ingest.events import Entity
from langfuse_ingest.file_log import TABLE as FILE_LOG
from langfuse_ingest.noted_deletions import note_deletion
from langfuse_ingest.runtime import Runtime
from langfuse_ingest.sql_text import SETTINGS, quoted_list
from langfuse_ingest.version import next_version
from langfuse_worker.clickhouse import Query, QueryComment
from langfuse_worker.clickhouse.literals import quoted

log = structlog.get_logger()

# A table's time column, its sorting key, and the column that holds the trace.
_TABLES = {
    "traces": ("timestamp", ("project_id", "timestamp", "id"), "id"),
    "observations": ("start_time", ("project_id", "type", "start_time", "id"), "trace_id"),
    "scores": ("timestamp", ("project_id", "timestamp", "name", "id"), "trace_id"),
    "events_full": ("start_time", ("project_id", "start_time", "trace_id", "span_id"), "trace_id"),
}
_ENTITY_TABLES = {"observations": Entity.OBSERVATION, "scores": Entity.SCORE}
# events_core is filled by a view of events_full and is deleted from besides.
_ALL_TABLES = (*_TABLES, "events_core", "dataset_run_items_rmt", FILE_LOG, INDEX)


def delete_traces(parts: Runtime, project: str, trace_ids: Sequence[str], *, is_noted: bool = False) -> None:
    """Delete traces with their observations, scores and events. Raises ClickHouseError, RedisError.

    Args:
        parts: where they are.
        project: whose they are.
        trace_ids: the traces.
        is_noted: whether a deletion that has begun is done again, for rows that were written meanwhile.
    """
    if not is_noted:
        note_deletion(parts.redis, project, Entity.TRACE, trace_ids)
    condition = f"project_id = {quoted(project)} AND %s IN ({quoted_list(trace_ids)})"
    _forget(parts, project, Entity.TRACE, quoted_list(trace_ids))
    for table, entity in _ENTITY_TABLES.items():
        _forget(parts, project, entity, f"SELECT id FROM {table} WHERE {condition % 'trace_id'}")
    spans = f"SELECT span_id FROM events_full WHERE {condition % 'trace_id'}"
    _forget(parts, project, Entity.OBSERVATION, spans)
    version = next_version(parts.redis)
    for table, (_, _, trace_column) in _TABLES.items():
        _mark_deleted(parts, project, table, condition % trace_column, version)
        _remove(parts, project, table, condition % trace_column, version)
    _remove(parts, project, "events_core", condition % "trace_id", version)
    log.info("traces_deleted", projectId=project, traces=len(trace_ids))


def delete_scores(parts: Runtime, project: str, score_ids: Sequence[str], *, is_noted: bool = False) -> None:
    """Delete scores; `is_noted` as in `delete_traces`. Raises ClickHouseError, RedisError."""
    if not is_noted:
        note_deletion(parts.redis, project, Entity.SCORE, score_ids)
    condition = f"project_id = {quoted(project)} AND id IN ({quoted_list(score_ids)})"
    _forget(parts, project, Entity.SCORE, quoted_list(score_ids))
    version = next_version(parts.redis)
    _mark_deleted(parts, project, "scores", condition, version)
    _remove(parts, project, "scores", condition, version)
    log.info("scores_deleted", projectId=project, scores=len(score_ids))


def delete_project(parts: Runtime, project: str, *, is_noted: bool = False) -> None:
    """Delete every row and every segment of a project; `is_noted` as in `delete_traces`.

    Raises:
        ClickHouseError, StoreError, RedisError: something of it may be left.
    """
    if not is_noted:
        note_deletion(parts.redis, project)
    keys = parts.event_log.keys_of(project)
    for key in keys:
        parts.event_log.delete(key)
    for table in _ALL_TABLES:
        _execute(parts, project, table, f"DELETE FROM {table} WHERE project_id = {quoted(project)}")
    log.info("project_deleted", projectId=project, segments=len(keys))


def apply_retention(parts: Runtime, project: str, days: int) -> None:
    """Delete rows and segments that are older than a number of days, by their own time and by arrival.

    Raises:
        ValueError: days is not positive.
    """
    if days < 1:
        raise ValueError(f"retention of {project} must be at least 1 day, not {days}")
    cutoff = datetime.now(UTC) - timedelta(days=days)
    keys = parts.event_log.keys_of(project)
    segments = [key for key in keys if (moment := time_of(key)) and moment < cutoff]
    for key in segments:
        parts.event_log.delete(key)
    before = f"toDateTime64({cutoff.timestamp():.3f}, 3)"
    where = f"project_id = {quoted(project)} AND %s < {before}"
    for table, (time_column, _, _) in _TABLES.items():
        _execute(parts, project, table, f"DELETE FROM {table} WHERE {where % time_column}")
    _execute(parts, project, "events_core", f"DELETE FROM events_core WHERE {where % 'start_time'}")
    _execute(parts, project, FILE_LOG, f"DELETE FROM {FILE_LOG} WHERE {where % 'created_at'}")
    _execute(parts, project, INDEX, f"DELETE FROM {INDEX} WHERE {where % 'event_ts'}")
    log.info("retention_applied", projectId=project, days=days, segments=len(segments))


def _forget(parts: Runtime, project: str, entity: Entity, ids: str) -> None:
    """Mark the entities' rows in index and file log as deleted; `ids` is a list or a subquery."""
    version = next_version(parts.redis)
    where = f"project_id = {quoted(project)} AND entity_type = {quoted(entity)} AND entity_id IN ({ids})"
    index = (
        f"INSERT INTO {INDEX} (project_id, entity, segment, event_ts, is_deleted) "
        f"SELECT project_id, {HASH}, bucket_path, {_moment(version)}, 1 FROM {FILE_LOG} FINAL WHERE {where}"
    )
    _execute(parts, project, INDEX, index)
    columns = ("id", "project_id", "entity_type", "entity_id", "event_id", "bucket_path", "created_at")
    sql = (
        f"INSERT INTO {FILE_LOG} ({', '.join(columns)}, event_ts, is_deleted) "
        f"SELECT {', '.join(columns)}, {_moment(version)}, 1 FROM {FILE_LOG} FINAL WHERE {where}"
    )
    _execute(parts, project, FILE_LOG, sql)


def _mark_deleted(parts: Runtime, project: str, table: str, condition: str, version: str) -> None:
    columns = ", ".join([*_TABLES[table][1], "created_at"])
    moment = _moment(version)
    sql = (
        f"INSERT INTO {table} ({columns}, updated_at, event_ts, is_deleted) "
        f"SELECT {columns}, {moment}, {moment}, 1 FROM {table} FINAL WHERE {condition}"
    )
    _execute(parts, project, table, sql)


def _remove(parts: Runtime, project: str, table: str, condition: str, version: str) -> None:
    sql = f"DELETE FROM {table} WHERE {condition} AND event_ts < {_moment(version)}"
    _execute(parts, project, table, sql)


def _moment(version: str) -> str:
    return f"parseDateTime64BestEffort({quoted(version)}, 3)"


def _execute(parts: Runtime, project: str, table: str, sql: str) -> None:
    comment = QueryComment(purpose="delete", project=project, table=table)
    with_index(parts.clickhouse, lambda: parts.clickhouse.execute(Query(sql, comment, settings=SETTINGS)))


def retention_days(parts: Runtime) -> dict[str, int]:
    """Days to keep, by project that ClickHouse knows; projects without retention are left out.

    Raises:
        ClickHouseError: the projects cannot be listed.
    """
    if not parts.settings.retention:
        return {}
    union = " UNION DISTINCT ".join(f"SELECT project_id FROM {table}" for table in _TABLES)
    comment = QueryComment(purpose="retention")
    projects = [row[0] for row in parts.clickhouse.rows(Query(f"SELECT DISTINCT * FROM ({union})", comment))]
    days = {project: parts.settings.days_kept(project) for project in projects}
    return {project: kept for project, kept in days.items() if kept is not None}
