"""A span -> the events that Langfuse's API would have got for it, and what only events_full keeps."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from langfuse_ingest.events import Entity
from langfuse_ingest.otel import fields
from langfuse_ingest.otel.decoding import (
    attributes,
    first_of,
    from_json,
    identifier,
    json_object,
    list_of,
    object_of,
    time_of_nanoseconds,
)
from langfuse_ingest.otel.kinds import is_detail, type_of
from langfuse_ingest.otel.parameters import parameters_of
from langfuse_ingest.otel.payload import payload_of
from langfuse_ingest.otel.usage import cost_of, usage_of
from langfuse_ingest.records import RawEvent, json_text
from langfuse_ingest.tables import paths
from langfuse_ingest.values import environment, timestamp

Attributes = dict[str, Any]


def events_of_spans(
    resource_spans: list[Any], key: str, written_at: str
) -> Iterator[tuple[Entity, str, RawEvent]]:
    """The events of an OTLP export: an observation for each span, and a trace for spans that tell of it.

    Args:
        resource_spans: `resourceSpans` of the request.
        key: where the request is in the event log.
        written_at: when it was accepted; the time of spans that have none.
    """
    seen: set[str] = set()
    for resource in resource_spans:
        resource_attributes = attributes(object_of(resource, "resource"))
        for scope_spans in list_of(resource, "scopeSpans"):
            scope = object_of(scope_spans, "scope")
            for raw in list_of(scope_spans, "spans"):
                span = Span(raw, scope, resource_attributes, key, written_at)
                yield Entity.OBSERVATION, span.id, span.observation_event()
                if span.tells_of_trace or span.trace_id not in seen:
                    yield Entity.TRACE, span.trace_id, span.trace_event()
                seen.add(span.trace_id)


class Span:
    """One span with its resource and its scope."""

    def __init__(
        self, raw: dict[str, Any], scope: dict[str, Any], resource: Attributes, key: str, written_at: str
    ) -> None:
        """Decode what every field needs."""
        self._raw, self._scope, self._resource, self._key = raw, scope, resource, key
        self._status = object_of(raw, "status")
        self._events = [event for event in list_of(raw, "events") if isinstance(event, dict)]
        self._attributes = attributes(raw)
        self.id = identifier(raw.get("spanId"))
        self.trace_id = identifier(raw.get("traceId"))
        self.parent_id = identifier(raw.get("parentSpanId"))
        self._event_id = f"{self.trace_id}-{self.id}"
        end = time_of_nanoseconds(raw.get("endTimeUnixNano"))
        start = time_of_nanoseconds(raw.get("startTimeUnixNano"))
        self.start = start or end or written_at
        self.end = end or self.start

    @property
    def is_root(self) -> bool:
        """Whether the span stands for its trace."""
        return not self.parent_id or str(self._attributes.get(fields.AS_ROOT)).lower() == "true"

    @cached_property
    def tells_of_trace(self) -> bool:
        """Whether it stands for its trace, or carries attributes of it."""
        return self.is_root or any(
            name in fields.TRACE_ATTRIBUTES or name.startswith(fields.OF_TRACE) for name in self._attributes
        )

    def observation_event(self) -> RawEvent:
        """The span as a create event of its type."""
        kind = type_of(self._attributes, self._span_name, self._scope, self._resource)
        body: dict[str, Any] = {
            "id": self.id,
            "traceId": self.trace_id,
            "name": self._name(),
            "startTime": self.start,
            "endTime": self.end,
            "environment": self._environment(),
            "level": self._level(),
            "metadata": self._metadata(),
            **self._payload,
            **self._model_fields(kind),
        }
        optional = {
            "parentObservationId": self.parent_id or None,
            "statusMessage": self._first(fields.STATUS_MESSAGE) or self._status.get("message"),
            "version": self._version,
        }
        body |= {name: json_text(value) for name, value in optional.items() if value}
        return {
            "id": self._event_id,
            "timestamp": self.end,
            "type": f"{kind.lower()}-create",
            "body": body,
            "otel": self._only_events_full(),
        }

    def trace_event(self) -> RawEvent:
        """What the span says of its trace."""
        body: dict[str, Any] = {
            "id": self.trace_id,
            "timestamp": self.start,
            "environment": self._environment(),
            **self._trace_fields,
        }
        if self.is_root:
            body = {"name": self._name(), **self._payload, **body}
        for name, attribute in zip(("input", "output"), fields.TRACE_PAYLOAD, strict=True):
            if (value := self._first(attribute)) is not None:
                body[name] = value
        if self.tells_of_trace:
            body["metadata"] = self._trace_metadata()
            if self._version:
                body["version"] = json_text(self._version)
        return {
            "id": self._event_id,
            "timestamp": self.start,
            "type": "trace-create",
            "body": body,
            "otel": {},
        }

    @cached_property
    def _payload(self) -> dict[str, Any]:
        """Of the observation, and of the trace if this is its root."""
        return payload_of(self._attributes, self._events)

    @cached_property
    def _trace_fields(self) -> dict[str, Any]:
        values = {
            "name": self._first(fields.TRACE_NAME),
            "userId": self._first(*fields.USER),
            "sessionId": self._first(*fields.SESSION),
            "release": self._first("langfuse.release") or self._resource.get("langfuse.release"),
        }
        result: dict[str, Any] = {
            name: json_text(value) for name, value in values.items() if value is not None
        }
        if tags := _tags(self._first(*fields.TAGS)):
            result["tags"] = tags
        public = self._first(*fields.PUBLIC)
        if public is not None:
            result["public"] = str(public).lower() == "true"
        return result

    def _only_events_full(self) -> dict[str, Any]:
        trace = self._trace_fields
        own = {
            "trace_name": trace.get("name") or (self._name() if self.is_root else ""),
            "user_id": trace.get("userId"),
            "session_id": trace.get("sessionId"),
            "release": trace.get("release"),
            "tags": trace.get("tags"),
            "public": trace.get("public"),
            "is_app_root": str(self._attributes.get(fields.APP_ROOT)).lower() == "true",
            "service_name": self._resource.get("service.name"),
            "service_version": self._resource.get("service.version"),
            "telemetry_sdk_language": self._resource.get("telemetry.sdk.language"),
            "telemetry_sdk_name": self._resource.get("telemetry.sdk.name"),
            "telemetry_sdk_version": self._resource.get("telemetry.sdk.version"),
            "scope_name": self._scope.get("name"),
            "scope_version": self._scope.get("version"),
            "blob_storage_file_path": self._key,
            **self._experiment(),
        }
        own["trace_metadata"] = _of_prefixes(self._attributes, fields.TRACE_METADATA)
        return {column: value for column, value in own.items() if value not in (None, "")}

    def _experiment(self) -> dict[str, Any]:
        own = {column: self._first(name) for column, name in fields.EXPERIMENT.items()}
        own["experiment_item_version"] = _time(str(self._first(fields.EXPERIMENT_ITEM_VERSION)))
        for column, name in fields.EXPERIMENT_METADATA.items():
            said = dict(paths(_prefixed(self._attributes, name)))
            own |= {f"{column}_names": list(said), f"{column}_values": list(said.values())}
        return own

    def _name(self) -> str:
        operation = self._first("ai.operationId")
        function = self._first("ai.telemetry.functionId")
        ai_name = f"{function}:{operation}" if function and operation else operation
        return json_text(self._first(*fields.NAME) or ai_name or self._span_name)

    @property
    def _span_name(self) -> str:
        return str(self._raw.get("name") or "")

    @property
    def _version(self) -> Any:
        return self._first("langfuse.version") or self._resource.get("service.version")

    def _environment(self) -> str:
        for name in fields.ENVIRONMENT:
            for source in (self._attributes, self._resource):
                if source.get(name) not in (None, ""):
                    return environment(source[name])
        return "default"

    def _level(self) -> str:
        level = fields.LEVELS.get(str(self._attributes.get(fields.LEVEL)).upper())
        if level:
            return level
        if self._status.get("code") in (2, "STATUS_CODE_ERROR"):
            return "ERROR"
        return "DEBUG" if is_detail(self._span_name, self._scope.get("name")) else "DEFAULT"

    def _model_fields(self, kind: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        if str(self._attributes.get(fields.OPERATION)) not in fields.WITHOUT_MODEL:
            if model := self._model():
                result["model"] = json_text(model)
            if usage := usage_of(self._attributes, is_call=kind in ("GENERATION", "EMBEDDING")):
                result["usageDetails"] = usage
            if cost := cost_of(self._attributes):
                result["costDetails"] = cost
        if parameters := parameters_of(self._attributes, self._scope.get("name")):
            result["modelParameters"] = parameters
        prompt = json_object(self._attributes.get(fields.AI_PROMPT)) or {}
        name = self._first(*fields.PROMPT_NAME) or prompt.get("name")
        version = self._first(*fields.PROMPT_VERSION) or prompt.get("version")
        digits = str(version)[:6]  # one more than fit
        if kind == "GENERATION" and name and digits.isdecimal() and int(digits) <= 65_535:
            result |= {"promptName": str(name), "promptVersion": int(digits)}
        if started := self._completion_start():
            result["completionStartTime"] = started
        return result

    def _model(self) -> Any:
        is_call_by_genkit = self._attributes.get(fields.GENKIT_SUBTYPE) == "model"
        return self._first(*fields.MODEL) or (is_call_by_genkit and self._first(fields.GENKIT_NAME))

    def _completion_start(self) -> str | None:
        if started := _time(str(self._attributes.get(fields.COMPLETION_START, "")).strip('"')):
            return started
        try:
            milliseconds = math.ceil(float(self._first(*fields.MS_TO_FIRST_CHUNK)))
            moment = datetime.fromisoformat(self.start) + timedelta(milliseconds=milliseconds)
        except (TypeError, ValueError, OverflowError):
            return None
        return _time(moment.isoformat())

    def _metadata(self) -> dict[str, Any]:
        return {
            **_of_prefixes(self._resource, fields.TRACE_METADATA),
            **self._own_metadata,
            **self._remaining_attributes,
            **self._surroundings,
        }

    def _trace_metadata(self) -> dict[str, Any]:
        """Attributes of the root alone, or those of each further span would be added to them."""
        of_root = {**self._own_metadata, **self._remaining_attributes} if self.is_root else {}
        return {
            **_of_prefixes(self._resource, fields.TRACE_METADATA),
            **_of_prefixes(self._attributes, fields.TRACE_METADATA),
            **of_root,
            **self._surroundings,
        }

    @cached_property
    def _own_metadata(self) -> dict[str, Any]:
        return _of_prefixes(self._attributes, fields.OBSERVATION_METADATA)

    @cached_property
    def _remaining_attributes(self) -> dict[str, Any]:
        """What has no field of its own; Langfuse's SDKs have said all that there is to say."""
        if str(self._scope.get("name", "")).startswith("langfuse-sdk"):
            return {}
        prefixes = (*fields.OBSERVATION_METADATA, *fields.TRACE_METADATA, *fields.PAYLOAD_PREFIXES)
        rest = {
            name: json_text(value)
            for name, value in self._attributes.items()
            if name not in fields.PAYLOAD_NAMES and not name.startswith(prefixes)
        }
        return {"attributes": rest}

    @property
    def _surroundings(self) -> dict[str, Any]:
        scope = {"name": self._scope.get("name"), "version": self._scope.get("version")}
        scope["attributes"] = attributes(self._scope)
        return {
            "resourceAttributes": self._resource,
            "scope": {name: value for name, value in scope.items() if value},
        }

    def _first(self, *names: str) -> Any:
        return first_of(self._attributes, *names)


def _of_prefixes(said: Attributes, prefixes: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix in prefixes:
        found |= _prefixed(said, prefix)
    return found


def _prefixed(said: Attributes, prefix: str) -> dict[str, Any]:
    """An attribute that is a JSON object, with those below it; what is none gets a key, as from the API."""
    own = said.get(prefix)
    result = json_object(own)
    if result is None:
        result = {} if own in (None, "") else {"metadata": own}
    start = prefix + "."
    for name, value in said.items():
        if name.startswith(start) and name not in fields.NO_METADATA:
            result[name.removeprefix(start)] = value
    return result


def _time(text: str) -> str | None:
    """An ISO 8601 time, UTC unless it has an offset; None if it is none, or one that no table holds."""
    try:
        moment = datetime.fromisoformat(text)
        return timestamp((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat())
    except ValueError:
        return None


def _tags(value: object) -> list[str]:
    """A list, a JSON list, a list with commas, or a single tag."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = from_json(value)
        except ValueError:
            return [str(value)]
    if isinstance(value, str):
        return [tag.strip() for tag in value.split(",") if tag.strip()]
    return [json_text(tag) for tag in value] if isinstance(value, list) else []
