"""The manifest of a window: written last, so that its presence means that every table is complete.

Fields and their order are version 1 of Langfuse's manifest; what is added here comes after them.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from langfuse_export.tables import Column
from langfuse_export.windows import Window, iso

CONTENT_TYPE = "application/json; charset=utf-8"
ExportSource = Literal["TRACES_OBSERVATIONS", "TRACES_OBSERVATIONS_EVENTS", "EVENTS"]


def _is_none(value: object) -> bool:
    return value is None


def _is_true(value: object) -> bool:
    return value is True


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class ManifestColumn(_Model):
    """A column of a file: its name and its ClickHouse type, and how it is masked if it is."""

    name: str
    type: str
    masked: Literal["hash", "replace"] | None = Field(default=None, exclude_if=_is_none)

    @classmethod
    def of(cls, column: Column) -> "ManifestColumn":
        """The entry of an exported column."""
        return cls(name=column.name, type=column.type, masked=column.mask and column.mask.kind)


class ManifestFile(_Model):
    """One table's object, or what there would be one of if the window had rows.

    Times are ISO 8601, UTC, with the precision of the column; None in an empty file.

    Attributes:
        sha256: of the object, hex; None if ClickHouse wrote it into the bucket itself, or without an object.
        query_id: the query that read the rows, or counted none.
        read_at: ClickHouse's clock when reading began: what was written later may be missing.
        source_fingerprint: which version of which rows ClickHouse had then; hex. Equal: nothing has changed.
        parts: reads of ClickHouse that the object was made from.
        has_object: False if the window has no rows, and the catalog wants no object then.
        query_ids: every query that read rows for it, or was too heavy; only if it was read in parts.
        prices_as_of: the moment of the prices in the columns of prices; only in files that have them.
    """

    key: str
    table: str
    file_type: str
    format: str
    compressed: bool
    content_type: str
    size_bytes: int
    row_count: int
    # Beyond version 1 of Langfuse:
    sha256: str | None
    time_column: str
    min_time: str | None
    max_time: str | None
    query_id: str
    duration_ms: int
    read_at: str
    source_fingerprint: str
    parts: int
    has_object: bool = Field(default=True, exclude_if=_is_true)
    query_ids: list[str] | None = Field(default=None, exclude_if=_is_none)
    prices_as_of: str | None = Field(default=None, exclude_if=_is_none)
    # Only where a catalog chooses rows: by what, so that nobody takes the file for the whole.
    where: dict[str, list[str]] | None = Field(default=None, exclude_if=_is_none)
    # "schema" alone would shadow a method of pydantic's.
    columns: list[ManifestColumn] = Field(validation_alias="schema", serialization_alias="schema")

    @property
    def queries(self) -> list[str]:
        """Ids of the queries that read its rows."""
        return self.query_ids or [self.query_id]


class ManifestWindow(_Model):
    """The window's bounds, ISO 8601 with ms, UTC; the end is exclusive."""

    min_timestamp: str
    max_timestamp: str

    @classmethod
    def of(cls, window: Window) -> "ManifestWindow":
        """The bounds of a window."""
        return cls(min_timestamp=iso(window.start), max_timestamp=iso(window.end))

    def as_window(self) -> Window:
        """The window of these bounds."""
        return Window(datetime.fromisoformat(self.min_timestamp), datetime.fromisoformat(self.max_timestamp))


class Manifest(_Model):
    """What a window holds.

    Attributes:
        tables: all that were exported, without rows or with.
        files: the objects.
        empty_tables: those without rows, where they have no objects.
        revision: 1 for the first manifest of the window, then counting.
        mode: why this revision was written: `steady`, `catchup` or `late`.
    """

    version: Literal[1] = 1
    project_id: str
    export_source: ExportSource
    window: ManifestWindow
    max_timestamp: str
    created_at: str
    tables: list[str]
    files: list[ManifestFile]
    # Beyond version 1 of Langfuse:
    revision: int
    mode: str
    empty_tables: list[ManifestFile] = Field(default_factory=list, exclude_if=lambda tables: not tables)

    @property
    def entries(self) -> list[ManifestFile]:
        """What it says of every table."""
        return [*self.files, *self.empty_tables]

    def to_bytes(self) -> bytes:
        """The object's content: JSON, indented by two, with a newline at the end."""
        return (self.model_dump_json(by_alias=True, indent=2) + "\n").encode()


def build_manifest(
    project_id: str,
    window: Window,
    entries: list[ManifestFile],
    created_at: datetime,
    *,
    revision: int,
    mode: str,
) -> Manifest:
    """The manifest of a window whose tables are all committed, or empty."""
    bounds = ManifestWindow.of(window)
    return Manifest(
        project_id=project_id,
        export_source=_export_source({entry.table for entry in entries}),
        window=bounds,
        max_timestamp=bounds.max_timestamp,
        created_at=iso(created_at),
        tables=[entry.table for entry in entries],
        files=[entry for entry in entries if entry.has_object],
        revision=revision,
        mode=mode,
        empty_tables=[entry for entry in entries if not entry.has_object],
    )


def _export_source(tables: set[str]) -> ExportSource:
    if "observations_v2" not in tables:
        return "TRACES_OBSERVATIONS"
    return "TRACES_OBSERVATIONS_EVENTS" if tables & {"traces", "observations"} else "EVENTS"
