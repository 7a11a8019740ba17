"""Accepts events: validates each, writes the batch to the event log, then queues its job.

An event is accepted when both have happened. One invalid event never fails its neighbours.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from redis import Redis

from langfuse_ingest.enqueue import NewJob, enqueue
from langfuse_ingest.event_log import EventLog, Group, Origin
from langfuse_ingest.events import Entity, EventError, SdkLogEvent, entity_of, parse_event
from langfuse_ingest.otel.validation import check_spans
from langfuse_ingest.queues import QueueSpec, queue
from langfuse_ingest.sharding import shard_name, shard_of
from langfuse_worker.settings import Settings

DEFAULT_ORIGIN = Origin()


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
                self._add(groups, raw)
            except EventError as error:
                receipt.rejected.append(Rejection(index, _id_of(raw), error.reason, str(error)))
            else:
                receipt.accepted.append(_id_of(raw))
        if groups:
            primary, secondary = queue("ingestion-queue"), queue("secondary-ingestion-queue")
            spec = secondary if project in self.settings.secondary_projects else primary
            receipt.segment, size = self.event_log.write(
                project, list(groups.values()), origin, datetime.now(UTC)
            )
            self._enqueue(spec, project, receipt.segment, size, groups.values())
        return receipt

    def accept_spans(self, project: str, request: object, origin: Origin = DEFAULT_ORIGIN) -> Receipt:
        """Accept an OTLP/JSON trace export as a whole, or reject it as a whole, as Langfuse does.

        Raises:
            StoreError, redis.RedisError: as `accept`.
        """
        receipt = Receipt()
        size = 0
        try:
            resource_spans, span_ids = check_spans(request, self.settings.ingestion_max_event_bytes)
            if span_ids:
                receipt.segment, size = self.event_log.write_spans(
                    project, resource_spans, origin, datetime.now(UTC)
                )
        except EventError as error:
            receipt.rejected.append(Rejection(0, "unknown", error.reason, str(error)))
            return receipt
        except TypeError as error:
            message = f"cannot be written as JSON: {error}"
            receipt.rejected.append(Rejection(0, "unknown", "not_json", message))
            return receipt
        if receipt.segment:
            primary, secondary = queue("otel-ingestion-queue"), queue("secondary-otel-ingestion-queue")
            spec = secondary if project in self.settings.secondary_otel_projects else primary
            shard = shard_name(spec.name, shard_of(project, receipt.segment, spec.shards))
            job = _job(receipt.segment, size, len(span_ids))
            enqueue(self.redis, spec, [job], shard)
        receipt.accepted = span_ids
        return receipt

    def _add(self, groups: dict[tuple[Entity, str], Group], raw: object) -> None:
        event = parse_event(raw)
        if isinstance(event, SdkLogEvent):
            return
        try:
            data = event.model_dump(by_alias=True, exclude_unset=True)
            size = len(orjson.dumps({"events": [data]}))  # as deep as it lies in the log
        except (TypeError, ValueError) as error:  # lone surrogates, integers beyond 64 bits, too many levels
            raise EventError("not_json", f"cannot be written as JSON: {error}") from None
        limit = self.settings.ingestion_max_event_bytes
        if size > limit:
            raise EventError("too_large", f"{size} bytes; LANGFUSE_INGESTION_MAX_EVENT_BYTES={limit}")
        entity = entity_of(event)
        assert entity is not None
        entity_id = event.body.id or event.id
        groups.setdefault((entity, entity_id), Group(entity, entity_id, [])).events.append(data)

    def _enqueue(
        self, spec: QueueSpec, project: str, segment: str, size: int, groups: Iterable[Group]
    ) -> None:
        """A job for each shard that has entities of the segment."""
        shards = spec.shards
        counts = Counter[int]()
        for group in groups:
            counts[shard_of(project, group.id, shards) if shards > 1 else 0] += len(group.events)
        for index, events in counts.items():
            job = _job(segment, size, events, shard=index, shards=shards)
            enqueue(self.redis, spec, [job], shard_name(spec.name, index))


def _job(segment: str, size: int, events: int, **arguments: Any) -> NewJob:
    meta = {"events": events, "bytes": size}
    return NewJob({"segment": segment, **arguments}, meta, description=f"ingest {segment}")


def _id_of(raw: object) -> str:
    found = raw.get("id") if isinstance(raw, dict) else None
    return found if isinstance(found, str) else "unknown"
