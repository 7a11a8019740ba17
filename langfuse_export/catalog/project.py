"""A project's entry in `exports.yaml`."""

import re
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from langfuse_export.catalog.content import (
    MaskModel,
    TableName,
    WhereModel,
    check_masks,
    resolve_masks,
)
from langfuse_export.catalog.schedule import ScheduleModel
from langfuse_export.catalog.strict import StrictModel
from langfuse_export.formats import Compression, Encoding, FileFormat, ParquetCodec
from langfuse_export.layout import LANGFUSE, KeyTemplate, hive
from langfuse_export.project import OWNERS
from langfuse_export.tables import ALL_GROUPS, ALL_TABLES, TABLES, Table, UnknownColumnError, with_corrections
from langfuse_export.windows import Frequency
from langfuse_worker.clickhouse import QueryLimits

# What Dagster takes as the owner of an asset.
_OWNER = re.compile(r"team:.+|[\w.%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}", re.ASCII)


def can_be_folder(project_id: str) -> bool:
    """Whether a project's id can be a folder of the object keys."""
    return project_id not in ("", ".", "..") and not re.search(r"[\x00-\x1f/]", project_id)


def _project_id(value: str) -> str:
    if not can_be_folder(value):
        raise ValueError("must not contain '/' or control characters: it is a folder of the object keys")
    return value


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float):  # which pydantic takes for seconds since 1970
        raise ValueError("is a number; a day is written as 2026-06-01")
    return value


def _likely(value: date | None) -> date | None:
    # A year that is mistyped would have millions of windows.
    if value is not None and not 1970 <= value.year <= 2100:
        raise ValueError(f"{value} is not between 1970 and 2100")
    return value


def _owner(value: str) -> str:
    if not _OWNER.fullmatch(value):
        raise ValueError("is neither a mail address nor team: and a name")
    return value


class LimitsModel(StrictModel):
    """Lower limits for one project's queries; the deployment's own are the ceiling."""

    max_threads: int | None = Field(default=None, ge=1, description="Threads of a query.")
    priority: int | None = Field(default=None, ge=1, description="1 is the most urgent; may only be larger.")
    max_memory_usage: int | None = Field(default=None, ge=64_000_000, description="Bytes.")
    max_execution_time_s: int | None = Field(default=None, ge=1, description="Seconds.")

    def lower(self, ceiling: QueryLimits) -> QueryLimits:
        """The limits with these applied.

        Raises:
            ValueError: one of them would raise the deployment's limit.
        """
        asked = self.model_dump(exclude_none=True)
        for name, value in asked.items():
            allowed = getattr(ceiling, name)
            raises_it = value < allowed if name == "priority" else value > allowed
            if raises_it:
                raise ValueError(
                    f"{name}: {value} raises the deployment's {allowed}; a project may only lower it"
                )
        return QueryLimits(**{**vars(ceiling), **asked})


class ProjectModel(StrictModel):
    """One project's export, or `*` for every project found in ClickHouse that is not listed itself."""

    id: Annotated[str, AfterValidator(_project_id)] = Field(
        min_length=1, description="Langfuse's project id, or * for every other project found in ClickHouse."
    )
    name: str | None = Field(default=None, description="A name for people.")
    owners: list[Annotated[str, AfterValidator(_owner)]] = Field(
        default_factory=lambda: list(OWNERS),
        description="Whom Dagster shows as owners: mail addresses, or teams such as team:search.",
    )
    enabled: bool = Field(
        default=True, description="false pauses the project; what it missed is exported once it goes on."
    )
    destination: str = Field(description="Name of an entry of destinations.")
    tables: list[TableName] = Field(
        default_factory=lambda: list(TABLES),  # type: ignore[arg-type]
        min_length=1,
        description="Tables to export; by default the four that Langfuse exports.",
    )
    frequency: Frequency = Field(
        default=Frequency.HOURLY, description="How often; also the length of a window."
    )
    schedule: ScheduleModel | None = Field(
        default=None,
        description="When what is due is exported. Without it: each window, a lag after its end.",
    )
    format: FileFormat = Field(default=FileFormat.PARQUET, description="File format.")
    compression: Literal["none", "gzip", "zstd", "snappy"] | None = Field(
        default=None,
        description="Of Parquet: snappy or zstd, by default as the deployment is set. Around text: none (the "
        "default), gzip or zstd.",
    )
    start: Annotated[date | datetime | None, BeforeValidator(_no_number), AfterValidator(_likely)] = Field(
        default=None,
        description="First window, UTC. Without it: the day of the project's first row, not before 2023.",
    )
    columns: dict[TableName, list[str] | Literal["all"]] = Field(
        default_factory=dict,
        description="Columns of a table, or all of them, those that Langfuse does not export included. "
        "Keys and times are always kept.",
    )
    include_corrections: bool = Field(
        default=False,
        description="Whether scores include those of type CORRECTION, which Langfuse leaves out.",
    )
    where: WhereModel = Field(
        default_factory=lambda: WhereModel(),
        description="Which rows; a table without the column is exported whole.",
    )
    field_groups: list[str] | None = Field(
        default=None,
        description="Langfuse's field groups of observations and events: core, io, usage and so on.",
    )
    layout: Literal["langfuse", "hive"] = Field(
        default="langfuse",
        description="Keys as Langfuse has them, or with folders such as dt=2026-06-01/hour=12/.",
    )
    key: str | None = Field(
        default=None,
        description="Template of the keys instead of a layout: {project}, {table}, {start:...}, {end:...}, "
        "{ext}; times are UTC, with codes of strftime.",
        examples=["{table}/{project}/{start:%Y/%m/%d/%H}.{ext}"],
    )
    prices: bool = Field(
        default=False,
        description="Whether observations and events have the prices of their model, and the time of these. "
        "Needs DATABASE_URL.",
    )
    skip_empty: bool = Field(
        default=False,
        description="Whether a table without rows in a window has no object there; the manifest says so.",
    )
    mask: dict[str, MaskModel] = Field(
        default_factory=dict,
        description="By column, in every table that has it: drop, hash, or patterns to replace.",
    )
    limits: LimitsModel = Field(default_factory=lambda: LimitsModel(), description="Lower ClickHouse limits.")
    parquet_row_group_size: int | None = Field(
        default=None, ge=100, description="Rows of a row group at most."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.tables)) != len(self.tables):
            raise ValueError(f"tables: {', '.join(self.tables)} names a table twice")
        known = tuple(ParquetCodec if self.format is FileFormat.PARQUET else Compression)
        if self.compression is not None and self.compression not in known:
            raise ValueError(
                f"compression: {self.compression} is none of {self.format}, which has {', '.join(known)}"
            )
        try:
            for name, columns in self.columns.items():
                self._whole_table(name).only(columns=columns)
        except UnknownColumnError as error:
            raise ValueError(f"columns: {error}") from None
        unknown = set(self.field_groups or []) - ALL_GROUPS
        if unknown:
            raise ValueError(
                f"field_groups: {sorted(unknown)[0]!r} is none of {', '.join(sorted(ALL_GROUPS))}"
            )
        self.where.check(self.tables)
        if self.prices and not any(table.has_prices for table in self._chosen_tables()):
            raise ValueError(
                "prices: true adds no column: needs observations or events in tables, the group model in "
                "field_groups, and input_price, output_price or total_price in columns, where these are set"
            )
        self._check_keys()
        try:
            check_masks(self.mask, self._chosen_tables())
        except ValueError as error:
            raise ValueError(f"mask: {error}") from None
        return self

    def _check_keys(self) -> None:
        if self.key is not None and "layout" in self.model_fields_set:
            raise ValueError(f"key: {self.key!r} stands beside layout: {self.layout}; leave one of them out")
        try:
            self.key_template.check(self.frequency)
        except ValueError as error:
            raise ValueError(f"key: {error}") from None

    def encoding(self, default: ParquetCodec) -> Encoding:
        """The files that it wants; `default` is what Parquet is compressed with unless it says otherwise."""
        if self.format is FileFormat.PARQUET:
            return Encoding(self.format, codec=ParquetCodec(self.compression or default))
        return Encoding(self.format, Compression(self.compression or Compression.NONE))

    @property
    def key_template(self) -> KeyTemplate:
        """Where objects and manifests lie below the destination's prefix."""
        if self.key is not None:
            return KeyTemplate(self.key)
        return hive(self.frequency) if self.layout == "hive" else LANGFUSE

    def exported_tables(self, mask_key: SecretStr | None) -> tuple[Table, ...]:
        """The tables with everything that was chosen of them.

        Raises:
            ValueError: a mask needs the key.
        """
        if mask_key is None and "hash" in self.mask.values():
            raise ValueError("mask: hash needs LANGFUSE_BLOB_STORAGE_EXPORT_MASK_KEY, which is not set")
        masks = resolve_masks(self.mask, mask_key)
        return tuple(table.masked(masks) for table in self._chosen_tables())

    def _chosen_tables(self) -> list[Table]:
        return [self._table(name) for name in self.tables]

    def _table(self, name: TableName) -> Table:
        table = self._whole_table(name).only(columns=self.columns.get(name), groups=self.field_groups)
        if self.include_corrections:
            table = with_corrections(table)
        return table.filtered(self.where.values())

    def _whole_table(self, name: TableName) -> Table:
        return ALL_TABLES[name].with_price_columns() if self.prices else ALL_TABLES[name]

    @property
    def start_utc(self) -> datetime | None:
        """The start as a moment; a date is its first instant, a time without zone is UTC."""
        if isinstance(self.start, datetime):
            return self.start.replace(tzinfo=self.start.tzinfo or UTC).astimezone(UTC)
        return datetime.combine(self.start, time(), UTC) if self.start else None
