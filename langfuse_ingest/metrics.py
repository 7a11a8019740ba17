"""Instruments of the queues, through the product's telemetry."""

import os
from typing import TypeVar

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider

from langfuse_worker.settings import Settings
from langfuse_worker.telemetry import FLUSH_TIMEOUT_MS, build_provider

K = TypeVar("K")
V = TypeVar("V")


class IngestMetrics:
    """Safe to use whether or not anything is exported."""

    def __init__(self, provider: MeterProvider) -> None:
        """Create the instruments."""
        self._provider = provider
        meter = provider.get_meter("langfuse.ingestion")
        self._wait = meter.create_histogram("langfuse.queue.wait_duration_ms", "ms")
        self._processing = meter.create_histogram("langfuse.queue.processing_duration_ms", "ms")
        self._rows = meter.create_counter("langfuse.ingestion.rows_written", "{row}")
        self._retries = meter.create_counter("langfuse.queue.retries", "{retry}")
        self._dead_letters = meter.create_counter("langfuse.queue.dead_letters", "{job}")
        self._pid = os.getpid()
        self._depths: dict[tuple[str, str], int] = {}
        self._ages: dict[str, float] = {}
        meter.create_observable_gauge("langfuse.queue.depth", [self._observe_depths], "{job}")
        meter.create_observable_gauge("langfuse.queue.oldest_age_seconds", [self._observe_ages], "s")

    def waited(self, queue: str, milliseconds: float) -> None:
        """Record how long a job waited in its queue."""
        self._wait.record(milliseconds, {"queue": queue})

    def processed(self, queue: str, outcome: str, milliseconds: float) -> None:
        """Record how long a job, or a batch of them, took; outcome is success or failure."""
        self._processing.record(milliseconds, {"queue": queue, "outcome": outcome})

    def rows_written(self, table: str, rows: int) -> None:
        """Count rows that an insert has stored."""
        self._rows.add(rows, {"table": table})

    def retried(self, queue: str) -> None:
        """Count a job that will be tried again."""
        self._retries.add(1, {"queue": queue})

    def dead_letter(self, queue: str, jobs: int = 1) -> None:
        """Count jobs that have become dead letters."""
        self._dead_letters.add(jobs, {"queue": queue})

    def queue_state(self, queue: str, depths: dict[str, int], oldest_age_s: float) -> None:
        """Set the gauges of a queue: jobs by state, and the age of the oldest waiting job in seconds."""
        for state, depth in depths.items():
            self._depths[queue, state] = depth
        self._ages[queue] = oldest_age_s

    def flush(self) -> None:
        """Push what has been recorded; waits 5 s at most."""
        self._provider.force_flush(FLUSH_TIMEOUT_MS)

    def shutdown(self) -> None:
        """Flush and stop."""
        self._provider.shutdown(FLUSH_TIMEOUT_MS)

    def _observe_depths(self, _: CallbackOptions) -> list[Observation]:
        depths = self._own(self._depths)
        return [Observation(depth, {"queue": queue, "state": state}) for (queue, state), depth in depths]

    def _observe_ages(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(age, {"queue": queue}) for queue, age in self._own(self._ages)]

    def _own(self, values: dict[K, V]) -> list[tuple[K, V]]:
        # The SDK goes on in processes that are forked, which would repeat for ever what was set before.
        return list(values.items()) if os.getpid() == self._pid else []


def build_metrics(settings: Settings) -> IngestMetrics:
    """Instruments that export where the OTEL_* variables say."""
    return IngestMetrics(build_provider(settings))
