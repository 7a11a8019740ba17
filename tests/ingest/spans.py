"""OpenTelemetry spans as an exporter sends them."""

from typing import Any

from tests.ingest.deployment import PROJECT, Deployment

TRACE, ROOT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
START_NS = 1_780_300_800_000_000_000  # 2026-06-01T08:00:00Z


def value(of: Any) -> dict[str, Any]:
    """An AnyValue."""
    if isinstance(of, bool):
        return {"boolValue": of}
    if isinstance(of, int):
        return {"intValue": str(of)}
    if isinstance(of, float):
        return {"doubleValue": of}
    if isinstance(of, list):
        return {"arrayValue": {"values": [value(item) for item in of]}}
    return {"stringValue": of}


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Attributes; double underscores stand for dots."""
    return [{"key": name.replace("__", "."), "value": value(of)} for name, of in values.items()]


def span(id: str, parent: str | None = None, name: str = "span", **values: Any) -> dict[str, Any]:
    """A span of one second."""
    return {
        "traceId": TRACE,
        "spanId": id,
        "parentSpanId": parent,
        "name": name,
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": str(START_NS + 1_000_000_000),
        "attributes": attributes(**values),
    }


def export(*spans: dict[str, Any], scope: str = "my-instrumentation") -> dict[str, Any]:
    """An OTLP/JSON request."""
    resource = {"attributes": attributes(service__name="shop", deployment__environment="Prod")}
    of_scope = {"scope": {"name": scope, "version": "1.2"}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [of_scope]}]}


def ingest(deployment: Deployment, *spans: dict[str, Any], scope: str = "my-instrumentation") -> None:
    """Accept spans and work them off."""
    receipt = deployment.parts.producer.accept_spans(PROJECT, export(*spans, scope=scope))
    assert receipt.accepted == [s["spanId"] for s in spans]
    deployment.work("otel-ingestion-queue")
