"""Ingests parts of the event log again: after Redis lost its data, or a mapping was mended."""

from datetime import datetime
from itertools import islice

from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.queues import queue
from langfuse_ingest.runtime import Runtime
from langfuse_ingest.sharding import shard_name

# Replays must not delay what arrives now.
QUEUE = "secondary-ingestion-queue"
# How many events a segment has is not known before it is read.
_TYPICAL_EVENTS = 500
_AT_ONCE = 1000


def replay_range(parts: Runtime, start: str, end: str, project: str | None = None) -> int:
    """Queue every segment that was accepted in `[start, end)`, to the minute.

    Args:
        parts: where the log and the queue are.
        start: ISO time with an offset.
        end: the same, exclusive.
        project: only this one.

    Returns:
        the number of segments.

    Raises:
        StoreError: the log cannot be listed.
        redis.RedisError: the queue cannot be reached; some segments may be queued.
    """
    keys = parts.event_log.keys_between(datetime.fromisoformat(start), datetime.fromisoformat(end), project)
    spec = queue(QUEUE)
    count = 0
    while some := list(islice(keys, _AT_ONCE)):
        for index in range(spec.shards):
            jobs = [_job(key, index, spec.shards) for key in some]
            enqueue(parts.redis, spec, jobs, shard_name(spec.name, index))
        count += len(some)
    return count


def _job(key: str, shard: int, shards: int) -> NewJob:
    arguments = {"segment": key, "shard": shard, "shards": shards}
    return NewJob(arguments, {"events": _TYPICAL_EVENTS}, description=f"replay {key}")
