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
from langfuse_ingest.tables import OBSERVATION_EVENTS, OBSERVATIONS, SCORES, TRACES, Target
from langfuse_ingest.version import next_version
from langfuse_worker.clickhouse import Query, QueryComment
from langfuse_worker.clickhouse.literals import quoted

log = structlog.get_logger()

_TARGETS = (TRACES, OBSERVATIONS, SCORES, OBSERVATION_EVENTS)
# What is deleted from besides, where only the project is asked for: runs of datasets, and what the log knows.
_OF_A_PROJECT = ("dataset_run_items_rmt", FILE_LOG, INDEX)


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
    of_traces = {
        OBSERVATIONS: Entity.OBSERVATION,
        OBSERVATION_EVENTS: Entity.OBSERVATION,
        SCORES: Entity.SCORE,
    }
    for target, entity in of_traces.items():
        ids = f"SELECT {target.id_column} FROM {target.table} WHERE {condition % 'trace_id'}"
        _forget(parts, project, entity, ids)
    moment = _moment(next_version(parts.redis))
    for target in _TARGETS:
        _delete(parts, project, target, condition % ("id" if target is TRACES else "trace_id"), moment)
    log.info("traces_deleted", projectId=project, traces=len(trace_ids))


def delete_scores(parts: Runtime, project: str, score_ids: Sequence[str], *, is_noted: bool = False) -> None:
    """Delete scores; `is_noted` as in `delete_traces`. Raises ClickHouseError, RedisError."""
    if not is_noted:
        note_deletion(parts.redis, project, Entity.SCORE, score_ids)
    condition = f"project_id = {quoted(project)} AND id IN ({quoted_list(score_ids)})"
    _forget(parts, project, Entity.SCORE, quoted_list(score_ids))
    _delete(parts, project, SCORES, condition, _moment(next_version(parts.redis)))
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
    tables = [table for target in _TARGETS for table in target.tables]
    for table in (*tables, *_OF_A_PROJECT):
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
    time_columns = {table: target.time_column for target in _TARGETS for table in target.tables}
    for table, column in {**time_columns, FILE_LOG: "created_at", INDEX: "event_ts"}.items():
        sql = f"DELETE FROM {table} WHERE project_id = {quoted(project)} AND {column} < {before}"
        _execute(parts, project, table, sql)
    log.info("retention_applied", projectId=project, days=days, segments=len(segments))


def _forget(parts: Runtime, project: str, entity: Entity, ids: str) -> None:
    """Mark the entities' rows in index and file log as deleted; `ids` is a list or a subquery."""
    moment = _moment(next_version(parts.redis))
    where = f"project_id = {quoted(project)} AND entity_type = {quoted(entity)} AND entity_id IN ({ids})"
    index = (
        f"INSERT INTO {INDEX} (project_id, entity, segment, event_ts, is_deleted) "
        f"SELECT project_id, {HASH}, bucket_path, {moment}, 1 FROM {FILE_LOG} FINAL WHERE {where}"
    )
    _execute(parts, project, INDEX, index)
    columns = ("id", "project_id", "entity_type", "entity_id", "event_id", "bucket_path", "created_at")
    sql = (
        f"INSERT INTO {FILE_LOG} ({', '.join(columns)}, event_ts, is_deleted) "
        f"SELECT {', '.join(columns)}, {moment}, 1 FROM {FILE_LOG} FINAL WHERE {where}"
    )
    _execute(parts, project, FILE_LOG, sql)


def _delete(parts: Runtime, project: str, target: Target, condition: str, moment: str) -> None:
    """Mark rows as deleted, for merges on their way, and remove them; `moment` is the version, in SQL."""
    columns = ", ".join([*target.sorting_key, "created_at"])
    sql = (
        f"INSERT INTO {target.table} ({columns}, updated_at, event_ts, is_deleted) "
        f"SELECT {columns}, {moment}, {moment}, 1 FROM {target.table} FINAL WHERE {condition}"
    )
    _execute(parts, project, target.table, sql)
    for table in target.tables:
        _execute(parts, project, table, f"DELETE FROM {table} WHERE {condition} AND event_ts < {moment}")


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
    sql = " UNION DISTINCT ".join(f"SELECT project_id FROM {target.table}" for target in _TARGETS)
    projects = [row[0] for row in parts.clickhouse.rows(Query(sql, QueryComment(purpose="retention")))]
    days = {project: parts.settings.days_kept(project) for project in projects}
    return {project: kept for project, kept in days.items() if kept is not None}
