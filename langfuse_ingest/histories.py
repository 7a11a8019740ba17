"""Segments of the event log -> everything that is known of each entity."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from langfuse_ingest.event_log import EntityKey, EventLog, Group, Segment, SegmentError
from langfuse_ingest.merge import History
from langfuse_worker.blobstore import ObjectNotFoundError

# Of what retention has removed, the stored row knows.
_GONE = (ObjectNotFoundError, SegmentError)


def read_histories(
    event_log: EventLog, named: Mapping[EntityKey, Sequence[str]], segments: Mapping[str, Segment]
) -> tuple[list[History], dict[EntityKey, Exception]]:
    """All events of each entity, and why those of others cannot be read.

    Args:
        event_log: where earlier segments are.
        named: keys of the segments of each entity. One that was deleted meanwhile has none and is left out.
        segments: those that are in memory.
    """
    earlier: dict[str, list[EntityKey]] = defaultdict(list)
    for key, paths in named.items():
        for path in paths:
            if path not in segments:
                earlier[path].append(key)
    known: dict[str, Segment | Exception] = {**segments, **event_log.read_groups(earlier)}
    histories: list[History] = []
    unread: dict[EntityKey, Exception] = {}
    for key, paths in named.items():
        found: list[tuple[Segment, Group]] = []
        for segment in (known[path] for path in paths):
            # A segment may lack it: another entity has its hash, or spans were read in other ways once.
            if isinstance(segment, Segment) and (group := segment.groups.get(key)):
                found.append((segment, group))
            elif isinstance(segment, Exception) and not isinstance(segment, _GONE):
                unread[key] = segment
        if found and key not in unread:
            histories.append(_history(key, found))
    return histories, unread


def _history(key: EntityKey, found: list[tuple[Segment, Group]]) -> History:
    ordered = sorted((segment for segment, _ in found), key=lambda segment: segment.written_at)
    groups = [(segment.key, group) for segment, group in found]
    return History(key, ordered[0].written_at, ordered[-1].origin, groups)
