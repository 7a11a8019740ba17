"""What a project's entry in `exports.yaml` says of the rows of its tables."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

import re2
from pydantic import Discriminator, Field, SecretStr, Tag, model_validator

from langfuse_export.catalog.strict import StrictModel
from langfuse_export.tables import ALL_TABLES, Hash, Mask, Replace, Table

TableName = Literal["traces", "observations", "scores", "events", "dataset_run_items"]

Values = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class WhereModel(StrictModel):
    """Rows that have one of the values of every name."""

    environment: Values | None = Field(default=None, description="Of traces, observations, scores, events.")
    tags: Values | None = Field(default=None, description="Any of these tags, of traces and events.")
    type: Annotated[list[Annotated[str, Field(pattern="^[A-Z_]+$")]], Field(min_length=1)] | None = Field(
        default=None, description="Of observations and events: GENERATION, SPAN and so on."
    )
    level: Annotated[list[Literal["DEBUG", "DEFAULT", "WARNING", "ERROR"]], Field(min_length=1)] | None = (
        Field(default=None, description="Of observations and events.")
    )
    user_id: Values | None = Field(default=None, description="Of traces and events.")
    trace_name: Values | None = Field(default=None, description="Of traces and events.")

    def values(self) -> dict[str, list[str]]:
        """The values by name, without what is left open."""
        return self.model_dump(exclude_none=True)

    def check(self, tables: Iterable[TableName]) -> None:
        """Raises ValueError for a filter that none of the tables has."""
        for name in self.values():
            having = [
                table.name for table in ALL_TABLES.values() if any(f.name == name for f in table.filters)
            ]
            if not set(having) & set(tables):
                raise ValueError(f"where: {name} is of {', '.join(having)}, none of which is in tables")


class ReplaceModel(StrictModel):
    """A part of texts to replace, wherever it matches."""

    replace: str = Field(min_length=1, description="RE2 pattern, such as [\\w.+-]+@[\\w-]+\\.[\\w.]+")
    text: str = Field(
        default="***", alias="with", description="What stands there instead; \\1 is the match's first group."
    )

    @model_validator(mode="after")
    def _valid(self) -> Self:
        """With the engine that ClickHouse has, too."""
        options = re2.Options()
        options.log_errors = False
        try:
            pattern = re2.compile(self.replace, options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace")
            raise ValueError(f"replace: {self.replace!r} is no RE2 pattern: {reason}") from None
        for digit in re2.findall(r"\\(\d)", self.text.replace(r"\\", "")):
            if int(digit) > pattern.groups:
                raise ValueError(
                    f"with: {self.text!r} has \\{digit}, but {self.replace!r} has {pattern.groups} groups"
                )
        return self

    @property
    def pair(self) -> tuple[str, str]:
        """Pattern and text."""
        return self.replace, self.text


def _shape(value: object) -> str:
    return "list" if isinstance(value, list) else "word" if isinstance(value, str) else "pair"


# By its shape, so that an error is about what was meant.
MaskModel = Annotated[
    Annotated[Literal["hash", "drop"], Tag("word")]
    | Annotated[ReplaceModel, Tag("pair")]
    | Annotated[list[ReplaceModel], Tag("list"), Field(min_length=1)],
    Discriminator(_shape),
]


def check_masks(masks: Mapping[str, MaskModel], tables: Iterable[Table]) -> None:
    """Raises ValueError for a mask that no table has a column for, or whose column cannot be masked so."""
    tables = list(tables)
    known = {column.name for table in tables for column in table.columns}
    for name in masks:
        if name not in known:
            raise ValueError(f"no exported table has a column {name!r}")
    for table in tables:
        table.masked(resolve_masks(masks, key=None))


def resolve_masks(masks: Mapping[str, MaskModel], key: SecretStr | None) -> dict[str, Mask | Literal["drop"]]:
    """The masks by column; `key` is the secret of those that hash."""
    secret = key.get_secret_value().encode() if key else b""
    resolved: dict[str, Mask | Literal["drop"]] = {}
    for name, mask in masks.items():
        if mask == "drop":
            resolved[name] = "drop"
        elif mask == "hash":
            resolved[name] = Hash(secret)
        else:
            pairs = mask if isinstance(mask, list) else [mask]
            resolved[name] = Replace(tuple(replace.pair for replace in pairs))
    return resolved
