"""What was deleted lately: projects, traces and scores of which events still wait, or are in work.

A consumer looks before it writes and again after that. It leaves out what was accepted before a deletion that
it knows of; if one has begun meanwhile, or a consumer has died with the job before it may have looked again,
rows may have come after those were deleted, and it asks for another. A segment that is gone still tells the
project's folder in the event log, so deletions are known by it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from redis import Redis

from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.event_log import EntityKey, Group, Segment, folder_of, project_folder
from langfuse_ingest.events import Entity
from langfuse_ingest.queues import queue
from langfuse_ingest.version import next_version

_KEY = "langfuse:ingestion:deletion:"
_REMEMBERED_S = 86_400  # longer than any job waits for its next attempt
# What deletes entities, and its argument.
_QUEUES = {Entity.TRACE: ("trace-delete", "trace_ids"), Entity.SCORE: ("score-delete", "score_ids")}


class Deletable(NamedTuple):
    """A project, or an entity of it, by the project's folder in the event log."""

    folder: str
    entity: Entity | None = None
    id: str = ""

    @property
    def key(self) -> str:
        """Where Redis has its deletion."""
        return _KEY + (f"{self.folder}/{self.entity}/{self.id}" if self.entity else self.folder)


class Deletion(NamedTuple):
    """When a deletion began, an ISO time, and in which project."""

    moment: str
    project: str


def note_deletion(
    redis: Redis, project: str, entity: Entity | None = None, ids: Iterable[str] = ("",)
) -> None:
    """Say that a deletion of the project, or of these entities of it, begins. Raises redis.RedisError."""
    moment, folder = next_version(redis), project_folder(project)
    with redis.pipeline() as pipeline:
        for id in ids:
            pipeline.set(Deletable(folder, entity, id).key, f"{moment} {project}", ex=_REMEMBERED_S)
        pipeline.execute()


def deletions(redis: Redis, asked: Iterable[Deletable]) -> dict[Deletable, Deletion]:
    """The deletions of what was deleted. Raises redis.RedisError."""
    asked = list(asked)
    answers: Any = redis.mget([deletable.key for deletable in asked]) if asked else []
    noted = {
        name: answer.decode().split(" ", 1) for name, answer in zip(asked, answers, strict=True) if answer
    }
    return {name: Deletion(moment, project) for name, (moment, project) in noted.items()}


def delete_again(redis: Redis, deleted: Mapping[Deletable, Deletion]) -> None:
    """Ask for another deletion of these, together of each project. Raises redis.RedisError."""
    ids: dict[tuple[str, Entity | None], list[str]] = defaultdict(list)
    for name, deletion in deleted.items():
        ids[deletion.project, name.entity].append(name.id)
    for (project, entity), some in ids.items():
        # Noted again, it would keep out what came after it, and such batches would ask once more.
        arguments: dict[str, object] = {"project": project, "is_noted": True}
        name = "project-delete"
        if entity is not None:
            name, argument = _QUEUES[entity]
            arguments[argument] = some
        enqueue(redis, queue(name), [NewJob(arguments)])


def deletable_in(segment: Segment) -> set[Deletable]:
    """What a segment's events can be deleted with: their project, traces and scores."""
    folder = folder_of(segment.key)
    entities = (_entities(folder, key, group) for key, group in segment.groups.items())
    return {Deletable(folder), *chain.from_iterable(entities)}


def gone_of(segment: Segment, deleted: Mapping[Deletable, Deletion]) -> dict[Deletable, Deletion]:
    """What of the segment was deleted after it was accepted."""
    names = deletable_in(segment) & deleted.keys() if deleted else ()
    return {name: deleted[name] for name in names if segment.written_at <= deleted[name].moment}


def without(segment: Segment, gone: Mapping[Deletable, Deletion]) -> Segment:
    """The segment without the events of what is gone."""
    if not gone:
        return segment
    folder = folder_of(segment.key)
    if Deletable(folder) in gone:
        return replace(segment, groups={})
    groups = {
        key: group
        for key, group in segment.groups.items()
        if gone.keys().isdisjoint(_entities(folder, key, group))
    }
    return replace(segment, groups=groups)


def _entities(folder: str, key: EntityKey, group: Group) -> Iterator[Deletable]:
    if key.entity in _QUEUES:
        yield Deletable(folder, key.entity, key.id)
    for event in group.events:
        body = event.get("body")
        # The log may hold what nobody has validated.
        if isinstance(body, dict) and body.get("traceId"):
            yield Deletable(folder, Entity.TRACE, f"{body['traceId']}")
