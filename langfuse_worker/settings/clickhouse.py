"""Where ClickHouse is, and the limits of every export query."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from langfuse_worker.settings.types import ClickHouseUrl

EXPORT_PREFIX = "LANGFUSE_CLICKHOUSE_DATA_EXPORT_"


class ClickHouseSettings(BaseSettings):
    """Where ClickHouse is, and the limits of every export query."""

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
        description="max_threads of every export query, where ClickHouse has as many cores.",
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
    export_parquet_compression: Literal["snappy", "zstd"] = Field(
        default="snappy",
        validation_alias=EXPORT_PREFIX + "PARQUET_COMPRESSION",
        description="Parquet files with snappy, or with zstd: a third smaller, two fifths more CPU in "
        "ClickHouse. See `compression`.",
    )
