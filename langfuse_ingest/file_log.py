"""`blob_storage_file_log`: which segments of the event log hold events of which entity.

Langfuse keeps this table to find the objects of what it deletes. Here merges use it too: an entity's events
are those of the segments that the table names. A row's version is the time at which its segment was accepted,
so writing it again changes nothing, and a deletion, whose version is later, is never undone by a replay.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from langfuse_ingest.event_log import Segment
from langfuse_ingest.events import Entity
from langfuse_ingest.sql_text import SETTINGS
from langfuse_worker.clickhouse import ClickHouse, Query, QueryComment
from langfuse_worker.clickhouse.literals import quoted

TABLE = "blob_storage_file_log"


@dataclass(frozen=True)
class EntityKey:
    """An entity of a project."""

    project: str
    entity: Entity
    id: str


def file_log_rows(segments: Iterable[Segment], keys: set[EntityKey]) -> bytes:
    """The table's rows for entities of segments, as JSONEachRow."""
    lines: list[bytes] = []
    for segment in segments:
        for group in segment.groups:
            if EntityKey(segment.project, group.entity, group.id) in keys:
                lines.append(orjson.dumps(_row(segment, group.entity, group.id)))
    return b"\n".join(lines)


def segments_of(clickhouse: ClickHouse, keys: Iterable[EntityKey]) -> dict[EntityKey, list[str]]:
    """Keys of the segments of each entity, deleted ones left out. Raises ClickHouseError."""
    found: dict[EntityKey, list[str]] = defaultdict(list)
    by_project: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        by_project[key.project].append(f"({quoted(key.entity)}, {quoted(key.id)})")
    for project, tuples in by_project.items():
        sql = (
            f"SELECT entity_type, entity_id, bucket_path FROM {TABLE} FINAL "
            f"WHERE project_id = {quoted(project)} AND (entity_type, entity_id) IN ({', '.join(tuples)})"
        )
        comment = QueryComment(purpose="ingest-log", project=project, table=TABLE)
        for entity, entity_id, path in clickhouse.rows(Query(sql, comment, settings=SETTINGS)):
            found[EntityKey(project, Entity(entity), entity_id)].append(path)
    return found


def _row(segment: Segment, entity: Entity, entity_id: str) -> dict[str, object]:
    event_id = segment.key.rpartition("/")[2].partition(".")[0]
    return {
        "id": f"{event_id}/{entity}/{entity_id}",
        "project_id": segment.project,
        "entity_type": entity,
        "entity_id": entity_id,
        "event_id": event_id,
        "bucket_path": segment.key,
        "created_at": segment.written_at,
        "updated_at": segment.written_at,
        "event_ts": segment.written_at,
    }
