"""Reads the environment; what is wrong in it is named in one line."""

import os
import re
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

from dotenv import dotenv_values
from pydantic import TypeAdapter, ValidationError
from pydantic_settings import SettingsConfigDict

from langfuse_worker.settings.catalog import CatalogSettings
from langfuse_worker.settings.clickhouse import ClickHouseSettings
from langfuse_worker.settings.deployment import DeploymentSettings
from langfuse_worker.settings.health import HealthSettings
from langfuse_worker.settings.ingestion import IngestionSettings
from langfuse_worker.settings.queues import QueueSettings
from langfuse_worker.settings.schedule import ScheduleSettings
from langfuse_worker.settings.telemetry import TelemetrySettings

# Of a URL, whatever characters it has.
_PASSWORD = re.compile(r"(//[^:@]*:).*@")


class SettingsError(Exception):
    """A setting is wrong; the message is one line that a person can act on."""


# Pydantic takes the fields of the last base first.
class Settings(
    TelemetrySettings,
    IngestionSettings,
    QueueSettings,
    HealthSettings,
    ScheduleSettings,
    CatalogSettings,
    ClickHouseSettings,
    DeploymentSettings,
):
    """What the environment says. Units are in the names or the descriptions."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True)

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


def _is_secret(name: str) -> bool:
    fields = Settings.model_fields.values()
    return any(f.validation_alias == name and "SecretStr" in str(f.annotation) for f in fields)


def _shown(name: str, value: Any) -> str:
    return "***" if _is_secret(name) else repr(_PASSWORD.sub(r"\1***@", str(value)))


def load_settings() -> Settings:
    """Read the environment and `.env`.

    Raises:
        SettingsError: one line naming the variable, its value (a secret masked) and what is allowed.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}={_shown(name, first['input'])}: {message}") from None


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()
