"""A receiver of metrics by OTLP over HTTP."""

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


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


@dataclass
class OtlpReceiver:
    """Collects what arrives; `endpoint` is the base address."""

    points: list[Point] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        receiver = self

        class Handler(_Receiving):
            otlp = receiver

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

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


class _Receiving(BaseHTTPRequestHandler):
    otlp: OtlpReceiver

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.otlp.add(ExportMetricsServiceRequest.FromString(body))
        answer = ExportMetricsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
