"""Scores."""

from dataclasses import replace

from langfuse_export.tables.model import LABEL, MAYBE, TEXT_MAP, Column, Filter, Table

SCORES = Table(
    name="scores",
    path="scores",
    source="scores",
    time_column="timestamp",
    sorted_by_day=True,
    required=frozenset({"id", "project_id", "timestamp"}),
    # CORRECTION scores are not part of Langfuse's export; a catalog may include them.
    row_filter="t.data_type IN ('NUMERIC', 'BOOLEAN', 'CATEGORICAL', 'TEXT')",
    columns=(
        Column("id", "String"),
        Column("timestamp", "DateTime64(3)"),
        Column("project_id", "String"),
        Column("environment", LABEL),
        Column("trace_id", MAYBE),
        Column("observation_id", MAYBE),
        Column("session_id", MAYBE),
        Column("dataset_run_id", MAYBE),
        Column("name", "String"),
        Column("value", "Float64"),
        Column("source", "String"),
        Column("comment", MAYBE),
        Column("data_type", "String"),
        Column("string_value", MAYBE),
        Column("created_at", "DateTime64(3)"),
        Column("updated_at", "DateTime64(3)"),
    ),
    extra=(
        Column("metadata", TEXT_MAP),
        Column("author_user_id", MAYBE),
        Column("config_id", MAYBE),
        Column("queue_id", MAYBE),
        Column("execution_trace_id", MAYBE),
        # The text of CORRECTION scores.
        Column("long_string_value", "String"),
    ),
    filters=(Filter("environment", "t.environment"),),
)


def with_corrections(table: Table) -> Table:
    """Scores of every type; other tables as they are."""
    return replace(table, row_filter=None) if table.source == SCORES.source else table
