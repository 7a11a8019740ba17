"""The spec of a table, and what an export may choose of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from langfuse_export.tables.masks import Mask, is_maskable, masked
from langfuse_export.tables.price_list import KINDS, PriceList, as_of_sql, price_sql
from langfuse_export.tables.valid_text import valid_text

LABEL = "LowCardinality(String)"
MAYBE = "Nullable(String)"
TEXT_MAP = "Map(LowCardinality(String), String)"
COUNT_MAP = "Map(LowCardinality(String), UInt64)"
COST_MAP = "Map(LowCardinality(String), Decimal(18, 12))"


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
        mask: what is done to its values before they leave ClickHouse.
    """

    name: str
    type: str
    expression: str = ""
    group: str | None = None
    mask: Mask | None = None

    @property
    def sql(self) -> str:
        """The column's expression over the table alias `t`."""
        value = self.unmasked_sql
        return valid_text(masked(self.mask, value, self.name, self.type) if self.mask else value, self.type)

    @property
    def unmasked_sql(self) -> str:
        """The same without its mask."""
        return self.expression or f"t.{self.name}"


@dataclass(frozen=True)
class Filter:
    """Something that rows of a table can be chosen by.

    Attributes:
        name: name in catalogs.
        expression: SQL over the table alias `t`.
        column: the exported column that shows it, if that has another name.
        is_array: whether it is an array, of which any element may match.
        is_in_key: whether every version of a row has the same value, because the sorting key holds it.
    """

    name: str
    expression: str
    column: str = ""
    is_array: bool = False
    is_in_key: bool = False


@dataclass(frozen=True)
class Condition:
    """Rows whose `filter` has one of the values."""

    filter: Filter
    values: tuple[str, ...]


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
        extra: columns that are exported only if a catalog names them.
        price_columns: columns of prices, which a catalog may ask for.
        filters: what rows can be chosen by.
        where: what they are chosen by.
        hidden: names of columns that are masked or dropped.
        prices: what the columns of prices hold; it changes with every attempt at an export.
        time_in_key: whether the sorting key holds the time column, be it as its date.
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
    extra: tuple[Column, ...] = ()
    price_columns: tuple[Column, ...] = ()
    filters: tuple[Filter, ...] = ()
    where: tuple[Condition, ...] = ()
    hidden: frozenset[str] = frozenset()
    prices: PriceList | None = None
    time_in_key: bool = True

    @property
    def sorted_by_time(self) -> bool:
        """Whether the query of a window reads little but the window; else its whole day, or every day."""
        return self.time_in_key and not self.sorted_by_day

    @property
    def part_column(self) -> str:
        """Column by whose ranges a heavy window is read in parts: every version of a row has the same value.

        Where the table is sorted by time, parts of the time skip what they do not need. Elsewhere each would
        read its whole day, and a newer version might lie in another part.
        """
        return self.time_column if self.sorted_by_time else self.id_column

    @property
    def has_millisecond_time(self) -> bool:
        """Whether times are milliseconds in Langfuse 4.16; else they are microseconds."""
        return "(3)" in self.column(self.time_column).type

    def column(self, name: str) -> Column:
        """The column of that name, exported or extra; raises UnknownColumnError."""
        known = (*self.columns, *self.extra)
        for column in known:
            if column.name == name:
                return column
        if any(column.name == name for column in self.price_columns):
            raise UnknownColumnError(f"{self.name} has {name!r} with `prices: true` only")
        names = ", ".join(column.name for column in known)
        raise UnknownColumnError(f"{self.name} has no column {name!r}; it has {names}")

    @property
    def column_names(self) -> list[str]:
        """Names of the exported columns in their order."""
        return [column.name for column in self.columns]

    @property
    def has_prices(self) -> bool:
        """Whether columns of prices are exported."""
        return bool({column.name for column in self.price_columns} & set(self.column_names))

    @property
    def groups(self) -> list[str]:
        """Field groups of the table, in the order of their first column."""
        return list(dict.fromkeys(column.group for column in self.columns if column.group))

    @property
    def chosen_rows(self) -> dict[str, list[str]]:
        """What rows are chosen by, for people; empty if all of them are exported."""
        return {c.filter.name: self._shown(c) for c in self.where}

    def _shown(self, condition: Condition) -> list[str]:
        """The values of a filter; those of a masked column are masked, too."""
        column = condition.filter.column or condition.filter.name
        return ["***"] if column in self.hidden else list(condition.values)

    def only(
        self,
        columns: Iterable[str] | Literal["all"] | None = None,
        groups: Iterable[str] | None = None,
    ) -> "Table":
        """The table with the chosen columns or field groups, in the table's own order.

        Required columns are always kept. A table without field groups ignores `groups`. Extra columns come
        last, and belong to no group.

        Raises:
            UnknownColumnError: a name does not exist.
        """
        chosen, extra = self.columns, ()
        if columns == "all":
            extra = self.extra
        elif columns is not None:
            wanted = {self.column(name).name for name in columns} | self.required
            chosen = tuple(column for column in self.columns if column.name in wanted)
            extra = tuple(column for column in self.extra if column.name in wanted)
        if groups is not None and self.groups:
            kept = set(groups)
            chosen = tuple(c for c in chosen if c.group in kept or c.name in self.required)
        return replace(self, columns=(*chosen, *extra))

    def with_price_columns(self) -> "Table":
        """The table with the columns of prices, if it has any, after all that Langfuse has in any format."""
        return replace(self, columns=(*self.columns, *self.price_columns))

    def priced(self, prices: PriceList) -> "Table":
        """The table with what its columns of prices hold, if it has any."""
        return replace(self, prices=prices) if self.has_prices else self

    def filtered(self, where: Mapping[str, Sequence[str]]) -> "Table":
        """The table with only the rows that have one of the values of every name.

        Names that the table has no filter for do not concern it.
        """
        conditions = (Condition(f, tuple(where[f.name])) for f in self.filters if f.name in where)
        return replace(self, where=tuple(conditions))

    def masked(self, masks: Mapping[str, Mask | Literal["drop"]]) -> "Table":
        """The table with those of its columns masked, or left out.

        Raises:
            ValueError: a column holds no strings, or is a key that cannot be left out.
        """
        columns = []
        for column in self.columns:
            mask = masks.get(column.name)
            if mask == "drop":
                if column.name in self.required:
                    raise ValueError(
                        f"{column.name} cannot be dropped: {self.name} needs it; hash it instead"
                    )
            elif mask is not None and not is_maskable(column.type):
                raise ValueError(f"{column.name} of {self.name} is {column.type}; it can only be dropped")
            else:
                columns.append(replace(column, mask=mask) if mask else column)
        return replace(self, columns=tuple(columns), hidden=self.hidden | set(masks))


def _seconds_until(end: str) -> str:
    """SQL of seconds since the start, with fractions; NULL without an end."""
    return f"if(isNull({end}), NULL, date_diff('millisecond', t.start_time, {end}) / 1000)"


# Of everything that starts and ends.
DURATIONS = (
    Column("latency", "Nullable(Float64)", _seconds_until("t.end_time"), group="metrics"),
    Column(
        "time_to_first_token", "Nullable(Float64)", _seconds_until("t.completion_start_time"), group="metrics"
    ),
)


def price_columns(model_id: str) -> tuple[Column, ...]:
    """The columns of prices, and of their point in time.

    Args:
        model_id: SQL of a row's model id over the table alias `t`; the empty string where it has no model.
    """
    prices = [Column(f"{kind}_price", MAYBE, price_sql(model_id, kind), group="model") for kind in KINDS]
    return (*prices, Column("prices_as_of", "DateTime64(3)", as_of_sql(), group="model"))
