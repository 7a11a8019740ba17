"""What the product's instruments emit, named as the collector's Prometheus exporter names it.

The instruments run for real; the mapping of names (dots, units, `_total`, `_bucket`) is OpenTelemetry's own.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from langfuse_export.errors import ConflictError, OccupiedError, TooHeavyError, VerificationError, reason_of
from langfuse_export.health.state import State
from langfuse_export.telemetry import TableAttributes, Telemetry
from langfuse_ingest.metrics import IngestMetrics
from langfuse_ingest.queue_state import QueueState
from langfuse_worker.blobstore import ObjectTooLargeError, StoreAccessError, StoreError, StoreFullError
from langfuse_worker.clickhouse import ClickHouseError

FAILURES = [
    KeyboardInterrupt(),
    VerificationError(),
    ConflictError(),
    OccupiedError(),
    TooHeavyError(),
    StoreAccessError("access"),
    StoreFullError("No space left on device (os error 28)"),
    StoreError("503"),
    ObjectTooLargeError("too many parts"),
    *(ClickHouseError("refused", code) for code in (None, 60, 158, 159, 202, 241, 394)),
]


@dataclass
class Series:
    """What one name is emitted with: the values of each attribute."""

    values: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def emitted() -> dict[str, Series]:
    """Every name that Prometheus gets from the product."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    _export(Telemetry(provider))
    _ingest(IngestMetrics(provider))
    found: dict[str, Series] = defaultdict(Series)
    for family in registry.collect():
        for sample in family.samples:
            for name, value in sample.labels.items():
                found[sample.name].values[name].add(value)
    provider.shutdown()
    # Prometheus itself says of each target whether it answers; the name is that of prometheus.yaml.
    found["up"].values["job"].add("otel-collector")
    return dict(found)


def _export(telemetry: Telemetry) -> None:
    telemetry.lag("project", "traces", 1)
    telemetry.windows_behind("project", "traces", 1)
    telemetry.late_windows("project", "traces", 1)
    for reason in ("clickhouse_memory", "clickhouse_timeout"):
        telemetry.window_split("traces", reason, 2)
    for state in State:
        telemetry.project_state(f"project {state.value}", state.value)
    for mode in ("steady", "catchup"):
        for outcome in ("success", "failure"):
            telemetry.job_finished(mode, outcome, 1)
        table = TableAttributes("traces", mode, "parquet", "success")
        telemetry.table_exported(table, 1, 1, 1)
        telemetry.queries_cost("traces", mode, read_rows=1, read_bytes=1, peak_memory=1, cpu_s=1)
        for failure in FAILURES:
            failed = TableAttributes("traces", mode, "parquet", "failure")
            telemetry.table_failed(failed, 1, reason_of(failure))
            telemetry.window_failed(mode, reason_of(failure))


def _ingest(metrics: IngestMetrics) -> None:
    state = QueueState("ingestion-queue", waiting=1, active=1, scheduled=1, failed=1, oldest_age_s=1)
    metrics.queue_state(state.queue, state.depths, state.oldest_age_s)
    metrics.waited(state.queue, 1)
    for outcome in ("success", "failure"):
        metrics.processed(state.queue, outcome, 1)
    metrics.rows_written("traces", 1)
    metrics.retried(state.queue)
    metrics.dead_letter(state.queue)
