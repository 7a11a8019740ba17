"""The handler of the ingestion queues: segments of the event log -> rows in ClickHouse.

It takes the jobs of a batch together. What one job alone is to blame for fails that job; what ClickHouse or
Redis is to blame for fails all of them, and they are retried.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from redis import Redis

from langfuse_ingest.event_log import EntityKey, EventLog, Segment, folder_of
from langfuse_ingest.event_log_index import TABLE as INDEX
from langfuse_ingest.event_log_index import index_rows, segments_of, with_index
from langfuse_ingest.events import Entity
from langfuse_ingest.file_log import TABLE as FILE_LOG
from langfuse_ingest.file_log import file_log_rows
from langfuse_ingest.histories import read_histories
from langfuse_ingest.merge import History, merge
from langfuse_ingest.noted_deletions import (
    Deletable,
    Deletion,
    deletable_in,
    delete_again,
    deletions,
    gone_of,
    without,
)
from langfuse_ingest.records import Record
from langfuse_ingest.sharding import shard_of
from langfuse_ingest.stored import StoredRow, days_around, stored_records, stored_rows, tombstone
from langfuse_ingest.tables import Target, targets
from langfuse_ingest.version import next_version
from langfuse_ingest.writer import PendingRow, RefusedRow, Writer, pending
from langfuse_worker.blobstore import ObjectNotFoundError
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.settings import WriteMode

T = TypeVar("T")

_KINDS_AT_ONCE = 4


@dataclass(frozen=True)
class IngestJob:
    """What a job of an ingestion queue says.

    Attributes:
        segment: key in the event log.
        shard: index of the shard whose entities the job is about, of `shards`.
        entity: the only entity that the job is about, as (kind, id); set for dead letters of single rows.
        was_abandoned: whether a consumer has died with the job, and may have left rows.
    """

    segment: str
    shard: int = 0
    shards: int = 1
    entity: tuple[str, str] | None = None
    was_abandoned: bool = False

    def keys(self, segment: Segment) -> set[EntityKey]:
        """The entities of the segment that the job is about."""
        return {
            key
            for key in segment.groups
            if (self.entity is None or self.entity == (key.entity, key.id))
            and (self.shards == 1 or shard_of(key.project, key.id, self.shards) == self.shard)
        }


@dataclass
class Outcome:
    """What became of a batch.

    Attributes:
        failed: errors by the index of their job, such as that its segment cannot be read.
        unread: entities that are not merged, because an earlier segment could not be read.
        refused: rows that ClickHouse does not take; everything else is stored.
        segments: where each entity's newest segment is, for dead letters.
    """

    failed: dict[int, Exception] = field(default_factory=dict)
    unread: dict[EntityKey, Exception] = field(default_factory=dict)
    refused: list[RefusedRow] = field(default_factory=list)
    segments: dict[EntityKey, str] = field(default_factory=dict)

    def followed_by(self, other: "Outcome", jobs: int) -> "Outcome":
        """What became of these jobs, so many, and of others."""
        return Outcome(
            failed=self.failed | {jobs + index: error for index, error in other.failed.items()},
            refused=self.refused + other.refused,
            segments=self.segments | other.segments,
        )


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
            ClickHouseError, redis.RedisError: nothing is lost, the jobs have to be run again.
        """
        outcome = Outcome()
        read = self.event_log.read(job.segment for job in jobs)
        projects = {Deletable(folder_of(key)) for key in read}
        names = projects.union(*(deletable_in(item) for item in read.values() if isinstance(item, Segment)))
        deleted = deletions(self.redis, names)
        doubtful: dict[Deletable, Deletion] = {}
        segments: dict[str, Segment] = {}
        keys_of_jobs: dict[int, set[EntityKey]] = {}
        for index, job in enumerate(jobs):
            segment = read[job.segment]
            if isinstance(segment, Segment):
                gone = gone_of(segment, deleted)
                segments[job.segment] = without(segment, gone)
                keys_of_jobs[index] = job.keys(segments[job.segment])
                outcome.segments.update(dict.fromkeys(keys_of_jobs[index], job.segment))
            else:
                project = Deletable(folder_of(job.segment))
                gone = {project: deleted[project]} if project in deleted else {}
                if not gone or not isinstance(segment, ObjectNotFoundError):
                    outcome.failed[index] = segment
            if job.was_abandoned:
                doubtful |= gone
        keys = set(outcome.segments)
        try:
            if keys:
                with self.clickhouse.hold():
                    self._merge_and_write(keys, segments, outcome)
        finally:
            self._delete_again(names, deleted, doubtful)
        for index, job_keys in keys_of_jobs.items():
            for key in job_keys & outcome.unread.keys():
                outcome.failed[index] = outcome.unread[key]
        return outcome

    def _delete_again(
        self,
        names: set[Deletable],
        before: Mapping[Deletable, Deletion],
        doubtful: Mapping[Deletable, Deletion],
    ) -> None:
        """Ask for another deletion of what is being deleted since `before`, and of what is doubtful."""
        now = deletions(self.redis, names)
        begun = {name: deletion for name, deletion in now.items() if deletion != before.get(name)}
        delete_again(self.redis, {**doubtful, **begun})

    def _merge_and_write(self, keys: set[EntityKey], segments: dict[str, Segment], outcome: Outcome) -> None:
        self.writer.insert(FILE_LOG, file_log_rows(segments.values(), keys))
        index = index_rows(segments.values(), keys)
        with_index(self.clickhouse, lambda: self.writer.insert(INDEX, index))
        version = next_version(self.redis)
        named = segments_of(self.clickhouse, keys)
        while named:
            self._merge_named(named, segments, version, outcome)
            # Another consumer may have stored an entity with more events than were known here, after looking
            # for what is stored and before these rows were there. If its time differs, both rows would stay.
            version = next_version(self.redis)
            named = self._with_more_segments(named)

    def _with_more_segments(self, before: dict[EntityKey, list[str]]) -> dict[EntityKey, list[str]]:
        """The entities of which more segments are known than before."""
        now = segments_of(self.clickhouse, before)
        return {key: paths for key, paths in now.items() if set(paths) - set(before[key])}

    def _merge_named(
        self,
        named: dict[EntityKey, list[str]],
        segments: dict[str, Segment],
        version: str,
        outcome: Outcome,
    ) -> None:
        """Merge and write the entities; what was refused of them before does not count any more."""
        outcome.refused = [row for row in outcome.refused if row.key not in named]
        histories, unread = read_histories(self.event_log, named, segments)
        outcome.unread |= unread
        kinds = _by_kind(histories)

        def write(kind: tuple[str, Entity]) -> list[RefusedRow]:
            rows, refused = self._rows_of_kind(kind, kinds[kind], version)
            return refused + [row for table in rows for row in self.writer.write(table, rows[table])]

        # ClickHouse stores the rows of one kind while those of the next are merged.
        with ThreadPoolExecutor(_KINDS_AT_ONCE) as pool:
            for refused in pool.map(write, kinds):
                outcome.refused += refused

    def _rows_of_kind(
        self, kind: tuple[str, Entity], histories: list[History], version: str
    ) -> tuple[dict[str, list[PendingRow]], list[RefusedRow]]:
        """The rows of a project's entities of one kind, by table, and what cannot be merged or written."""
        project, entity = kind
        rows: dict[str, list[PendingRow]] = defaultdict(list)
        found = targets(entity, self.mode)
        days, refused = _each(histories, lambda history: days_around(history.times))
        histories = [history for history in histories if history.id in days]
        stored = {target.table: self._stored(target, project, histories, days) for target in found}
        for target in found:
            self._add_to_bases(target, project, histories, stored[target.table], days)

        def rows_of(history: History) -> list[tuple[str, PendingRow]]:
            key, record = EntityKey(project, entity, history.id), merge(history)
            return [
                (target.table, row)
                for target in found
                for row in _rows(target, key, record, stored[target.table].get(history.id, ()), version)
            ]

        merged, unmerged = _each(histories, rows_of)
        for table, row in chain.from_iterable(merged.values()):
            rows[table].append(row)
        return rows, refused + unmerged

    def _stored(
        self, target: Target, project: str, histories: list[History], days: dict[str, set[str]]
    ) -> dict[str, list[StoredRow]]:
        if self.skip_reads & {project, "*"}:
            histories = [history for history in histories if len(history.groups) > 1]
        if not histories:
            return {}
        ids = [history.id for history in histories]
        return stored_rows(self.clickhouse, target, project, ids, set().union(*(days[i] for i in ids)))

    def _add_to_bases(
        self,
        target: Target,
        project: str,
        histories: list[History],
        stored: dict[str, list[StoredRow]],
        days: dict[str, set[str]],
    ) -> None:
        """Give the stored row to those whose row is older than everything that the log knows of them.

        Where several tables have one, the first one's columns count, and the others' that it does not have.
        """
        older = {
            history.id: history
            for history in histories
            if any(row.created_at[:23] < history.written_at[:23] for row in stored.get(history.id, ()))
        }
        if older:
            around = set().union(*(days[i] for i in older))
            bases = stored_records(self.clickhouse, target, project, older, around)
            for entity_id, base in bases.items():
                older[entity_id].base = {**base, **(older[entity_id].base or {})}


def _rows(
    target: Target, key: EntityKey, record: Record, stored: Iterable[StoredRow], version: str
) -> list[PendingRow]:
    """The merged row as a table holds it, after those that delete stored rows under another sorting key."""
    row = target.row(record)
    if row is None:
        return []
    row[target.id_column] = target.id_prefix + key.id
    moved = [old for old in stored if target.key(old.columns) != target.key(row)]
    return [
        *(pending(key, tombstone(target, key, old), version) for old in moved),
        pending(key, row, version),
    ]


def _each(
    histories: Iterable[History], action: Callable[[History], T]
) -> tuple[dict[str, T], list[RefusedRow]]:
    """The action's results by id, and whose events it cannot be applied to.

    The log may hold what no producer of ours has validated; that must not fail its neighbours.
    """
    results: dict[str, T] = {}
    refused: list[RefusedRow] = []
    for history in histories:
        try:
            results[history.id] = action(history)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
            key = EntityKey(history.project, history.entity, history.id)
            refused.append(RefusedRow(key, "the merge", f"{type(error).__name__}: {error}"))
    return results, refused


def _by_kind(histories: Iterable[History]) -> dict[tuple[str, Entity], list[History]]:
    kinds: dict[tuple[str, Entity], list[History]] = defaultdict(list)
    for history in histories:
        kinds[history.project, history.entity].append(history)
    return kinds
