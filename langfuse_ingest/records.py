"""One event as the columns that it sets: absent columns were not sent, None was sent as null."""

import uuid
from typing import Any

import orjson

Record = dict[str, Any]
RawEvent = dict[str, Any]

# Null overwrites an earlier value in these, ...
_TRACE = {"name": "name", "userId": "user_id", "sessionId": "session_id"}
_TRACE |= {"release": "release", "version": "version"}
_OBSERVATION = {"name": "name", "level": "level", "model": "provided_model_name"}
# ... and is as good as absent in these.
_TRACE_GIVEN = {"public": "public", "tags": "tags"}
_OBSERVATION_GIVEN = {
    "traceId": "trace_id",
    "statusMessage": "status_message",
    "parentObservationId": "parent_observation_id",
    "version": "version",
    "endTime": "end_time",
    "completionStartTime": "completion_start_time",
    "promptName": "prompt_name",
    "promptVersion": "prompt_version",
}
_SCORE = {
    "traceId": "trace_id",
    "sessionId": "session_id",
    "datasetRunId": "dataset_run_id",
    "observationId": "observation_id",
    "comment": "comment",
    "executionTraceId": "execution_trace_id",
    "queueId": "queue_id",
    "configId": "config_id",
}


def json_text(value: Any) -> str:
    """A value as the tables hold it: strings as they are, everything else as compact JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def trace_record(event: RawEvent) -> Record:
    """The columns of `traces` that a trace event sets."""
    body = event["body"]
    record = _renamed(body, _TRACE) | _given(body, _TRACE_GIVEN)
    record["timestamp"] = body.get("timestamp") or event["timestamp"]
    record["environment"] = body.get("environment", "default")
    if "otel" not in event:
        record["api"] = True
    _add_metadata(record, body)
    return record


def observation_record(event: RawEvent) -> Record:
    """The columns of `observations` that an observation event sets."""
    body = event["body"]
    record = _renamed(body, _OBSERVATION) | _given(body, _OBSERVATION_GIVEN)
    record["type"] = body["type"] if "type" in body else event["type"].partition("-")[0].upper()
    record["start_time"] = body.get("startTime") or event["timestamp"]
    record["environment"] = body.get("environment", "default")
    if body.get("modelParameters") is not None:
        record["model_parameters"] = json_text(body["modelParameters"])
    usage = provided_usage(body)
    if usage:
        record["provided_usage_details"] = usage
    cost = provided_cost(body)
    if cost:
        record["provided_cost_details"] = cost
    if "otel" in event:
        record["otel"] = event["otel"]
    _add_metadata(record, body)
    return record


def score_record(event: RawEvent) -> Record:
    """The columns of `scores` that a score event sets."""
    body = event["body"]
    record = _renamed(body, _SCORE)
    record["timestamp"] = event["timestamp"]
    record["environment"] = body.get("environment", "default")
    record["name"] = body["name"]
    record["source"] = body.get("source", "API")
    record |= _score_value(body["value"], body.get("dataType"))
    if record["data_type"] == "CORRECTION":
        record["name"] = "output"
    _add_metadata(record, body)
    return record


def provided_usage(body: RawEvent) -> dict[str, int]:
    """Token counts as the client gave them, `usageDetails` before the deprecated `usage`."""
    usage, details = body.get("usage") or {}, body.get("usageDetails") or {}
    counts = {name: usage.get(name) for name in ("input", "output", "total")}
    if not counts["total"] and not details:
        given = [count for count in (counts["input"], counts["output"]) if count is not None]
        counts["total"] = sum(given) if given else None
    return {name: count for name, count in (counts | details).items() if count is not None}


def provided_cost(body: RawEvent) -> dict[str, float]:
    """Costs as the client gave them, US dollars."""
    usage, details = body.get("usage") or {}, body.get("costDetails") or {}
    costs = {name: usage.get(f"{name}Cost") for name in ("input", "output", "total")} | details
    return {name: cost for name, cost in costs.items() if cost is not None}


def stable_trace_id(project: str, observation: str) -> str:
    """The trace of an observation that never named one: the same whenever it is merged again."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"langfuse:{project}:{observation}"))


def _renamed(body: RawEvent, names: dict[str, str]) -> Record:
    return {column: body[name] for name, column in names.items() if name in body}


def _given(body: RawEvent, names: dict[str, str]) -> Record:
    return {column: body[name] for name, column in names.items() if body.get(name) is not None}


def _add_metadata(record: Record, body: RawEvent) -> None:
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        record["metadata"] = metadata
    elif metadata is not None:
        record["metadata"] = {"metadata": json_text(metadata)}


def _score_value(value: Any, data_type: str | None) -> Record:
    if not isinstance(value, str):
        text = ("True" if value == 1 else "False") if data_type == "BOOLEAN" else None
        return _typed_value(value, text, "", "BOOLEAN" if data_type == "BOOLEAN" else "NUMERIC")
    if data_type == "CORRECTION":
        return _typed_value(0, None, value, "CORRECTION")
    return _typed_value(0, value, "", "TEXT" if data_type == "TEXT" else "CATEGORICAL")


def _typed_value(value: float, text: str | None, long_text: str, data_type: str) -> Record:
    return {"value": value, "string_value": text, "long_string_value": long_text, "data_type": data_type}
