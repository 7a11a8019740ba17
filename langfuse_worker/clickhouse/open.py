"""Picks the implementation of `ClickHouse` by URL."""

from importlib.util import find_spec

from langfuse_worker.clickhouse.client import Address, ClickHouse
from langfuse_worker.clickhouse.limits import INGESTION_LIMITS, QueryLimits
from langfuse_worker.settings import Settings, SettingsError


def connect(settings: Settings) -> ClickHouse:
    """The ClickHouse that exports read, as the deployment's settings name it. Connects on first use.

    Raises:
        SettingsError: no server is named and the embedded engine is not installed.
    """
    return _connect(settings.export_source_url, settings, QueryLimits.from_settings(settings))


def connect_for_ingestion(settings: Settings, limits: QueryLimits = INGESTION_LIMITS) -> ClickHouse:
    """The ClickHouse that consumers write to. Connects on first use; raises as `connect` does."""
    return _connect(settings.ingestion_url, settings, limits)


def _connect(url: str, settings: Settings, limits: QueryLimits) -> ClickHouse:
    # ClickHouse's driver takes 0.1 s to load, and most commands do not connect.
    from langfuse_worker.clickhouse.embedded import EmbeddedClickHouse  # noqa: PLC0415
    from langfuse_worker.clickhouse.http import HttpClickHouse  # noqa: PLC0415

    address = Address.of(url, settings)
    if url.startswith("chdb://"):
        if find_spec("chdb") is None:
            raise SettingsError(
                "no ClickHouse server is named, and the embedded engine is not installed: set "
                "CLICKHOUSE_URL, or pip install 'langfuse-export[embedded]'"
            )
        return EmbeddedClickHouse(address, limits)
    return HttpClickHouse(address, limits)
