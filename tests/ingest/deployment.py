"""A deployment that ingests into servers of the tests: in this process, or as processes of its own."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from redis import Redis
from rq import Queue
from rq.job import Job

from langfuse_ingest.consumers.recovery import Recovery
from langfuse_ingest.consumers.worker import ConsumerWorker
from langfuse_ingest.dead_letters import DeadLetter, dead_letters
from langfuse_ingest.enqueue import NewJob, enqueue, rq_queue
from langfuse_ingest.event_log import Group, Origin
from langfuse_ingest.jobs import ingest_job
from langfuse_ingest.producer import Receipt
from langfuse_ingest.queue_state import queue_states
from langfuse_ingest.queues import queue, queues
from langfuse_ingest.runtime import Runtime, runtime
from langfuse_ingest.writer import PendingRow, RefusedRow, Writer
from langfuse_worker.blobstore import BlobStore
from langfuse_worker.clickhouse import ClickHouse
from langfuse_worker.settings import settings
from tests.command import WORKER
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.processes import children_of, kill_tree
from tests.servers.redis import RedisServer
from tests.waiting import wait_for

PROJECT = "p1"
Event = dict[str, Any]
# Versions and times of writing differ from one ingestion to the next.
_OF_THE_WRITE = ("created_at", "updated_at", "event_ts", "event_bytes", "blob_storage_file_path")


@dataclass
class Consumers:
    """`langfuse-worker consume` as a process."""

    process: subprocess.Popen[bytes]
    log: Path
    health: str = ""

    @property
    def lines(self) -> list[str]:
        """What it has logged."""
        return self.log.read_text().splitlines()

    def get(self, path: str, within_s: float = 20) -> tuple[int, Any]:
        """Status and JSON of /healthz or /readyz."""
        answer = urllib3.request("GET", self.health + path, retries=False, timeout=within_s)
        return answer.status, answer.json()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(60)

    @property
    def children(self) -> list[int]:
        """Process ids of the consumers."""
        return children_of(self.process.pid)

    def kill_children(self) -> int:
        """End every consumer, as a crash does; how many there were."""
        children = self.children
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(children)


@dataclass
class Deployment:
    """What a test talks to."""

    clickhouse: ClickHouseServer
    redis: RedisServer
    directory: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> Runtime:
        """The runtime of this process."""
        return runtime()

    def accept(self, events: Sequence[object], project: str = PROJECT) -> Receipt:
        """Put a batch of events in."""
        return self.parts.producer.accept(project, events)

    def accept_all(self, events: Sequence[Event], size: int = 50) -> None:
        """Put events in, in batches; all of them must be valid."""
        for start in range(0, len(events), size):
            receipt = self.accept(events[start : start + size])
            assert not receipt.rejected, receipt.rejected

    def work(self, *names: str) -> None:
        """Work off, in this process, what waits in the queues; by default in all that ingest."""
        for name in names or ("ingestion-queue", "secondary-ingestion-queue", "otel-ingestion-queue"):
            work_off(name, self.redis.client)

    def ingest(self, events: Sequence[Event], size: int = 50) -> None:
        """Put events in and work them off."""
        self.accept_all(events, size)
        self.work()

    def ingest_while(self, segment: str | None, something: Callable[[], object]) -> None:
        """Ingest a segment; something else happens before its first rows are written."""
        assert segment is not None
        writer = SlowWriter(self.parts.clickhouse, something)
        replace(self.parts.ingestion, writer=writer).ingest([ingest_job(segment)])

    def expire_leases(self) -> None:
        """Let the leases of all jobs in work expire, as if their consumers had died a while ago."""
        for spec in queues():
            key = self.rq_queue(spec.name).started_job_registry.key
            for execution, _ in self.redis.client.zscan_iter(key):
                self.redis.client.zadd(key, {execution: 1})

    def log_unchecked(self, *groups: Group) -> None:
        """Queue a segment of events that no producer has validated."""
        key, _ = self.parts.event_log.write(PROJECT, list(groups), Origin(), datetime.now(UTC))
        enqueue(self.redis.client, queue("ingestion-queue"), [NewJob({"segment": key})])

    @property
    def store(self) -> BlobStore:
        """What the event log lies in."""
        return self.parts.event_log._store

    def refuse_poison(self) -> None:
        """Let ClickHouse take no trace that is called poison."""
        self.clickhouse.execute("ALTER TABLE traces ADD CONSTRAINT no_poison CHECK name != 'poison'")

    def take_poison(self) -> None:
        """Let ClickHouse take them again."""
        self.clickhouse.execute("ALTER TABLE traces DROP CONSTRAINT IF EXISTS no_poison")

    def make_retries_due(self) -> None:
        """Put jobs that wait for their next attempt into the queue at once."""
        for spec in queues():
            scheduled = rq_queue(spec.name, self.redis.client).scheduled_job_registry
            for job_id in scheduled.get_job_ids():
                self.redis.client.zadd(scheduled.key, {job_id: 0})
        recovery = Recovery(self.redis.client, [spec.name for spec in queues()], 30)
        recovery.tick()
        recovery.close()

    def rows(self, table: str) -> list[Event]:
        """Rows as FINAL sees them, without what differs from write to write, in the order of their ids."""
        columns = f"* EXCEPT ({', '.join(c for c in _OF_THE_WRITE if c in self._columns(table))})"
        sql = f"SELECT {columns} FROM {table} FINAL ORDER BY project_id, {self._id(table)}"
        rows = self.clickhouse.rows(sql + " SETTINGS output_format_json_quote_64bit_integers = 0")
        return [{key: _sorted(value) for key, value in row.items()} for row in rows]

    def ids(self, table: str) -> list[str]:
        """Ids of the rows that FINAL sees, with repetitions."""
        return [row[self._id(table)] for row in self.rows(table)]

    def count(self, table: str) -> int:
        """Number of stored rows, every version of each."""
        return int(self.clickhouse.rows(f"SELECT count() AS n FROM {table}")[0]["n"])

    @property
    def letters(self) -> list[DeadLetter]:
        """Every dead letter."""
        return list(dead_letters(self.redis.client))

    def waiting(self, name: str) -> list[Job]:
        """Jobs in a queue that nobody has taken."""
        return self.rq_queue(name).jobs

    def rq_queue(self, name: str) -> Queue:
        """A queue as RQ has it."""
        return rq_queue(name, self.redis.client)

    @property
    def backlog(self) -> int:
        """Jobs that are neither done nor dead."""
        states = queue_states(self.redis.client, queues())
        return sum(state.waiting + state.active + state.scheduled for state in states)

    @property
    def failed(self) -> int:
        """Dead letters as the figures count them."""
        return sum(state.failed for state in queue_states(self.redis.client, queues()))

    def wait_until_empty(self) -> None:
        """Return once every job is done or dead."""
        wait_for(lambda: self.backlog == 0, lambda: f"{self.backlog} jobs are left")

    @contextmanager
    def consumers(self, *arguments: str, ready: bool = True, **variables: str) -> Iterator[Consumers]:
        """The consumers as processes of their own; ready when the context is entered, or just started."""
        log = self.directory / f"consumers-{time.monotonic_ns()}.log"
        command = [WORKER, "consume", *arguments]
        environment = {**os.environ, "LANGFUSE_WORKER_HEALTH_PORT": "0", **variables}
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=self.directory)
        consumers = Consumers(process, log)
        try:
            wait_for(lambda: _health_of(consumers), log.read_text)
            if ready:
                wait_for(lambda: consumers.get("/readyz")[0] == 200, log.read_text)
            yield consumers
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()

    def _columns(self, table: str) -> set[str]:
        found = self.clickhouse.rows(f"SELECT name FROM system.columns WHERE table = '{table}'")
        return {row["name"] for row in found}

    def _id(self, table: str) -> str:
        return "span_id" if table in ("events_full", "events_core") else "id"


class Killed(BaseException):
    """No `except Exception` sees it, as none sees SIGKILL."""


class SlowWriter(Writer):
    """Something happens before its first rows are written."""

    def __init__(self, clickhouse: ClickHouse, before: Callable[[], object]) -> None:
        super().__init__(clickhouse, 1, lambda *_: None)
        self._before: Callable[[], object] | None = before
        self._lock = threading.Lock()  # rows of several tables are written at once

    def write(self, table: str, rows: Sequence[PendingRow]) -> list[RefusedRow]:
        with self._lock:
            before, self._before = self._before, None
            if before is not None:
                before()
        return super().write(table, rows)


def work_off(name: str, connection: Redis) -> None:
    """Work off, in this process, what waits in a queue; signals are handled afterwards as before."""
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    try:
        worker = ConsumerWorker([Queue(name, connection=connection)], connection=connection)
        worker.work(burst=True, logging_level="ERROR")
    finally:
        for signum, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(signum, handler)


def _health_of(consumers: Consumers) -> bool:
    assert consumers.process.poll() is None, consumers.log.read_text()
    for line in consumers.lines:
        if '"event": "consumers_started"' in line:
            consumers.health = line.partition('"health": "')[2].partition('"')[0]
            return True
    return False


def _sorted(value: object) -> object:
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def configure(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set variables of this process and make it read them."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    clear_caches()


@contextmanager
def ingesting(
    clickhouse: ClickHouseServer, redis: RedisServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    """Ingests into traces, observations, scores and events_full; short delays and leases."""
    variables = {
        **clickhouse.environment_of_a_worker,
        **redis.environment_of_a_worker,
        "LANGFUSE_HOME": str(directory / "home"),
        "LANGFUSE_MIGRATION_V4_WRITE_MODE": "dual",
        "LANGFUSE_WORKER_JOB_LEASE_S": "2",
        "LANGFUSE_WORKER_RETRY_DELAY_FACTOR": "0.1",
        "LANGFUSE_INGESTION_CLICKHOUSE_WRITE_INTERVAL_MS": "100",
    }
    configure(monkeypatch, **variables)
    yield Deployment(clickhouse, redis, directory, variables)
    clear_caches()


def clear_caches() -> None:
    """Make this process read its environment again."""
    settings.cache_clear()
    runtime.cache_clear()
