"""Accepts events: validates each, writes the batch to the event log, then queues its job.

An event is accepted when both have happened. One invalid event never fails its neighbours.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from redis import Redis

from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.event_log import EventLog, Group, Origin
from langfuse_ingest.events import Entity, EventError, SdkLogEvent, entity_of, parse_event
from langfuse_ingest.otel.validation import check_spans
from langfuse_ingest.queues import queue
from langfuse_ingest.sharding import shard_name, shard_of
from langfuse_ingest.surrogates import without_lone_surrogates
from langfuse_worker.settings import Settings

DEFAULT_ORIGIN = Origin()
_Written = tuple[list[str], str | None, int]  # ids of spans, key and bytes of their segment if there are any


@dataclass(frozen=True)
class Rejection:
    """An event that is not accepted.

    Attributes:
        index: its place in the batch.
        id: its id, or `unknown`.
        reason: the kind of mistake, of few values.
        message: names the field and what is wrong with it.
    """

    index: int
    id: str
    reason: str
    message: str


@dataclass
class Receipt:
    """What became of a batch.

    Attributes:
        accepted: ids of accepted events, in order.
        rejected: the others.
        segment: key in the event log; None if nothing had to be stored.
    """

    accepted: list[str] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    segment: str | None = None

    @property
    def reasons(self) -> Counter[str]:
        """Number of rejected events by reason."""
        return Counter(rejection.reason for rejection in self.rejected)


@dataclass
class Producer:
    """Puts batches of events in. Thread-safe as far as its store and Redis client are."""

    settings: Settings
    redis: Redis
    event_log: EventLog

    def accept(self, project: str, batch: Sequence[object], origin: Origin = DEFAULT_ORIGIN) -> Receipt:
        """Accept the valid events of a batch.

        Args:
            project: id of the project whose key the client has.
            batch: events as they came, decoded from JSON.
            origin: who sent them.

        Raises:
            StoreError: the log cannot be written; no event of the batch is accepted.
            redis.RedisError: the queue cannot be reached; none is accepted, though all may be ingested.
        """
        receipt = Receipt()
        groups: dict[tuple[Entity, str], Group] = {}
        for index, raw in enumerate(batch):
            try:
                receipt.accepted.append(self._add_repaired(groups, raw))
            except EventError as error:
                event_id = without_lone_surrogates(_id_of(raw))
                receipt.rejected.append(Rejection(index, event_id, error.reason, str(error)))
        if groups:
            is_secondary = project in self.settings.secondary_projects
            spec = queue("secondary-ingestion-queue" if is_secondary else "ingestion-queue")
            receipt.segment, size = self.event_log.write(
                project, list(groups.values()), origin, datetime.now(UTC)
            )
            # A job for each shard that has entities of the segment.
            counts = Counter[int]()
            for group in groups.values():
                counts[shard_of(project, group.id, spec.shards)] += len(group.events)
            for shard, events in counts.items():
                job = _job(receipt.segment, size, events, shard=shard, shards=spec.shards)
                enqueue(self.redis, spec, [job], shard_name(spec.name, shard))
        return receipt

    def accept_spans(self, project: str, request: object, origin: Origin = DEFAULT_ORIGIN) -> Receipt:
        """Accept an OTLP/JSON trace export as a whole, or reject it as a whole, as Langfuse does.

        Raises:
            StoreError, redis.RedisError: as `accept`.
        """
        try:
            span_ids, segment, size = self._write_repaired_spans(project, request, origin)
        except EventError as error:
            return Receipt(rejected=[Rejection(0, "unknown", error.reason, str(error))])
        except TypeError as error:
            message = f"cannot be written as JSON: {error}"
            return Receipt(rejected=[Rejection(0, "unknown", "not_json", message)])
        if segment is None:
            return Receipt()
        is_secondary = project in self.settings.secondary_otel_projects
        spec = queue("secondary-otel-ingestion-queue" if is_secondary else "otel-ingestion-queue")
        shard = shard_name(spec.name, shard_of(project, segment, spec.shards))
        enqueue(self.redis, spec, [_job(segment, size, len(span_ids))], shard)
        return Receipt(span_ids, segment=segment)

    def _write_repaired_spans(self, project: str, request: object, origin: Origin) -> _Written:
        try:
            return self._write_spans(project, request, origin)
        except TypeError:
            return self._write_spans(project, without_lone_surrogates(request), origin)

    def _write_spans(self, project: str, request: object, origin: Origin) -> _Written:
        resource_spans, span_ids = check_spans(request, self.settings.ingestion_max_event_bytes)
        if not span_ids:
            return [], None, 0
        return span_ids, *self.event_log.write_spans(project, resource_spans, origin, datetime.now(UTC))

    def _add_repaired(self, groups: dict[tuple[Entity, str], Group], raw: object) -> str:
        """Add an event, repaired if it is refused as it is; returns its id."""
        try:
            self._add(groups, raw)
        except EventError:
            raw = without_lone_surrogates(raw)
            self._add(groups, raw)
        return _id_of(raw)

    def _add(self, groups: dict[tuple[Entity, str], Group], raw: object) -> None:
        event = parse_event(raw)
        if isinstance(event, SdkLogEvent):
            return
        try:
            data = event.model_dump(by_alias=True, exclude_unset=True)
            size = len(orjson.dumps({"events": [data]}))  # as deep as it lies in the log
        except (TypeError, ValueError) as error:  # integers beyond 64 bits, too many levels
            raise EventError("not_json", f"cannot be written as JSON: {error}") from None
        limit = self.settings.ingestion_max_event_bytes
        if size > limit:
            raise EventError("too_large", f"{size} bytes; LANGFUSE_INGESTION_MAX_EVENT_BYTES={limit}")
        entity = entity_of(event)
        assert entity is not None
        entity_id = event.body.id or event.id
        groups.setdefault((entity, entity_id), Group(entity, entity_id, [])).events.append(data)


def _job(segment: str, size: int, events: int, **arguments: Any) -> NewJob:
    meta = {"events": events, "bytes": size}
    return NewJob({"segment": segment, **arguments}, meta, description=f"ingest {segment}")


def _id_of(raw: object) -> str:
    found = raw.get("id") if isinstance(raw, dict) else None
    return found if isinstance(found, str) else "unknown"
