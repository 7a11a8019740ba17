"""`blob_storage_file_log`: which segments of the event log hold events of which entity.

Langfuse keeps this table to find the objects of what it deletes. Merges look into `event_log_index` instead.
"""

from collections.abc import Iterable

import orjson

from langfuse_ingest.event_log import EntityKey, Segment

TABLE = "blob_storage_file_log"


def file_log_rows(segments: Iterable[Segment], keys: set[EntityKey]) -> bytes:
    """The table's rows for entities of segments, as JSONEachRow."""
    rows = (_row(segment, key) for segment in segments for key in segment.groups if key in keys)
    return b"\n".join(map(orjson.dumps, rows))


def _row(segment: Segment, key: EntityKey) -> dict[str, object]:
    event_id = segment.key.rpartition("/")[2].partition(".")[0]
    return {
        "id": f"{event_id}/{key.entity}/{key.id}",
        "project_id": segment.project,
        "entity_type": key.entity,
        "entity_id": key.id,
        "event_id": event_id,
        "bucket_path": segment.key,
        "created_at": segment.written_at,
        "updated_at": segment.written_at,
        "event_ts": segment.written_at,
    }
