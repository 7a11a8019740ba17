"""`event_log_index`: which segments of the event log hold events of an entity, for merges.

Langfuse's `blob_storage_file_log` says the same, but to find the entities of one batch there ClickHouse reads
8 192 rows for each: all of 10 million. Here rows are sorted by a hash, in granules of 128. What has the same
hash is told apart by the segments themselves.

A row's version is the time at which its segment was accepted, so writing it again changes nothing, and a
deletion, whose version is later, is never undone by a replay.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import TypeVar

import orjson
import structlog

from langfuse_ingest.event_log import EntityKey, Segment
from langfuse_ingest.sql_text import SETTINGS
from langfuse_worker.clickhouse import UNKNOWN_TABLE, ClickHouse, ClickHouseError, Query, QueryComment

T = TypeVar("T")

TABLE = "event_log_index"
# What `entity_hash` returns, in SQL over a file log's columns.
HASH = "halfMD5(concat(project_id, '/', entity_type, '/', entity_id))"

log = structlog.get_logger()


def entity_hash(key: EntityKey) -> int:
    """ClickHouse's halfMD5: the first eight bytes, big-endian."""
    text = f"{key.project}/{key.entity}/{key.id}".encode()
    return int.from_bytes(hashlib.md5(text, usedforsecurity=False).digest()[:8])


def hashes_of(keys: Iterable[EntityKey]) -> dict[EntityKey, int]:
    """What the table calls each entity."""
    return {key: entity_hash(key) for key in keys}


def index_rows(segments: Iterable[Segment], hashes: Mapping[EntityKey, int]) -> bytes:
    """The table's rows for entities of segments, as JSONEachRow."""
    rows = (
        {
            "project_id": segment.project,
            "entity": hashes[key],
            "segment": segment.key,
            "event_ts": segment.written_at,
        }
        for segment in segments
        for key in segment.groups
        if key in hashes
    )
    return b"\n".join(map(orjson.dumps, rows))


def segments_of(clickhouse: ClickHouse, hashes: Mapping[EntityKey, int]) -> dict[EntityKey, list[str]]:
    """Keys of the segments that may hold events of each entity, without deleted ones.

    Raises:
        ClickHouseError: ClickHouse has trouble, or there is no index.
    """
    by_hash: dict[int, list[EntityKey]] = defaultdict(list)
    for key, entity in hashes.items():
        by_hash[entity].append(key)
    sql = (
        f"SELECT entity, segment FROM {TABLE} WHERE entity IN ({', '.join(map(str, by_hash))}) "
        "GROUP BY entity, segment HAVING argMax(is_deleted, event_ts) = 0"
    )
    comment = QueryComment(purpose="ingest-log", table=TABLE)
    found: dict[EntityKey, list[str]] = defaultdict(list)
    for entity, segment in clickhouse.rows(Query(sql, comment, settings=SETTINGS)):
        for key in by_hash[entity]:
            found[key].append(segment)
    return found


def with_index(clickhouse: ClickHouse, action: Callable[[], T]) -> T:
    """What the action returns. If it finds no index, that is created, and the action is done again.

    Raises:
        ClickHouseError: the action's, or the index is not there and this user may not create it.
    """
    try:
        return action()
    except ClickHouseError as error:
        if error.code != UNKNOWN_TABLE or TABLE not in str(error):
            raise
    ddl = files("langfuse_ingest").joinpath("event_log_index.sql").read_text()
    clickhouse.execute(Query(ddl, QueryComment(purpose="ingest-log", table=TABLE)))
    log.info("event_log_index_created")
    return action()
