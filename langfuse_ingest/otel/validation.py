"""What an OTLP trace export must have: ids that can be read, and lists where lists belong."""

from typing import Any

import orjson

from langfuse_ingest.events import EventError
from langfuse_ingest.otel.decoding import identifier


def check_spans(request: object, most_bytes: int) -> tuple[list[Any], list[str]]:
    """The resource spans of an OTLP/JSON request, and the ids of its spans.

    Args:
        request: the request, decoded.
        most_bytes: of the JSON of a span, LANGFUSE_INGESTION_MAX_EVENT_BYTES.

    Raises:
        EventError: the request is something else, such as logs, or has too large a span; it is rejected as a
            whole.
        TypeError: a span cannot be written as JSON.
    """
    if not isinstance(request, dict):
        raise EventError("not_otlp", "must be an object with resourceSpans")
    resource_spans = _objects(request.get("resourceSpans"), "resourceSpans")
    span_ids: list[str] = []
    for resource in resource_spans:
        for scope in _objects(resource.get("scopeSpans"), "scopeSpans"):
            for span in _objects(scope.get("spans"), "spans"):
                span_ids.append(_check_span(span, most_bytes))
    return resource_spans, span_ids


def _check_span(span: dict[str, Any], most_bytes: int) -> str:
    for name in ("attributes", "events"):
        _objects(span.get(name), name)
    if not identifier(span.get("traceId")):
        raise EventError("invalid_span_id", "traceId is missing or cannot be read")
    if span.get("parentSpanId") is not None:
        identifier(span["parentSpanId"])
    span_id = identifier(span.get("spanId"))
    if not span_id:
        raise EventError("invalid_span_id", "spanId is missing or cannot be read")
    if (size := len(orjson.dumps(span))) > most_bytes:
        text = f"span {span_id}: {size} bytes; LANGFUSE_INGESTION_MAX_EVENT_BYTES={most_bytes}"
        raise EventError("too_large", text)
    return span_id


def _objects(value: object, name: str) -> list[dict[str, Any]]:
    if value is None:  # as JSON encoders of Protobuf may write an empty list
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise EventError("not_otlp", f"{name} must be a list of objects")
    return value
