"""RQ's worker pool for one queue or shard: consumers that are forked once and watched."""

import multiprocessing
import os
import signal
import threading
import time
from ctypes import Array, c_char, c_double
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import structlog
from redis import ConnectionPool
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker_pool import WorkerPool

from langfuse_ingest.consumers.restart import RestartDelay
from langfuse_ingest.consumers.worker import ConsumerWorker
from langfuse_ingest.queues import QueueSpec
from langfuse_ingest.runtime import runtime
from langfuse_worker.logs import configure_logging
from langfuse_worker.redis import open_redis
from langfuse_worker.settings import settings

log = structlog.get_logger()

_PARENT_POLL_S = 1.0
_REASON_BYTES = 400
_FORK = multiprocessing.get_context("fork")
_STOPS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class ConsumerState:
    """One consumer process.

    Attributes:
        idle_s: seconds since its main thread last showed progress; waiting for jobs is progress, and so is a
            single job in its time.
    """

    queue: str
    pid: int
    alive: bool
    idle_s: float


@dataclass(frozen=True)
class _Shared:
    """What a consumer shares with its supervisor; without locks, which a killed consumer would keep."""

    started: float
    progress: c_double
    reason: Array[c_char]


class ConsumerPool(WorkerPool):
    """The consumers of one queue or shard.

    Attributes:
        died_of: why the last one that ended did so; empty if none has.
    """

    def __init__(self, spec: QueueSpec, shard: str, size: int) -> None:
        """Nothing is started yet.

        Args:
            spec: the queue.
            shard: its name, or that of a shard.
            size: number of consumers.
        """
        super().__init__(
            [shard],
            connection=open_redis(settings()),
            num_workers=size,
            worker_class=ConsumerWorker,
            serializer=JSONSerializer,
        )
        self.spec, self.shard = spec, shard
        self.died_of = ""
        self._burst = False
        self._shared: dict[str, _Shared] = {}
        self._restart = RestartDelay()

    def start_worker(self, *args: Any, **kwargs: Any) -> None:
        """As RQ does it; a signal that comes meanwhile waits until the process can obey it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            super().start_worker(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def get_worker_process(self, name: str, *_: Any, **__: Any) -> BaseProcess:
        """The process of a consumer, not started; it shares its last progress, and what it dies of."""
        now = time.monotonic()
        shared = _Shared(now, _FORK.RawValue(c_double, now), _FORK.RawArray(c_char, _REASON_BYTES))
        self._shared[name] = shared
        return _FORK.Process(target=self._run, args=(name, shared, os.getpid()), name=f"{self.shard} {name}")

    def _run(self, name: str, shared: _Shared, parent: int) -> None:
        try:
            run_consumer(name, self.shard, shared.progress, parent)
        except Exception as error:
            shared.reason.value = " ".join(str(error).split()).encode(errors="replace")[:_REASON_BYTES]
            if not isinstance(error, RedisError):
                raise
            log.warning("redis_unavailable", queue=self.shard, error=str(error))
            os._exit(1)

    def check_workers(self, respawn: bool = True) -> None:
        """As RQ does it, but what dies at its start is started again later and later."""
        self.reap_workers()
        if self.number_of_active_workers < self.num_workers and self._restart.is_over(time.monotonic()):
            super().check_workers(respawn)

    def states(self) -> list[ConsumerState]:
        """The consumers as they are now, from any thread."""
        now = time.monotonic()
        shown = dict(self._shared)  # first: who has died may be forgotten meanwhile
        return [
            ConsumerState(
                self.shard,
                data.pid,
                data.process.is_alive(),
                max(0, now - shown[data.name].progress.value),
            )
            for data in list(self.worker_dict.values())
            if data.name in shown
        ]

    @property
    def is_complete(self) -> bool:
        """Whether all consumers live, from any thread."""
        return sum(state.alive for state in self.states()) >= self.num_workers

    def kill(self) -> int:
        """End the consumers that have not stopped; returns how many there were."""
        running = [data for data in self.worker_dict.values() if data.process.is_alive()]
        for data in running:
            data.process.kill()
            data.process.join()
        return len(running)

    def handle_dead_worker(self, worker_data: Any) -> None:
        """Forget a consumer that ended, and say so if it was not asked to."""
        exit_code = worker_data.process.exitcode
        if self.status is not self.Status.STOPPED:
            log.warning("consumer_died", queue=self.shard, pid=worker_data.pid, exitCode=exit_code)
        if (shared := self._shared.pop(worker_data.name, None)) is not None:
            reason = shared.reason.value.decode(errors="ignore")
            self.died_of = reason or f"exit code {exit_code}"
            now = time.monotonic()
            self._restart.died(now - shared.started, now)
        super().handle_dead_worker(worker_data)


def _stop_with_parent(parent: int) -> None:
    """Stop when the supervisor was killed: nobody would watch this process, or stop it."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    log.warning("supervisor_died", pid=parent)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_when_stopped() -> None:
    """Let signals end this process until RQ handles them: those of the supervisor would only note them."""
    for stop in _STOPS:
        signal.signal(stop, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def run_consumer(name: str, shard: str, progress: c_double, parent: int) -> None:
    """The main function of a consumer process; `parent` is the supervisor's id."""
    _end_when_stopped()
    config = settings()
    configure_logging(config.log_level)
    threading.Thread(target=_stop_with_parent, args=(parent,), name="parent", daemon=True).start()
    connection = open_redis(config)
    assert isinstance(connection.connection_pool, ConnectionPool)
    worker = ConsumerWorker([Queue(shard, connection=connection)], name=name, connection=connection)
    worker.progress = progress
    worker.work(with_scheduler=False, logging_level="WARNING")
    runtime().metrics.shutdown()
