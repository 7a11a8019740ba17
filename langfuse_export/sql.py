"""Renders every query of the export path from the table specs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from langfuse_export.parts import WHOLE, Part
from langfuse_export.tables import Column, Condition, Table
from langfuse_export.tables.price_list import AS_OF, definitions
from langfuse_export.windows import Frequency, Window
from langfuse_worker.clickhouse import Parameter, Scalar
from langfuse_worker.clickhouse.literals import quoted

WINDOW_INDEX = "__window"  # the column that says which of several windows a row is in
# Each version of a row carries them; `event_ts` decides which one counts.
CHANGE_COLUMNS = ("event_ts", "updated_at", "created_at")

SLOT = Frequency.EVERY_20_MINUTES.length  # the shortest windows, which longer ones are made of

FINAL_SETTINGS: Mapping[str, Scalar] = {
    # Rows of one key always lie in one partition, because the partition follows from the sorting key's date.
    "do_not_merge_across_partitions_select_final": 1,
    # Conditions on what versions of a row may differ in must not hide the newest one from FINAL.
    "optimize_move_to_prewhere_if_final": 0,
    "use_skip_indexes_if_final": 0,
    # Rows are found by their part, and replicas may be at different merges.
    "allow_experimental_parallel_reading_from_replicas": 0,
    # A profile that has them would make the counts of windows without rows NULL, or leave them out.
    "join_use_nulls": 0,
    "aggregate_functions_null_for_empty": 0,
    "empty_result_for_aggregation_by_empty_set": 0,
}


def parameters(table: Table, project_id: str, window: Window) -> dict[str, Parameter]:
    """Bound parameters of a window's queries. Times are milliseconds since the epoch, UTC."""
    chosen = {f"where_{condition.filter.name}": list(condition.values) for condition in table.where}
    masks = {
        name: value
        for column in table.columns
        if column.mask
        for name, value in column.mask.parameters(column.name).items()
    }
    bounds = {"project": project_id, "start_ms": window.start_ms, "end_ms": window.end_ms}
    prices = {AS_OF: table.prices.as_of_ms} if table.prices else {}
    return {**bounds, **chosen, **masks, **prices}


def secrets(table: Table) -> dict[str, bytes]:
    """Values that ClickHouse must not log: the keys of masks."""
    masks = [column.mask for column in table.columns if column.mask]
    return {name: value for mask in masks for name, value in mask.secrets().items()}


def lists(table: Table) -> dict[str, list[str]]:
    """Values that may be too long for a URL: the prices of models."""
    return table.prices.lists() if table.prices else {}


def part_parameters(part: Part) -> dict[str, Scalar]:
    """Bound parameters of a part's bounds, beside those of its window."""
    bounds = {"part_low": part.low, "part_high": part.high}
    return {name: bound for name, bound in bounds.items() if bound is not None}


Render = Callable[[Column], str]
"""SQL of a column's value as a file format needs it."""


def native(column: Column) -> str:
    """The value as ClickHouse has it."""
    return column.sql


def text(column: Column) -> str:
    """Times in UTC, whatever the server's time zone."""
    return f"toTimeZone({column.sql}, 'UTC')" if "DateTime64" in column.type else column.sql


def csv_text(column: Column) -> str:
    """The string that CSV quotes; NULL is the empty one."""
    value, kind = text(column), column.type
    if kind.startswith(("Map(", "Array(")):
        return f"toJSONString({value})"
    if kind == "Nullable(String)":
        return f"ifNull({value}, '')"
    if kind.startswith("Nullable("):
        return f"ifNull(toString({value}), '')"
    return value if kind in ("String", "LowCardinality(String)") else f"toString({value})"


def select(table: Table, part: Part = WHOLE, render: Render = native) -> str:
    """The rows of a window.

    FINAL decides in a subquery, over the columns of the sorting key alone, which rows these are; their other
    columns are then read without it. FINAL over payload holds blocks of every part in every thread.
    """
    return f"{_select(table, render)}\n{_chosen_rows(table, part)}"


def select_no_rows(table: Table) -> str:
    """The columns of `select` without any rows; it reads nothing."""
    return f"{_select(table, native)}\nFROM `{table.source}` AS t\nLIMIT 0"


def select_by_window(table: Table, row_format: str | None, render: Render) -> str:
    """The rows of several consecutive windows of `length_ms`, each with the index of its window.

    Args:
        table: what to read.
        row_format: ClickHouse's format of a row of text, such as JSONEachRow; None for columns.
        render: each value.
    """
    rows = select(table, render=render)
    rows = rows.replace(
        "SELECT\n", f"SELECT\n  {_window_index(f't.{table.time_column}')} AS `{WINDOW_INDEX}`,\n", 1
    )
    if row_format is None:
        return rows
    names = ", ".join(f"`{column.name}`" for column in table.columns)
    return f"SELECT `{WINDOW_INDEX}`, formatRow('{row_format}', {names}) AS line FROM (\n{rows}\n)"


def summary(table: Table, part: Part = WHOLE) -> str:
    """What a window, or a part of one, holds now.

    Reads the columns of the sorting key and the version, none of the payload. Row count, the time
    column's min and max in microseconds since the epoch, the fingerprint, and ClickHouse's clock in
    milliseconds.
    """
    rows = _from_window(table, part)
    return f"SELECT {', '.join(_summary(table))}, {CLOCK}\n{rows}"


def summary_by_window(table: Table) -> str:
    """As `summary`, a row for each of `windows` consecutive windows of `length_ms`, in their order."""
    names = ("rows", "low", "high", "fingerprint")
    values = ", ".join(f"{value} AS {name}" for name, value in zip(names, _summary(table), strict=True))
    index = _window_index(f"t.{table.time_column}")
    return (
        f"SELECT {', '.join(names)}, {CLOCK} FROM numbers({{windows:UInt32}}) AS w LEFT JOIN (\n"
        f"SELECT toUInt64({index}) AS number, {values}\n{_from_window(table)}\n"
        "GROUP BY number\n) AS s USING number ORDER BY number"
    )


def folder_of_window(table: Table) -> str:
    """Which of `folders` a row of `select` belongs to, one for each of consecutive windows of `length_ms`."""
    return f"arrayElement({{folders:Array(String)}}, 1 + {_window_index(f'`{table.time_column}`')})"


def part_keys(table: Table, size: int) -> str:
    """A random sample of the values that parts are cut by, at most `size`, in the notation of `Part`."""
    key = f"t.{table.part_column}"
    microseconds = f"leftPad(toString(toUnixTimestamp64Micro({key})), 20, '0')"
    shown = microseconds if table.sorted_by_time else f"hex({key})"
    return f"SELECT groupArraySample({size})({shown})\n{_in_window(table)}"


def row_bytes(table: Table) -> str:
    """Average bytes of a row in memory, from one in {one_in} rows; 0 without any.

    The rows are spread over the whole window by a hash, because the first ones of the sorting key are all of
    one type.
    """
    columns = ", ".join(column.unmasked_sql for column in table.columns)
    return (
        f"{_with(table)}SELECT ifNotFinite(avg(byteSize({columns})), 0)\n{_in_window(table)}\n"
        f"  AND cityHash64(t.{table.id_column}) % {{one_in:UInt64}} = 0"
    )


def fingerprints(table: Table) -> str:
    """Number since the epoch and fingerprint of each slot of a window that has rows."""
    slot = f"{_slot(table)} AS slot"
    return f"SELECT {slot}, {_fingerprint(table)}\n{_from_window(table)}\nGROUP BY slot"


def changes(table: Table, project_ids: Collection[str] | None, *, recent_parts: bool) -> str:
    """By project and slot, the latest change (ms since the epoch, UTC) of rows that were written lately.

    Rows whose time lies between `oldest_ms` and `until_ms` count, changed at `since_ms` or later. Deleted and
    superseded versions are rows like others. Reads no payload.

    Args:
        table: where to look.
        project_ids: only these projects; None is every project.
        recent_parts: read only parts that were written or merged since `since_ms`. All new rows are in
            those, and on tables without an index on `event_ts` there is nothing else to skip parts by.
    """
    time, since = f"t.{table.time_column}", "fromUnixTimestamp64Milli({since_ms:Int64})"
    conditions = [
        f"{time} >= fromUnixTimestamp64Milli({{oldest_ms:Int64}})",
        f"{time} < fromUnixTimestamp64Milli({{until_ms:Int64}})",
        # Not greatest(...) >= since: each column's index, where it has one, can answer its part of this.
        f"({' OR '.join(f't.{column} >= {since}' for column in CHANGE_COLUMNS)})",
    ]
    if recent_parts:
        parts = f"SELECT name FROM {_parts_of([table])} AND modification_time >= toDateTime({since})"
        conditions.append(f"t._part IN ({parts})")
    if project_ids is not None:
        conditions.append(f"t.project_id IN ({', '.join(map(quoted, sorted(project_ids)))})")
    changed = f"greatest({', '.join(f't.{column}' for column in CHANGE_COLUMNS)})"
    return (
        f"SELECT t.project_id, {_slot(table)} AS slot, toUnixTimestamp64Milli(max({changed}))\n"
        f"FROM `{table.source}` AS t\nWHERE {' AND '.join(conditions)}\nGROUP BY t.project_id, slot"
    )


def newest_parts(tables: Sequence[Table]) -> str:
    """By ClickHouse table, when its newest part was written or merged: seconds since the epoch, UTC."""
    return f"SELECT table, toUnixTimestamp(max(modification_time)) FROM {_parts_of(tables)} GROUP BY table"


def projects(tables: Sequence[Table]) -> str:
    """Every project in the tables with the time of its first row (seconds since the epoch, UTC)."""
    union = "\nUNION ALL\n".join(
        f"SELECT project_id, toUnixTimestamp(min({table.time_column})) AS first FROM {table.source} "
        f"WHERE {table.time_column} > 0 GROUP BY project_id"
        for table in tables
    )
    return f"SELECT project_id, min(first) FROM ({union}) GROUP BY project_id ORDER BY project_id"


_START, _END = "fromUnixTimestamp64Milli({start_ms:Int64})", "fromUnixTimestamp64Milli({end_ms:Int64})"
CLOCK = "toUnixTimestamp64Milli(now64(3))"


def _select(table: Table, render: Render) -> str:
    columns = ",\n  ".join(f"{render(column)} AS `{column.name}`" for column in table.columns)
    return f"{_with(table)}SELECT\n  {columns}"


def _with(table: Table) -> str:
    return f"WITH\n  {definitions()}\n" if table.has_prices else ""


def _summary(table: Table) -> tuple[str, str, str, str]:
    time = f"toUnixTimestamp64Micro(t.{table.time_column})"
    return "count()", f"min({time})", f"max({time})", _fingerprint(table)


def _window_index(time: str) -> str:
    since_start = f"toUnixTimestamp64Milli({time}) - {{start_ms:Int64}}"
    return f"toUInt32(intDiv({since_start}, {{length_ms:Int64}}))"


def _fingerprint(table: Table) -> str:
    """A number that says which version of which rows there are; modulo 2**64, parts of a window add up."""
    return f"sum(cityHash64(t.{table.id_column}, t.{table.time_column}, t.event_ts))"


def _slot(table: Table) -> str:
    return f"intDiv(toUnixTimestamp64Milli(t.{table.time_column}), {SLOT // timedelta(milliseconds=1)})"


def _parts_of(tables: Sequence[Table]) -> str:
    """Those that are merged already among them: a query goes on reading the ones that it began with."""
    names = ", ".join(quoted(table.source) for table in tables)
    return f"system.parts WHERE database = currentDatabase() AND table IN ({names})"


def _chosen_rows(table: Table, part: Part) -> str:
    """The rows of a window by their place: what FINAL leaves of it has passed every condition already.

    The bounds of the window and the part are repeated for the index. A merge that ends between the two reads
    of one query would hide rows, which ClickHouse prevents from 25.6 on
    (`enable_shared_storage_snapshot_in_query`), and which their count tells everywhere.
    """
    places = f"SELECT t._part, t._part_offset\n{_from_window(table, part)}"
    ranges = [*_bounds(f"t.{table.time_column}"), *_range_conditions(table, part)]
    return (
        f"FROM `{table.source}` AS t\nPREWHERE (t._part, t._part_offset) IN (\n{places}\n)\n"
        f"WHERE {_all(ranges)}"
    )


def _from_window(table: Table, part: Part = WHOLE) -> str:
    """What FINAL leaves of a window, or of a part of it.

    A part may be cut out before FINAL, because all versions of a row share the key it is cut by.
    """
    conditions = _window_conditions(table)
    if table.row_filter:
        conditions.append(table.row_filter)
    conditions += [_condition(condition) for condition in table.where]
    ranges = _range_conditions(table, part)
    prewhere = f"\nPREWHERE {_all(ranges)}" if ranges else ""
    return f"FROM `{table.source}` AS t FINAL{prewhere}\nWHERE {_all(conditions)}"


def _all(conditions: Sequence[str]) -> str:
    return "\n  AND ".join(conditions)


def _in_window(table: Table) -> str:
    """Every version of a row that lies in the window itself."""
    return f"FROM `{table.source}` AS t\nWHERE {_all(_window_conditions(table))}"


def _range_conditions(table: Table, part: Part) -> list[str]:
    bound = "fromUnixTimestamp64Micro({{{}:Int64}})" if table.sorted_by_time else "unhex({{{}:String}})"
    bounds = ((">=", "part_low", part.low), ("<", "part_high", part.high))
    return [
        f"t.{table.part_column} {operator} {bound.format(name)}"
        for operator, name, value in bounds
        if value is not None
    ]


def _condition(condition: Condition) -> str:
    """A user's filter. Like the exact bounds of a window, it may only see what FINAL has decided."""
    chosen, values = condition.filter, f"{{where_{condition.filter.name}:Array(String)}}"
    value = chosen.expression if chosen.is_in_key else f"identity({chosen.expression})"
    return f"hasAny({value}, {values})" if chosen.is_array else f"{value} IN {values}"


def _window_conditions(table: Table) -> list[str]:
    time = f"t.{table.time_column}"
    if not table.time_in_key:
        return _bounds(f"identity({time})")
    if not table.sorted_by_day:
        return _bounds(time)
    # A newer version of a row may have moved within its day. A plain comparison would let ClickHouse skip
    # the part that holds it before FINAL sees it, and the old version would come back to life. So parts
    # are chosen by the day (in the server's zone, like the sorting key's date), and identity() keeps the
    # exact bounds away from the index. The sorting key answers the first condition, partitions the next two.
    last = "fromUnixTimestamp64Milli({end_ms:Int64} - 1)"
    return [
        f"toDate({time}) BETWEEN toDate({_START}) AND toDate({last})",
        f"{time} >= toStartOfDay({_START})",
        f"{time} < toStartOfDay({last}) + INTERVAL 1 DAY",
        *_bounds(f"identity({time})"),
    ]


def _bounds(time: str) -> list[str]:
    return ["t.project_id = {project:String}", f"{time} >= {_START}", f"{time} < {_END}"]
