"""The columns of each table."""

import pytest

from langfuse_export.tables import TABLES

# Of Langfuse 4.16's own export, in its order.
TRACES = """id timestamp name environment project_id metadata user_id session_id release version
public bookmarked tags input output created_at updated_at"""
OBSERVATIONS = """id trace_id project_id environment type parent_observation_id start_time end_time
name metadata level status_message version input output provided_model_name model_parameters
usage_details cost_details completion_start_time prompt_name prompt_version total_cost latency
time_to_first_token model_id created_at updated_at prompt_id tool_calls tool_call_names
tool_definitions usage_pricing_tier_name"""
SCORES = """id timestamp project_id environment trace_id observation_id session_id dataset_run_id
name value source comment data_type string_value created_at updated_at"""
EVENTS = """id trace_id start_time end_time project_id parent_observation_id type name level
status_message version environment bookmarked public user_id session_id is_root_observation
completion_start_time created_at updated_at metadata provided_model_name model_id model_parameters
usage_details cost_details total_cost usage_pricing_tier_id usage_pricing_tier_name prompt_id
prompt_name prompt_version tool_definitions tool_calls tool_call_names tags release trace_name input
output latency time_to_first_token"""


@pytest.mark.defect("F9")
@pytest.mark.parametrize(
    ("table", "columns"),
    [("traces", TRACES), ("observations", OBSERVATIONS), ("scores", SCORES), ("events", EVENTS)],
)
def test_what_is_exported_by_default_are_langfuses_columns(table: str, columns: str) -> None:
    assert TABLES[table].column_names == columns.split()
