"""What the handlers of a process stand on: the settings, and connections that are opened on first use."""

from dataclasses import dataclass
from functools import cache

from redis import Redis

from langfuse_ingest.event_log import EventLog, open_event_log
from langfuse_ingest.ingest import Ingestion
from langfuse_ingest.metrics import IngestMetrics, build_metrics
from langfuse_ingest.producer import Producer
from langfuse_ingest.writer import Writer
from langfuse_worker.clickhouse import ClickHouse, connect_for_ingestion
from langfuse_worker.redis import open_redis
from langfuse_worker.settings import Settings, settings


@dataclass(frozen=True)
class Runtime:
    """The parts that handlers use."""

    settings: Settings
    redis: Redis
    clickhouse: ClickHouse
    event_log: EventLog
    metrics: IngestMetrics

    @property
    def writer(self) -> Writer:
        """Inserts rows and counts them."""
        return Writer(self.clickhouse, self.settings.ingestion_write_attempts, self.metrics.rows_written)

    @property
    def ingestion(self) -> Ingestion:
        """The handler of the ingestion queues."""
        return Ingestion(
            self.clickhouse,
            self.redis,
            self.event_log,
            self.writer,
            self.settings.write_mode,
            frozenset(self.settings.skip_read_projects),
        )

    @property
    def producer(self) -> Producer:
        """Puts events in."""
        return Producer(self.settings, self.redis, self.event_log)


def build_runtime(config: Settings) -> Runtime:
    """The parts for these settings."""
    return Runtime(
        settings=config,
        redis=open_redis(config),
        clickhouse=connect_for_ingestion(config),
        event_log=open_event_log(config),
        metrics=build_metrics(config),
    )


@cache
def runtime() -> Runtime:
    """The runtime of this process. Forked processes call it after the fork, never before."""
    return build_runtime(settings())
