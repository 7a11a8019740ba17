"""Items of dataset runs, which Langfuse itself does not export."""

from langfuse_export.tables.model import MAYBE, TEXT_MAP, Column, Table

DATASET_RUN_ITEMS = Table(
    name="dataset_run_items",
    path="dataset_run_items",
    source="dataset_run_items_rmt",
    # Langfuse keeps it when it writes a newer version.
    time_column="created_at",
    sorted_by_day=False,
    time_in_key=False,
    required=frozenset({"id", "project_id", "dataset_run_id", "dataset_item_id", "dataset_id"})
    | {"trace_id", "created_at"},
    columns=(
        Column("id", "String"),
        Column("project_id", "String"),
        Column("dataset_run_id", "String"),
        Column("dataset_item_id", "String"),
        Column("dataset_id", "String"),
        Column("trace_id", "String"),
        Column("observation_id", MAYBE),
        Column("error", MAYBE),
        Column("created_at", "DateTime64(3)"),
        Column("updated_at", "DateTime64(3)"),
        Column("dataset_run_name", "String"),
        Column("dataset_run_description", MAYBE),
        Column("dataset_run_metadata", TEXT_MAP),
        Column("dataset_run_created_at", "DateTime64(3)"),
        Column("dataset_item_input", MAYBE),
        Column("dataset_item_expected_output", MAYBE),
        Column("dataset_item_metadata", TEXT_MAP),
        Column("dataset_item_version", "Nullable(DateTime64(3))"),
    ),
)
