"""The handler of the ingestion queues: segments of the event log -> rows in ClickHouse.

It takes the jobs of a batch together. What one job alone is to blame for fails that job; what ClickHouse or
Redis is to blame for fails all of them, and they are retried.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from redis import Redis

from langfuse_ingest.event_log import EventLog, Segment, SegmentError
from langfuse_ingest.events import Entity
from langfuse_ingest.file_log import TABLE, EntityKey, file_log_rows, segments_of
from langfuse_ingest.merge import History, merge
from langfuse_ingest.records import Record
from langfuse_ingest.sharding import shard_of
from langfuse_ingest.stored import StoredRow, days_around, stored_records, stored_rows, tombstone
from langfuse_ingest.tables import Target, targets
from langfuse_ingest.version import next_version
from langfuse_ingest.writer import PendingRow, RefusedRow, Writer, pending
from langfuse_worker.blobstore import ObjectNotFoundError
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.settings import WriteMode

_KINDS_AT_ONCE = 4


@dataclass(frozen=True)
class IngestJob:
    """What a job of an ingestion queue says.

    Attributes:
        segment: key in the event log.
        shard: index of the shard whose entities the job is about, of `shards`.
        entity: the only entity that the job is about, as (kind, id); set for dead letters of single rows.
    """

    segment: str
    shard: int = 0
    shards: int = 1
    entity: tuple[str, str] | None = None

    def keys(self, segment: Segment) -> set[EntityKey]:
        """The entities of the segment that the job is about."""
        return {
            EntityKey(segment.project, group.entity, group.id)
            for group in segment.groups
            if (self.entity is None or self.entity == (group.entity, group.id))
            and (self.shards == 1 or shard_of(segment.project, group.id, self.shards) == self.shard)
        }


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        failed: jobs whose segment could not be read, with the error, by their index.
        refused: rows that ClickHouse does not take; everything else is stored.
        entities: how many entities were merged.
        segments: where each entity's newest segment is, for dead letters.
    """

    failed: dict[int, Exception] = field(default_factory=dict)
    refused: list[RefusedRow] = field(default_factory=list)
    entities: int = 0
    segments: dict[EntityKey, str] = field(default_factory=dict)


@dataclass
class Ingestion:
    """Merges events and writes rows.

    Attributes:
        skip_reads: projects whose rows nobody but this product writes: their stored rows are not looked up
            unless a sorting key has changed. `*` is every project.
    """

    clickhouse: ClickHouse
    redis: Redis
    event_log: EventLog
    writer: Writer
    mode: WriteMode
    skip_reads: frozenset[str] = frozenset()

    def ingest(self, jobs: Sequence[IngestJob]) -> Outcome:
        """Store the events of the jobs; returns when ClickHouse has them.

        Raises:
            ClickHouseError: ClickHouse has trouble; nothing is lost, the jobs have to be run again.
                redis.RedisError: so has Redis.
            StoreError: earlier events of an entity cannot be read.
        """
        outcome = Outcome()
        read = self.event_log.read(job.segment for job in jobs)
        segments: dict[str, Segment] = {}
        keys: set[EntityKey] = set()
        for index, job in enumerate(jobs):
            segment = read[job.segment]
            if isinstance(segment, Exception):
                outcome.failed[index] = segment
                continue
            segments[job.segment] = segment
            job_keys = job.keys(segment)
            keys |= job_keys
            outcome.segments.update(dict.fromkeys(job_keys, job.segment))
        if keys:
            with self.clickhouse.hold():
                self._merge_and_write(keys, segments, outcome)
        outcome.entities = len(keys)
        return outcome

    def _merge_and_write(self, keys: set[EntityKey], segments: dict[str, Segment], outcome: Outcome) -> None:
        self.writer.insert(TABLE, file_log_rows(segments.values(), keys))
        version = next_version(self.redis)
        kinds = _by_kind(self._histories(keys, segments))

        def write(kind: tuple[str, Entity]) -> list[RefusedRow]:
            rows = self._rows_of_kind(kind, kinds[kind], version)
            return [refused for table in rows for refused in self.writer.write(table, rows[table])]

        # ClickHouse stores the rows of one kind while those of the next are merged.
        with ThreadPoolExecutor(_KINDS_AT_ONCE) as pool:
            for refused in pool.map(write, kinds):
                outcome.refused += refused

    def _rows_of_kind(
        self, kind: tuple[str, Entity], histories: list[History], version: str
    ) -> dict[str, list[PendingRow]]:
        """The rows of a project's entities of one kind, by table, with those that delete what they leave."""
        project, entity = kind
        rows: dict[str, list[PendingRow]] = defaultdict(list)
        merged: dict[str, Record] = {}
        for target in targets(entity, self.mode):
            stored = self._stored(target, project, histories)
            if not merged:  # the first target's rows are what merges start from
                self._set_bases(target, project, histories, stored)
                merged = {history.id: merge(history) for history in histories}
            for history in histories:
                row = target.row(merged[history.id])
                if row is None:
                    continue
                key = EntityKey(project, entity, history.id)
                row[target.id_column] = target.id_prefix + history.id
                for old in stored.get(history.id, ()):
                    if target.key(old.columns) != target.key(row):
                        rows[target.table].append(pending(key, tombstone(target, key, old), version))
                rows[target.table].append(pending(key, row, version))
        return rows

    def _histories(self, keys: set[EntityKey], segments: dict[str, Segment]) -> list[History]:
        """All events of each entity; entities that were deleted meanwhile have none and are left out."""
        named = segments_of(self.clickhouse, keys)
        known = segments | self._earlier(
            {path for paths in named.values() for path in paths} - segments.keys()
        )
        histories: list[History] = []
        for key, paths in named.items():
            found = [known[path] for path in paths if path in known]
            if found:
                first = min(found, key=lambda segment: segment.written_at)
                last = max(found, key=lambda segment: segment.written_at)
                groups = [(s.key, s.by_entity[key.entity, key.id]) for s in found]
                history = History(key.project, key.entity, key.id, first.written_at, last.origin, groups)
                histories.append(history)
        return histories

    def _earlier(self, keys: set[str]) -> dict[str, Segment]:
        """Segments that were ingested before. Those that retention removed are in the stored rows."""
        found: dict[str, Segment] = {}
        for key, segment in self.event_log.read(keys).items():
            if isinstance(segment, Segment):
                found[key] = segment
            elif not isinstance(segment, ObjectNotFoundError | SegmentError):
                raise segment  # to go on without it would forget its events
        return found

    def _stored(self, target: Target, project: str, histories: list[History]) -> dict[str, list[StoredRow]]:
        if self.skip_reads & {project, "*"}:
            histories = [history for history in histories if len(history.groups) > 1]
        if not histories:
            return {}
        days = days_around(time for history in histories for time in history.times)
        return stored_rows(self.clickhouse, target, project, [h.id for h in histories], days)

    def _set_bases(
        self, target: Target, project: str, histories: list[History], stored: dict[str, list[StoredRow]]
    ) -> None:
        """Give the stored row to those whose row is older than everything that the log knows of them."""
        older = [
            history
            for history in histories
            if any(row.created_at[:23] < history.written_at[:23] for row in stored.get(history.id, ()))
        ]
        if older:
            days = days_around(time for history in older for time in history.times)
            bases = stored_records(self.clickhouse, target, project, [h.id for h in older], days)
            for history in older:
                history.base = bases.get(history.id)


def _by_kind(histories: Iterable[History]) -> dict[tuple[str, Entity], list[History]]:
    kinds: dict[tuple[str, Entity], list[History]] = defaultdict(list)
    for history in histories:
        kinds[history.project, history.entity].append(history)
    return kinds
