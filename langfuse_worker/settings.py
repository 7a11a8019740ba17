"""Every environment variable of the product, typed. Names are Langfuse's where Langfuse has one.

The environment comes first, then a `.env` file in the working directory. A wrong value never travels
further than `load_settings`, which names the variable, the value (masked if it is a secret) and the remedy.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from langfuse_worker.role import WorkerRole

EXPORT_PREFIX = "LANGFUSE_CLICKHOUSE_DATA_EXPORT_"


class SettingsError(Exception):
    """A setting is wrong; the message is one line that a person can act on."""


def _clickhouse_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme in ("http", "https") and parts.hostname:
        return value
    if parts.scheme == "chdb" and parts.path not in ("", "/"):
        return value
    raise ValueError("must be http://host:8123, https://host:8443 or chdb:///directory")


ClickHouseUrl = Annotated[str, AfterValidator(_clickhouse_url)]


class Settings(BaseSettings):
    """What the environment says. Units are in the names or the descriptions."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True)

    worker_role: WorkerRole = Field(
        default=WorkerRole.ALL,
        validation_alias="LANGFUSE_WORKER_ROLE",
        description="What this deployment runs: all, ingestion or export.",
    )
    home: Path = Field(
        default=Path(".langfuse"),
        validation_alias="LANGFUSE_HOME",
        description="Directory of the embedded engine, its exports and local state.",
    )
    clickhouse_url: ClickHouseUrl | None = Field(
        default=None,
        validation_alias="CLICKHOUSE_URL",
        description="HTTP address of ClickHouse. Unset: the embedded engine under LANGFUSE_HOME.",
    )
    clickhouse_export_url: ClickHouseUrl | None = Field(
        default=None,
        validation_alias="CLICKHOUSE_EXPORT_URL",
        description="Address for exports, such as a replica or another user. Unset: CLICKHOUSE_URL.",
    )
    clickhouse_user: str = Field(
        default="default", validation_alias="CLICKHOUSE_USER", description="User, unless the URL names one."
    )
    clickhouse_password: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="CLICKHOUSE_PASSWORD",
        description="Password, unless the URL has one.",
    )
    clickhouse_db: str = Field(
        default="default",
        validation_alias="CLICKHOUSE_DB",
        min_length=1,
        description="Database of Langfuse's tables.",
    )
    export_max_threads: int = Field(
        default=10,
        validation_alias=EXPORT_PREFIX + "MAX_THREADS",
        ge=1,
        le=1024,
        description="max_threads of every export query.",
    )
    export_priority: int = Field(
        default=2,
        validation_alias=EXPORT_PREFIX + "PRIORITY",
        ge=0,
        le=100,
        description="priority of every export query; 1 is the most urgent, 0 switches priorities off.",
    )
    export_max_memory_usage: int = Field(
        default=20_000_000_000,
        validation_alias=EXPORT_PREFIX + "MAX_MEMORY_USAGE",
        ge=64_000_000,
        description="max_memory_usage of every export query, bytes.",
    )
    export_request_timeout_ms: int = Field(
        default=3_600_000,
        validation_alias=EXPORT_PREFIX + "REQUEST_TIMEOUT_MS",
        ge=1_000,
        description="How long one export query may take, ms.",
    )
    export_parquet_row_group_size: int = Field(
        default=20_000,
        validation_alias=EXPORT_PREFIX + "PARQUET_ROW_GROUP_SIZE",
        ge=100,
        le=10_000_000,
        description="Rows in a Parquet row group at most; groups are bounded by bytes as well.",
    )
    export_config: Path | None = Field(
        default=None,
        validation_alias="LANGFUSE_EXPORT_CONFIG",
        description="Path of exports.yaml. Unset: every project found, hourly, to LANGFUSE_HOME/blobs.",
    )
    export_lag_ms: int = Field(
        default=1_200_000,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_LAG_MS",
        ge=0,
        le=86_400_000,
        description="How long after its end a window is exported, ms.",
    )
    export_lookback_hours: int = Field(
        default=24,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_LOOKBACK_HOURS",
        ge=1,
        le=24 * 31,
        description="How far back a schedule looks for windows that were never attempted, hours.",
    )
    export_windows_per_run: int = Field(
        default=24,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN",
        ge=1,
        le=10_000,
        description="Windows in one run of a backfill at most.",
    )
    export_table_concurrency: int = Field(
        default=2,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_TABLE_CONCURRENCY",
        ge=1,
        le=16,
        description="Tables of one window that are exported side by side.",
    )
    export_retry_delay_s: float = Field(
        default=10.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S",
        ge=0,
        le=3600,
        description="Seconds before the first retry of a transient fault; doubles, with jitter.",
    )
    otel_metrics_exporter: Literal["otlp", "console", "none"] | None = Field(
        default=None,
        validation_alias="OTEL_METRICS_EXPORTER",
        description="otlp, console or none. Unset: otlp when an OTLP endpoint is set, else none.",
    )
    otel_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OTLP/HTTP endpoint; the SDK reads the other OTEL_* variables itself.",
    )
    otel_metrics_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        description="OTLP/HTTP endpoint for metrics alone.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        validation_alias="LANGFUSE_LOG_LEVEL",
        description="Least level that is logged.",
    )

    @property
    def export_source_url(self) -> str:
        """Where exports read: CLICKHOUSE_EXPORT_URL, CLICKHOUSE_URL, or the embedded engine."""
        return self.clickhouse_export_url or self.clickhouse_url or self.embedded_url

    @property
    def embedded_url(self) -> str:
        """The embedded engine's address, `chdb://` and the absolute path of LANGFUSE_HOME/clickhouse."""
        return f"chdb://{quote(str((self.home / 'clickhouse').absolute()))}"

    @property
    def embedded(self) -> bool:
        """Whether exports read the embedded engine."""
        return self.export_source_url.startswith("chdb://")


def environment_names() -> dict[str, str]:
    """Field name to environment variable, in the order of the settings table."""
    return {name: str(field.validation_alias) for name, field in Settings.model_fields.items()}


def _is_secret(variable: str) -> bool:
    fields = Settings.model_fields.values()
    return any(f.validation_alias == variable and f.annotation is SecretStr for f in fields)


def _shown(variable: str, value: Any) -> str:
    if _is_secret(variable):
        return "***"
    parts = urlsplit(str(value)) if "://" in str(value) else None
    if parts and parts.password:
        return str(value).replace(parts.password, "***")
    return repr(str(value))


def load_settings() -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: one line naming the variable, its value (a secret masked) and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{variable}={_shown(variable, first['input'])}: {message}") from None


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()
