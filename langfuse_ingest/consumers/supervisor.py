"""Starts the consumers of this deployment, watches them, and stops them within a deadline."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

import structlog
from redis.exceptions import RedisError
from rq.worker_pool import WorkerPool

from langfuse_ingest.consumers.health import Health, HealthServer
from langfuse_ingest.consumers.pool import ConsumerPool
from langfuse_ingest.consumers.recovery import Recovery
from langfuse_ingest.metrics import IngestMetrics, build_metrics
from langfuse_ingest.queue_state import left_shards, queue_states
from langfuse_ingest.queues import QueueSpec
from langfuse_worker.redis import EmbeddedRedis, open_redis
from langfuse_worker.settings import Settings

log = structlog.get_logger()

_TICK_S = 0.5
_GAUGES_S = 10.0


class Supervisor:
    """The consumers of one deployment on one machine."""

    def __init__(self, settings: Settings, specs: Sequence[QueueSpec]) -> None:
        """Nothing is started yet.

        Args:
            settings: the deployment's settings.
            specs: the queues to consume.
        """
        self._settings = settings
        self._specs = specs
        self._redis = open_redis(settings)
        self._embedded = EmbeddedRedis(settings) if settings.embedded_redis else None
        cores = os.cpu_count() or 1
        self._pools = [
            ConsumerPool(spec, shard, min(spec.consumers, cores))
            for spec in specs
            for shard in spec.shard_names
        ]
        shards = [pool.shard for pool in self._pools]
        self._recovery = Recovery(self._redis, shards, settings.job_lease_s)
        self._stop = threading.Event()
        self._gauges_due = 0.0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit code: 0, or 1 if consumers had to be killed.

        Raises:
            SettingsError: the port of the health checks is in use, no ClickHouse can be opened, or an
                embedded Redis that has ended cannot be started again.
        """
        signal.signal(signal.SIGINT, self._request_stop)
        signal.signal(signal.SIGTERM, self._request_stop)
        # Before the consumers, which would be left behind if it cannot be had.
        health = Health(self._settings, self._pools)
        health_server = HealthServer(self._settings.health_port, health)
        for pool in self._pools:
            pool.start_workers(burst=False)
        metrics = build_metrics(self._settings)
        with health_server as server:
            log.info(
                "consumers_started", processes=sum(p.num_workers for p in self._pools), health=server.url
            )
            try:
                self._watch(metrics)
            finally:  # also of what nobody foresees: this process could not end before its consumers
                health.stopping = True
                killed = self._drain()
        metrics.shutdown()
        self._recovery.close()
        return 1 if killed else 0

    def _watch(self, metrics: IngestMetrics) -> None:
        """Look after the consumers and the queues until somebody asks to stop."""
        while not self._stop.is_set():
            try:
                self._tick()
                if time.monotonic() >= self._gauges_due:
                    self._gauges_due = time.monotonic() + _GAUGES_S
                    self._adopt_shards()
                    for state in queue_states(self._redis, self._specs):
                        metrics.queue_state(state.queue, state.depths, state.oldest_age_s)
            except RedisError as error:
                log.warning("redis_unavailable", error=str(error))
                self._restart_embedded()
            self._stop.wait(_TICK_S)

    def _tick(self) -> None:
        self._redis.ping()  # consumers that are started without it would only die again
        for pool in self._pools:
            if not self._stop.is_set():  # else consumers may have been told to stop, too, and none is missing
                pool.check_workers()
        self._recovery.tick()

    def _adopt_shards(self) -> None:
        """Consume what is left in shards of a larger number of them; nobody else would."""
        consumed = {pool.shard for pool in self._pools}
        for spec, shard in left_shards(self._redis, self._specs):
            if shard not in consumed:
                pool = ConsumerPool(spec, shard, 1)
                self._pools.append(pool)
                self._recovery.add(shard)
                pool.start_workers(burst=False)
                log.warning("queue_shard_adopted", queue=shard)

    def _restart_embedded(self) -> None:
        if self._embedded is not None:
            self._embedded.ensure_running()

    def _drain(self) -> int:
        """Ask the consumers to finish; kill those that do not in time. Their jobs are taken up again."""
        for pool in self._pools:
            pool.status = WorkerPool.Status.STOPPED  # pyright: ignore[reportAttributeAccessIssue]
            pool.stop_workers()
        deadline = time.monotonic() + self._settings.shutdown_deadline_s
        while time.monotonic() < deadline:
            if all(not state.alive for pool in self._pools for state in pool.states()):
                log.info("consumers_stopped")
                return 0
            time.sleep(0.05)
        killed = sum(pool.kill() for pool in self._pools)
        log.warning("consumers_killed", processes=killed, deadlineS=self._settings.shutdown_deadline_s)
        return killed

    def _request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop.set()
