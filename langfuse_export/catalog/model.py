"""The shape of `exports.yaml`; its JSON schema is published as docs/exports.schema.json."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from langfuse_export.catalog.content import (
    MaskModel,
    TableName,
    WhereModel,
    check_masks,
    resolve_masks,
)
from langfuse_export.formats import Compression, FileFormat
from langfuse_export.layout import LANGFUSE, KeyTemplate, hive
from langfuse_export.tables import ALL_GROUPS, ALL_TABLES, TABLES, Table, UnknownColumnError, with_corrections
from langfuse_export.windows import Frequency
from langfuse_worker.blobstore import PART_BYTES, SCHEMES, StoreConfig
from langfuse_worker.clickhouse import QueryLimits

EVERY_PROJECT = "*"


class CatalogError(Exception):
    """The catalog is wrong; the message is one line that names the place, the value and the remedy."""


def _destination_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"must start with {', '.join(s + '://' for s in SCHEMES)}")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("must be absolute: file:///directory/")
    if not rest.strip("/"):
        raise ValueError("names no bucket or directory")
    if not value.endswith("/"):
        raise ValueError("must end with '/', because keys are appended to it")
    return value


def _project_id(value: str) -> str:
    if "/" in value or any(ord(c) < 32 for c in value) or value in (".", ".."):
        raise ValueError("must not contain '/' or control characters: it is a folder of the object keys")
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DestinationModel(_Strict):
    """A bucket, container or directory that objects are written to."""

    url: Annotated[str, AfterValidator(_destination_url)] = Field(
        description="file:///dir/, s3://bucket/prefix/, az://container/prefix/ or gs://bucket/prefix/",
        examples=["s3://llm-archive/langfuse/"],
    )
    endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="Address of an S3-compatible store, of an emulator, or of Azure in another cloud.",
    )
    region: str | None = Field(default=None, description="s3: region. Without it: AWS_REGION.")
    access_key_id: str | None = Field(
        default=None, description="s3: key id. Without keys: the ambient credentials."
    )
    secret_access_key: SecretStr | None = Field(default=None, description="s3: secret key.")
    session_token: SecretStr | None = Field(default=None, description="s3: token of temporary keys.")
    assume_role_arn: str | None = Field(
        default=None,
        pattern="^arn:",
        description="s3: role that is assumed with the keys, or with the ambient credentials.",
    )
    external_id: str | None = Field(default=None, description="s3: external id that the role asks for.")
    force_path_style: bool = Field(
        default=True, description="s3: false puts the bucket into the host instead of the path."
    )
    sse_kms_key_id: str | None = Field(default=None, description="s3: KMS key for SSE-KMS.")
    account_name: str | None = Field(
        default=None, pattern="^[a-z0-9]{3,24}$", description="az: the storage account."
    )
    account_key: SecretStr | None = Field(
        default=None, description="az: key of the account. Without key and token: the ambient identity."
    )
    sas_token: SecretStr | None = Field(default=None, description="az: shared access signature.")
    service_account: SecretStr | None = Field(
        default=None,
        description="gs: key of a service account, as JSON or the path of its file. Unset: ambient.",
    )
    storage_class: str | None = Field(
        default=None, description="Storage class or access tier, such as STANDARD_IA."
    )
    part_bytes: int = Field(
        default=PART_BYTES,
        ge=5 << 20,
        le=5 << 30,
        description="Least size of an upload's parts, bytes; larger where a large object is expected.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scheme = self.url.partition("://")[0]
        for name in sorted(self.model_fields_set - {"url"}):
            if scheme not in _SCHEMES_OF.get(name, SCHEMES):
                where = " and ".join(f"{s}://" for s in _SCHEMES_OF[name])
                raise ValueError(f"{name}: goes with {where}, not with {scheme}://")
        for name, needed in _NEEDS.items():
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ValueError(f"{name}: needs {needed} beside it")
        if scheme == "az" and self.account_name is None:
            raise ValueError("account_name: az:// needs the name of the storage account")
        if self.account_key is not None and self.sas_token is not None:
            raise ValueError("sas_token: cannot be used together with account_key; leave one of them out")
        return self

    def store_config(self) -> StoreConfig:
        """The destination as the blob store takes it."""
        values: dict[str, Any] = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in self
        }
        return StoreConfig(**values)


# Which store a key of a destination is for; the others are for all.
_SCHEMES_OF = {
    **dict.fromkeys(
        (
            "region",
            "access_key_id",
            "secret_access_key",
            "session_token",
            "assume_role_arn",
            "external_id",
            "force_path_style",
            "sse_kms_key_id",
        ),
        ("s3",),
    ),
    **dict.fromkeys(("account_name", "account_key", "sas_token"), ("az",)),
    "service_account": ("gs",),
    **dict.fromkeys(("endpoint", "storage_class", "part_bytes"), ("s3", "az", "gs")),
}
_NEEDS = {
    "access_key_id": "secret_access_key",
    "secret_access_key": "access_key_id",
    "session_token": "access_key_id",
    "external_id": "assume_role_arn",
}


class LimitsModel(_Strict):
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


class ProjectModel(_Strict):
    """One project's export, or `*` for every project found in ClickHouse that is not listed itself."""

    id: Annotated[str, AfterValidator(_project_id)] = Field(
        min_length=1, description="Langfuse's project id, or * for every other project found in ClickHouse."
    )
    name: str | None = Field(default=None, description="A name for people.")
    enabled: bool = Field(default=True, description="false pauses the project.")
    destination: str = Field(description="Name of an entry of destinations.")
    tables: list[TableName] = Field(
        default_factory=lambda: list(TABLES),  # type: ignore[arg-type]
        min_length=1,
        description="Tables to export; by default the four that Langfuse exports.",
    )
    frequency: Frequency = Field(
        default=Frequency.HOURLY, description="How often; also the length of a window."
    )
    format: FileFormat = Field(default=FileFormat.PARQUET, description="File format.")
    compression: Compression = Field(default=Compression.NONE, description="Around text formats.")
    start: date | datetime | None = Field(
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
        if self.format is FileFormat.PARQUET and self.compression is not Compression.NONE:
            raise ValueError(
                f"compression: {self.compression} is for text formats; Parquet compresses its own pages"
            )
        try:
            for name, columns in self.columns.items():
                ALL_TABLES[name].only(columns=columns)
        except UnknownColumnError as error:
            raise ValueError(f"columns: {error}") from None
        unknown = set(self.field_groups or []) - ALL_GROUPS
        if unknown:
            raise ValueError(
                f"field_groups: {sorted(unknown)[0]!r} is none of {', '.join(sorted(ALL_GROUPS))}"
            )
        self.where.check(self.tables)
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
        table = ALL_TABLES[name].only(columns=self.columns.get(name), groups=self.field_groups)
        if self.include_corrections:
            table = with_corrections(table)
        return table.filtered(self.where.values())

    @property
    def start_utc(self) -> datetime | None:
        """The start as a moment; a date is its first instant, a time without zone is UTC."""
        if isinstance(self.start, datetime):
            return self.start.replace(tzinfo=self.start.tzinfo or UTC).astimezone(UTC)
        return datetime.combine(self.start, time(), UTC) if self.start else None


class CatalogModel(_Strict):
    """`exports.yaml`."""

    destinations: dict[str, DestinationModel] = Field(min_length=1)
    projects: list[ProjectModel] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for project in self.projects:
            if project.id in seen:
                raise ValueError(f"projects: {project.id!r} is listed twice")
            seen.add(project.id)
            if project.destination not in self.destinations:
                raise ValueError(
                    f"projects: {project.id!r} has destination {project.destination!r}; "
                    f"there are {', '.join(self.destinations)}"
                )
        return self

    @property
    def finds_projects(self) -> bool:
        """Whether the projects are whatever ClickHouse has."""
        return any(project.id == EVERY_PROJECT for project in self.projects)

    @property
    def tables_to_discover(self) -> set[str]:
        """Tables to ask ClickHouse for projects and first rows; empty if the catalog leaves nothing open."""
        unknown = [p for p in self.projects if p.id == EVERY_PROJECT or p.start is None]
        return {table for project in unknown for table in project.tables}
