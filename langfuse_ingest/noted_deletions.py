"""Projects and traces that were deleted lately: what still waits of them, or is in work, must not come back.

A consumer looks before it writes and again after that. It leaves out what was accepted before a deletion that
it knows of; if one has begun meanwhile, its rows may have come after those were deleted, and it asks for
another. Projects go by their folder in the event log, which is known of a segment that is gone; traces by it
and their id.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from redis import Redis

from langfuse_ingest.event_log import EntityKey, Group, Segment, folder_of, project_folder
from langfuse_ingest.events import Entity
from langfuse_ingest.version import next_version

_KEY = "langfuse:ingestion:deleted:"
_REMEMBERED_S = 86_400  # longer than any job waits for its next attempt


def note_deletion(redis: Redis, project: str, traces: Iterable[str] | None = None) -> None:
    """Say that a deletion of the project, or of these traces of it, begins. Raises redis.RedisError."""
    folder = project_folder(project)
    names = [folder] if traces is None else [f"{folder}/{trace}" for trace in traces]
    moment = next_version(redis)
    with redis.pipeline() as pipeline:
        for name in names:
            pipeline.set(_KEY + name, moment, ex=_REMEMBERED_S)
        pipeline.execute()


def deletions(redis: Redis, names: Iterable[str]) -> dict[str, str]:
    """When deletions began, ISO times, by `folder` or `folder/trace`; only of what was deleted.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    asked = list(names)
    answers: Any = redis.mget([_KEY + name for name in asked]) if asked else []
    return {name: moment.decode() for name, moment in zip(asked, answers, strict=True) if moment}


def traces_in(segment: Segment) -> set[str]:
    """The traces that a segment's events name, as `folder/trace`."""
    return {name for key, group in segment.groups.items() for name in _traces_of(segment, key, group)}


def without_deleted(segment: Segment, deleted: Mapping[str, str]) -> Segment:
    """The segment without what was deleted after it was accepted."""
    if not deleted:
        return segment
    gone = {name for name, moment in deleted.items() if segment.written_at <= moment}
    groups = {
        key: group
        for key, group in segment.groups.items()
        if gone.isdisjoint((folder_of(segment.key), *_traces_of(segment, key, group)))
    }
    return replace(segment, groups=groups)


def _traces_of(segment: Segment, key: EntityKey, group: Group) -> set[str]:
    folder = folder_of(segment.key)
    if key.entity is Entity.TRACE:
        return {f"{folder}/{key.id}"}
    bodies = (event.get("body") for event in group.events)
    # The log may hold what nobody has validated.
    return {
        f"{folder}/{body['traceId']}" for body in bodies if isinstance(body, dict) and body.get("traceId")
    }
