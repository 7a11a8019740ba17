"""Traces."""

from langfuse_export.tables.model import LABEL, MAYBE, TEXT_MAP, Column, Filter, Table

TRACES = Table(
    name="traces",
    path="traces",
    source="traces",
    time_column="timestamp",
    sorted_by_day=True,
    required=frozenset({"id", "project_id", "timestamp"}),
    columns=(
        Column("id", "String"),
        Column("timestamp", "DateTime64(3)"),
        Column("name", "String"),
        Column("environment", LABEL),
        Column("project_id", "String"),
        Column("metadata", TEXT_MAP),
        Column("user_id", MAYBE),
        Column("session_id", MAYBE),
        Column("release", MAYBE),
        Column("version", MAYBE),
        Column("public", "Bool"),
        Column("bookmarked", "Bool"),
        Column("tags", "Array(String)"),
        Column("input", MAYBE),
        Column("output", MAYBE),
        Column("created_at", "DateTime64(3)"),
        Column("updated_at", "DateTime64(3)"),
    ),
    filters=(
        Filter("environment", "t.environment"),
        Filter("tags", "t.tags", is_array=True),
        Filter("user_id", "t.user_id"),
        Filter("trace_name", "t.name", column="name"),
    ),
)
