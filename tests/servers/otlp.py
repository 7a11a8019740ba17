"""A receiver of metrics by OTLP over HTTP."""

import gzip
import threading
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.servers.http import Answering, HttpServer


@dataclass(frozen=True)
class Point:
    """One data point.

    Attributes:
        kind: histogram, sum or gauge.
        value: the sum of a histogram, else the value.
        count: recordings in a histogram, else 1.
        is_delta: whether it counts from the previous export on.
    """

    name: str
    kind: str
    attributes: dict[str, str]
    value: float
    count: int
    is_delta: bool
    bounds: tuple[float, ...] = ()


class _Receiving(Answering):
    owner: "OtlpReceiver"

    def do_POST(self) -> None:
        body = self.read_body()
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.owner.add(ExportMetricsServiceRequest.FromString(body))
        answer = ExportMetricsServiceResponse().SerializeToString()
        self.answer(200, answer, {"Content-Type": "application/x-protobuf"})


@dataclass
class OtlpReceiver(HttpServer):
    """Collects what arrives."""

    handler = _Receiving
    points: list[Point] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def add(self, request: ExportMetricsServiceRequest) -> None:
        """Take what one request carries."""
        metrics = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
        with self._arrived:
            self.points += [point for metric in metrics for point in _points(metric)]
            self._arrived.notify_all()

    def named(self, name: str, timeout_s: float = 60) -> list[Point]:
        """Points of a metric once there are any; raises TimeoutError."""

        def found() -> list[Point]:
            return [point for point in self.points if point.name == name]

        with self._arrived:
            if not self._arrived.wait_for(found, timeout_s):
                raise TimeoutError(f"{name} has not arrived; {sorted({p.name for p in self.points})} have")
            return found()


def _points(metric: Metric) -> list[Point]:
    kind: Any = metric.WhichOneof("data")
    data = getattr(metric, kind)
    is_delta = kind != "gauge" and data.aggregation_temporality == 1
    return [
        Point(
            name=metric.name,
            kind=kind,
            attributes={a.key: a.value.string_value for a in point.attributes},
            value=point.sum if kind == "histogram" else point.as_double or point.as_int,
            count=point.count if kind == "histogram" else 1,
            is_delta=is_delta,
            bounds=tuple(point.explicit_bounds) if kind == "histogram" else (),
        )
        for point in data.data_points
    ]
