"""Events: the observations of version 4, which Langfuse exports as `observations_v2`."""

from langfuse_export.tables.model import (
    COST_MAP,
    COUNT_MAP,
    DURATIONS,
    LABEL,
    MAYBE,
    Column,
    Filter,
    Table,
    price_columns,
)

_IS_ROOT = "(t.parent_span_id = '' OR t.is_app_root = true)"

_TRACE_NAME = f"ifNull(coalesce(nullIf(t.trace_name, ''), if({_IS_ROOT}, nullIf(t.name, ''), NULL)), '')"


def _map_of(prefix: str) -> str:
    """Two arrays as a map.

    Reversed as Langfuse does, so that the first value of a repeated key is the last one parsed; resized
    because one row with uneven arrays would fail the whole window.
    """
    names, values = f"{prefix}_names", f"{prefix}_values"
    return f"mapFromArrays(arrayReverse({names}), arrayReverse(arrayResize({values}, length({names}))))"


EVENTS = Table(
    name="events",
    path="observations_v2",
    # Never events_core: it cuts every metadata value at 200 characters.
    source="events_full",
    time_column="start_time",
    sorted_by_day=False,
    id_column="span_id",
    required=frozenset({"id", "trace_id", "start_time", "end_time"})
    | {"project_id", "parent_observation_id", "type"},
    columns=(
        Column("id", "String", "t.span_id", group="core"),
        Column("trace_id", "String", group="core"),
        Column("start_time", "DateTime64(6)", group="core"),
        Column("end_time", "Nullable(DateTime64(6))", group="core"),
        Column("project_id", "String", group="core"),
        Column("parent_observation_id", "String", "t.parent_span_id", group="core"),
        Column("type", LABEL, group="core"),
        Column("name", "String", group="basic"),
        Column("level", LABEL, group="basic"),
        Column("status_message", "String", group="basic"),
        Column("version", "String", group="basic"),
        Column("environment", LABEL, group="basic"),
        Column("bookmarked", "Bool", group="basic"),
        Column("public", "Bool", group="basic"),
        Column("user_id", "String", group="basic"),
        Column("session_id", "String", group="basic"),
        Column("is_root_observation", "Bool", f"toBool({_IS_ROOT})", group="basic"),
        Column("completion_start_time", "Nullable(DateTime64(6))", group="time"),
        Column("created_at", "DateTime64(6)", group="time"),
        Column("updated_at", "DateTime64(6)", group="time"),
        Column("metadata", "Map(String, String)", _map_of("t.metadata"), group="metadata"),
        Column("provided_model_name", "String", group="model"),
        Column("model_id", "String", group="model"),
        Column("model_parameters", "String", group="model"),
        Column("usage_details", COUNT_MAP, group="usage"),
        Column("cost_details", COST_MAP, group="usage"),
        Column("total_cost", "Decimal(18, 12)", "t.cost_details['total']", group="usage"),
        Column("usage_pricing_tier_id", MAYBE, group="usage"),
        Column("usage_pricing_tier_name", MAYBE, group="usage"),
        Column("prompt_id", "String", group="prompt"),
        Column("prompt_name", "String", group="prompt"),
        Column("prompt_version", "Nullable(UInt16)", group="prompt"),
        Column("tool_definitions", "Map(String, String)", group="tools"),
        Column("tool_calls", "Array(String)", group="tools"),
        Column("tool_call_names", "Array(String)", group="tools"),
        Column("tags", "Array(String)", group="trace_context"),
        Column("release", "String", group="trace_context"),
        Column("trace_name", "String", _TRACE_NAME, group="trace_context"),
        Column("input", "String", group="io"),
        Column("output", "String", group="io"),
        *DURATIONS,
    ),
    extra=(
        Column("provided_usage_details", COUNT_MAP),
        Column("provided_cost_details", COST_MAP),
        Column("experiment_id", "String"),
        Column("experiment_name", "String"),
        Column("experiment_metadata", "Map(String, String)", _map_of("t.experiment_metadata")),
        Column("experiment_description", "String"),
        Column("experiment_dataset_id", "String"),
        Column("experiment_item_id", "String"),
        Column("experiment_item_version", "Nullable(DateTime64(6))"),
        Column("experiment_item_expected_output", "String"),
        Column("experiment_item_metadata", "Map(String, String)", _map_of("t.experiment_item_metadata")),
        Column("experiment_item_root_span_id", "String"),
        Column("source", LABEL),
        Column("service_name", "String"),
        Column("service_version", "String"),
        Column("scope_name", "String"),
        Column("scope_version", "String"),
        Column("telemetry_sdk_language", LABEL),
        Column("telemetry_sdk_name", "String"),
        Column("telemetry_sdk_version", "String"),
    ),
    price_columns=price_columns("t.model_id"),
    filters=(
        Filter("environment", "t.environment"),
        Filter("tags", "t.tags", is_array=True),
        Filter("type", "t.type"),
        Filter("level", "t.level"),
        Filter("user_id", "t.user_id"),
        Filter("trace_name", _TRACE_NAME),
    ),
)
