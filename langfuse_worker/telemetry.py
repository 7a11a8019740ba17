"""OpenTelemetry metrics: a provider that short-lived processes can flush. Packages have instruments."""

import os
import sys

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ConsoleMetricExporter,
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from langfuse_worker.settings import Settings

FLUSH_TIMEOUT_MS = 5_000
# From an empty window of a small table to a day of a large one, ms.
DURATION_BUCKETS_MS = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000]
DURATION_BUCKETS_MS += [60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000]

# Run processes live for seconds. Cumulative series of each would have to be told apart by an instance id;
# deltas simply add up.
_DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


def build_provider(settings: Settings) -> MeterProvider:
    """A provider that exports where the OTEL_* variables say: OTLP over HTTP, the console, or nowhere."""
    exporter = _exporter(settings)
    readers: list[MetricReader] = [PeriodicExportingMetricReader(exporter)] if exporter else []
    view = View(
        instrument_name="langfuse.*_duration_ms",
        aggregation=ExplicitBucketHistogramAggregation(DURATION_BUCKETS_MS),
    )
    name = os.environ.get("OTEL_SERVICE_NAME", "langfuse-worker")
    resource = Resource.create({"service.name": name})
    return MeterProvider(readers, resource, views=[view])


def _exporter(settings: Settings) -> MetricExporter | None:
    endpoint = settings.otel_metrics_endpoint or settings.otel_endpoint
    kind = settings.otel_metrics_exporter or ("otlp" if endpoint else "none")
    if kind == "otlp":
        # A dead collector must not hold up a run: the SDK's default would wait 10 s and retry.
        return OTLPMetricExporter(preferred_temporality=dict(_DELTA), timeout=2)
    if kind == "console":
        # stdout belongs to the results of commands.
        return ConsoleMetricExporter(out=sys.stderr, preferred_temporality=dict(_DELTA))
    return None
