"""What is exported of each Langfuse table: one declarative spec per table, and the columns in their order.

Names, types and order are those of Langfuse 4.16's own blob export, so that its consumers keep working.
SQL is rendered from these specs in `langfuse_export/sql.py` and nowhere else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace


class UnknownColumnError(ValueError):
    """A catalog asks for a column or a field group that the table does not have."""


@dataclass(frozen=True)
class Column:
    """One column of the exported files.

    Attributes:
        name: name in the file.
        type: ClickHouse type in the file.
        expression: SQL over the table alias `t`; by default the table's column of that name.
        group: field group, as Langfuse's settings page calls them; None where the table has no groups.
    """

    name: str
    type: str
    expression: str = ""
    group: str | None = None

    @property
    def sql(self) -> str:
        """The column's expression over the table alias `t`."""
        return self.expression or f"t.{self.name}"


@dataclass(frozen=True)
class Table:
    """One exportable table.

    Attributes:
        name: name in catalogs, metrics and asset keys.
        path: name in object keys and manifests.
        source: ClickHouse table.
        time_column: column that decides to which window a row belongs.
        sorted_by_day: whether the sorting key holds the time column only as its date. Versions of a row may
            then differ in their time of day, which the rendered SQL must respect.
        row_filter: further SQL condition over the alias `t`.
        required: columns that no selection may leave out.
        id_column: column that tells rows of one time apart.
    """

    name: str
    path: str
    source: str
    time_column: str
    sorted_by_day: bool
    columns: tuple[Column, ...]
    required: frozenset[str]
    id_column: str = "id"
    row_filter: str | None = None

    @property
    def part_column(self) -> str:
        """Column by whose ranges a heavy window is read in parts: every version of a row has the same value.

        Where the table is sorted by time, parts of the time skip what they do not need. Elsewhere each would
        read its whole day, and a newer version might lie in another part.
        """
        return self.id_column if self.sorted_by_day else self.time_column

    def column(self, name: str) -> Column:
        """The column of that name; raises UnknownColumnError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UnknownColumnError(f"{self.name} has no column {name!r}; it has {', '.join(self.column_names)}")

    @property
    def column_names(self) -> list[str]:
        """Names of the exported columns in their order."""
        return [column.name for column in self.columns]

    @property
    def groups(self) -> list[str]:
        """Field groups of the table, in the order of their first column."""
        return list(dict.fromkeys(column.group for column in self.columns if column.group))

    def only(self, columns: Iterable[str] | None = None, groups: Iterable[str] | None = None) -> "Table":
        """The table with the chosen columns or field groups, in the table's own order.

        Required columns are always kept. A table without field groups ignores `groups`.

        Raises:
            UnknownColumnError: a name does not exist.
        """
        chosen = self.columns
        if columns is not None:
            wanted = {self.column(name).name for name in columns} | self.required
            chosen = tuple(column for column in chosen if column.name in wanted)
        if groups is not None and self.groups:
            unknown = set(groups) - ALL_GROUPS
            if unknown:
                raise UnknownColumnError(
                    f"no field group {sorted(unknown)[0]!r}; there are {', '.join(sorted(ALL_GROUPS))}"
                )
            kept = set(groups)
            chosen = tuple(c for c in chosen if c.group in kept or c.name in self.required)
        return replace(self, columns=chosen)


def _ms_between(start: str, end: str) -> str:
    return f"if(isNull({end}), NULL, date_diff('millisecond', {start}, {end}) / 1000)"


_LC = "LowCardinality(String)"
_MAYBE = "Nullable(String)"
_TEXT_MAP = "Map(LowCardinality(String), String)"
_USAGE_MAP = "Map(LowCardinality(String), UInt64)"
_COST_MAP = "Map(LowCardinality(String), Decimal(18, 12))"

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
        Column("environment", _LC),
        Column("project_id", "String"),
        Column("metadata", _TEXT_MAP),
        Column("user_id", _MAYBE),
        Column("session_id", _MAYBE),
        Column("release", _MAYBE),
        Column("version", _MAYBE),
        Column("public", "Bool"),
        Column("bookmarked", "Bool"),
        Column("tags", "Array(String)"),
        Column("input", _MAYBE),
        Column("output", _MAYBE),
        Column("created_at", "DateTime64(3)"),
        Column("updated_at", "DateTime64(3)"),
    ),
)

OBSERVATIONS = Table(
    name="observations",
    path="observations",
    source="observations",
    time_column="start_time",
    sorted_by_day=True,
    required=frozenset({"id", "trace_id", "project_id", "type", "parent_observation_id"})
    | {"start_time", "end_time"},
    columns=(
        Column("id", "String", group="core"),
        Column("trace_id", "String", group="core"),
        Column("project_id", "String", group="core"),
        Column("environment", _LC, group="basic"),
        Column("type", _LC, group="core"),
        Column("parent_observation_id", _MAYBE, group="core"),
        Column("start_time", "DateTime64(3)", group="core"),
        Column("end_time", "Nullable(DateTime64(3))", group="core"),
        Column("name", "String", group="basic"),
        Column("metadata", _TEXT_MAP, group="metadata"),
        Column("level", _LC, group="basic"),
        Column("status_message", _MAYBE, group="basic"),
        Column("version", _MAYBE, group="basic"),
        Column("input", _MAYBE, group="io"),
        Column("output", _MAYBE, group="io"),
        Column("provided_model_name", _MAYBE, group="model"),
        Column("model_parameters", _MAYBE, group="model"),
        Column("usage_details", _USAGE_MAP, group="usage"),
        Column("cost_details", _COST_MAP, group="usage"),
        Column("completion_start_time", "Nullable(DateTime64(3))", group="time"),
        Column("prompt_name", _MAYBE, group="prompt"),
        Column("prompt_version", "Nullable(UInt16)", group="prompt"),
        Column("total_cost", "Nullable(Decimal(18, 12))", group="usage"),
        Column(
            "latency",
            "Nullable(Float64)",
            _ms_between("t.start_time", "t.end_time"),
            group="metrics",
        ),
        Column(
            "time_to_first_token",
            "Nullable(Float64)",
            _ms_between("t.start_time", "t.completion_start_time"),
            group="metrics",
        ),
        Column("model_id", _MAYBE, "t.internal_model_id", group="model"),
        Column("created_at", "DateTime64(3)", group="time"),
        Column("updated_at", "DateTime64(3)", group="time"),
        Column("prompt_id", _MAYBE, group="prompt"),
        Column("tool_calls", "Array(String)", group="tools"),
        Column("tool_call_names", "Array(String)", group="tools"),
        Column("tool_definitions", "Map(String, String)", group="tools"),
        Column("usage_pricing_tier_name", _MAYBE, group="usage"),
    ),
)

SCORES = Table(
    name="scores",
    path="scores",
    source="scores",
    time_column="timestamp",
    sorted_by_day=True,
    required=frozenset({"id", "project_id", "timestamp"}),
    # CORRECTION scores are not part of Langfuse's export.
    row_filter="t.data_type IN ('NUMERIC', 'BOOLEAN', 'CATEGORICAL', 'TEXT')",
    columns=(
        Column("id", "String"),
        Column("timestamp", "DateTime64(3)"),
        Column("project_id", "String"),
        Column("environment", _LC),
        Column("trace_id", _MAYBE),
        Column("observation_id", _MAYBE),
        Column("session_id", _MAYBE),
        Column("dataset_run_id", _MAYBE),
        Column("name", "String"),
        Column("value", "Float64"),
        Column("source", "String"),
        Column("comment", _MAYBE),
        Column("data_type", "String"),
        Column("string_value", _MAYBE),
        Column("created_at", "DateTime64(3)"),
        Column("updated_at", "DateTime64(3)"),
    ),
)

_IS_ROOT = "(t.parent_span_id = '' OR t.is_app_root = true)"

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
        Column("type", _LC, group="core"),
        Column("name", "String", group="basic"),
        Column("level", _LC, group="basic"),
        Column("status_message", "String", group="basic"),
        Column("version", "String", group="basic"),
        Column("environment", _LC, group="basic"),
        Column("bookmarked", "Bool", group="basic"),
        Column("public", "Bool", group="basic"),
        Column("user_id", "String", group="basic"),
        Column("session_id", "String", group="basic"),
        Column("is_root_observation", "Bool", f"toBool({_IS_ROOT})", group="basic"),
        Column("completion_start_time", "Nullable(DateTime64(6))", group="time"),
        Column("created_at", "DateTime64(6)", group="time"),
        Column("updated_at", "DateTime64(6)", group="time"),
        Column(
            "metadata",
            "Map(String, String)",
            # Reversed as Langfuse does, so that the first value of a repeated key is the last one parsed;
            # resized because one row with uneven arrays would fail the whole window.
            "mapFromArrays(arrayReverse(t.metadata_names),"
            " arrayReverse(arrayResize(t.metadata_values, length(t.metadata_names))))",
            group="metadata",
        ),
        Column("provided_model_name", "String", group="model"),
        Column("model_id", "String", group="model"),
        Column("model_parameters", "String", group="model"),
        Column("usage_details", _USAGE_MAP, group="usage"),
        Column("cost_details", _COST_MAP, group="usage"),
        Column("total_cost", "Decimal(18, 12)", "t.cost_details['total']", group="usage"),
        Column("usage_pricing_tier_id", _MAYBE, group="usage"),
        Column("usage_pricing_tier_name", _MAYBE, group="usage"),
        Column("prompt_id", "String", group="prompt"),
        Column("prompt_name", "String", group="prompt"),
        Column("prompt_version", "Nullable(UInt16)", group="prompt"),
        Column("tool_definitions", "Map(String, String)", group="tools"),
        Column("tool_calls", "Array(String)", group="tools"),
        Column("tool_call_names", "Array(String)", group="tools"),
        Column("tags", "Array(String)", group="trace_context"),
        Column("release", "String", group="trace_context"),
        Column(
            "trace_name",
            "String",
            f"ifNull(coalesce(nullIf(t.trace_name, ''), if({_IS_ROOT}, nullIf(t.name, ''), NULL)), '')",
            group="trace_context",
        ),
        Column("input", "String", group="io"),
        Column("output", "String", group="io"),
        Column(
            "latency",
            "Nullable(Float64)",
            _ms_between("t.start_time", "t.end_time"),
            group="metrics",
        ),
        Column(
            "time_to_first_token",
            "Nullable(Float64)",
            _ms_between("t.start_time", "t.completion_start_time"),
            group="metrics",
        ),
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in (TRACES, OBSERVATIONS, SCORES, EVENTS)}

ALL_GROUPS: frozenset[str] = frozenset(group for table in TABLES.values() for group in table.groups)
