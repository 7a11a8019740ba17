"""The durable log of accepted events: what the blob store holds before a job is queued, and what merges read.

An object, a segment, holds one batch of a project: a header, then a line for each entity with its events.
    {project}/{yyyy}/{mm}/{dd}/{HH}/{MM}/{uuid}.jsonl.zst
Langfuse writes an object for each entity of each batch; at some thousand events a second that many requests
are neither fast nor cheap. Paths by time, as its OpenTelemetry uploads have, let a time range be listed.
"""

import hashlib
import re
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import orjson
import zstandard

from langfuse_ingest.events import Entity
from langfuse_ingest.otel.spans import events_of_spans
from langfuse_ingest.records import RawEvent
from langfuse_ingest.values import utc_text
from langfuse_worker.blobstore import BlobStore, ObjectNotFoundError, StoreAccessError, StoreConfig
from langfuse_worker.settings import Settings

_MAX_FOLDER_BYTES = 255  # of a name in a directory; object stores have room for more
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f/\\]")
_SEGMENT_TIME = re.compile(r"/(\d{4}/\d\d/\d\d/\d\d/\d\d)/[^/]+\.jsonl\.zst$")
_PING = "langfuse-ping"
_CACHE_BYTES = 128 << 20
_VALUE_BYTES = 150  # that a value takes as a Python object, beside its text


class SegmentError(Exception):
    """An object of the event log cannot be understood; trying again does not help."""


@dataclass(frozen=True)
class Origin:
    """Who sent a batch; goes into the columns `ingestion_*`."""

    api_key: str = ""
    sdk_name: str = "unknown"
    sdk_version: str = "unknown"


class EntityKey(NamedTuple):
    """An entity of a project."""

    project: str
    entity: Entity
    id: str


@dataclass
class Group:
    """The events of one entity in one batch, in the order in which they were sent.

    Attributes:
        events: as validated, or as spans were mapped; keys are Langfuse's.
    """

    entity: Entity
    id: str
    events: list[RawEvent]


@dataclass
class Segment:
    """One batch of one project.

    Attributes:
        key: key in the blob store.
        written_at: when it was accepted, UTC, 27 characters.
        bytes: what it takes in memory, about.
    """

    key: str
    project: str
    written_at: str
    origin: Origin
    groups: dict[EntityKey, Group]
    bytes: int = 0


class EventLog:
    """Writes segments and reads them; remembers 128 MiB of those last read. Only one thread may read."""

    def __init__(self, store: BlobStore, concurrent_reads: int = 50) -> None:
        """Nothing is opened before it is used."""
        self._store = store
        self._reads = concurrent_reads
        self._cache: OrderedDict[str, Segment] = OrderedDict()
        self._cached_bytes = 0

    def write(self, project: str, groups: list[Group], origin: Origin, now: datetime) -> tuple[str, int]:
        """Store a batch of events; returns its key and its size in bytes. Raises StoreError."""
        lines = [{"entity": g.entity, "id": g.id, "events": g.events} for g in groups]
        return self._write(project, "events", lines, origin, now)

    def write_spans(
        self, project: str, resource_spans: list[Any], origin: Origin, now: datetime
    ) -> tuple[str, int]:
        """Store OpenTelemetry spans as they came; returns key and size. Raises StoreError."""
        return self._write(project, "otel", resource_spans, origin, now)

    def read(self, keys: Iterable[str]) -> dict[str, Segment | Exception]:
        """Segments by key, read side by side; what could not be read has its StoreError or SegmentError."""
        wanted = dict.fromkeys(keys)
        found: dict[str, Segment | Exception] = {}
        for key in wanted:
            if (cached := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                found[key] = cached
        missing = [key for key in wanted if key not in found]
        if missing:
            with ThreadPoolExecutor(min(self._reads, len(missing))) as pool:
                for key, result in zip(missing, pool.map(self._read_one, missing), strict=True):
                    found[key] = result
                    if isinstance(result, Segment):
                        self._remember(result)
        return found

    def read_groups(self, wanted: Mapping[str, Iterable[EntityKey]]) -> dict[str, Segment | Exception]:
        """As `read`, of each segment these groups alone; the others are never held all at once."""
        found: dict[str, Segment | Exception] = {}
        keys = list(wanted)
        for start in range(0, len(keys), self._reads):
            for key, read in self.read(keys[start : start + self._reads]).items():
                if isinstance(read, Segment):
                    groups = {entity: read.groups[entity] for entity in wanted[key] if entity in read.groups}
                    read = replace(read, groups=groups)
                found[key] = read
        return found

    def keys_between(self, start: datetime, end: datetime, project: str | None = None) -> Iterator[str]:
        """Keys of segments accepted in `[start, end)`, to the minute, in the order of time per project."""
        for folder in self._store.folders("") if project is None else [project_folder(project)]:
            hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            while hour < end:
                for key in self._store.keys(f"{folder}/{hour:%Y/%m/%d/%H}/"):
                    moment = time_of(key)
                    if moment and start.replace(second=0, microsecond=0) <= moment < end:
                        yield key
                hour += timedelta(hours=1)

    def keys_of(self, project: str) -> list[str]:
        """Keys of all segments of a project, and of what Langfuse itself has put beside them."""
        return self._store.keys(f"{project_folder(project)}/")

    def delete(self, key: str) -> None:
        """Remove a segment."""
        self._store.delete(key)

    def ping(self) -> None:
        """Ask the store for something. Raises StoreError while it does not answer, or refuses."""
        with suppress(ObjectNotFoundError):
            try:
                self._store.e_tag(_PING)
            except StoreAccessError:
                # S3 also refuses to say that an object is missing, to those who may not list the bucket.
                self._store.write_bytes(_PING, b"", "text/plain")
                self._store.e_tag(_PING)

    def uri(self, key: str) -> str:
        """Where a segment is, for people."""
        return self._store.uri(key)

    def _write(
        self, project: str, kind: str, lines: list[Any], origin: Origin, now: datetime
    ) -> tuple[str, int]:
        header = {
            "project": project,
            "kind": kind,
            "writtenAt": utc_text(now),
            "apiKey": origin.api_key,
            "sdkName": origin.sdk_name,
            "sdkVersion": origin.sdk_version,
        }
        data = b"\n".join(orjson.dumps(line) for line in [header, *lines])
        key = f"{project_folder(project)}/{now:%Y/%m/%d/%H/%M}/{uuid.uuid4()}.jsonl.zst"
        self._store.write_bytes(key, zstandard.compress(data, 1), "application/zstd")
        return key, len(data)

    def _read_one(self, key: str) -> Segment | Exception:
        # Outcomes are values: one unreadable object must not fail the batch it is read with.
        try:
            return _parse(key, self._store.read(key))
        except Exception as error:
            return error

    def _remember(self, segment: Segment) -> None:
        self._cache[segment.key] = segment
        self._cached_bytes += segment.bytes
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.bytes


def open_event_log(settings: Settings) -> EventLog:
    """The deployment's event log."""
    return EventLog(BlobStore(event_log_store(settings)), settings.event_concurrent_reads)


def event_log_store(settings: Settings) -> StoreConfig:
    """Where the event log is."""
    bucket = settings.event_bucket or f"file://{quote(str((settings.home / 'events').absolute()))}/"
    url = bucket if "://" in bucket else f"s3://{bucket}/"
    key, secret = settings.event_access_key_id, settings.event_secret_access_key
    store = StoreConfig(
        url=url.rstrip("/") + "/" + settings.event_prefix.lstrip("/"),
        endpoint=settings.event_endpoint,
        region=settings.event_region,
    )
    text = secret.get_secret_value() if secret else None
    if store.scheme == "az":  # Langfuse's variables name its account and key as those of S3
        return replace(store, account_name=key, account_key=text)
    return replace(store, access_key_id=key, secret_access_key=text)


def project_folder(project: str) -> str:
    """A project id as one part of a key: as it is, or cut and marked with a hash of the whole.

    The rule is Langfuse's safeBlobKeySegment, but for ids that would be no folder, or that of all projects.
    """
    encoded = project.encode()
    is_folder = project not in ("", ".", "..") and not _FORBIDDEN.search(project)
    if is_folder and len(encoded) <= _MAX_FOLDER_BYTES:
        return project
    cut = _FORBIDDEN.sub("_", project).encode()[: _MAX_FOLDER_BYTES - 17].decode(errors="ignore")
    return f"{cut}_{hashlib.sha256(encoded).hexdigest()[:16]}"


def folder_of(key: str) -> str:
    """The project's folder in the key of a segment."""
    return key.partition("/")[0]


def time_of(key: str) -> datetime | None:
    """The minute in which a segment was accepted, from its key; None if it is an object of somebody else."""
    found = _SEGMENT_TIME.search(key)
    try:
        return datetime.strptime(found[1], "%Y/%m/%d/%H/%M").replace(tzinfo=UTC) if found else None
    except ValueError:  # such as the 45th of a month
        return None


def _parse(key: str, compressed: bytes) -> Segment:
    try:
        data = zstandard.decompress(compressed)
        first, _, rest = data.partition(b"\n")
        header = orjson.loads(first)
        lines = [orjson.loads(line) for line in rest.split(b"\n")] if rest else []
        kind: Literal["events", "otel"] = header["kind"]
        project, written_at = header["project"], header["writtenAt"]
        groups = (
            _groups_of_spans(lines, key, written_at) if kind == "otel" else [_group(line) for line in lines]
        )
        by_entity = {EntityKey(project, group.entity, group.id): group for group in groups}
        origin = Origin(header["apiKey"], header["sdkName"], header["sdkVersion"])
        return Segment(
            key, project, written_at, origin, by_entity, len(data) + _VALUE_BYTES * data.count(b",")
        )
    except (zstandard.ZstdError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SegmentError(f"{key} is not a segment of the event log: {error}") from error


def _group(line: dict[str, Any]) -> Group:
    return Group(Entity(line["entity"]), line["id"], line["events"])


def _groups_of_spans(resource_spans: list[Any], key: str, written_at: str) -> list[Group]:
    groups: dict[tuple[Entity, str], Group] = {}
    for entity, entity_id, event in events_of_spans(resource_spans, key, written_at):
        groups.setdefault((entity, entity_id), Group(entity, entity_id, [])).events.append(event)
    return list(groups.values())
