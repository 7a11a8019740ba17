"""When windows are exported: on time, in a backfill, and again when their rows change."""

from pydantic import Field
from pydantic_settings import BaseSettings

from langfuse_worker.settings.types import HttpUrl

LATE_PREFIX = "LANGFUSE_BLOB_STORAGE_EXPORT_LATE_"


class ScheduleSettings(BaseSettings):
    """When windows are exported: on time, in a backfill, and again when their rows change."""

    dagster_url: HttpUrl = Field(
        default="http://127.0.0.1:3000",
        validation_alias="DAGSTER_WEBSERVER_URL",
        description="Dagster's webserver: a changed catalog is loaded through it. `start` sets it itself.",
    )
    export_lag_ms: int = Field(
        default=1_200_000,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_LAG_MS",
        ge=0,
        le=86_400_000,
        description="How long after its end a window is exported at the earliest, ms.",
    )
    export_lookback_hours: int = Field(
        default=24,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_LOOKBACK_HOURS",
        ge=1,
        le=24 * 31,
        description="How far before its last ticks a schedule looks for windows nobody attempted, hours.",
    )
    export_windows_per_run: int | None = Field(
        default=None,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN",
        ge=1,
        le=10_000,
        description="Windows in one run at most. Unset: those of three days, at least 24.",
    )
    export_table_concurrency: int = Field(
        default=2,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_TABLE_CONCURRENCY",
        ge=1,
        le=16,
        description="Tables of one window that are exported side by side.",
    )
    export_catchup_buffer_bytes: int = Field(
        default=128 << 20,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_CATCHUP_BUFFER_BYTES",
        ge=1 << 20,
        le=1 << 30,
        description="Rows of a day that a catch-up run holds while it splits them into windows, bytes.",
    )
    export_retry_delay_s: float = Field(
        default=10.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_RETRY_DELAY_S",
        ge=0,
        le=3600,
        description="Seconds before the first retry of a transient fault; doubles, with jitter.",
    )
    export_run_lease_s: int = Field(
        default=300,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_RUN_LEASE_S",
        ge=30,
        le=14_400,
        description="Seconds after which a run that is not heard of counts as killed, and is retried.",
    )
    export_late_interval_s: int = Field(
        default=3_600,
        validation_alias=LATE_PREFIX + "INTERVAL_S",
        ge=0,
        le=86_400,
        description="Seconds between two looks for rows that changed after their export; 0: none.",
    )
    export_late_lookback_hours: int = Field(
        default=168,
        validation_alias=LATE_PREFIX + "LOOKBACK_HOURS",
        ge=1,
        le=24 * 92,
        description="How far back windows are exported again when their rows change, hours.",
    )
    export_late_margin_s: int = Field(
        default=600,
        validation_alias=LATE_PREFIX + "MARGIN_S",
        ge=0,
        le=86_400,
        description="How far writers' clocks may be off, plus how long a row takes to be stored, seconds.",
    )
    export_late_windows_per_tick: int = Field(
        default=200,
        validation_alias=LATE_PREFIX + "WINDOWS_PER_TICK",
        ge=1,
        le=10_000,
        description="Changed windows that one look has exported again at most; the oldest come first.",
    )
    export_late_audit_hours: int = Field(
        default=24,
        validation_alias=LATE_PREFIX + "AUDIT_HOURS",
        ge=0,
        le=24 * 92,
        description="Hours in which all windows of the look-back are compared once, for deletions; 0: never.",
    )
