"""Projects that were deleted lately: what still waits of them, or is in work, must not bring them back.

A consumer looks before it writes and again after that. It leaves out what was accepted before a deletion that
it knows of; if one has begun meanwhile, its rows may have come after those were deleted, and it asks for
another. Projects go by their folder in the event log, which is known of a segment that is gone.
"""

from collections.abc import Iterable
from typing import Any

from redis import Redis

from langfuse_ingest.event_log import project_folder
from langfuse_ingest.version import next_version

_KEY = "langfuse:ingestion:deleted:"
_REMEMBERED_S = 86_400  # longer than any job waits for its next attempt


def note_deletion(redis: Redis, project: str) -> None:
    """Say that a deletion of the project begins. Raises redis.RedisError."""
    redis.set(_KEY + project_folder(project), next_version(redis), ex=_REMEMBERED_S)


def deletions(redis: Redis, folders: Iterable[str]) -> dict[str, str]:
    """When the projects' deletions began, ISO times, by folder; only of those that were deleted.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    asked = list(folders)
    answers: Any = redis.mget([_KEY + folder for folder in asked]) if asked else []
    return {folder: moment.decode() for folder, moment in zip(asked, answers, strict=True) if moment}
