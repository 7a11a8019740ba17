"""Rows of the Langfuse tables for one version of a trace, span or score; keys are the column names."""

import json
from datetime import datetime
from hashlib import sha256
from typing import Any

from langfuse_export.demo.entities import Call, Experiment, Score, Span, Trace, Version
from langfuse_export.demo.models import PRICING_TIER

Row = dict[str, Any]

SDK_NAME, SDK_VERSION = "python", "4.2.1"
SCOPE_NAME = "langfuse-sdk"


def trace_row(project: str, trace: Trace, version: Version) -> Row:
    """A row of `traces`; an unfinished trace has no output yet."""
    return {
        "id": trace.id,
        "timestamp": _ms(trace.start),
        "name": trace.name,
        "user_id": trace.user_id,
        "metadata": trace.metadata,
        "release": trace.release,
        "version": trace.version,
        "project_id": project,
        "environment": trace.environment,
        "public": trace.public,
        "bookmarked": trace.bookmarked and not version.partial,
        "tags": trace.tags,
        "input": trace.input,
        "output": None if version.partial else trace.output or None,
        "session_id": trace.session_id,
        **_stamps_ms(version),
    }


def observation_row(project: str, trace: Trace, span: Span, version: Version) -> Row:
    """A row of `observations`; an unfinished one has no end, output, usage or cost yet."""
    open_, call = version.partial, span.call
    known = None if open_ else call
    return {
        "id": span.id,
        "trace_id": trace.id,
        "project_id": project,
        "environment": trace.environment,
        "type": span.kind,
        "parent_observation_id": span.parent_id,
        "start_time": _ms(span.start),
        "end_time": None if open_ else _ms(span.end),
        "name": span.name,
        "metadata": _own_metadata(span, open_) | _instrumentation(project, trace),
        "level": "DEFAULT" if open_ else span.level,
        "status_message": None if open_ else span.status or None,
        "version": trace.version,
        "input": span.input or None,
        "output": None if open_ else span.output or None,
        "completion_start_time": _ms(known.first_token) if known and known.first_token else None,
        **_model_columns(call, open_, absent=None),
        "internal_model_id": call.model_id if call else None,
        "total_cost": known.cost.get("total") if known else None,
        **_tool_columns(span, open_),
        **_stamps_ms(version),
    }


def event_row(project: str, trace: Trace, span: Span, version: Version) -> Row:
    """A row of `events_full`: the observation with microseconds, and the trace's fields on its root."""
    open_, root = version.partial, span.parent_id is None
    known = None if open_ else span.call
    names, values = _flat_metadata(project, trace, _own_metadata(span, open_))
    output = "" if open_ else span.output
    return {
        "project_id": project,
        "trace_id": trace.id,
        "span_id": span.id,
        "parent_span_id": span.parent_id or "",
        "start_time": span.start,
        "end_time": None if open_ else span.end,
        "name": span.name,
        "type": span.kind,
        "environment": trace.environment,
        "version": trace.version,
        "release": trace.release,
        "trace_name": trace.name if root else "",
        "user_id": (trace.user_id or "") if root else "",
        "session_id": (trace.session_id or "") if root else "",
        "tags": trace.tags if root else [],
        "level": "DEFAULT" if open_ else span.level,
        "status_message": "" if open_ else span.status,
        "completion_start_time": known.first_token if known else None,
        "is_app_root": root,
        "bookmarked": root and trace.bookmarked and not open_,
        "public": root and trace.public,
        **_model_columns(span.call, open_, absent=""),
        "model_id": span.call.model_id if span.call else "",
        **_tool_columns(span, open_),
        "input": span.input,
        "output": output,
        "metadata_names": names,
        "metadata_values": values,
        **_experiment_columns(trace),
        "source": "otel",
        "service_name": project,
        "service_version": trace.version,
        "scope_name": SCOPE_NAME,
        "scope_version": SDK_VERSION,
        "telemetry_sdk_language": "python",
        "telemetry_sdk_name": "opentelemetry",
        "telemetry_sdk_version": "1.38.0",
        "blob_storage_file_path": f"otel/{project}/{version.at:%Y/%m/%d/%H/%M}/{span.id}.json",
        "event_bytes": len(span.input.encode()) + len(output.encode()) + sum(map(len, values)) + 1200,
        "created_at": version.created,
        "updated_at": version.at,
        "event_ts": version.at,
        "is_deleted": int(version.deleted),
        **_attribution(project),
    }


def score_row(project: str, trace: Trace, score: Score, version: Version) -> Row:
    """A row of `scores`; before its change, a score has no comment and half its value."""
    annotated = score.source == "ANNOTATION"
    of_trace = not (score.session_id or score.dataset_run_id)
    return {
        "id": score.id,
        "timestamp": _ms(score.at),
        "project_id": project,
        "environment": trace.environment,
        "trace_id": trace.id if of_trace else None,
        "session_id": score.session_id,
        "dataset_run_id": score.dataset_run_id,
        "observation_id": score.span_id,
        "name": score.name,
        "value": score.value / 2 if version.partial and score.data_type == "NUMERIC" else score.value,
        "source": score.source,
        "comment": None if version.partial else score.comment,
        "metadata": score.metadata,
        "author_user_id": f"annotator-{int(score.id[0], 16) % 5}" if annotated else None,
        "config_id": _stable_id(project, score.name)
        if annotated and score.data_type != "CORRECTION"
        else None,
        "data_type": score.data_type,
        "string_value": score.text,
        "queue_id": _stable_id(project, "review-queue") if annotated else None,
        **_stamps_ms(version),
        "execution_trace_id": _stable_id(trace.id, score.id) if score.source == "EVAL" else None,
        "long_string_value": score.long_text,
        **_attribution(project),
    }


def run_item_row(project: str, trace: Trace, experiment: Experiment, version: Version) -> Row:
    """A row of `dataset_run_items_rmt`: the trace as one item of a nightly run."""
    return {
        "id": _stable_id(trace.id, experiment.run_id),
        "project_id": project,
        "dataset_run_id": experiment.run_id,
        "dataset_item_id": experiment.item_id,
        "dataset_id": experiment.dataset_id,
        "trace_id": trace.id,
        "observation_id": trace.spans[0].id,
        "error": trace.spans[0].status or None,
        "dataset_run_name": experiment.run_name,
        "dataset_run_description": "Nightly regression run",
        "dataset_run_metadata": {"release": trace.release},
        "dataset_run_created_at": _ms(experiment.run_start),
        "dataset_item_input": trace.input,
        "dataset_item_expected_output": experiment.expected,
        "dataset_item_metadata": {"origin": "production"},
        **_stamps_ms(version),
    }


def _model_columns(call: Call | None, open_: bool, absent: str | None) -> Row:
    """Model, prompt, usage and cost; the legacy tables say NULL, the events tables '' where there is none."""
    known = None if open_ else call
    prompt = call.prompt if call else None
    tier_id, tier_name = PRICING_TIER if known and known.cost else (None, None)
    usage = known.usage if known else {}
    return {
        "provided_model_name": call.model if call else absent,
        "model_parameters": call.parameters if call else absent,
        "provided_usage_details": {kind: count for kind, count in usage.items() if kind != "total"},
        "usage_details": usage,
        "provided_cost_details": {},
        "cost_details": known.cost if known else {},
        "prompt_id": _stable_id(prompt[0], str(prompt[1])) if prompt else absent,
        "prompt_name": prompt[0] if prompt else absent,
        "prompt_version": prompt[1] if prompt else None,
        "usage_pricing_tier_id": tier_id,
        "usage_pricing_tier_name": tier_name,
    }


def _own_metadata(span: Span, open_: bool) -> dict[str, str]:
    """Metadata arrives when the span ends."""
    return {} if open_ else span.metadata


def _tool_columns(span: Span, open_: bool) -> Row:
    return {
        "tool_definitions": span.tool_definitions,
        "tool_calls": [] if open_ else span.tool_calls,
        "tool_call_names": [] if open_ else span.tool_call_names,
    }


def _experiment_columns(trace: Trace) -> Row:
    experiment = trace.experiment
    return {
        "experiment_id": experiment.run_id if experiment else "",
        "experiment_name": experiment.run_name if experiment else "",
        "experiment_dataset_id": experiment.dataset_id if experiment else "",
        "experiment_item_id": experiment.item_id if experiment else "",
        "experiment_item_expected_output": experiment.expected if experiment else "",
        "experiment_item_root_span_id": trace.spans[0].id if experiment else "",
    }


def _resource(project: str, trace: Trace) -> dict[str, str]:
    return {
        "service.name": project,
        "service.version": trace.release,
        "telemetry.sdk.language": "python",
        "deployment.environment.name": trace.environment,
        "host.name": f"{project}-{trace.id[:6]}",
    }


def _instrumentation(project: str, trace: Trace) -> dict[str, str]:
    """What OpenTelemetry adds to the metadata; the legacy tables hold it as JSON text."""
    scope = {"name": SCOPE_NAME, "version": SDK_VERSION, "attributes": {"public_key": f"pk-lf-{project}"}}
    return {"resourceAttributes": json.dumps(_resource(project, trace)), "scope": json.dumps(scope)}


def _flat_metadata(project: str, trace: Trace, own: dict[str, str]) -> tuple[list[str], list[str]]:
    """The same metadata as the events tables hold it: dotted paths beside their values."""
    resource = {f"resourceAttributes.{key}": value for key, value in _resource(project, trace).items()}
    flat = own | resource | {"scope.name": SCOPE_NAME, "scope.version": SDK_VERSION}
    return list(flat), list(flat.values())


def _attribution(project: str) -> Row:
    return {
        "ingestion_api_key": f"pk-lf-{project}",
        "ingestion_sdk_name": SDK_NAME,
        "ingestion_sdk_version": SDK_VERSION,
    }


def _stamps_ms(version: Version) -> Row:
    at = _ms(version.at)
    return {
        "created_at": _ms(version.created),
        "updated_at": at,
        "event_ts": at,
        "is_deleted": int(version.deleted),
    }


def _ms(moment: datetime) -> datetime:
    """Cut to the millisecond, as ingestion does; rounding would move 59.999999 into the next hour."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _stable_id(*parts: str) -> str:
    return "c" + sha256("/".join(parts).encode()).hexdigest()[:24]
