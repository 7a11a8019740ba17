"""Events and the stored row -> the new row, by Langfuse's rules.

Every merge starts from all events of the entity that the log has, so the result does not depend on how they
were batched, in which order they came, or how often.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Any

from langfuse_ingest.event_log import EntityKey, Group, Origin
from langfuse_ingest.events import Entity
from langfuse_ingest.records import (
    RawEvent,
    Record,
    json_text,
    observation_record,
    score_record,
    stable_trace_id,
    trace_record,
)

_MILLISECONDS = 23  # of an ISO time
_MAX_COST = 999_999.999999  # of Decimal(18, 12)

_RECORD = {
    Entity.TRACE: trace_record,
    Entity.OBSERVATION: observation_record,
    Entity.SCORE: score_record,
}
# The first value of these stays; the others are overwritten by later events.
_IMMUTABLE = {
    Entity.TRACE: frozenset({"timestamp", "environment"}),
    Entity.OBSERVATION: frozenset({"trace_id", "start_time", "environment"}),
    Entity.SCORE: frozenset({"timestamp", "trace_id", "environment"}),
}


@dataclass
class History:
    """What is known of an entity.

    Attributes:
        groups: its events with the segment each comes from, in any order.
        base: the stored row when it is older than the log: Langfuse itself wrote it, or the log has expired.
        written_at: when the oldest of the segments was accepted, UTC.
    """

    key: EntityKey
    written_at: str
    origin: Origin = field(default_factory=Origin)
    groups: list[tuple[str, Group]] = field(default_factory=list)
    base: Record | None = None

    @cached_property
    def applied(self) -> list[tuple[RawEvent, Record]]:
        """Every event with the columns that it sets, in the order in which events apply."""
        to_record = _RECORD[self.key.entity]
        return [(event, to_record(event)) for event in sort_events(in_log_order(self.groups))]

    @cached_property
    def days(self) -> set[str]:
        """Dates of every time that may be in the row's sorting key, and their neighbours.

        A stored time may differ, and so may ClickHouse's zone.
        """
        times = {record.get("start_time") or record["timestamp"] for _, record in self.applied}
        days = {date.fromisoformat(time[:10]) for time in times}
        return {str(day + timedelta(offset)) for day in days for offset in (-1, 0, 1)}


def merge(history: History) -> Record:
    """The row of an entity as the columns of its table, without a version; metadata is still a tree.

    Args:
        history: all of its events, at least one.
    """
    entity = history.key.entity
    row = dict(history.base or {})
    for _, record in history.applied:
        overwrite(row, record, _IMMUTABLE[entity])
    if entity is not Entity.SCORE:
        _set_payload(row, (event for event, _ in history.applied))
    row["id"], row["project_id"] = history.key.id, history.key.project
    row.setdefault("created_at", history.written_at)
    row.setdefault("metadata", {})
    if entity is Entity.OBSERVATION:
        _finish_observation(row)
    row["origin"] = {
        name: value for name, value in _columns(history.origin).items() if value not in ("", "unknown")
    }
    return row


def in_log_order(groups: Iterable[tuple[str, Group]]) -> list[RawEvent]:
    """Events in the order of Langfuse's log: groups by their first event's id, then as they were sent."""
    groups = list(groups)
    if len(groups) == 1:
        return groups[0][1].events
    ordered = sorted(groups, key=lambda item: (item[1].events[0]["id"], item[0]))
    return [event for _, group in ordered for event in group.events]


def sort_events(events: Sequence[RawEvent]) -> list[RawEvent]:
    """The order in which events apply.

    By millisecond; creates before updates; then by the rest of their time. Of simultaneous creates the first
    of the list comes last and so wins, of updates the last does. That is what Langfuse's comparator does, but
    for the rest of the time, and for spans, which go by their ids: they are exported in any order.
    """
    if len(events) == 1:
        return list(events)

    def key(item: tuple[int, RawEvent]) -> tuple[str, bool, str, str, int]:
        index, event = item
        time, is_update = event["timestamp"], "create" not in event["type"]
        span = event["id"] if "otel" in event else ""
        return time[:_MILLISECONDS], is_update, time, span, index if is_update else -index

    return [event for _, event in sorted(enumerate(events), key=key)]


def overwrite(row: Record, record: Record, immutable: frozenset[str]) -> None:
    """Apply one event to the row.

    Null and false overwrite; empty objects and lists do not; metadata is merged deeply; tags are united; an
    immutable column keeps its first value.
    """
    for column, value in record.items():
        if column in immutable:
            row.setdefault(column, value)
        elif column == "metadata":
            row[column] = deep_merge(row.get(column) or {}, value)
        elif column == "tags":
            united: set[str] = {*(row.get(column) or []), *value}
            row[column] = sorted(united, key=_utf16)
        elif value or not isinstance(value, dict | list):
            row[column] = value
        else:
            row.setdefault(column, value)


def deep_merge(old: Any, new: Any) -> Any:
    """Merge as lodash does: objects key by key, lists index by index, everything else is replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        merged = dict(old)
        for key, value in new.items():
            merged[key] = deep_merge(old[key], value) if key in old else value
        return merged
    if isinstance(old, list) and isinstance(new, list):
        both = [deep_merge(a, b) for a, b in zip(old, new, strict=False)]
        return both + (old[len(new) :] or new[len(old) :])
    return new


def _set_payload(row: Record, events: Iterable[RawEvent]) -> None:
    """Input and output: the last value that JavaScript calls true, else the stored one."""
    for event in events:
        for name in ("input", "output"):
            value = event["body"].get(name)
            if value or isinstance(value, dict | list):
                row[name] = value
    for name in ("input", "output"):
        if row.get(name) is not None:
            row[name] = json_text(row[name])


def _finish_observation(row: Record) -> None:
    row.setdefault("trace_id", stable_trace_id(row["project_id"], row["id"]))
    row["level"] = row.get("level") or "DEFAULT"
    if (row.get("end_time") or row["start_time"]) < row["start_time"]:
        row["end_time"] = row["start_time"]
    usage = row.get("provided_usage_details") or {}
    if usage:
        row["usage_details"] = {"total": sum(usage.values()), **usage}
    cost = {name: _clamped(value) for name, value in (row.get("provided_cost_details") or {}).items()}
    if cost:
        row["provided_cost_details"] = cost
        if "total" not in cost and cost.keys() <= {"input", "output"}:
            cost = {**cost, "total": _clamped(sum(cost.values()))}
        row["cost_details"], row["total_cost"] = cost, cost.get("total")


def _columns(origin: Origin) -> Record:
    return {
        "ingestion_api_key": origin.api_key,
        "ingestion_sdk_name": origin.sdk_name,
        "ingestion_sdk_version": origin.sdk_version,
    }


def _clamped(cost: float) -> float:
    return round(max(-_MAX_COST, min(_MAX_COST, float(cost))), 12)


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")
