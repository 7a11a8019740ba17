"""Every environment variable of the product, typed. Names are Langfuse's where Langfuse has one.

The environment comes first, then a `.env` file in the working directory. A wrong value never travels
further than `load_settings`, which names the variable, the value (masked if it is a secret) and the remedy.
"""

import os
import re
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from langfuse_worker.role import WorkerRole

EXPORT_PREFIX = "LANGFUSE_CLICKHOUSE_DATA_EXPORT_"
ENDPOINT_PREFIX = "LANGFUSE_BLOB_STORAGE_ENDPOINT_WHITELISTED_"
LATE_PREFIX = "LANGFUSE_BLOB_STORAGE_EXPORT_LATE_"
EVENT_UPLOAD_PREFIX = "LANGFUSE_S3_EVENT_UPLOAD_"
NOTIFICATION_PREFIX = "LANGFUSE_BLOB_STORAGE_FAILURE_NOTIFICATION_"
WRITE_PREFIX = "LANGFUSE_INGESTION_CLICKHOUSE_WRITE_"

WriteMode = Literal["legacy", "dual", "events_only"]


class SettingsError(Exception):
    """A setting is wrong; the message is one line that a person can act on."""


def _clickhouse_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme in ("http", "https") and parts.hostname:
        return value
    if parts.scheme == "chdb" and parts.path not in ("", "/"):
        return value
    raise ValueError("must be http://host:8123, https://host:8443 or chdb:///directory")


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://host:3000 or https://host/path")
    return value.rstrip("/")


def _postgres_url(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
        raise ValueError("must be postgresql://user:password@host:5432/database")
    return value


def _encryption_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch("[0-9a-fA-F]{64}", value.get_secret_value()):
        raise ValueError("must be 64 hex digits, as `openssl rand -hex 32` prints them")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]
ClickHouseUrl = Annotated[str, AfterValidator(_clickhouse_url)]


def _split(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _retention(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [part.rpartition("=") for part in value.split(",") if part.strip()]
    if not all(project.strip() and days.strip().isdecimal() and int(days) > 0 for project, _, days in pairs):
        raise ValueError("must be project=days, separated by commas; * is every other project")
    return {project.strip(): int(days) for project, _, days in pairs}


def _lowered(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in value)


def _addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ip_address(part)) for part in value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ip_network(part)) for part in value)


Retention = Annotated[dict[str, int], NoDecode, BeforeValidator(_retention)]


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
        description="Path of exports.yaml. Unset: DATABASE_URL, else all projects to LANGFUSE_HOME/blobs.",
    )
    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)] | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="Langfuse's Postgres: exports what its projects have set up there. Unset: exports.yaml.",
    )
    encryption_key: Annotated[SecretStr, AfterValidator(_encryption_key)] | None = Field(
        default=None,
        validation_alias="ENCRYPTION_KEY",
        description="Langfuse's key for the secrets in its Postgres, 64 hex digits.",
    )
    trace_only_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_TRACE_ONLY_PROJECT_IDS",
        description="Projects of Langfuse's Postgres that export traces alone, separated by commas.",
    )
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
        description="How long after its end a window is exported, ms.",
    )
    export_lookback_hours: int = Field(
        default=24,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_LOOKBACK_HOURS",
        ge=1,
        le=24 * 31,
        description="How far back a schedule looks for windows that were never attempted, hours.",
    )
    export_windows_per_run: int | None = Field(
        default=None,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_WINDOWS_PER_RUN",
        ge=1,
        le=10_000,
        description="Windows in one run of a backfill at most. Unset: those of a day, at least 24.",
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
    endpoint_allowed_hosts: Annotated[CommaSeparated, AfterValidator(_lowered)] = Field(
        default=(),
        validation_alias=ENDPOINT_PREFIX + "HOST",
        description="Hosts that endpoints from the database may have, whatever their addresses.",
    )
    endpoint_allowed_ips: Annotated[CommaSeparated, AfterValidator(_addresses)] = Field(
        default=(),
        validation_alias=ENDPOINT_PREFIX + "IPS",
        description="Private addresses that endpoints from the database may have.",
    )
    endpoint_allowed_networks: Annotated[CommaSeparated, AfterValidator(_networks)] = Field(
        default=(),
        validation_alias=ENDPOINT_PREFIX + "IP_SEGMENTS",
        description="Private networks that endpoints from the database may be in, such as 10.1.0.0/16.",
    )
    export_stop_after_failures: int = Field(
        default=3,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_STOP_AFTER_FAILURES",
        ge=1,
        le=100,
        description="Failed attempts in a row after which a project that its destination refuses is stopped.",
    )
    export_stop_after_s: float = Field(
        default=600.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_STOP_AFTER_S",
        ge=0,
        le=604_800,
        description="Seconds for which a destination has to refuse at least before its project is stopped.",
    )
    export_probe_hours: float = Field(
        default=24.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_PROBE_HOURS",
        gt=0,
        le=24 * 31,
        description="How often a stopped project is tried nevertheless, hours.",
    )
    export_backoff_first_s: float = Field(
        default=300.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_BACKOFF_FIRST_S",
        gt=0,
        le=86_400,
        description="Seconds from a failed run to the next attempt of its project; doubles.",
    )
    export_backoff_max_s: float = Field(
        default=21_600.0,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_BACKOFF_MAX_S",
        gt=0,
        le=604_800,
        description="Seconds between two attempts of a project at most.",
    )
    notification_cooldown_hours: float = Field(
        default=24.0,
        validation_alias=NOTIFICATION_PREFIX + "COOLDOWN_HOURS",
        ge=0,
        le=24 * 31,
        description="Least time between two notifications that a project fails, hours.",
    )
    notify_webhook_url: SecretStr | None = Field(
        default=None,
        validation_alias=NOTIFICATION_PREFIX + "WEBHOOK_URL",
        description="URL that is sent JSON when exports fail, stop or work again.",
    )
    notify_webhook_secret: SecretStr | None = Field(
        default=None,
        validation_alias=NOTIFICATION_PREFIX + "WEBHOOK_SECRET",
        description="Key of the HMAC-SHA256 in that webhook's X-Langfuse-Signature.",
    )
    notify_slack_url: SecretStr | None = Field(
        default=None,
        validation_alias=NOTIFICATION_PREFIX + "SLACK_URL",
        description="Slack's incoming webhook for the same.",
    )
    notify_email_to: CommaSeparated = Field(
        default=(),
        validation_alias=NOTIFICATION_PREFIX + "EMAIL_TO",
        description="Who gets mail of the same, separated by commas.",
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        validation_alias="SMTP_CONNECTION_URL",
        description="smtp://user:password@host:587 or smtps://, for mail.",
    )
    email_from: str | None = Field(
        default=None, validation_alias="EMAIL_FROM_ADDRESS", description="Sender of mail."
    )
    export_mask_key: SecretStr | None = Field(
        default=None,
        validation_alias="LANGFUSE_BLOB_STORAGE_EXPORT_MASK_KEY",
        min_length=16,
        description="Secret of hashed columns (`mask` in exports.yaml); the same key gives the same hashes.",
    )
    redis_connection_string: SecretStr | None = Field(
        default=None,
        validation_alias="REDIS_CONNECTION_STRING",
        description="redis://user:password@host:6379/0 or rediss://. Wins over REDIS_HOST.",
    )
    redis_host: str | None = Field(
        default=None,
        validation_alias="REDIS_HOST",
        description="Redis of the queues. Unset, as REDIS_CONNECTION_STRING: an embedded server.",
    )
    redis_port: int = Field(
        default=6379, validation_alias="REDIS_PORT", ge=1, le=65535, description="Port of REDIS_HOST."
    )
    redis_auth: SecretStr = Field(
        default=SecretStr(""), validation_alias="REDIS_AUTH", description="Password of REDIS_HOST."
    )
    redis_tls_enabled: bool = Field(
        default=False, validation_alias="REDIS_TLS_ENABLED", description="Whether REDIS_HOST speaks TLS."
    )
    event_bucket: str | None = Field(
        default=None,
        validation_alias=EVENT_UPLOAD_PREFIX + "BUCKET",
        description="Bucket of the event log, or a URL such as az://container/. Unset: LANGFUSE_HOME/events.",
    )
    event_prefix: str = Field(
        default="",
        validation_alias=EVENT_UPLOAD_PREFIX + "PREFIX",
        description="What every key of the event log starts with, such as events/.",
    )
    event_region: str | None = Field(
        default=None, validation_alias=EVENT_UPLOAD_PREFIX + "REGION", description="Region of that bucket."
    )
    event_endpoint: str | None = Field(
        default=None,
        validation_alias=EVENT_UPLOAD_PREFIX + "ENDPOINT",
        description="Endpoint of an S3-compatible store.",
    )
    event_access_key_id: str | None = Field(
        default=None,
        validation_alias=EVENT_UPLOAD_PREFIX + "ACCESS_KEY_ID",
        description="Key id. Unset: the ambient credentials.",
    )
    event_secret_access_key: SecretStr | None = Field(
        default=None, validation_alias=EVENT_UPLOAD_PREFIX + "SECRET_ACCESS_KEY", description="Secret key."
    )
    event_concurrent_reads: int = Field(
        default=50,
        validation_alias="LANGFUSE_S3_CONCURRENT_READS",
        ge=1,
        le=1000,
        description="Objects of the event log that a consumer reads side by side.",
    )
    write_mode: WriteMode = Field(
        default="events_only",
        validation_alias="LANGFUSE_MIGRATION_V4_WRITE_MODE",
        description="legacy: traces and observations; events_only: events_full; dual: both. Scores always.",
    )
    ingestion_batch_size: int = Field(
        default=5_000,
        validation_alias=WRITE_PREFIX + "BATCH_SIZE",
        ge=1,
        le=1_000_000,
        description="Events after which a consumer stops collecting jobs and writes.",
    )
    ingestion_batch_interval_ms: int = Field(
        default=1_000,
        validation_alias=WRITE_PREFIX + "INTERVAL_MS",
        ge=0,
        le=60_000,
        description="Least time between two writes of a consumer that are not full, ms.",
    )
    ingestion_write_attempts: int = Field(
        default=3,
        validation_alias="LANGFUSE_INGESTION_CLICKHOUSE_MAX_ATTEMPTS",
        ge=1,
        le=100,
        description="Attempts of one insert before its jobs go back to the queue.",
    )
    ingestion_max_event_bytes: int = Field(
        default=10_000_000,
        validation_alias="LANGFUSE_INGESTION_MAX_EVENT_BYTES",
        ge=10_000,
        le=500_000_000,
        description="Largest event that is accepted, bytes of JSON.",
    )
    skip_read_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_SKIP_INGESTION_CLICKHOUSE_READ_PROJECT_IDS",
        description="Projects, or *, that only this product has written to: merges need not read their rows.",
    )
    secondary_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_SECONDARY_INGESTION_QUEUE_ENABLED_PROJECT_IDS",
        description="Projects whose events go to secondary-ingestion-queue, separated by commas.",
    )
    secondary_otel_projects: CommaSeparated = Field(
        default=(),
        validation_alias="LANGFUSE_SECONDARY_OTEL_INGESTION_QUEUE_ENABLED_PROJECT_IDS",
        description="Projects whose spans go to secondary-otel-ingestion-queue, separated by commas.",
    )
    retention: Retention = Field(
        default_factory=dict,
        validation_alias="LANGFUSE_DATA_RETENTION",
        description="Days to keep, by project: support-bot=30,*=365. Unset: everything is kept.",
    )
    health_port: int = Field(
        default=3030,
        validation_alias="LANGFUSE_WORKER_HEALTH_PORT",
        ge=0,
        le=65535,
        description="Port of /healthz and /readyz of the consumers; 0 picks one.",
    )
    shutdown_deadline_s: float = Field(
        default=30.0,
        validation_alias="LANGFUSE_WORKER_SHUTDOWN_DEADLINE_S",
        ge=0,
        le=3600,
        description="Seconds that consumers have to finish their batch when they are stopped.",
    )
    stuck_after_s: float = Field(
        default=300.0,
        validation_alias="LANGFUSE_WORKER_STUCK_AFTER_S",
        gt=0,
        le=86_400,
        description="Seconds without progress after which /healthz calls a consumer wedged.",
    )
    job_lease_s: int = Field(
        default=30,
        validation_alias="LANGFUSE_WORKER_JOB_LEASE_S",
        ge=2,
        le=3600,
        description="Seconds after which the jobs of a consumer that died are taken up by another.",
    )
    retry_delay_factor: float = Field(
        default=1.0,
        validation_alias="LANGFUSE_WORKER_RETRY_DELAY_FACTOR",
        gt=0,
        le=100,
        description="Multiplies the delays between the attempts of a job.",
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
    def ingestion_url(self) -> str:
        """Where consumers write: CLICKHOUSE_URL, or the embedded engine."""
        return self.clickhouse_url or self.embedded_url

    @property
    def embedded_redis(self) -> bool:
        """Whether the queues live in a server of our own."""
        return self.redis_connection_string is None and self.redis_host is None

    @property
    def embedded(self) -> bool:
        """Whether exports read the embedded engine."""
        return self.export_source_url.startswith("chdb://")


def environment_names() -> dict[str, str]:
    """Field name to environment variable, in the order of the settings table."""
    return {name: str(field.validation_alias) for name, field in Settings.model_fields.items()}


T = TypeVar("T", bool, int)


def variable(name: str, kind: type[T], default: T) -> T:
    """One variable that a registry names instead of `Settings`, such as the flag of a queue.

    Args:
        name: the environment variable; `.env` counts as it does for `Settings`.
        kind: bool or int; an int must be positive.
        default: its value when it is unset or empty.

    Raises:
        SettingsError: one line naming the variable and its value.
    """
    text = os.environ.get(name) or dotenv_values(".env").get(name)
    if not text:
        return default
    try:
        value = TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        raise SettingsError(f"{name}={text!r}: {error.errors()[0]['msg']}") from None
    if kind is int and value < 1:
        raise SettingsError(f"{name}={text!r}: must be at least 1")
    return value


def _is_secret(variable: str) -> bool:
    fields = Settings.model_fields.values()
    return any(f.validation_alias == variable and "SecretStr" in str(f.annotation) for f in fields)


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
