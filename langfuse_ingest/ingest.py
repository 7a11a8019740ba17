"""The handler of the ingestion queues: segments of the event log -> rows in ClickHouse.

It takes the jobs of a batch together. What one job alone is to blame for fails that job; what ClickHouse or
Redis is to blame for fails all of them, and they are retried.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from redis import Redis

from langfuse_ingest.event_log import EntityKey, EventLog, Segment, folder_of
from langfuse_ingest.event_log_index import TABLE as INDEX
from langfuse_ingest.event_log_index import hashes_of, index_rows, segments_of, with_index
from langfuse_ingest.events import Entity
from langfuse_ingest.file_log import TABLE as FILE_LOG
from langfuse_ingest.file_log import file_log_rows
from langfuse_ingest.histories import read_histories
from langfuse_ingest.merge import History
from langfuse_ingest.noted_deletions import (
    Deletable,
    Deletion,
    deletable_in,
    delete_again,
    deletions,
    gone_of,
    without,
)
from langfuse_ingest.rows import rows_of
from langfuse_ingest.sharding import shard_of
from langfuse_ingest.version import next_version
from langfuse_ingest.writer import RefusedRow, Writer
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
            and shard_of(key.project, key.id, self.shards) == self.shard
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
        hashes = hashes_of(keys)
        index = index_rows(segments.values(), hashes)
        with_index(self.clickhouse, lambda: self.writer.insert(INDEX, index))
        version = next_version(self.redis)
        named = segments_of(self.clickhouse, hashes)
        while named:
            self._merge_named(named, segments, version, outcome)
            # Another consumer may have stored an entity with more events than were known here, after looking
            # for what is stored and before these rows were there. If its time differs, both rows would stay.
            version = next_version(self.redis)
            named = self._with_more_segments(named, hashes)

    def _with_more_segments(
        self, before: dict[EntityKey, list[str]], hashes: Mapping[EntityKey, int]
    ) -> dict[EntityKey, list[str]]:
        """The entities of which more segments are known than before."""
        now = segments_of(self.clickhouse, {key: hashes[key] for key in before})
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

        def write(of_kind: list[History]) -> list[RefusedRow]:
            skip = bool(self.skip_reads & {of_kind[0].key.project, "*"})
            rows, refused = rows_of(self.clickhouse, of_kind, version, self.mode, skip_reads=skip)
            return refused + [row for table in rows for row in self.writer.write(table, rows[table])]

        # ClickHouse stores the rows of one kind while those of the next are merged.
        with ThreadPoolExecutor(_KINDS_AT_ONCE) as pool:
            for refused in pool.map(write, _by_kind(histories)):
                outcome.refused += refused


def _by_kind(histories: Iterable[History]) -> list[list[History]]:
    """The histories of each kind of entity in each project."""
    kinds: dict[tuple[str, Entity], list[History]] = defaultdict(list)
    for history in histories:
        kinds[history.key.project, history.key.entity].append(history)
    return list(kinds.values())
